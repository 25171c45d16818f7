"""What the schemas miss, SPDX as spdx-tools reads it, and Syft as a second reader.

Usage: check.py own DIRECTORY       references, package URLs, and as many packages as NAME.tsv lists
       check.py spdx DIRECTORY      spdx-tools
       check.py syft DIRECTORY      what Syft reads is what was written
       check.py broken DIRECTORY    breaks documents of that directory; each judge must refuse its own
"""

import collections
import copy
import json
import pathlib
import re
import subprocess
import sys
import tempfile

from packageurl import PackageURL
from spdx_tools.spdx.parser.error import SPDXParsingError
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

HERE = pathlib.Path(__file__).parent


def purl_problems(purl):
    try:
        again = PackageURL.from_string(purl).to_string()
    except ValueError as error:
        return [f"{purl}: {error}"]
    return [] if again == purl else [f"{purl}: is written back as {again}"]


def duplicates(names):
    return [f"{name}: {count} times" for name, count in collections.Counter(names).items() if count > 1]


def cyclonedx(document):
    """Problems, and how many packages there are."""
    packages = [c for c in document["components"] if c["type"] == "library"]
    systems = [c for c in document["components"] if c["type"] == "operating-system"]
    every = document["components"] + [document["metadata"]["component"]]
    references = [c["bom-ref"] for c in every]
    problems = duplicates(references)
    problems += [] if len(systems) == 1 and document["components"][0] is systems[0] else ["not one system, as the first"]
    used = [d["ref"] for d in document["dependencies"]]
    problems += duplicates(used)
    used += [ref for d in document["dependencies"] for ref in d.get("dependsOn", [])]
    problems += [f"{ref}: leads nowhere" for ref in set(used) - set(references)]
    problems += [f"{ref}: nothing leads there" for ref in set(references) - set(used)]
    for package in packages:
        problems += purl_problems(package["purl"])
        problems += ["a group"] if "group" in package else []
        names = [p["name"] for p in package["properties"]]
        source = [f"aquasecurity:trivy:Src{part}" for part in ("Name", "Version", "Release", "Epoch")]
        problems += [] if sum(name in names for name in source) in (0, 4) else [f"{package['name']}: a part of a source"]
    for component in every:
        if "cpe" in component and not re.fullmatch(r"cpe:2\.3:[aho](:(\\.|[^:\\])+){10}", component["cpe"]):
            problems.append(f"{component['cpe']}: is no CPE")
    return problems, len(packages)


def spdx(document):
    """Problems, and how many packages there are."""
    packages = [p for p in document["packages"] if p["SPDXID"].startswith("SPDXRef-Package-")]
    systems = [p for p in document["packages"] if p["SPDXID"].startswith("SPDXRef-OperatingSystem")]
    ids = [p["SPDXID"] for p in document["packages"]] + [document["SPDXID"]]
    problems = duplicates(ids)
    problems += [] if len(systems) == 1 and len(systems) + len(packages) == len(document["packages"]) else ["not one system"]
    relations = document["relationships"]
    used = {relation[end] for relation in relations for end in ("spdxElementId", "relatedSpdxElement")}
    problems += [f"{ref}: leads nowhere" for ref in used - set(ids)]
    problems += [f"{ref}: nothing leads there" for ref in set(ids) - used]
    for package in packages:
        purls = [r["referenceLocator"] for r in package["externalRefs"] if r["referenceType"] == "purl"]
        problems += purl_problems(purls[0]) if len(purls) == 1 else [f"{package['SPDXID']}: {len(purls)} purls"]
    return problems, len(packages)


def own(directory):
    wrong = []
    names = sorted(path.name[: -len(".tsv")] for path in directory.glob("*.tsv"))
    for name in names:
        listed = len((directory / f"{name}.tsv").read_bytes().splitlines())
        for suffix, check in [("cdx.json", cyclonedx), ("spdx.json", spdx)]:
            path = directory / f"{name}.{suffix}"
            problems, packages = check(json.loads(path.read_text()))
            if packages != listed:
                problems.append(f"{packages} packages, and {listed} in the list")
            wrong += [f"{path.name}: {problem}" for problem in problems]
    return finish("own checks", 2 * len(names), wrong)


def spdx_problems(path):
    try:
        document = parse_file(str(path))
    except SPDXParsingError as error:
        return error.get_messages()
    return [problem.validation_message for problem in validate_full_spdx_document(document)]


def spdx_tools(directory):
    paths = sorted(directory.glob("*.spdx.json"))
    wrong = [f"{path.name}: {problem}" for path in paths for problem in spdx_problems(path)]
    return finish("spdx-tools", len(paths), wrong)


def syft_problems(path, written):
    """What Syft does not give back of `written`, the CycloneDX document that `path` was made from, or stands beside."""
    program = pathlib.Path(sys.executable).parent / "syft"
    command = [program, "convert", str(path), "-o", "syft-json"]
    done = subprocess.run(command, capture_output=True, text=True, env={"SYFT_CHECK_FOR_APP_UPDATE": "false", "HOME": str(path.parent)})
    if done.returncode != 0:
        return [done.stderr[-300:]]
    found = json.loads(done.stdout)
    # One and the same package twice is one to Syft.
    lost = {c["purl"] for c in written["components"] if "purl" in c} - {a["purl"] for a in found["artifacts"] if a["type"] == "rpm"}
    problems = [f"{len(lost)} packages are lost, such as {sorted(lost)[0]}"] if lost else []
    # Syft takes the distribution of SPDX from package URLs, where it has another name for it.
    distro, wanted = found["distro"].get("id", ""), {written["components"][0]["swid"]["name"]}
    if path.name.endswith(".spdx.json"):
        wanted = {purl_distribution(c["purl"]) for c in written["components"] if "purl" in c} or {""}
    return problems + ([] if distro in wanted else [f"the distribution is {distro!r}, not {sorted(wanted)}"])


def purl_distribution(purl):
    """The distribution in a package URL, without its version."""
    return PackageURL.from_string(purl).qualifiers.get("distro", "").rpartition("-")[0]


def syft(directory):
    """Syft gives back packages, epochs, source packages and the distribution of both formats."""
    wrong = []
    paths = sorted(directory.glob("*.cdx.json")) + sorted(directory.glob("*.spdx.json"))
    for path in paths:
        written = json.loads((directory / (path.name.split(".")[0] + ".cdx.json")).read_text())
        wrong += [f"{path.name}: {problem}" for problem in syft_problems(path, written)]
    return finish("syft", len(paths), wrong)


def finish(judge, count, wrong):
    for line in wrong[:40]:
        print(f"{judge}: {line}", file=sys.stderr)
    print(f"{judge}: {count} documents, {len(wrong)} problems")
    return count > 0 and not wrong


def change(document, way, value):
    """A copy with the value at that way replaced; None takes it away."""
    broken = copy.deepcopy(document)
    place = broken
    for step in way[:-1]:
        place = place[step]
    if value is None:
        del place[way[-1]]
    else:
        place[way[-1]] = value
    return broken


def broken(directory):
    cdx = json.loads((directory / "centos-8-modular-bdb.cdx.json").read_text())
    sp = json.loads((directory / "centos-8-modular-bdb.spdx.json").read_text())
    second = cdx["components"][2]
    schema = {
        "type": change(cdx, ["components", 1, "type"], "rpm"),
        "unknown-field": change(cdx, ["components", 1, "colour"], "red"),
        "serial": change(cdx, ["serialNumber"], "urn:uuid:1"),
        "timestamp": change(cdx, ["metadata", "timestamp"], "yesterday"),
        "license": change(cdx, ["components", 1, "licenses"], [{"license": {"id": "GPLv2+"}}]),
        "no-name": change(cdx, ["components", 1, "name"], None),
    }
    ours = {
        "twice": (cyclonedx, change(cdx, ["components", 1, "bom-ref"], second["bom-ref"])),
        "dangling": (cyclonedx, change(cdx, ["dependencies", 1, "dependsOn", 0], "pkg:rpm/nobody")),
        "purl": (cyclonedx, change(cdx, ["components", 1, "purl"], "pkg:rpm")),
        "purl-plus": (cyclonedx, change(cdx, ["components", 1, "purl"], "pkg:rpm/centos/a@1+2?arch=x86_64")),
        "purl-order": (cyclonedx, change(cdx, ["components", 1, "purl"], "pkg:rpm/centos/a@1?epoch=1&arch=x86_64")),
        "cpe": (cyclonedx, change(cdx, ["components", 0, "cpe"], "cpe:2.3:o:centos:centos:8")),
        "two-systems": (cyclonedx, change(cdx, ["components", 1, "type"], "operating-system")),
        "source-in-part": (cyclonedx, change(cdx, ["components", 1, "properties"], [p for p in cdx["components"][1]["properties"] if not p["name"].endswith("SrcEpoch")])),
        "spdx-twice": (spdx, change(sp, ["packages", 1, "SPDXID"], sp["packages"][2]["SPDXID"])),
        "spdx-dangling": (spdx, change(sp, ["relationships", 1, "relatedSpdxElement"], "SPDXRef-Package-nobody")),
        "spdx-purl": (spdx, change(sp, ["packages", 1, "externalRefs", 0, "referenceLocator"], "rpm/x")),
    }
    tools = {
        "id": change(sp, ["packages", 1, "SPDXID"], "SPDXRef-Package-a_b"),
        "license": change(sp, ["packages", 1, "licenseDeclared"], "LicenseRef-nobody"),
        "no-location": change(sp, ["packages", 1, "downloadLocation"], None),
        "created": change(sp, ["creationInfo", "created"], "2026-11-21T10:00:00.123+01:00"),
        "no-describes": change(sp, ["relationships"], sp["relationships"][1:]),
        "namespace": change(sp, ["documentNamespace"], "nowhere"),
        "supplier": change(sp, ["packages", 1, "supplier"], "CentOS"),
    }
    without_system = json.loads(re.sub(r"&distro=[^&\"]*", "", json.dumps(change(cdx, ["components"], cdx["components"][1:]))))
    second_reader = {
        "no-system": without_system,
        "no-type": change(cdx, ["components", 1, "purl"], "pkg:generic/a@1"),
    }
    wrong = []
    for name, (check, document) in ours.items():
        wrong += [] if check(document)[0] else [f"{name}: not found"]
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        for name, document in tools.items():
            path = scratch / f"{name}.spdx.json"
            path.write_text(json.dumps(document))
            wrong += [] if spdx_problems(path) else [f"{name}: spdx-tools takes it"]
        for name, document in second_reader.items():
            path = scratch / f"syft-{name}.cdx.json"
            path.write_text(json.dumps(document))
            wrong += [] if syft_problems(path, cdx) else [f"{name}: Syft gives back everything"]
        files = []
        for name, document in schema.items():
            files.append(scratch / f"{name}.cdx.json")
            files[-1].write_text(json.dumps(document))
        refused = subprocess.run(["node", directory / "../node/schema.mjs", "broken", *files])
        wrong += [] if refused.returncode == 0 else ["the schema takes some"]
    return finish("broken on purpose", len(ours) + len(tools) + len(second_reader) + len(schema), wrong)


JUDGES = {"own": own, "spdx": spdx_tools, "syft": syft, "broken": broken}

if __name__ == "__main__":
    sys.exit(0 if JUDGES[sys.argv[1]](pathlib.Path(sys.argv[2])) else 1)
