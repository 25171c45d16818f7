"""Systems of every distribution that Trivy knows, with the same few packages, matched by Trivy's own packages.

Usage: distributions.py AFFERENT TRIVY_JUDGE

The packages are built and installed by the real rpm. Each has one advisory that must be found, or one that must
not: bind was fixed long ago, which only its epoch tells.
"""

import copy
import json
import os
import pathlib
import subprocess
import sys
import tempfile

# name, epoch, version, release, of a module, subpackage (and its own version and epoch)
SPECS = [
    ("openssl", 1, "3.0.7", "27", False, ("openssl-libs", None)),
    ("bash", 0, "5.1.8", "9", False, None),
    ("glibc", 0, "2.34", "100", False, None),
    ("nodejs", 1, "18.19.0", "1", True, None),
    ("perl", 4, "5.32.1", "480", False, ("perl-Errno", ("0", "1.30"))),
    ("bind", 32, "9.16.23", "20", False, ("bind-libs", None)),
]
LABEL = "nodejs:18:9040020240301:rhel9"

# CVE, packages, fixed in
ADVISORIES = [
    ("CVE-2026-0001", ["openssl", "openssl-libs"], "1:3.0.7-28"),
    ("CVE-2026-0002", ["bash"], "5.1.8-10"),
    ("CVE-2026-0004", ["perl-Errno"], "1.30-481"),
    ("CVE-2026-0032", ["bind", "bind-libs"], "32:9.16.23-18"),
]
# By source package where Trivy matches those. The epoch that it compares with is that of the package: perl has
# one that is higher, and perl-Errno, of the same source, has none.
SOURCE_ADVISORIES = [
    ("CVE-2026-0001", ["openssl"], "1:3.0.7-28"),
    ("CVE-2026-0002", ["bash"], "5.1.8-10"),
    ("CVE-2026-0004", ["perl"], "5.32.1-481"),
    ("CVE-2026-0032", ["bind"], "32:9.16.23-18"),
]
MODULE = ("CVE-2026-0018", "1:18.20.0-1")
NO_MODULE = ("CVE-2026-0020", "1:20.0.0-1")

FOUND = ["CVE-2026-0001 openssl", "CVE-2026-0001 openssl-libs", "CVE-2026-0002 bash", "CVE-2026-0004 perl-Errno"]
OF_MODULE = [f"{MODULE[0]} nodejs"]

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


def run(command, **more):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **more)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def build(top, with_modules):
    """Builds the packages and gives their files."""
    for name, epoch, version, release, of_module, sub in SPECS:
        spec = [f"Name: {name}", f"Epoch: {epoch}" if epoch else "", f"Version: {version}", f"Release: {release}"]
        spec += ["Summary: s", "License: MIT", "Vendor: Sample", "Packager: Sample"]
        spec += [f"ModularityLabel: {LABEL}"] if of_module and with_modules else []
        spec += ["%description", "d", "%files"]
        if sub:
            spec += [f"%package -n {sub[0]}", "Summary: s"]
            spec += [f"Epoch: {sub[1][0]}", f"Version: {sub[1][1]}"] if sub[1] else []
            spec += [f"%description -n {sub[0]}", "d", f"%files -n {sub[0]}"]
        path = top / f"{name}.spec"
        path.write_text("\n".join(spec) + "\n")
        run(["rpmbuild", "-bb", "--quiet", "--target", "x86_64", "--define", f"_topdir {top}", "--define", f"_dbpath {top}/none",
             "--define", "debug_package %{nil}", path])
    return sorted((top / "RPMS").rglob("*.rpm"))


def install(root, packages):
    database = root / "var/lib/rpm"
    database.mkdir(parents=True)
    (root / "etc").mkdir()
    rpm = ["rpm", "--define", "_db_backend sqlite", "--dbpath", database]
    run(rpm + ["--initdb"])
    run(rpm + ["-i", "--justdb", "--nodeps", "--noscripts", "--nosignature", "--nodigest", "--ignorearch", "--ignoreos"] + packages)


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
        roots = {}
        for modules in (True, False):
            top = scratch / f"build-{modules}"
            top.mkdir()
            roots[modules] = scratch / f"root-{modules}"
            install(roots[modules], build(top, modules))
        (scratch / "advisories.json").write_text(json.dumps(advisories()))
        for name, version, _, modules, by_source in DISTRIBUTIONS:
            root = roots[modules]
            (root / "etc/os-release").write_text(f'ID="{name}"\nVERSION_ID="{version}"\n')
            if modules:
                found = FOUND + OF_MODULE
            elif by_source:
                found = FOUND
            else:
                found = FOUND + [f"{NO_MODULE[0]} nodejs"]
            for form in ("cyclonedx", "spdx"):
                path = scratch / f"{name}-{version}.{form}.json"
                said = subprocess.run([afferent, "scan", "--root", root, "--format", form, "--output", path], check=True, stderr=subprocess.PIPE, text=True).stderr
                assert said in ("", "afferent: packages are listed without repositories\n"), f"{name}: {said}"
                expected[str(path)] = sorted(found)
        good = json.loads((scratch / "rhel-9.4.cyclonedx.json").read_text())
        for name, (document, found) in broken(good).items():
            path = scratch / f"broken-{name}.json"
            path.write_text(json.dumps(document))
            expected[str(path)] = found
        found = json.loads(run([judge, scratch / "advisories.json", *expected]))
    wrong = 0
    for path, wanted in expected.items():
        is_right = found[path].startswith(wanted) if isinstance(wanted, str) and isinstance(found[path], str) else found[path] == wanted
        if not is_right:
            wrong += 1
            print(f"trivy: {os.path.basename(path)}: found {found[path]}, not {wanted}", file=sys.stderr)
    print(f"trivy: {len(expected)} documents, {wrong} not as expected")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
