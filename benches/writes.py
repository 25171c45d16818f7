#!/usr/bin/env python3
"""What an agent and a sensor write to disk and to the log: a change, and while nothing happens.

    benches/writes.py target/debug/afferent [SECONDS OF IDLENESS]

Real rpm transactions in a scratch root below target/, the agent on a unix socket, a file as the sink. Bytes are
those of /proc/PID/io, write_bytes: what the kernel was given to write to the disk.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

CHANGES = 20
HERE = pathlib.Path(__file__).resolve().parent.parent
DATABASE = HERE / "tests/fixtures/rpmdb/amazonlinux-2023-sqlite/rpmdb.sqlite.xz"
SPEC = "Name: p{}\nVersion: 1\nRelease: 1\nSummary: s\nLicense: MIT\nBuildArch: noarch\n%description\nx\n%files\n"


class Service:
    """A running `afferent`, its log and what it wrote."""

    def __init__(self, scratch, *command):
        self.log = scratch / f"{command[1]}.log"
        self.process = subprocess.Popen(command, stderr=self.log.open("w"))

    def written(self):
        fields = dict(line.split(": ") for line in open(f"/proc/{self.process.pid}/io"))
        return int(fields["write_bytes"]), len(self.log.read_text().splitlines())

    def end(self):
        self.process.terminate()
        self.process.wait()


def quiet(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def scratch_root(scratch):
    root = scratch / "root"
    for directory in ("etc", "var/lib/rpm"):
        (root / directory).mkdir(parents=True)
    (root / "etc/os-release").write_text('ID=rhel\nVERSION_ID="9.4"\n')
    with (root / "var/lib/rpm/rpmdb.sqlite").open("wb") as database:
        subprocess.run(["xz", "-dkc", DATABASE], check=True, stdout=database)
    return root


def packages(scratch):
    for n in range(CHANGES):
        spec = scratch / f"p{n}.spec"
        spec.write_text(SPEC.format(n))
        quiet("rpmbuild", "-bb", "--quiet", "--define", f"_topdir {scratch}/rpmbuild", spec)
    return sorted((scratch / "rpmbuild/RPMS/noarch").glob("*.rpm"))


def wait_for_lines(sink, count):
    deadline = time.monotonic() + 60
    while not sink.exists() or sink.read_bytes().count(b"\n") < count:
        if time.monotonic() > deadline:
            sys.exit(f"{sink} has not {count} lines after a minute")
        time.sleep(0.01)
    # The sensor still notes that the line was accepted.
    time.sleep(0.5)


def main():
    binary, idle = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 60
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="writes-", dir=HERE / "target"))
    root, files, sink = scratch_root(scratch), packages(scratch), scratch / "out"
    socket = f"unix:{scratch}/agent.sock"
    services = [
        Service(scratch, binary, "serve", "--root", root, "--state-dir", scratch / "agent", "--listen", socket),
        Service(scratch, binary, "sense", "--vm", f"a={socket}", "--state-dir", scratch / "sensor", "--deliver", f"file:{sink}"),
    ]
    try:
        wait_for_lines(sink, 1)
        before, line = [service.written() for service in services], os.path.getsize(sink)
        for n, file in enumerate(files):
            quiet("rpm", "--root", root, "--dbpath", "/var/lib/rpm", "-i", "--nodeps", "--nosignature", file)
            wait_for_lines(sink, n + 2)
        after = [service.written() for service in services]
        time.sleep(idle)
        later = [service.written() for service in services]
    finally:
        for service in services:
            service.end()
        shutil.rmtree(scratch)
    print(f"{'':8} {'bytes a change':>15} {'lines a change':>15} {f'bytes in {idle} s':>15} {f'lines in {idle} s':>15}")
    for name, b, a, c in zip(("agent", "sensor"), before, after, later):
        changes = [(x - y) / CHANGES for x, y in zip(a, b)]
        print(f"{name:8} {changes[0]:>15.0f} {changes[1]:>15.1f} {c[0] - a[0]:>15} {c[1] - a[1]:>15}")
    print(f"of the sensor's, the line in the file is {line} bytes")


main()
