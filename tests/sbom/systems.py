"""Systems of distributions with the same few packages, built and installed by the real rpm, and their bills of materials.

Each package has one advisory that must be found, or one that must not: bind was fixed long ago, which only its epoch
tells, and nodejs of a module has another advisory than without one.
"""

import pathlib
import subprocess
import sys

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
MODULE = ("CVE-2026-0018", "1:18.20.0-1")
NO_MODULE = ("CVE-2026-0020", "1:20.0.0-1")

FOUND = ["CVE-2026-0001 openssl", "CVE-2026-0001 openssl-libs", "CVE-2026-0002 bash", "CVE-2026-0004 perl-Errno"]
OF_MODULE = [f"{MODULE[0]} nodejs"]


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


def documents(afferent, scratch, distributions):
    """Writes the bills of each (ID, VERSION_ID, has modules): its place and path by form."""
    roots = {}
    for modules in (True, False):
        top = scratch / f"build-{modules}"
        top.mkdir()
        roots[modules] = scratch / f"root-{modules}"
        install(roots[modules], build(top, modules))
    for place, (name, version, modules) in enumerate(distributions):
        root = roots[modules]
        (root / "etc/os-release").write_text(f'ID="{name}"\nVERSION_ID="{version}"\n')
        for form in ("cyclonedx", "spdx"):
            path = scratch / f"{name}-{version}.{form}.json"
            command = [afferent, "scan", "--root", root, "--format", form, "--output", path]
            said = subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True).stderr
            assert said in ("", "afferent: packages are listed without repositories\n"), f"{name}: {said}"
            yield place, form, path


def compare(judge, expected, found):
    """Ends the program: 1 where a document's findings, or the beginning of its error, are not as expected."""
    wrong = 0
    for path, wanted in expected.items():
        is_right = found[path].startswith(wanted) if isinstance(wanted, str) and isinstance(found[path], str) else found[path] == wanted
        if not is_right:
            wrong += 1
            print(f"{judge}: {pathlib.Path(path).name}: found {found[path]}, not {wanted}", file=sys.stderr)
    print(f"{judge}: {len(expected)} documents, {wrong} not as expected")
    sys.exit(1 if wrong else 0)
