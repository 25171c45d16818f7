#!/usr/bin/env bash
# Everything that a release consists of, in target/release-files: binaries and RPMs of both architectures, what is in
# them (a CycloneDX list of crates), the licences of others, and checksums. ARCHES="x86_64" makes only that one.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:$HOME/.cargo/bin
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(packaging/source-date.sh)}
read -ra arches <<<"${ARCHES:-x86_64 aarch64}"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
out=target/release-files
rm -rf "$out"
mkdir -p "$out"
rm -f target/rpm/afferent-"$version"-*.rpm

for arch in "${arches[@]}"; do
    packaging/build-rpm.sh "$arch"
    cp "target/static/$arch/afferent" "$out/afferent-$version-$arch"
    cp target/rpm/afferent-"$version"-1*."$arch".rpm "$out/"
done
/usr/bin/python3 packaging/bill-of-materials.py "$version" "$out"
(cd "$out" && sha256sum -- * >SHA256SUMS)
ls -l "$out"
