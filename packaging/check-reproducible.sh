#!/usr/bin/env bash
# Shows that the static binary depends on nothing but its source: the same tree, built from nothing in another directory,
# with the crates in another place, gives the same bytes as target/static/ARCH/afferent.
# Usage: packaging/check-reproducible.sh [x86_64|aarch64]
set -euo pipefail
cd "$(dirname "$0")/.."
arch=${1:-$(uname -m)}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(packaging/source-date.sh)}
AFFERENT_GIT_ID=${AFFERENT_GIT_ID:-$(packaging/git-id.sh)}
export SOURCE_DATE_EPOCH AFFERENT_GIT_ID

ours=$PWD/target/static/$arch/afferent
work=$(mktemp -d "${TMPDIR:-/tmp}/a-place-with-another-name.XXXXXX")
trap 'wait; rm -rf "$work"' EXIT
cargo_home=${CARGO_HOME:-$HOME/.cargo}
mkdir -p "$work/crates/registry" "$work/source/target/tools"
cp -r "$cargo_home"/registry/{cache,index} "$work/crates/registry/"
for config in config.toml config; do [ ! -e "$cargo_home/$config" ] || cp "$cargo_home/$config" "$work/crates/"; done
git ls-files -z | while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done |
    tar --null --files-from=- --create | tar -x -C "$work/source"
# The linker of the zig route is a tool, not a source.
[ ! -e target/tools/zig ] || ln -s "$PWD/target/tools/zig" "$work/source/target/tools/zig"

# Both at once: the longest part of a build, the last, keeps one processor busy.
packaging/build-static.sh "$arch" &
here=$!
there=0
(cd "$work/source" && CARGO_HOME=$work/crates packaging/build-static.sh "$arch") >"$work/log" 2>&1 || there=$?
wait "$here"
if [ $there != 0 ]; then
    cat "$work/log" >&2
    echo "check-reproducible: the build in another place failed" >&2
    exit 1
fi
if ! cmp "$ours" "$work/source/target/static/$arch/afferent"; then
    echo "check-reproducible: two builds of one source differ" >&2
    exit 1
fi
echo "check-reproducible: built twice, in $PWD and in $work/source: the same $(stat -c %s "$ours") bytes, sha256 $(sha256sum "$ours" | cut -d' ' -f1)"
