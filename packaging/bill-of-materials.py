#!/usr/bin/env python3
"""Lists the crates that are linked into the binary: a CycloneDX 1.6 file and the texts of their licences.

Usage: bill-of-materials.py VERSION DIRECTORY     writes both; the same lock file gives the same bytes
       bill-of-materials.py --license             prints what the License line of the RPM has to be
"""

import datetime
import json
import os
import pathlib
import subprocess
import sys
import uuid

TARGETS = ("x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl")
LICENCE_FILES = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE", "COPYRIGHT")
# zstd may be had under the BSD licence or under this one: the first is taken.
NOT_TAKEN = {("zstd-sys", "zstd/COPYING")}
# Of what the compiler adds, which is in no lock file; the texts are beside the spec.
TOOLCHAIN = ("Apache-2.0 WITH LLVM-exception", "MIT")
TOOLCHAIN_TEXTS = pathlib.Path("packaging/rpm/toolchain-licenses.txt")


def linked():
    """Packages that the binary consists of. cargo metadata knows what each depends on, but with the features that tests
    and build scripts want too; cargo tree knows which are left without those, and without what runs in the compiler."""
    meta = json.loads(cargo("metadata", "--format-version", "1", *(f"--filter-platform={target}" for target in TARGETS)))
    packages = {package["id"]: package for package in meta["packages"]}
    nodes = {node["id"]: node for node in meta["resolve"]["nodes"]}
    named = set()
    for target in TARGETS:
        tree = cargo("tree", "-e", "normal,no-proc-macro", "--target", target, "--prefix", "none", "--format", "{p}")
        named |= {tuple(line.split()[:2]) for line in tree.splitlines()}
    inside = {key for key, package in packages.items() if (package["name"], "v" + package["version"]) in named}
    edges = {key: sorted(dep["pkg"] for dep in nodes[key]["deps"]
                         if dep["pkg"] in inside and any(kind["kind"] is None for kind in dep["dep_kinds"]))
             for key in inside}
    return meta["resolve"]["root"], packages, edges


def cargo(*arguments):
    return subprocess.run(["cargo", arguments[0], "--locked", *arguments[1:]], check=True, capture_output=True, text=True).stdout


def checksums():
    """Of each crate in the lock file."""
    sums, crate = {}, {}
    for line in pathlib.Path("Cargo.lock").read_text().splitlines():
        key, _, value = line.partition(" = ")
        if line == "[[package]]":
            crate = {}
        elif key in ("name", "version", "checksum"):
            crate[key] = value.strip('"')
            if key == "checksum":
                sums[crate["name"], crate["version"]] = crate["checksum"]
    return sums


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version'].replace('+', '%2B')}"


def component(package, kind, sums):
    entry = {"type": kind, "bom-ref": purl(package), "name": package["name"], "version": package["version"], "purl": purl(package)}
    if package.get("license"):
        entry["licenses"] = [{"expression": expression(package)}]
    if (package["name"], package["version"]) in sums:
        entry["hashes"] = [{"alg": "SHA-256", "content": sums[package["name"], package["version"]]}]
    return entry


def expression(package):
    return package["license"].replace("/", " OR ")


def chosen(package):
    """The licences that hold for a crate when, where it leaves the choice, ours is taken, else MIT."""
    choices = [choice.strip(" ()") for choice in expression(package).split(" OR ")]
    for wanted in ("Apache-2.0", "MIT"):
        if wanted in choices:
            return {wanted}
    return set(choices[0].split(" AND "))


def texts_of(package):
    """Files with licences of a crate and of the C code in it."""
    folder = pathlib.Path(package["manifest_path"]).parent
    files = (file for file in folder.rglob("*") if file.is_file() and file.name.upper().startswith(LICENCE_FILES))
    names = (file.relative_to(folder) for file in files if file.suffix not in (".rs", ".c", ".h", ".toml"))
    return sorted(name for name in names if (package["name"], str(name)) not in NOT_TAKEN)


def main():
    root, packages, edges = linked()
    others = sorted((packages[key] for key in edges if key != root), key=lambda p: (p["name"], p["version"]))
    if sys.argv[1:] == ["--license"]:
        parts = {packages[root]["license"], *TOOLCHAIN}.union(*map(chosen, others))
        print(" AND ".join(sorted(parts)))
        return
    version, out = sys.argv[1], pathlib.Path(sys.argv[2])
    sums = checksums()
    made = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.timezone.utc)
    serial = uuid.uuid5(uuid.NAMESPACE_URL, f"afferent {version} " + " ".join(map(purl, others)))
    bill = {
        "bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": f"urn:uuid:{serial}", "version": 1,
        "metadata": {"timestamp": made.strftime("%Y-%m-%dT%H:%M:%SZ"), "component": component(packages[root], "application", sums)},
        "components": [component(package, "library", sums) for package in others],
        "dependencies": [{"ref": purl(packages[key]), "dependsOn": [purl(packages[dep]) for dep in edges[key]]}
                         for key in sorted(edges, key=lambda key: purl(packages[key]))],
    }
    (out / f"afferent-{version}.cdx.json").write_text(json.dumps(bill, indent=1) + "\n")

    # Crates share texts: each is printed once, under all that have it.
    texts, without = {}, []
    for package in others:
        name = f"{package['name']} {package['version']}"
        files = texts_of(package)
        if not files:
            without.append(f"{name} ({package['license']}), no text in the crate")
        for file in files:
            text = (pathlib.Path(package["manifest_path"]).parent / file).read_text(errors="replace")
            texts.setdefault(text.strip(), []).append(f"{name}, {file}")
    with open(out / "THIRD-PARTY-LICENSES.txt", "w") as licences:
        print(f"afferent {version} contains what is listed here. Under each line of = are the names of what a licence is for,\n"
              "then its text.\n", file=licences)
        for package in others:
            print(f"  {package['name']} {package['version']}: {package['license']}", file=licences)
        print(f"\n{'=' * 80}\n{TOOLCHAIN_TEXTS.read_text().strip()}", file=licences)
        for line in without:
            print(f"\n{'=' * 80}\n{line}", file=licences)
        for text, names in texts.items():
            print(f"\n{'=' * 80}\n{chr(10).join(names)}\n{'-' * 80}\n{text}", file=licences)
    print(f"bill-of-materials: {len(others)} crates, {len(texts)} licence texts, {len(without)} crates without one")


main()
