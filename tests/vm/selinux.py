#!/usr/bin/env python3
"""The RPM and its three services in a machine that enforces SELinux: the policy denies them nothing.

Usage: selinux.py CACHE BINARY. The policy is Debian's `default`, built without its `dontaudit` rules, so that a denial which
the policy would hide is counted too. Denials of other programs (systemd's own on this minimal system) are shown by domain.
"""

import collections
import os
import re
import shutil
import sys
import tempfile

from guest import Guest, kvm_works
from harness import SERVE, Central, Report, Sensor, versions

SERVICES = (SERVE, "afferent-sense", "afferent-mirror")
KERNEL = "security=selinux audit=1 audit_backlog_limit=8192 enforcing="

# Asks for an executable heap, which the policy denies to every domain: mprotect(2) on the page below the break.
EXECUTABLE_HEAP = """perl -e '$end = syscall(12, 0); $page = ($end - 1) & ~4095; exit(syscall(10, $page, 4096, 7) == 0 ? 9 : 0)'"""


class Denials:
    """What the audit log of the guest says was denied."""

    def __init__(self, guest):
        self.guest = guest

    def all(self):
        """Each denial as (program, domain, line)."""
        log = self.guest.out("cat /var/log/audit/audit.log")
        lines = [line for line in log.splitlines() if re.search(r"avc: +denied|SELINUX_ERR", line)]
        program = re.compile(r'comm="([^"]*)"')
        domain = re.compile(r"scontext=\w+:\w+:(\w+)")
        found = [(program.search(line), domain.search(line), line) for line in lines]
        return [(p[1] if p else "?", d[1] if d else "?", line) for p, d, line in found]

    def of(self, programs, domain):
        return [line for program, by, line in self.all() if program in programs or by == domain or "afferent" in line]


def story(report, guest, central, sensor):
    check = report.check
    guest.kernel = KERNEL + "0"
    guest.start()
    guest.run("setfiles -F /etc/selinux/default/contexts/files/file_contexts / 2>&1", limit=600)
    guest.shut_down()
    guest.kernel = KERNEL + "1"
    guest.start()
    check(guest.out("cat /sys/fs/selinux/enforce") == "1" and guest.out("cat /sys/fs/selinux/policyvers") != "",
          "the kernel enforces a policy (/sys/fs/selinux/enforce is 1)")
    check("Loaded policy name:             default" in guest.out("sestatus"), "it is Debian's policy `default`")
    check(guest.out("systemctl is-active auditd") == "active" and guest.out("auditctl -s | awk '$1 == \"lost\" { print $2 }'") == "0",
          "auditd runs, and has lost no record")

    guest.out("rpm -i --nodeps /mnt/afferent-*-1.x86_64.rpm")
    guest.out("sed -i 's/^#allow_cid.*/allow_cid = [\"2\", \"1\"]/' /etc/afferent/serve.toml"
              " && printf '[[vm]]\\nid = \"self\"\\naddress = \"vsock:1:818\"\\n' >>/etc/afferent/roster.toml"
              " && cp /mnt/inventory.json /etc/afferent/ && touch /etc/afferent/mirror.enabled"
              " && sed -i 's|^#core = .*|core = \"file:/etc/afferent/inventory.json\"|' /etc/afferent/mirror.toml")
    guest.out("systemctl enable --now " + " ".join(SERVICES))
    pids = [guest.out(f"systemctl show -P MainPID {service}") for service in SERVICES]
    domains = {guest.out(f"cat /proc/{pid}/attr/current").rstrip("\0").split(":")[2] for pid in pids}
    check(len(domains) == 1, f"serve, sense and mirror run in the domain {', '.join(sorted(domains))}", str(domains))
    domain = domains.pop()

    sensor.start([guest])
    central.wait(guest.name, lambda line: "afferent" in versions(line), "the first report")
    check(True, "serve scans, and answers over VSOCK")
    guest.out("rpm -i /mnt/probe-1.0.rpm")
    central.wait(guest.name, lambda line: versions(line).get("probe") == "1.0-1", "the installed package")
    check(True, "serve sees a package that is installed")
    guest.out("systemctl restart " + " ".join(SERVICES) + " && systemctl reload " + " ".join(SERVICES))
    guest.out("rpm -U /mnt/probe-2.0.rpm")
    central.wait(guest.name, lambda line: versions(line).get("probe") == "2.0-1", "the upgraded package")
    check(True, "after a restart and a reload of all three it sees the next one")
    guest.run("timeout 90 sh -c 'until grep -qs 2.0 /var/log/afferent/reports.ndjson && journalctl -u afferent-mirror | grep -q mirrored;"
              " do sleep 0.2; done'")
    result, status = guest.run("afferent status", check=False)[0]
    check(result == 0 and all(word in status for word in ("serve", "sense", "mirror")), "sense delivers to its file, the mirror mirrors, and status "
          "reaches all three", status)
    guest.out("rpm -U --nodeps /mnt/afferent-*-2.x86_64.rpm")
    central.wait(guest.name, lambda line: versions(line).get("afferent", "").endswith("-2"), "the upgrade of afferent")
    check(guest.out("systemctl is-active " + " ".join(SERVICES)).split() == ["active"] * 3, "rpm -U of afferent restarts them under it")

    denials = Denials(guest)
    ours = denials.of({"afferent"}, domain)
    check(not ours, f"0 denials of the services, of their domain {domain}, and of anything named afferent", "\n".join(ours))
    others = collections.Counter(by for _, by, _ in denials.all())
    report.notes.append("denials of others, by domain: " + (", ".join(f"{by} {n}" for by, n in sorted(others.items())) or "none"))

    # The same kind of unit, in the same domain, with something that is denied: it fails, and it is counted.
    # (The page that it asks about is its own: nothing but the policy is in the way.)
    guest.out(f"cat >/usr/local/bin/heap <<'END'\n#!/bin/sh\ncat /proc/self/attr/current >/run/heap.domain\n{EXECUTABLE_HEAP}\nEND\n"
              "chmod +x /usr/local/bin/heap && restorecon /usr/local/bin/heap && mkdir -p /run/systemd/system && printf '[Service]\\nType=oneshot\\n"
              "NoNewPrivileges=yes\\nExecStart=/usr/local/bin/heap\\n' >/run/systemd/system/heap.service && systemctl daemon-reload && systemctl start heap")
    probed = guest.out("cat /run/heap.domain").rstrip("\0").split(":")[2]
    seen = [line for line in denials.of({"perl"}, domain) if "execheap" in line and "permissive=0" in line]
    check(probed == domain and len(seen) >= 1, f"a program in {domain} that asks for an executable heap is denied it, and the denial is counted",
          f"{probed}: {seen}, {denials.all()[-3:]}")


def main():
    cache, binary = (os.path.abspath(argument) for argument in sys.argv[1:3])
    accel = os.environ.get("VM_ACCEL") or ("kvm" if kvm_works(cache) else "tcg")
    work = tempfile.mkdtemp(prefix="afferent-selinux-")
    report, central = Report(), Central(os.path.join(work, "central.ndjson"))
    sensor = Sensor(binary, work, central)
    guest = Guest("se-1", 6, cache, work, accel, base="selinux.img")
    try:
        report.scenario("the services under an enforcing SELinux", lambda: story(report, guest, central, sensor))
    finally:
        sensor.stop()
        guest.stop()
    print(f"\n{report.page(accel)}")
    if report.failed:
        print(f"logs and disks are in {work}")
        sys.exit(1)
    shutil.rmtree(work)


main()
