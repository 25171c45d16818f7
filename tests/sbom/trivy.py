"""Systems of every distribution that Trivy knows (systems.py), matched by Trivy's own packages.

Usage: trivy.py AFFERENT TRIVY_JUDGE
"""

import copy
import json
import pathlib
import sys
import tempfile

from systems import ADVISORIES, FOUND, LABEL, MODULE, NO_MODULE, OF_MODULE, compare, documents, run

# By source package where Trivy matches those. The epoch that it compares with is that of the package: perl has
# one that is higher, and perl-Errno, of the same source, has none.
SOURCE_ADVISORIES = [
    ("CVE-2026-0001", ["openssl"], "1:3.0.7-28"),
    ("CVE-2026-0002", ["bash"], "5.1.8-10"),
    ("CVE-2026-0004", ["perl"], "5.32.1-481"),
    ("CVE-2026-0032", ["bind"], "32:9.16.23-18"),
]

# ID, VERSION_ID, bucket of Trivy's database, has modules, matched by source
DISTRIBUTIONS = [
    ("rhel", "8.9", "Red Hat", True, False),
    ("rhel", "9.4", "Red Hat", True, False),
    ("rhel", "10.0", "Red Hat", False, False),
    ("centos", "8", "Red Hat", True, False),
    ("centos", "9", "Red Hat", True, False),
    ("centos", "10", "Red Hat", False, False),
    ("rocky", "9.4", "rocky 9", True, False),
    ("almalinux", "9.4", "alma 9", True, False),
    ("ol", "9.4", "Oracle Linux 9", False, False),
    ("amzn", "2023", "amazon linux 2023", False, False),
    ("sles", "15.6", "SUSE Linux Enterprise 15.6", False, False),
    ("sle-micro", "5.5", "SUSE Linux Enterprise Micro 5.5", False, False),
    ("opensuse-leap", "15.6", "openSUSE Leap 15.6", False, False),
    ("opensuse-tumbleweed", "20260101", "openSUSE Tumbleweed", False, False),
    ("azurelinux", "3.0", "Azure Linux 3.0", False, True),
    ("mariner", "2.0.20240609", "CBL-Mariner 2.0", False, True),
    ("photon", "5.0", "Photon OS 5.0", False, True),
]


def advisories():
    """The rows of a database of Trivy's form."""
    rows = []
    for repository in range(7, 11):
        names = [f"rhel-{repository}-for-x86_64-{part}-rpms" for part in ("baseos", "appstream")]
        rows += [{"path": ["Red Hat CPE", "repository", name], "value": [1]} for name in names]
    modules = [(MODULE[0], ["nodejs:18::nodejs"], MODULE[1]), (NO_MODULE[0], ["nodejs"], NO_MODULE[1])]
    for bucket in sorted({bucket for _, _, bucket, _, _ in DISTRIBUTIONS}):
        by_source = any(source for _, _, name, _, source in DISTRIBUTIONS if name == bucket)
        for cve, packages, fixed in (SOURCE_ADVISORIES if by_source else ADVISORIES + modules):
            for package in packages:
                if bucket == "Red Hat":
                    value = {"Entries": [{"FixedVersion": fixed, "Affected": [1], "Arches": ["x86_64"], "Cves": [{"ID": cve, "Severity": 3}]}]}
                elif bucket in ("rocky 9", "Oracle Linux 9"):
                    value = {"Entries": [{"FixedVersion": fixed, "Arches": ["x86_64"]}]}
                else:
                    value = {"FixedVersion": fixed}
                rows.append({"path": [bucket, package, cve], "value": value})
    return rows


def broken(document):
    """Changes of a good document of RHEL 9, and what Trivy makes of each."""
    def on(way, value):
        copied = copy.deepcopy(document)
        place = copied
        for step in way[:-1]:
            place = place[step]
        place[way[-1]] = value
        return copied

    def purls(old, new):
        return json.loads(json.dumps(document).replace(old, new))

    return {
        "device": (on(["metadata", "component", "type"], "device"), "error: failed to decode: failed to parse sbom: failed to parse root component"),
        "os-name": (on(["components", 0, "name"], "rhel"), "error: unsupported os"),
        "no-os": (on(["components"], document["components"][1:]), []),
        "no-arch": (purls("arch=x86_64&", ""), []),
        "no-epoch": (purls("&epoch=32", ""), sorted(FOUND + OF_MODULE + ["CVE-2026-0032 bind", "CVE-2026-0032 bind-libs"])),
        "no-module": (purls(LABEL, ""), sorted(FOUND + [f"{NO_MODULE[0]} nodejs"])),
    }


def main():
    afferent, judge = sys.argv[1:]
    expected = {}
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        (scratch / "advisories.json").write_text(json.dumps(advisories()))
        systems = [(name, version, modules) for name, version, _, modules, _ in DISTRIBUTIONS]
        for place, _, path in documents(afferent, scratch, systems):
            _, _, _, modules, by_source = DISTRIBUTIONS[place]
            if modules:
                found = FOUND + OF_MODULE
            elif by_source:
                found = FOUND
            else:
                found = FOUND + [f"{NO_MODULE[0]} nodejs"]
            expected[str(path)] = sorted(found)
        good = json.loads((scratch / "rhel-9.4.cyclonedx.json").read_text())
        for name, (document, found) in broken(good).items():
            path = scratch / f"broken-{name}.json"
            path.write_text(json.dumps(document))
            expected[str(path)] = found
        found = json.loads(run([judge, scratch / "advisories.json", *expected]))
    compare("trivy", expected, found)


if __name__ == "__main__":
    main()
