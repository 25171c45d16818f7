#!/usr/bin/env bash
# The static binary and the RPM without a machine to boot: what they do, what they leave behind.
# Usage: tests/packaging/run.sh      PACKAGING_BINARY=FILE tests that one instead of building the static binary
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
pids=()
cleanup() {
    [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
passed=0
ok() { passed=$((passed + 1)); echo "ok    $*"; }
fail() { echo "FAIL  $*" >&2; exit 1; }
same() { [ "$2" = "$3" ] || { diff <(echo "$2") <(echo "$3") | head -20 >&2; fail "$1"; }; ok "$1"; }

binary=${PACKAGING_BINARY:-$PWD/target/static/$(uname -m)/afferent}
[ -n "${PACKAGING_BINARY:-}" ] || packaging/build-static.sh
export RPM_BINARY=$binary

# Debian's rpm tells everybody to use alien; nothing else that rpm says is left out.
rpm_in() {
    local root=$1
    shift
    { rpm --root "$root" --dbpath /var/lib/rpm "$@" 2>&3 3>&-; } 3> >(grep -v 'use Alien\|assuming you know' >&2 || true)
}

echo "-- the RPM"
mkdir "$work/first" "$work/second"
packaging/build-rpm.sh >/dev/null
cp target/rpm/afferent-*-1*."$(uname -m)".rpm "$work/first/"
packaging/build-rpm.sh >/dev/null
cp target/rpm/afferent-*-1*."$(uname -m)".rpm "$work/second/"
one=$(compgen -G "$work/first/*.rpm")
cmp "$one" "$work"/second/*.rpm || fail "two builds differ"
ok "built twice it is byte-identical"
RPM_RELEASE=2 RPM_CONFIG_NOTE='A line that the next release adds.' packaging/build-rpm.sh >/dev/null
two=$(compgen -G "$PWD/target/rpm/afferent-*-2*.$(uname -m).rpm")
mv "$two" "$work/"
two=$work/${two##*/}
if command -v rpmlint >/dev/null; then
    rpmlint --strict -c packaging/rpm/rpmlint.toml "$one" packaging/rpm/afferent.spec >"$work/rpmlint" 2>&1 || { cat "$work/rpmlint"; fail "rpmlint"; }
    ok "rpmlint has nothing to say"
else
    echo "note: rpmlint is not here; make lint installs it"
fi
same "it needs nothing but a shell" "$(rpm -qp --requires "$one" 2>/dev/null | grep -v -e '^rpmlib(' -e '^config(' | sort -u)" /bin/sh
same "its configuration files are marked so" "$(rpm -qp --configfiles "$one" 2>/dev/null)" \
    "$(printf '/etc/afferent/%s.toml\n' mirror roster sense serve)"

echo "-- install, upgrade, erase in a root of its own"
root=$work/root
# The scriptlets get a shell, and a systemctl that writes down what it was asked.
mkdir -p "$root"/{bin,usr/bin,var/lib/rpm,var/tmp,run/systemd/system,dev,etc/systemd/system}
touch "$root/dev/null"
cp "$(command -v busybox)" "$root/bin/busybox"
ln -s busybox "$root/bin/sh"
cat >"$root/usr/bin/systemctl" <<'END'
#!/bin/sh
echo "$*" >>/systemctl.log
END
chmod +x "$root/usr/bin/systemctl"
asked() { cat "$root/systemctl.log" 2>/dev/null || true; rm -f "$root/systemctl.log"; }
units="afferent-serve.service afferent-sense.service afferent-mirror.service"
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
# Directories that a real system has anyway do not count.
left=$(cd "$root" && find . -path ./var/lib/rpm -prune -o -path ./usr -prune -o -print | sort)
left=$(comm -13 <(echo "$before") <(echo "$left"))
same "it leaves the edited configuration and the state, nothing else" "$left" "$(printf '%s\n' ./etc/afferent \
    ./etc/afferent/serve.toml.rpmnew ./etc/afferent/serve.toml.rpmsave \
    ./var/lib/private ./var/lib/private/afferent ./var/lib/private/afferent/serve ./var/lib/private/afferent/serve/serve.redb)"
same "no file of it is left under /usr" "$(cd "$root" && find usr -name '*afferent*')" ""

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
"$binary" sense --vm "web-1=unix:$work/agent" --deliver "file:$work/central" --state-dir "$work/sense" 2>"$work/sense.log" &
pids+=($!)
await grep -qs '"afferent"' "$work/central"
ok "serve and sense deliver the first report"
rpm_in "$guest" -i --nodeps --nosignature "$work"/build/RPMS/noarch/small-*.rpm
await grep -qs '"small"' "$work/central"
ok "and the next one, after rpm -i"
"$binary" pull "unix:$work/agent" | grep -q '^small ' || fail "pull does not show the package"
ok "pull shows it to people"
kill "${pids[@]}"
wait "${pids[@]}" || fail "SIGTERM was not an orderly end"
pids=()
ok "both end in order when asked to"

echo
echo "$passed passed, 0 failed"
