#!/usr/bin/env bash
# The image of every static binary that was built. Usage: packaging/oci/build.sh OUTPUT [ARGUMENTS OF build.py]
set -euo pipefail
cd "$(dirname "$0")/../.."
output=$1; shift
images=()
for pair in amd64=target/static/x86_64/afferent arm64=target/static/aarch64/afferent; do
    [ ! -x "${pair#*=}" ] || images+=("$pair")
done
[ ${#images[@]} -gt 0 ] || { echo "oci: there is no static binary: make static" >&2; exit 1; }
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(packaging/source-date.sh)} python3 packaging/oci/build.py "$output" "${images[@]}" \
    --version "$version" --revision "$(packaging/git-id.sh)" "$@"
