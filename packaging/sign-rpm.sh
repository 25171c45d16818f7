#!/usr/bin/env bash
# Signs packages with a key of GnuPG and writes its public half; see docs/releasing.md for the key of releases.
# Usage: packaging/sign-rpm.sh KEY DIR     KEY: fingerprint of a key in GNUPGHOME; DIR: whose *.rpm are signed, in place
# Writes DIR/RPM-GPG-KEY-afferent, and fails unless rpm, given nothing but that file, accepts each signature.
set -euo pipefail
key=$1 dir=$2
fail() { echo "sign-rpm: $1" >&2; exit 1; }
for tool in gpg rpmsign rpmkeys; do
    command -v $tool >/dev/null || fail "$tool is not here (packages gnupg and rpm; on Fedora gnupg2 and rpm-sign)"
done
packages=("$dir"/*.rpm)
[ -e "${packages[0]}" ] || fail "there is no package in $dir"

public=$dir/RPM-GPG-KEY-afferent
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
gpg --batch --armor --export-options export-minimal --export "$key" >"$work/public"
[ -s "$work/public" ] || fail "${GNUPGHOME:-~/.gnupg} has no key '$key'"
# RHEL 7 and 8 read no other kind.
gpg --batch --quiet --with-colons --list-keys "$key" 2>/dev/null | awk -F: '$1 == "pub" { exit $4 != 1 }' || fail "key '$key' is not an RSA key"
# Once there is a published key, nothing else is a release.
published=packaging/rpm/RPM-GPG-KEY-afferent
fingerprint() { gpg --batch --with-colons --show-keys "$1" | awk -F: '$1 == "fpr" { print $10; exit }'; }
if [ -e "$published" ] && [ "$(fingerprint "$published")" != "$(fingerprint "$work/public")" ]; then
    fail "key '$key' is not the one in $published"
fi

rpmsign --define "__gpg $(command -v gpg)" --define "_gpg_name $key" --define '_gpg_digest_algo sha256' --addsign "${packages[@]}" >"$work/log" 2>&1 ||
    { cat "$work/log" >&2; fail "rpmsign failed"; }
rpmkeys --dbpath "$work/db" --import "$work/public"
for package in "${packages[@]}"; do
    said=$(rpmkeys --dbpath "$work/db" --checksig "$package") || fail "$said"
    [[ $said == *'signatures OK' ]] || fail "$said"
    echo "sign-rpm: $said"
done
install -m 0644 "$work/public" "$public"
