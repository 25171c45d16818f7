#!/usr/bin/env bash
# Everything that a release consists of, in target/release-files: binaries and RPMs of both architectures, the source, what
# is in them (a CycloneDX list of crates), the licences of others, and checksums. ARCHES="x86_64" makes only that one.
# The same commit gives the same bytes: packaging/check-reproducible.sh builds it again elsewhere. RELEASE_KEY=FINGERPRINT signs
# the RPMs and the checksums (docs/releasing.md); but for the signatures in them, these too are the same bytes each time.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:$HOME/.cargo/bin
[ -z "$(git status --porcelain --untracked-files=no)" ] || { echo "release: the tree is not what is committed; a release is of a commit" >&2; exit 1; }
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(packaging/source-date.sh)}
read -ra arches <<<"${ARCHES:-x86_64 aarch64}"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
out=target/release-files
rm -rf "$out"
mkdir -p "$out"

for arch in "${arches[@]}"; do
    RPM_OUT=$out packaging/build-rpm.sh "$arch"
    cp "target/static/$arch/afferent" "$out/afferent-$version-$arch"
done
git archive --format=tar --prefix="afferent-$version/" HEAD | gzip -9n >"$out/afferent-$version.tar.gz"
/usr/bin/python3 packaging/bill-of-materials.py "$version" "$out"
[ -z "${RELEASE_KEY:-}" ] || packaging/sign-rpm.sh "$RELEASE_KEY" "$out"
(cd "$out" && sha256sum -- * >SHA256SUMS)
if [ -n "${RELEASE_KEY:-}" ]; then
    gpg --batch --armor --local-user "$RELEASE_KEY" --detach-sign "$out/SHA256SUMS"
else
    echo "release: not signed: RELEASE_KEY is not given, see docs/releasing.md"
fi
ls -l "$out"
