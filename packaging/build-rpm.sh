#!/usr/bin/env bash
# Builds the RPM of one architecture into target/rpm, the same bytes each time for the same source and binary. It is one
# package for every release: without a dist tag, and in the format that old ones read.
# Usage: packaging/build-rpm.sh [x86_64|aarch64] [rpmbuild's arguments]
#   RPM_BINARY=FILE        packages that binary instead of building one
#   RPM_OUT=DIR            where the package goes
#   RPM_RELEASE=N, RPM_CONFIG_NOTE=TEXT   another release of it, with a line more in its configuration: for upgrade tests
set -euo pipefail
cd "$(dirname "$0")/.."
arch=${1:-$(uname -m)}
arguments=("${@:2}")
out=${RPM_OUT:-target/rpm}
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(packaging/source-date.sh)}

packaging/install-deps.sh rpm
binary=${RPM_BINARY:-target/static/$arch/afferent}
[ -n "${RPM_BINARY:-}" ] || packaging/build-static.sh "$arch"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{SOURCES,SPECS,RPMS,BUILD} "$out"
sed -e "${RPM_RELEASE:+s/^Release: .*/Release: $RPM_RELEASE%{?dist\}/}" \
    packaging/rpm/afferent.spec >"$work/SPECS/afferent.spec"
version=$(sed -n 's/^Version: *//p' "$work/SPECS/afferent.spec")
cp "$binary" "$work/SOURCES/afferent-$arch"
/usr/bin/python3 packaging/bill-of-materials.py "$version" "$work/SOURCES" >/dev/null

# What git tracks, as it is now; without git, everything but what was built.
tree=$work/afferent-$version
mkdir "$tree"
if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    git ls-files -z --cached --others --exclude-standard
else
    find . -path ./target -prune -o -type f -print0
fi | while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done |
    tar --null --files-from=- --create | tar -x -C "$tree"
if [ -n "${RPM_CONFIG_NOTE:-}" ]; then
    for config in "$tree"/packaging/config/{serve,sense,mirror}.toml; do echo "# $RPM_CONFIG_NOTE" >>"$config"; done
fi
tar -C "$work" --create --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
    --mode=u=rwX,go=rX "afferent-$version" | gzip -n >"$work/SOURCES/afferent-$version.tar.gz"

if ! rpmbuild -bb --quiet --target "$arch" --nodeps \
    --define "_topdir $work" --dbpath "$work/db" \
    --define 'dist %{nil}' \
    --define '_rpmformat 4' \
    --define '_buildhost reproducible' \
    --define 'use_source_date_epoch_as_buildtime 1' \
    --define 'clamp_mtime_to_source_date_epoch 1' \
    --define 'build_mtime_policy clamp_to_source_date_epoch' \
    "${arguments[@]}" "$work/SPECS/afferent.spec" >"$work/log" 2>&1; then
    cat "$work/log" >&2
    exit 1
fi
for rpm in "$work"/RPMS/"$arch"/*.rpm; do
    cp "$rpm" "$out/"
    echo "build-rpm: $out/${rpm##*/}, $(stat -c %s "$rpm") bytes, sha256 $(sha256sum "$rpm" | cut -d' ' -f1)"
done
