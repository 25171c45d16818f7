#!/usr/bin/env bash
# Builds version 0.1.0 from this repository's own history, a debug build: target/v0.1.0/afferent.
# Tests let the present program meet it, and tests/fixtures/v0.1.0 was made by it. Does nothing where it is there.
# Usage: packaging/build-old.sh [rpm]    rpm: its package too, by its own spec, target/v0.1.0/afferent-0.1.0-1.ARCH.rpm
set -euo pipefail
cd "$(dirname "$0")/.."

# The last commit before formats changed; 0.1.0 never had a tag.
commit=cd8b17e30562da392db4859a3ba3dd43992876f3
version="afferent 0.1.0 (${commit:0:12})"
place=$PWD/target/v0.1.0
out=$place/afferent

case ${1:-} in '' | rpm) wanted=${1:-} ;; *) echo "build-old: rpm or nothing, not '$1'" >&2; exit 2 ;; esac
rpm=$place/afferent-0.1.0-1.$(uname -m).rpm
if [ -x "$out" ] && { [ -z "$wanted" ] || [ -e "$rpm" ]; }; then
    echo "build-old: ${out#"$PWD"/} is there: $version"
    exit 0
fi

fail() { echo "build-old: $1" >&2; exit 1; }
git rev-parse --git-dir >/dev/null 2>&1 ||
    fail "this is no git repository: 0.1.0 is built from the history, which only a clone has"
if ! git cat-file -e "$commit^{commit}" 2>/dev/null; then
    if [ "$(git rev-parse --is-shallow-repository)" = true ]; then
        fail "commit ${commit:0:12} is not in this shallow clone: git fetch --unshallow"
    fi
    fail "commit ${commit:0:12} is not in this repository: git fetch the branch that it is on"
fi
packaging/install-deps.sh demo

# A copy of the files and no worktree: nothing is left registered in the repository, and a clone that is a
# worktree itself does as well. What an interrupted run left is replaced; what cargo built is used again.
echo "build-old: source of ${commit:0:12} to ${place#"$PWD"/}/src"
rm -rf "$place/src"
mkdir -p "$place/src"
git archive --format=tar "$commit" | tar -x -C "$place/src"

export PATH=$PATH:$HOME/.cargo/bin
if [ ! -x "$out" ]; then
    echo "build-old: building, about a minute"
    # Without the id, git would be asked, and name the commit of the repository around it.
    (cd "$place/src" && AFFERENT_GIT_ID=${commit:0:12} CARGO_TARGET_DIR=$place/build cargo build --locked --bin afferent)
    said=$("$place/build/debug/afferent" --version)
    [ "$said" = "$version" ] || fail "what was built says '$said' and not '$version'"
    cp "$place/build/debug/afferent" "$out.new"
    mv "$out.new" "$out"
fi
echo "build-old: ${out#"$PWD"/}: $version"

if [ -n "$wanted" ]; then
    packaging/install-deps.sh rpm
    # Without what is for debuggers, which is most of it. It asks for the C library of the machine that built it.
    strip -o "$place/stripped" "$out"
    # Files are taken from the directory, not from the repository around it.
    (cd "$place/src" && GIT_CEILING_DIRECTORIES=$place SOURCE_DATE_EPOCH=$(git -C "$OLDPWD" log -1 --format=%ct "$commit") \
        RPM_BINARY=$place/stripped RPM_OUT=$place packaging/build-rpm.sh "$(uname -m)")
    rm "$place/stripped"
    [ -e "$rpm" ] || fail "there is no ${rpm#"$PWD"/} after building it"
fi
