#!/usr/bin/env bash
# The static binary and the RPM without a machine to boot: what they do, what they leave behind.
# Usage: tests/packaging/run.sh      PACKAGING_BINARY=FILE tests that one instead of building the static binary
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
pids=()
cleanup() {
    [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null || true
    [ ! -d "$work/gnupg" ] || gpgconf --homedir "$work/gnupg" --kill all || true
    rm -rf "$work"
}
trap cleanup EXIT
passed=0
ok() { passed=$((passed + 1)); echo "ok    $*"; }
fail() { echo "FAIL  $*" >&2; exit 1; }
same() { [ "$2" = "$3" ] || { diff <(echo "$2") <(echo "$3") | head -20 >&2; fail "$1"; }; ok "$1"; }

binary=${PACKAGING_BINARY:-$PWD/target/static/$(uname -m)/afferent}
[ -n "${PACKAGING_BINARY:-}" ] || packaging/build-static.sh
export RPM_BINARY=$binary PATH=$PWD/target/tools/bin:$PATH

# Debian's rpm tells everybody to use alien; nothing else that rpm says is left out.
rpm_in() {
    local root=$1 result=0
    shift
    rpm --root "$root" --dbpath /var/lib/rpm "$@" 2>"$work/said" || result=$?
    grep -v 'use Alien\|assuming you know' "$work/said" >&2 || true
    return $result
}

# Both architectures, as far as there is a binary of the other one and a way to run it.
arch=$(uname -m)
declare -A binaries=([$arch]=$binary)
for other in x86_64 aarch64; do
    if [ $other != "$arch" ] && [ -e "target/static/$other/afferent" ]; then binaries[$other]=$PWD/target/static/$other/afferent; fi
    [ -n "${binaries[$other]:-}" ] || echo "note: nothing for $other: make static ARCH=$other makes its binary"
done

echo "-- the static binary"
for each in "${!binaries[@]}"; do
    run=("${binaries[$each]}")
    if [ "$each" != "$arch" ]; then
        emulator=$(command -v "qemu-$each-static" || command -v "qemu-$each" || true)
        [ -n "$emulator" ] || { echo "note: $each cannot be run here"; continue; }
        run=("$emulator" "${binaries[$each]}")
    fi
    "${run[@]}" --version | grep -Eqx "afferent $(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1) \(([0-9a-f]{12}(-dirty)?|unknown)\)" ||
        fail "$each: --version says $("${run[@]}" --version)"
    ok "$each: --version has the version and the commit"
    for database in amazonlinux-2023-sqlite/rpmdb.sqlite sle-15-bci-ndb/Packages.db centos-7-many-bdb/Packages; do
        from=tests/fixtures/rpmdb/$database.xz root=$work/$each/${database%/*}
        mkdir -p "$root/var/lib/rpm"
        xz -dc "$from" >"$root/var/lib/rpm/${database#*/}"
        same "$each: reads ${database%/*} as rpm does" "$("${run[@]}" scan --root "$root" --format tsv)" "$(grep -v ^gpg-pubkey "${from%/*}/packages.tsv")"
    done
done

echo "-- the RPM"
for each in "${!binaries[@]}"; do
    for time in first second; do RPM_BINARY=${binaries[$each]} RPM_OUT=$work/$time packaging/build-rpm.sh "$each" >/dev/null; done
    cmp "$work/first"/*."$each".rpm "$work/second"/*."$each".rpm || fail "$each: two builds differ"
    ok "$each: built twice it is byte-identical, sha256 $(sha256sum "$work/first"/*."$each".rpm | cut -d' ' -f1)"
    rpmlint --strict -c packaging/rpm/rpmlint.toml "$work/first"/*."$each".rpm packaging/rpm/afferent.spec >"$work/rpmlint" 2>&1 ||
        { cat "$work/rpmlint"; fail "rpmlint"; }
    ok "$each: rpmlint has nothing to say"
done
one=$(compgen -G "$work/first/*.$arch.rpm")
RPM_RELEASE=2 RPM_OUT=$work RPM_CONFIG_NOTE='A line that the next release adds.' packaging/build-rpm.sh >/dev/null
two=$(compgen -G "$work/afferent-*-2.$arch.rpm")
same "it needs nothing but a shell" "$(rpm -qp --requires "$one" 2>/dev/null | grep -v -e '^rpmlib(' -e '^config(' | sort -u)" /bin/sh
same "every rpm since RHEL 6 reads it" "$(rpm -qp --requires "$one" 2>/dev/null | grep '^rpmlib(' | cut -d' ' -f1 | sort -u | tr '\n' ' ')" \
    "rpmlib(CompressedFileNames) rpmlib(FileDigests) rpmlib(PayloadFilesHavePrefix) "
same "its configuration files are marked so" "$(rpm -qp --configfiles "$one" 2>/dev/null)" \
    "$(printf '%s\n' /etc/afferent/{mirror,roster,sense,serve}.toml /etc/logrotate.d/afferent)"
same "it carries our licence and those of others" "$(rpm -qp --licensefiles "$one" 2>/dev/null | xargs -n1 basename)" \
    "$(printf '%s\n' LICENSE THIRD-PARTY-LICENSES.txt)"

# A root for scriptlets: a shell, and helpers of systemd that write down what they were asked.
new_root() {
    root=$1
    mkdir -p "$root"/{bin,usr/bin,usr/lib/systemd,var/lib/rpm,var/tmp,run/systemd/system,dev,etc/systemd/system}
    touch "$root/dev/null"
    cp "$(command -v busybox)" "$root/bin/busybox"
    ln -s busybox "$root/bin/sh"
    for helper in usr/bin/systemctl usr/lib/systemd/systemd-update-helper; do
        printf '#!/bin/sh\necho "%s$*" >>/asked\n' "${2:-}" >"$root/$helper"
        chmod +x "$root/$helper"
    done
}
asked() { cat "$root/asked" 2>/dev/null || true; rm -f "$root/asked"; }
units="afferent-serve.service afferent-sense.service afferent-mirror.service"

echo "-- a distribution's own systemd macros"
macros=$(rpm --showrc | sed -n 's/^Macro path: //p')
[ "$(rpm --eval '%{?systemd_post:1}')" = 1 ] || macros+=:$PWD/tests/packaging/systemd.macros
for release in 1 2; do
    RPM_RELEASE=$release RPM_OUT=$work/macros packaging/build-rpm.sh "$arch" --with systemd_macros --macros "$macros" >/dev/null
done
new_root "$work/fedora"
rpm_in "$root" -i --nodeps --nosignature "$work"/macros/*-1.*.rpm
same "install hands the units over" "$(asked)" "install-system-units $units"
rpm_in "$root" -U --nodeps --nosignature "$work"/macros/*-2.*.rpm
same "upgrade marks them for a restart, nothing else" "$(asked)" "mark-restart-system-units $units"
rpm_in "$root" -e --nodeps afferent
same "erase takes them back" "$(asked)" "remove-system-units $units"

echo "-- install, upgrade, erase in a root of its own"
new_root "$work/root"
before=$(cd "$root" && find . | sort)

rpm_in "$root" -i --nodeps --nosignature "$one"
same "install applies the preset and reloads" "$(asked)" "$(printf '%s\n' "--no-reload preset $units" daemon-reload)"
same "every file is as packaged" "$(rpm_in "$root" -V --nodeps afferent)" ""
for unit in $units; do
    same "the preset leaves $unit off" \
        "$(systemctl --root="$root" preset "$unit" >/dev/null 2>&1; systemctl --root="$root" is-enabled "$unit" 2>/dev/null || true)" disabled
done
same "the binary runs from there" "$(chroot "$root" /usr/bin/afferent --version | cut -d' ' -f1)" afferent
for mode in serve sense mirror; do
    chroot "$root" /usr/bin/afferent check-config $mode /etc/afferent/$mode.toml || fail "it refuses its own $mode.toml"
done
ok "and accepts the configuration that came with it"

sed -i 's/^#rescan_interval.*/rescan_interval = "6h"/' "$root/etc/afferent/serve.toml"
mkdir -p "$root/var/lib/private/afferent/serve"
echo state >"$root/var/lib/private/afferent/serve/serve.redb"
rpm_in "$root" -U --nodeps --nosignature "$two" 2>"$work/upgrade"
grep -q 'serve.toml created as .*serve.toml.rpmnew' "$work/upgrade" || fail "rpm did not say that it kept the configuration: $(cat "$work/upgrade")"
same "upgrade reloads and restarts only what runs" "$(asked)" "$(printf '%s\n' daemon-reload daemon-reload "try-restart $units")"
same "upgrade keeps the edited configuration" "$(grep -c '^rescan_interval = "6h"' "$root/etc/afferent/serve.toml")" 1
same "and lays the new one beside it" "$(tail -1 "$root/etc/afferent/serve.toml.rpmnew")" "# A line that the next release adds."
same "a configuration that nobody edited is replaced" "$(tail -1 "$root/etc/afferent/sense.toml")" "# A line that the next release adds."

rpm_in "$root" -e --nodeps afferent 2>"$work/erase"
same "erase disables and stops, then reloads" "$(asked)" "$(printf '%s\n' "--no-reload disable --now $units" daemon-reload)"
# Directories that systemd, man and rpm itself have on every real system are not ours to remove.
left=$(cd "$root" && find . -path ./var/lib/rpm -prune -o -print | sort)
left=$(comm -13 <(echo "$before") <(echo "$left"))
same "it leaves the edited configuration and the state, nothing else" "$left" "$(printf '%s\n' ./etc/afferent \
    ./etc/afferent/serve.toml.rpmnew ./etc/afferent/serve.toml.rpmsave \
    ./usr/lib/systemd/system ./usr/lib/systemd/system-preset \
    ./usr/share ./usr/share/doc ./usr/share/licenses ./usr/share/man ./usr/share/man/man1 ./usr/share/man/man5 \
    ./var/lib/private ./var/lib/private/afferent ./var/lib/private/afferent/serve ./var/lib/private/afferent/serve/serve.redb)"

echo "-- a signed RPM"
signed_rpm() {
    mkdir -m 0700 "$work/gnupg"
    export GNUPGHOME=$work/gnupg
    # A key for this run alone.
    gpg --batch --quiet --passphrase '' --quick-generate-key 'throw-away <nobody@afferent.invalid>' rsa3072 sign 1d 2>"$work/gpg.log" ||
        { cat "$work/gpg.log" >&2; fail "gpg makes no key"; }
    local key signed=$work/signed file said
    key=$(gpg --batch --with-colons --list-keys 2>/dev/null | awk -F: '$1 == "fpr" { print $10; exit }')
    mkdir "$signed"
    cp "$one" "$signed/"
    packaging/sign-rpm.sh "$key" "$signed" >/dev/null
    file=$signed/${one##*/}
    # What else is in it did not change by signing.
    same "signing changes nothing but the signature" "$(rpm2cpio "$file" | sha256sum)" "$(rpm2cpio "$one" | sha256sum)"
    check_signature() { { rpm --dbpath "$work/keys" -K "$1" 2>&1 || true; } | sed 's/.*: //'; }
    mkdir "$work/keys"
    rpm --dbpath "$work/keys" --import "$signed/RPM-GPG-KEY-afferent"
    same "rpm -K, with the public key imported: signatures OK" "$(check_signature "$file")" "digests signatures OK"
    same "without a signature there is none to accept" "$(check_signature "$one")" "digests OK"
    # The last byte is of the payload; the summary is of the header.
    local size header
    size=$(stat -c %s "$file")
    header=$(grep -abo 'Tells Central what' "$file" | head -1 | cut -d: -f1)
    for byte in $((size - 1)) "$header"; do
        cp "$file" "$work/changed.rpm"
        printf '\xff' | dd of="$work/changed.rpm" bs=1 seek="$byte" conv=notrunc status=none
        said=$(check_signature "$work/changed.rpm")
        [[ $said == *'NOT OK'* ]] || fail "a changed byte at $byte of $size is accepted: $said"
    done
    ok "a changed byte in the header or in the payload makes it fail"
    mkdir "$work/other-keys"
    said=$(rpm --dbpath "$work/other-keys" -K "$file" 2>&1) && fail "without the key it is accepted: $said"
    [[ $said == *'SIGNATURES NOT OK'* ]] || fail "without the key: $said"
    ok "without the key the signature is not accepted"
    new_root "$work/signed-root"
    rpm_in "$root" --import "$signed/RPM-GPG-KEY-afferent"
    rpm_in "$root" --define '_pkgverify_level signature' -i --nodeps --noscripts "$one" 2>/dev/null &&
        fail "a system that wants signatures installs it without one"
    rpm_in "$root" --define '_pkgverify_level signature' -i --nodeps --noscripts "$file"
    same "a system that wants signatures installs the signed one alone" "$(rpm_in "$root" -q afferent)" "$(rpm -qp "$one" 2>/dev/null)"
    unset GNUPGHOME
}
if command -v gpg >/dev/null && command -v rpmsign >/dev/null; then signed_rpm; else
    echo "skipped: gpg or rpmsign is not here, so that no RPM is signed"
fi

echo "-- the static binary at work"
guest=$work/guest
mkdir -p "$guest/var/lib/rpm" "$work/state" "$work/sense"
cat >"$work/small.spec" <<'END'
Name: small
Version: 1.0
Release: 1
Summary: A small package for tests
License: Apache-2.0
BuildArch: noarch
%description
It has no files.
%files
END
rpmbuild -bb --quiet --define "_topdir $work/build" --define "_dbpath $work/build/db" "$work/small.spec" >/dev/null 2>&1
rpm_in "$guest" -i --nodeps --nosignature "$one" --noscripts
query='%{NAME}\t%{EPOCHNUM}\t%{VERSION}\t%{RELEASE}\t%{ARCH}\t%{SOURCERPM}\t%{MODULARITYLABEL}\n'
same "scan equals rpm -qa" "$("$binary" scan --root "$guest" --format tsv)" "$(rpm_in "$guest" -qa --qf "$query" | LC_ALL=C sort)"

await() { # a command that succeeds in the end, for at most 20 s
    local n
    for ((n = 0; n < 400; n++)); do
        if "$@"; then return; fi
        sleep 0.05
    done
    fail "never: $*"
}
"$binary" serve --root "$guest" --listen "unix:$work/agent" --state-dir "$work/state" 2>"$work/serve.log" &
pids+=($!)
await test -S "$work/agent"
# Port 0: the sensor says in its log which one it got.
"$binary" sense --vm "web-1=unix:$work/agent" --deliver "file:$work/central" --state-dir "$work/sense" --metrics 0 2>"$work/sense.log" &
pids+=($!)
await grep -qs '"afferent"' "$work/central"
ok "serve and sense deliver the first report"
rpm_in "$guest" -i --nodeps --nosignature "$work"/build/RPMS/noarch/small-*.rpm
await grep -qs '"small"' "$work/central"
ok "and the next one, after rpm -i"
address=$(sed -n 's/.* metrics address=\([0-9.:]*\).*/\1/p' "$work/sense.log")
exec 3<>"/dev/tcp/${address/://}"
printf 'GET /metrics HTTP/1.1\r\n\r\n' >&3
sed '1,/^\r$/d' <&3 | promtool check metrics || fail "promtool does not like the metrics"
exec 3>&-
ok "promtool has nothing to say about its metrics"
"$binary" pull "unix:$work/agent" | grep -q '^small ' || fail "pull does not show the package"
ok "pull shows it to people"
kill "${pids[@]}"
wait "${pids[@]}" || fail "SIGTERM was not an orderly end"
pids=()
ok "both end in order when asked to"

echo
echo "$passed passed, 0 failed"
