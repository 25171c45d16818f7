#!/usr/bin/env bash
# Boots real machines and runs every scenario in them; see scenarios.py. From nothing this takes under 15 minutes.
# Usage: tests/vm/run.sh [selinux]     selinux: in one that enforces SELinux instead; see selinux.py
# VM_SCENARIOS="reboot rollback" runs only those (after install and enable); VM_ACCEL=kvm|tcg forces one.
set -euo pipefail
cd "$(dirname "$0")/../.."

if [ "$(uname -m)" != x86_64 ] || ! command -v apt-get >/dev/null; then
    echo "vm: not run: the guests are x86_64 Debian systems, made with apt-get and debootstrap"
    exit 0
fi
script=scenarios
case ${1:-} in '') ;; selinux) script=selinux ;; *) echo "vm: selinux or nothing, not '$1'" >&2 && exit 2 ;; esac
began=$SECONDS
tests/vm/prepare.sh kernel
# While the processor builds the product, the network fetches the system of the machines. (The kernel is fetched with
# apt-get, which must not run twice at a time.)
mkdir -p target/vm
{ tests/vm/prepare.sh machine && { [ $script != selinux ] || tests/vm/prepare.sh selinux; }; } >target/vm/machine.log 2>&1 &
machine=$!
trap 'wait "$machine" 2>/dev/null || true' EXIT
binary=${VM_BINARY:-target/static/x86_64/afferent}
[ -n "${VM_BINARY:-}" ] || packaging/build-static.sh x86_64
echo "vm: binary ready after $((SECONDS - began)) s"
wait "$machine" || { cat target/vm/machine.log >&2; exit 1; }
cat target/vm/machine.log
tests/vm/prepare.sh payload "$binary"
echo "vm: machines ready after $((SECONDS - began)) s"
PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 -u "tests/vm/$script.py" target/vm "$binary"
echo "vm: all done after $((SECONDS - began)) s"
