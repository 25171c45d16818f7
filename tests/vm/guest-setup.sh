#!/usr/bin/env bash
# Turns a fresh Debian tree ($1) into a test guest: quick to boot, and commands come in over the second serial port.
set -euo pipefail
root=$1

# Debian keeps a user's RPM database at home; a machine's is here.
mkdir -p "$root/etc/rpm" "$root/mnt"
echo '%_dbpath /var/lib/rpm' >"$root/etc/rpm/macros"
mkdir -p "$root/var/lib/rpm"

# Each guest is given its own on the kernel command line.
: >"$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id"
echo guest >"$root/etc/hostname"
printf '%s\n' 'LABEL=payload /mnt ext4 ro,nofail 0 0' >"$root/etc/fstab"

for unit in apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer dpkg-db-backup.timer \
    getty@tty1.service serial-getty@ttyS0.service systemd-pcrphase.service systemd-pcrphase-sysinit.service \
    systemd-networkd.service systemd-network-generator.service systemd-resolved.service systemd-timesyncd.service \
    systemd-firstboot.service ldconfig.service systemd-hwdb-update.service systemd-journal-catalog-update.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done

# Reads one command a line (base64), runs it, says DONE with its result at once, then gives the output.
cat >"$root/usr/local/sbin/harness" <<'END'
#!/bin/bash
stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1
echo READY >&3
while IFS= read -r line <&3; do
    command=$(base64 -d <<<"$line") || continue
    bash -c "$command" >/run/harness.out 2>&1 </dev/null 3>&-
    printf 'DONE %s\n' $? >&3
    printf 'OUT %s\n' "$(base64 -w0 /run/harness.out)" >&3
done
END
chmod +x "$root/usr/local/sbin/harness"
cat >"$root/etc/systemd/system/harness.service" <<'END'
[Unit]
Description=Commands from the test harness
After=multi-user.target
[Service]
ExecStart=/usr/local/sbin/harness
Restart=always
[Install]
WantedBy=multi-user.target
END
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -sf ../harness.service "$root/etc/systemd/system/multi-user.target.wants/harness.service"
