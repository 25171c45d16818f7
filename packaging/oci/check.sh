#!/usr/bin/env bash
# Builds the image of the static binary twice and takes it apart again: equal bytes, digests that are true, a program that
# starts as the image's user with nothing else around it. Usage: packaging/oci/check.sh BINARY
set -euo pipefail
cd "$(dirname "$0")/../.."
binary=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
fail() { echo "oci: $*" >&2; exit 1; }

case $(uname -m) in
    x86_64) architecture=amd64 ;;
    aarch64) architecture=arm64 ;;
    *) echo "oci: skipped on $(uname -m)"; exit 0 ;;
esac
build() { SOURCE_DATE_EPOCH=$(packaging/source-date.sh) python3 packaging/oci/build.py "$@" --version check; }
build "$scratch/image.tar" $architecture="$binary"
build "$scratch/again.tar" $architecture="$binary" >/dev/null
cmp "$scratch/image.tar" "$scratch/again.tar" || fail "two builds differ"
other=$([ $architecture = amd64 ] && echo arm64 || echo amd64)
if build "$scratch/wrong.tar" "$other=$binary" 2>/dev/null; then fail "a binary of another architecture is taken"; fi

mkdir "$scratch/layout"
tar -xf "$scratch/image.tar" -C "$scratch/layout"
(cd "$scratch/layout/blobs/sha256" && for blob in *; do echo "$blob  $blob"; done | sha256sum --check --quiet) || fail "a digest is wrong"
mkdir "$scratch/root"
layer=$(python3 - "$scratch/layout" <<'END'
import json, sys
def read(digest): return json.load(open(f"{sys.argv[1]}/blobs/{digest.replace(':', '/')}"))
manifest = read(json.load(open(f"{sys.argv[1]}/index.json"))["manifests"][0]["digest"])
assert read(manifest["config"]["digest"])["config"]["User"] == "65532:65532", "it runs as root"
print(manifest["layers"][0]["digest"].replace(":", "/"))
END
)
tar -xzf "$scratch/layout/blobs/$layer" -C "$scratch/root"
if [ "$(id -u)" = 0 ]; then
    chroot --userspec=65532:65532 "$scratch/root" /usr/bin/afferent --version
else
    echo "oci: not started: only root may change the root"
fi

if command -v skopeo >/dev/null && command -v umoci >/dev/null; then
    skopeo copy --quiet "oci-archive:$scratch/image.tar" "oci:$scratch/copy:check"
    umoci unpack --rootless --image "$scratch/copy:check" "$scratch/bundle" >/dev/null
    cmp "$scratch/bundle/rootfs/usr/bin/afferent" "$binary" || fail "the binary in it is another one"
    echo "oci: read by skopeo and umoci"
else
    echo "oci: skopeo and umoci are not installed: not read by them"
fi
echo "oci: passed"
