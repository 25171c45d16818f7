"""A fleet as there are many: web servers, databases and others of four systems, some of them behind with their updates."""

import random

from guests import Guest

# Of each system: its kernels, the newest last, and what is installed, with one version or several, the newest last.
RHEL9 = {
    "os": ("rhel", "9.4"), "release": "el9_4",
    "kernels": ["5.14.0-427.13.1.el9_4", "5.14.0-427.40.1.el9_4", "5.14.0-427.52.1.el9_4"],
    "packages": {
        "openssl": ["1:3.0.7-25.el9_3", "1:3.0.7-27.el9_4", "1:3.0.7-28.el9_4"], "openssl-libs": ["1:3.0.7-27.el9_4", "1:3.0.7-28.el9_4"],
        "glibc": ["2.34-100.el9_4.2", "2.34-100.el9_4.4"], "bash": ["5.1.8-9.el9"], "curl": ["7.76.1-29.el9_4", "7.76.1-29.el9_4.1"],
        "systemd": ["252-32.el9_4", "252-32.el9_4.7"], "sudo": ["1.9.5p2-10.el9_3"], "openssh-server": ["8.7p1-38.el9_4.1", "8.7p1-38.el9_4.4"],
        "python3": ["3.9.18-3.el9_4.1", "3.9.18-3.el9_4.6"], "expat": ["2.5.0-2.el9_4", "2.5.0-2.el9_4.1"], "zlib": ["1.2.11-40.el9"],
        "krb5-libs": ["1.21.1-2.el9_4"], "libxml2": ["2.9.13-6.el9_4"], "rpm": ["4.16.1.3-29.el9"], "tzdata": ["2024a-1.el9", "2024b-2.el9"],
    },
}
RHEL8 = {
    "os": ("rhel", "8.10"), "release": "el8_10",
    "kernels": ["4.18.0-553.el8_10", "4.18.0-553.30.1.el8_10"],
    "packages": {
        "openssl": ["1:1.1.1k-12.el8_9", "1:1.1.1k-14.el8_6"], "openssl-libs": ["1:1.1.1k-12.el8_9", "1:1.1.1k-14.el8_6"],
        "glibc": ["2.28-251.el8_10.5"], "bash": ["4.4.20-5.el8"], "curl": ["7.61.1-34.el8"], "systemd": ["239-82.el8"],
        "sudo": ["1.9.5p2-1.el8_9"], "openssh-server": ["8.0p1-25.el8_10"], "python36": ["3.6.8-39.module+el8.10.0"], "zlib": ["1.2.11-25.el8"],
        "rpm": ["4.14.3-31.el8"], "tzdata": ["2024a-1.el8", "2024b-4.el8"],
    },
}
ROLES = {
    "web": {"nginx": ["1:1.20.1-14.el9_2.1", "1:1.20.1-20.el9"], "mod_ssl": ["1:2.4.57-8.el9"], "brotli": ["1.0.9-6.el9"]},
    "db": {"postgresql-server": ["13.14-1.el9_3", "13.16-1.el9_4"], "pgbouncer": ["1.22.1-1.el9"]},
    "cache": {"redis": ["6.2.7-1.el9"], "memcached": ["1.6.9-7.el9"]},
    "build": {"gcc": ["11.4.1-3.el9"], "make": ["1:4.3-8.el9"], "git": ["2.43.0-1.el9", "2.43.5-1.el9_4"]},
}


def make(guests, seed=18):
    """So many guests; the same ones for the same seed."""
    draw = random.Random(seed)
    fleet = []
    for number in range(guests):
        role = draw.choice(list(ROLES))
        system = RHEL8 if draw.random() < 0.2 else RHEL9
        behind = draw.random() < 0.25
        packages = []
        for name, versions in {**system["packages"], **ROLES[role]}.items():
            packages.append((name, versions[0] if behind and draw.random() < 0.8 else versions[-1], "x86_64"))
        kernels = system["kernels"][: draw.randint(1, len(system["kernels"]))] if behind else system["kernels"]
        packages += [("kernel-core", kernel, "x86_64") for kernel in kernels]
        running = draw.choice(kernels) if behind else kernels[-1]
        facts = {"kernel_running": running + ".x86_64", "kernel_installed": kernels[-1] + ".x86_64",
                 "reboot_needed": "no" if running == kernels[-1] else "kernel-core", "detected_os": "RHEL",
                 "os_version": system["os"][1], "provenance": "ok"}
        fleet.append(Guest(f"{role}-{number:03}", packages, system["os"], facts))
    return fleet
