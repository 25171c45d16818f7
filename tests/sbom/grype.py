"""Systems of every distribution that Grype has advisories for (systems.py), matched by the real grype.

Usage: grype.py AFFERENT GRYPE GRYPE_DATABASE
"""

import copy
import json
import os
import pathlib
import sys
import tarfile
import tempfile

from systems import ADVISORIES, FOUND, LABEL, MODULE, NO_MODULE, OF_MODULE, compare, documents, run

# ID, VERSION_ID, system of Grype's database (name, release id, major, minor), has modules. Advisories of openSUSE
# and SLE Micro are not in Grype's data.
RHEL = [("redhat", "rhel", major, "") for major in ("8", "9", "10")]
DISTRIBUTIONS = [
    ("rhel", "8.9", RHEL[0], True),
    ("rhel", "9.4", RHEL[1], True),
    ("rhel", "10.0", RHEL[2], False),
    ("centos", "8", RHEL[0], True),
    ("centos", "9", RHEL[1], True),
    ("centos", "10", RHEL[2], False),
    ("rocky", "9.4", RHEL[1], True),
    ("almalinux", "9.4", RHEL[1], True),
    ("ol", "9.4", ("oracle", "ol", "9", ""), False),
    ("amzn", "2023", ("amazon", "amzn", "2023", ""), False),
    ("sles", "15.6", ("sles", "sles", "15", "6"), False),
    ("azurelinux", "3.0", ("azurelinux", "azurelinux", "3", "0"), False),
    ("mariner", "2.0.20240609", ("mariner", "mariner", "2", "0"), False),
    ("photon", "5.0", ("photon", "photon", "5", "0"), False),
]


def advisories():
    """The rows of a database of Grype's form."""
    rows = []
    plain = [(*row, None) for row in ADVISORIES]
    for system in sorted({system for _, _, system, _ in DISTRIBUTIONS}):
        name, release, major, minor = system
        nodejs = [(NO_MODULE[0], ["nodejs"], NO_MODULE[1], None)]
        if system in RHEL or name == "oracle":
            nodejs = [(MODULE[0], ["nodejs"], MODULE[1], "nodejs:18"), (NO_MODULE[0], ["nodejs"], NO_MODULE[1], "")]
        for cve, packages, fixed, module in plain + nodejs:
            for package in packages:
                rows.append({"system": name, "release": release, "major": major, "minor": minor,
                             "package": package, "module": module, "cve": cve, "fixed": fixed})
    return rows


def expected_of(system, form, has_modules):
    """What Grype must find. SPDX has no place for "of no module", and Oracle's packages have no labels: both advisories count."""
    of_no_module = [f"{NO_MODULE[0]} nodejs"]
    if has_modules:
        return sorted(FOUND + OF_MODULE)
    if system[0] == "oracle" or system in RHEL and form == "spdx":
        return sorted(FOUND + OF_MODULE + of_no_module)
    return sorted(FOUND + of_no_module)


def broken(document):
    """Changes of a good document of RHEL 9, and what Grype makes of each."""
    def replaced(*pairs):
        text = json.dumps(document)
        for old, new in pairs:
            assert old in text, f"{old} is not in the document"
            text = text.replace(old, new)
        return json.loads(text)

    without_system = replaced(("distro=redhat-9.4", "distro="))
    del without_system["components"][0]
    doubled = copy.deepcopy(document)
    openssl, bash = (next(one for one in doubled["components"] if one["name"] == name) for name in ("openssl", "bash"))
    bash["bom-ref"] = openssl["bom-ref"]
    return {
        "no-system": (without_system, []),
        "epoch-0": (replaced(("&epoch=32", ""), ('"32:', '"'), ('"value": "32"', '"value": "0"')), sorted(FOUND + OF_MODULE + ["CVE-2026-0032 bind", "CVE-2026-0032 bind-libs"])),
        "no-module": (replaced((LABEL, "")), sorted(FOUND + [f"{NO_MODULE[0]} nodejs"])),
        "one-reference-twice": (doubled, sorted(set(FOUND + OF_MODULE) - {"CVE-2026-0001 openssl"})),
    }


def findings(grype, environment, path):
    found = json.loads(run([grype, f"sbom:{path}", "--output", "json", "--quiet"], env=environment))
    return sorted(f"{match['vulnerability']['id']} {match['artifact']['name']}" for match in found["matches"])


def main():
    afferent, grype, database = sys.argv[1:]
    expected = {}
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        (scratch / "advisories.json").write_text(json.dumps(advisories()))
        run([database, scratch / "advisories.json", scratch])
        with tarfile.open(scratch / "database.tar.gz", "w:gz") as archive:
            archive.add(scratch / "vulnerability.db", "vulnerability.db")
        environment = os.environ | {
            "GRYPE_DB_AUTO_UPDATE": "false", "GRYPE_DB_VALIDATE_AGE": "false", "GRYPE_CHECK_FOR_APP_UPDATE": "false",
            "GRYPE_DB_CACHE_DIR": str(scratch / "cache"),
        }
        run([grype, "db", "import", scratch / "database.tar.gz"], env=environment)
        systems = [(name, version, modules) for name, version, _, modules in DISTRIBUTIONS]
        for place, form, path in documents(afferent, scratch, systems):
            _, _, system, modules = DISTRIBUTIONS[place]
            expected[str(path)] = expected_of(system, form, modules)
        good = json.loads((scratch / "rhel-9.4.cyclonedx.json").read_text())
        for name, (document, found) in broken(good).items():
            path = scratch / f"broken-{name}.json"
            path.write_text(json.dumps(document))
            expected[str(path)] = found
        found = {path: findings(grype, environment, path) for path in expected}
    compare("grype", expected, found)


if __name__ == "__main__":
    main()
