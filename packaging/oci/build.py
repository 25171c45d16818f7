"""Makes an OCI image of the static binary, without a daemon: a layout in one tar file, the same bytes for the same input.

  python3 packaging/oci/build.py OUTPUT ARCHITECTURE=BINARY... [--ca FILE] [--version TEXT] [--revision TEXT]

ARCHITECTURE is amd64 or arm64. --ca puts authorities (PEM) where the program looks for those of the system: without them,
Central's are named by `ca_file`. Times are SOURCE_DATE_EPOCH, or 0. Push it with `skopeo copy oci-archive:OUTPUT docker://...`.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import struct
import sys
import tarfile
from datetime import datetime, timezone

# Nobody else's: what distroless images use.
USER = 65532
MACHINES = {"amd64": 62, "arm64": 183}  # e_machine
PT_INTERP = 3
CA_PLACE = "etc/ssl/certs/ca-certificates.crt"


def check_binary(data, architecture, path):
    """Refuses what would not run in an image that holds nothing else."""
    if data[:5] != b"\x7fELF\x02" or struct.unpack_from("<H", data, 18)[0] != MACHINES[architecture]:
        sys.exit(f"{path}: no program for {architecture}")
    at, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    if any(struct.unpack_from("<I", data, at + n * size)[0] == PT_INTERP for n in range(count)):
        sys.exit(f"{path}: not static, and the image has no libraries: packaging/build-static.sh")


def layer_of(files, epoch):
    """A tar archive of these files and the directories above them."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        made = set()
        for name, (mode, owner, data) in sorted(files.items()):
            above = name.split("/")[:-1]
            for n in range(1, len(above) + 1):
                directory = "/".join(above[:n])
                if directory not in made:
                    made.add(directory)
                    add(tar, directory, 0o755, 0, None, epoch)
            add(tar, name, mode, owner, data, epoch)
    return out.getvalue()


def add(tar, name, mode, owner, data, epoch):
    info = tarfile.TarInfo(name)
    info.mode, info.mtime, info.uid, info.gid = mode, epoch, owner, owner
    if data is None:
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    else:
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))


class Layout:
    """Blobs by their digest."""

    def __init__(self):
        self.blobs = {}

    def put(self, data, media_type):
        digest = hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def put_json(self, value, media_type):
        return self.put(json.dumps(value, sort_keys=True, separators=(",", ":")).encode(), media_type)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output")
    parser.add_argument("binaries", nargs="+", metavar="ARCHITECTURE=BINARY")
    parser.add_argument("--ca", metavar="FILE")
    parser.add_argument("--version", default="")
    parser.add_argument("--revision", default="")
    options = parser.parse_args()
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    created = datetime.fromtimestamp(epoch, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    annotations = {
        "org.opencontainers.image.title": "afferent",
        "org.opencontainers.image.created": created,
        "org.opencontainers.image.version": options.version,
        "org.opencontainers.image.revision": options.revision,
    }
    annotations = {name: value for name, value in annotations.items() if value}
    layout, images = Layout(), []
    for named in options.binaries:
        architecture, _, path = named.partition("=")
        if architecture not in MACHINES or not path:
            sys.exit(f"{named}: ARCHITECTURE=BINARY is wanted, with one of {', '.join(MACHINES)}")
        with open(path, "rb") as file:
            binary = file.read()
        check_binary(binary, architecture, path)
        files = {
            "usr/bin/afferent": (0o755, 0, binary),
            "etc/passwd": (0o644, 0, f"afferent:x:{USER}:{USER}:afferent:/:/\n".encode()),
        }
        if options.ca:
            with open(options.ca, "rb") as file:
                files[CA_PLACE] = (0o644, 0, file.read())
        tar = layer_of(files, epoch)
        layer = layout.put(gzip.compress(tar, 9, mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip")
        config = {
            "architecture": architecture,
            "os": "linux",
            "created": created,
            "config": {"User": f"{USER}:{USER}", "Entrypoint": ["/usr/bin/afferent"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}"]},
            "history": [{"created": created, "created_by": "packaging/oci/build.py"}],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": layout.put_json(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [layer],
            "annotations": annotations,
        }
        image = layout.put_json(manifest, manifest["mediaType"])
        images.append({**image, "platform": {"architecture": architecture, "os": "linux"}})
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": images}
    # Tools that read an archive take what its index names first: the image of one architecture, or an index of several.
    top = images[0] if len(images) == 1 else layout.put_json(index, index["mediaType"])
    top = {**top, "annotations": {"org.opencontainers.image.ref.name": options.version or "latest"}}
    files = {f"blobs/sha256/{digest}": (0o644, 0, data) for digest, data in layout.blobs.items()}
    files["oci-layout"] = (0o644, 0, b'{"imageLayoutVersion":"1.0.0"}')
    files["index.json"] = (0o644, 0, json.dumps({**index, "manifests": [top]}, sort_keys=True).encode())
    with open(options.output, "wb") as file:
        file.write(layer_of(files, epoch))
    print(f"{options.output}: {top['digest']}")


if __name__ == "__main__":
    main()
