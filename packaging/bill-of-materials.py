#!/usr/bin/env python3
"""Lists the crates that are linked into the binary: a CycloneDX 1.6 file and the texts of their licences.

Usage: bill-of-materials.py VERSION DIRECTORY. The same lock file gives the same bytes.
"""

import datetime
import json
import os
import pathlib
import subprocess
import sys
import uuid

TARGET = "x86_64-unknown-linux-musl"
LICENCE_FILES = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE", "COPYRIGHT")


def linked():
    """Packages that normal dependencies of ours reach: not those of tests and build scripts."""
    meta = json.loads(subprocess.run(
        ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", TARGET],
        check=True, capture_output=True).stdout)
    packages = {package["id"]: package for package in meta["packages"]}
    nodes = {node["id"]: node for node in meta["resolve"]["nodes"]}
    edges, todo = {}, [meta["resolve"]["root"]]
    while todo:
        at = todo.pop()
        if at in edges:
            continue
        edges[at] = sorted(dep["pkg"] for dep in nodes[at]["deps"]
                           if any(kind["kind"] is None for kind in dep["dep_kinds"])
                           and not is_macro(packages[dep["pkg"]]))
        todo += edges[at]
    return meta["resolve"]["root"], packages, edges


def is_macro(package):
    """A procedural macro runs in the compiler and is not linked."""
    return any("proc-macro" in target["kind"] for target in package["targets"])


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
        entry["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if (package["name"], package["version"]) in sums:
        entry["hashes"] = [{"alg": "SHA-256", "content": sums[package["name"], package["version"]]}]
    return entry


def main():
    version, out = sys.argv[1], pathlib.Path(sys.argv[2])
    root, packages, edges = linked()
    sums = checksums()
    others = sorted((packages[key] for key in edges if key != root), key=lambda p: (p["name"], p["version"]))
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
        folder = pathlib.Path(package["manifest_path"]).parent
        files = sorted(file for file in folder.iterdir() if file.is_file() and file.name.upper().startswith(LICENCE_FILES))
        if not files:
            without.append(f"{package['name']} {package['version']} ({package['license']}), no text in the crate")
        for file in files:
            texts.setdefault(file.read_text(errors="replace").strip(), []).append(f"{package['name']} {package['version']}, {file.name}")
    with open(out / "THIRD-PARTY-LICENSES.txt", "w") as licences:
        print(f"afferent {version} contains the standard library of Rust (MIT OR Apache-2.0), the C library musl (MIT), and\n"
              "the following crates. Their licences:\n", file=licences)
        for package in others:
            print(f"  {package['name']} {package['version']}: {package['license']}", file=licences)
        for line in without:
            print(f"\n{'=' * 80}\n{line}", file=licences)
        for text, names in texts.items():
            print(f"\n{'=' * 80}\n{chr(10).join(names)}\n{'-' * 80}\n{text}", file=licences)
    print(f"bill-of-materials: {len(others)} crates, {len(texts)} licence texts, {len(without)} crates without one")


main()
