#!/usr/bin/env bash
# Usage: tests/vm/prepare.sh kernel|machine|selinux|payload BINARY, in this order
# Makes what the virtual machines need, under target/vm, and keeps it for the next run:
#   kernel/ initrd.gz   a distribution kernel and an initramfs that mounts the disk
#   base.img            a Debian system with systemd and rpm, without our package
#   selinux.img         the same with auditd and Debian's SELinux policy, without its rules that hide denials; selinux.py labels its files
#   tools/bin           vhost-device-vsock, the VSOCK device as a user program
# Made anew each time: payload.img, the second disk: our RPMs, and small packages to install and remove.
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH=$PATH:$HOME/.cargo/bin:/usr/sbin:/sbin
cache=$PWD/target/vm
mkdir -p "$cache"
say() { printf 'vm: %s\n' "$*"; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

command -v apt-get >/dev/null || { say "the guests are made from Debian packages, and there is no apt-get here"; exit 1; }

# Where this machine gets its own packages from, the guests get theirs.
# shellcheck source=/dev/null
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-bookworm}")
mirror=$(apt-get indextargets --format "\$(SITE) \$(RELEASE) \$(COMPONENT)" 'Created-By: Packages' |
    awk -v suite="$suite" '$2 == suite && $3 == "main" { print $1; exit }')

device() {
    [ -x "$cache/tools/bin/vhost-device-vsock" ] && return
    say "building the VSOCK device (once, about a minute)"
    cargo install vhost-device-vsock --version 0.3.0 --locked --quiet --root "$cache/tools"
}

kernel() {
    [ -e "$cache/kernel/done" ] && return
    say "fetching a kernel"
    rm -rf "$cache/kernel"
    mkdir -p "$cache/kernel"
    local name
    name=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)
    [ -n "$name" ] || { as_root apt-get update -qq; name=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -1); }
    (cd "$cache/kernel" && apt-get download -qq -o APT::Sandbox::User=root "$name" && dpkg-deb -x ./*.deb . && rm ./*.deb)
    cp "$cache"/kernel/boot/vmlinuz-* "$cache/vmlinuz"
    depmod -b "$cache/kernel" "$(ls "$cache/kernel/lib/modules")"
    rm -f "$cache/initrd.gz"
    touch "$cache/kernel/done"
}

# The initramfs loads every module that the guests need, VSOCK included, and hands over to the disk.
initramfs() {
    [ -e "$cache/initrd.gz" ] && return
    local tree version
    tree=$(mktemp -d)
    version=$(ls "$cache/kernel/lib/modules")
    mkdir -p "$tree"/{bin,modules,proc,dev,disk}
    cp /bin/busybox "$tree/bin/"
    for module in virtio_pci virtio_blk ext4 virtio_rng vmw_vsock_virtio_transport vsock_loopback; do
        modprobe -d "$cache/kernel" -S "$version" --show-depends "$module" | awk '$1 == "insmod" { print $2 }'
    done | awk '!seen[$0]++' | while read -r file; do
        cp "$file" "$tree/modules/"
        basename "$file"
    done >"$tree/order"
    cat >"$tree/init" <<-'END'
		#!/bin/busybox sh
		/bin/busybox mount -t devtmpfs dev /dev
		/bin/busybox mount -t proc proc /proc
		while read module; do /bin/busybox insmod /modules/$module; done </order
		until [ -b /dev/vda ]; do /bin/busybox usleep 20000; done
		/bin/busybox mount -t ext4 /dev/vda /disk
		/bin/busybox umount /proc
		exec /bin/busybox switch_root /disk /sbin/init
	END
    chmod +x "$tree/init"
    (cd "$tree" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1 >"$cache/initrd.gz")
    rm -rf "$tree"
}

# $1: the image's name, then the packages that it has besides. An image older than this file is made again.
system() {
    local image=$cache/$1.img root=$cache/$1.root packages=systemd-sysv,udev,kmod,procps,rpm
    [ -e "$image" ] && [ ! tests/vm/guest-setup.sh -nt "$image" ] && [ ! tests/vm/prepare.sh -nt "$image" ] && return
    shift
    for package in "$@"; do packages+=,$package; done
    say "installing a Debian $suite with systemd, rpm${*:+, $*} into a directory (once, one to two minutes)"
    as_root rm -rf "$root"
    as_root debootstrap --variant=minbase --include="$packages" "$suite" "$root" "$mirror" >"$image.log" ||
        { tail -20 "$image.log"; exit 1; }
    as_root bash tests/vm/guest-setup.sh "$root"
    [ ! -e "$root/etc/selinux/default" ] || as_root chroot "$root" semodule --disable_dontaudit --build >>"$image.log" 2>&1
    as_root mke2fs -q -t ext4 -d "$root" -L root "$image.new" 1200M
    as_root chmod 0644 "$image.new"
    mv "$image.new" "$image"
    as_root rm -rf "$root"
}

# A package that only has a name and a version.
small_package() {
    local name=$1 version=$2 out=$3
    cat >"$out/$name.spec" <<-END
		Name: $name
		Version: $version
		Release: 1
		Summary: A small package for tests
		License: Apache-2.0
		BuildArch: noarch
		%description
		It has no files.
		%files
	END
    rpmbuild -bb --quiet --define "_topdir $out/build" --define "_rpmdir $out" --define "_dbpath $out/build/db" \
        --define '_rpmfilename %{NAME}-%{VERSION}.rpm' "$out/$name.spec" >/dev/null 2>&1
    rm -f "$out/$name.spec"
}

# $1: the product's static binary.
payload() {
    local tree=$cache/payload
    rm -rf "$tree"
    mkdir -p "$tree"
    for version in 1.0 2.0 3.0; do small_package probe "$version" "$tree"; done
    for number in 1 2 3 4 5; do small_package "extra$number" 1.0 "$tree"; done
    rm -rf "$tree/build"
    # The next release of it has a change in a configuration file.
    RPM_BINARY=$1 RPM_OUT=$tree packaging/build-rpm.sh x86_64 >/dev/null
    RPM_BINARY=$1 RPM_OUT=$tree RPM_RELEASE=2 RPM_CONFIG_NOTE='A line that the next release adds.' packaging/build-rpm.sh x86_64 >/dev/null
    if packaging/build-old.sh rpm; then
        mkdir "$tree/old"
        cp target/v0.1.0/afferent-*.x86_64.rpm "$tree/old/"
    fi
    cp tests/vm/central.pl tests/vm/forward.pl "$tree/"
    cat >"$tree/inventory.json" <<-'END'
		{ "expected_machines": [ { "bmc_mac_address": "02:00:5e:50:00:01", "chassis_serial_number": "MC-1",
		  "metadata": { "labels": [ { "key": "manufacturer", "value": "Foxwell" } ] } } ] }
	END
    rm -f "$cache/payload.img"
    mke2fs -q -t ext4 -d "$tree" -L payload "$cache/payload.img" 64M
}

case ${1:-} in
kernel) kernel; initramfs ;;
machine) system base; device ;;
selinux) system selinux selinux-policy-default policycoreutils auditd ;;
payload) payload "$2" ;;
*) echo "prepare: kernel, machine, selinux or payload BINARY" >&2 && exit 2 ;;
esac
