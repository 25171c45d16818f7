#!/usr/bin/env python3
"""Soak: real agents, one sensor, a real nats-server and a mirror, for minutes or hours, under kills and outages.

  tests/soak.py BINARY [--seconds N] [--agents N] [--seed N]

Agents listen on unix sockets and watch copies of a database that the real rpm made; a change replaces one of them, as
`rpm --rebuilddb` does. Agents, sensor, mirror and nats-server are killed and started again, nats-server is stopped
for seconds, the sensor's file system (a small tmpfs, where this may be mounted) is filled, its clock steps (where
libfaketime is installed). In the last third nothing of the sensor is killed: there its memory is measured.

At the end everything is well, and then: the stream has of every guest what `afferent scan` says of its root, no
document is a dead letter, the mirror has what Core has and its indexes are true, memory grew by less than 5 %, and no
descriptor, socket or temporary file is left.
"""

import argparse
import base64
import gzip
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STREAM = "REPORTS"
PACKAGES = 12
VARIANTS = 24
TMPFS_MIB = 48
SETTLE = 600.0  # seconds in which everything must have arrived
GROWTH = 1.05


class Failure(Exception):
    """Something that must hold does not; the message says what."""


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


class Variants:
    """Databases with other packages, and what is in each."""

    def __init__(self, scratch, binary):
        top = scratch / "build"
        root = scratch / "made"
        (root / "var/lib/rpm").mkdir(parents=True)
        top.mkdir()
        for n in range(PACKAGES):
            spec = top / f"p{n}.spec"
            spec.write_text(f"Name: p{n}\nVersion: {n}\nRelease: 1\nSummary: soak\nLicense: Apache-2.0\n"
                            "BuildArch: noarch\n%description\nA package without files.\n%files\n")
        run("rpmbuild", "-bb", "--define", f"_topdir {top}", "--define", f"_dbpath {top}/db", *top.glob("*.spec"))
        run("rpm", "--root", root, "--dbpath", "/var/lib/rpm", "-i", *top.glob("RPMS/noarch/*.rpm"))
        base = root / "var/lib/rpm/rpmdb.sqlite"
        with sqlite3.connect(base) as db:
            db.execute("pragma wal_checkpoint(truncate)")
            db.execute("pragma journal_mode=delete")
        self.files, self.packages = [], []
        for n in range(VARIANTS):
            home = scratch / f"variant-{n}"
            (home / "var/lib/rpm").mkdir(parents=True)
            file = home / "var/lib/rpm/rpmdb.sqlite"
            shutil.copy(base, file)
            db = sqlite3.connect(file)
            rows = [row for (row,) in db.execute("select hnum from Packages order by hnum")]
            gone = [row for at, row in enumerate(rows) if at and (n + 1) >> (at % 5) & 1 and at % 3 == n % 3]
            for row in gone:
                db.execute("delete from Packages where hnum = ?", (row,))
            db.commit()
            db.close()
            self.files.append(file)
            lines = run(binary, "scan", "--root", home, "--format", "tsv").splitlines()
            names = sorted(line.split("\t")[0] for line in lines if line)
            if len(names) != PACKAGES - len(gone):
                raise Failure(f"variant {n} has {names}")
            self.packages.append(names)


class Nats:
    """nats-server with JetStream, and what its stream holds."""

    def __init__(self, scratch):
        self.home = scratch / "nats"
        self.home.mkdir()
        probe = socket.socket()
        probe.bind(("127.0.0.1", 0))
        self.port = probe.getsockname()[1]
        probe.close()
        conf = self.home / "nats.conf"
        conf.write_text(f'listen: "127.0.0.1:{self.port}"\nlogfile: "{self.home}/log"\n'
                        f'jetstream {{ store_dir: "{self.home}/store" }}\n')
        unpacked = Path(__file__).resolve().parent.parent / "target/tools/bin/nats-server"
        self.program = unpacked if unpacked.exists() else shutil.which("nats-server")
        if not self.program:
            raise Failure("no nats-server: packaging/install-deps.sh nats")
        self.conf = conf
        self.child = None
        self.start()

    def url(self):
        return f"nats://127.0.0.1:{self.port}?stream={STREAM}"

    def start(self):
        self.child = subprocess.Popen([self.program, "-c", self.conf], stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL)

    def kill(self):
        self.child.kill()
        self.child.wait()

    def newest(self, vm):
        """Names of the packages of a guest's newest report; None while there is none."""
        answer = self.ask(f"$JS.API.STREAM.MSG.GET.{STREAM}", {"last_by_subj": f"afferent.reports.{vm}"})
        if not answer or "message" not in answer:
            return None
        message = answer["message"]
        body = base64.b64decode(message["data"])
        if b"gzip" in base64.b64decode(message.get("hdrs", "")):
            body = gzip.decompress(body)
        return sorted(package["name"] for package in json.loads(body)["report"]["packages"])

    def ask(self, subject, request):
        """One request over a connection of its own: this is no client, only as much as a check needs."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as stream:
            stream.settimeout(10)
            payload = json.dumps(request).encode()
            stream.sendall(b'CONNECT {"verbose":false,"headers":true}\r\nSUB inbox 1\r\n'
                           + f"PUB {subject} inbox {len(payload)}\r\n".encode() + payload + b"\r\n")
            lines = stream.makefile("rb")
            while True:
                line = lines.readline()
                if line.startswith(b"PING"):
                    stream.sendall(b"PONG\r\n")
                if line.startswith(b"-ERR") or not line:
                    return None
                if line.startswith(b"MSG"):
                    return json.loads(lines.read(int(line.split()[-1])))
                if line.startswith(b"HMSG"):
                    return None


class Service:
    """A process that is killed and started again."""

    def __init__(self, name, command, log, env=None):
        self.name, self.command, self.log = name, [str(c) for c in command], log
        self.env = dict(os.environ, **(env or {}))
        self.child = None

    def start(self):
        with open(self.log, "ab") as out:
            self.child = subprocess.Popen(self.command, stdout=out, stderr=out, env=self.env)

    def kill(self):
        self.child.kill()
        self.child.wait()

    def check(self):
        """A service ends only when it is told to."""
        ended = self.child.poll()
        if ended is not None:
            tail = Path(self.log).read_text(errors="replace")[-2000:]
            raise Failure(f"{self.name} ended by itself with {ended}:\n{tail}")

    def terminate(self):
        self.child.send_signal(signal.SIGTERM)
        ended = self.child.wait(60)
        if ended != 0:
            raise Failure(f"{self.name} ended with {ended} after SIGTERM")

    def rss(self):
        return self.field("VmRSS:")

    def field(self, name):
        for line in Path(f"/proc/{self.child.pid}/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1])
        return 0

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.child.pid}/fd"))


class Soak:
    """Everything that runs."""

    def __init__(self, arguments, scratch):
        self.scratch, self.seconds = scratch, arguments.seconds
        self.binary = Path(arguments.binary).resolve()
        self.random = random.Random(arguments.seed)
        self.counts, self.failures = {}, []
        self.tmp = scratch / "tmp"
        self.tmp.mkdir()
        self.env = {"TMPDIR": str(self.tmp), "AFFERENT_LOG": "afferent=warn"}
        say("making databases with the real rpm")
        self.variants = Variants(scratch, self.binary)
        self.nats = Nats(scratch)
        self.state = scratch / "sense"
        self.state.mkdir()
        self.has_tmpfs = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={TMPFS_MIB}m,mode=0700", "soak", self.state],
                                        capture_output=True, check=False).returncode == 0
        if not self.has_tmpfs:
            say("skipped: no tmpfs may be mounted here, the disk is never full")
        self.agents, self.installed = [], []
        for n in range(arguments.agents):
            self.agents.append(self.make_agent(n))
        roster = "".join(f'[[vm]]\nid = "vm-{n}"\naddress = "unix:{self.home(n)}/socket"\n'
                         for n in range(arguments.agents))
        (scratch / "roster.toml").write_text(roster)
        self.clock = scratch / "clock"
        self.clock.write_text("+0\n")
        self.sensor = Service("the sensor", [
            self.binary, "sense", "--roster", scratch / "roster.toml", "--deliver", self.nats.url(),
            "--state-dir", self.state, "--refresh-interval", "2m", "--poll-interval", "10s", "--sensor-id", "soak",
        ], scratch / "sense.log", {**self.env, **self.fake_time()})
        self.core = scratch / "core.json"
        self.machines = {}
        self.write_core()
        self.mirror = Service("the mirror", [
            self.binary, "mirror", "run", "--interval", "1s", "--core", f"file:{self.core}",
            "--state-dir", scratch / "mirror", "--max-deletes", "1000",
        ], scratch / "mirror.log", self.env)

    def fake_time(self):
        libraries = [*Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), *Path("/usr/lib64").glob("faketime/libfaketimeMT.so.1")]
        self.has_clock = bool(libraries)
        if not libraries:
            say("skipped: libfaketime is not installed, the clock never steps")
            return {}
        return {"LD_PRELOAD": str(libraries[0]), "FAKETIME_TIMESTAMP_FILE": str(self.clock), "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1"}

    def home(self, n):
        return self.scratch / f"vm-{n}"

    def make_agent(self, n):
        home = self.home(n)
        root = home / "root"
        (root / "var/lib/rpm").mkdir(parents=True)
        (root / "etc").mkdir()
        (root / "etc/os-release").write_text('ID=fedora\nNAME="Fedora Linux"\nVERSION_ID=42\n')
        (root / "etc/machine-id").write_text(f"{self.random.getrandbits(128):032x}\n")
        self.installed.append(0)
        self.install(n, self.random.randrange(VARIANTS))
        return Service(f"agent {n}", [self.binary, "serve", "--root", root, "--listen", f"unix:{home}/socket",
                                      "--state-dir", home / "state"], home / "log", self.env)

    def install(self, n, variant):
        file = self.home(n) / "root/var/lib/rpm/rpmdb.sqlite"
        new = file.with_name("rpmdb.new")
        shutil.copy(self.variants.files[variant], new)
        new.rename(file)
        self.installed[n] = variant

    def write_core(self, whole=True):
        for _ in range(3):
            n = self.random.randrange(40)
            if self.random.random() < 0.3:
                self.machines.pop(n, None)
            else:
                self.machines[n] = self.random.randrange(1000)
        if not self.machines:
            self.machines[0] = 0
        machines = [{"id": f"m{n}", "bmc_mac_address": f"02:00:00:00:00:{n:02x}", "serial_number": f"S{n}",
                     "manufacturer": "M", "name": f"x{name}"} for n, name in sorted(self.machines.items())]
        text = json.dumps({"expected_machines": machines})
        new = self.core.with_name("core.new")
        new.write_text(text if whole else text[:self.random.randrange(len(text))])
        new.rename(self.core)

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    def start(self):
        for service in [*self.agents, self.sensor, self.mirror]:
            service.start()

    def again(self, service, what):
        service.check()
        service.kill()
        service.start()
        self.count(what)

    def filler(self):
        return self.state / "filler"

    def fault(self, may_kill_sensor):
        kind = self.random.randrange(20)
        if kind < 8:
            self.again(self.random.choice(self.agents), "agents killed")
        elif kind < 10 and may_kill_sensor:
            self.again(self.sensor, "sensor killed")
        elif kind < 12:
            self.again(self.mirror, "mirror killed")
        elif kind < 14:
            self.nats.kill()
            time.sleep(self.random.uniform(0, 8))
            self.nats.start()
            self.count("nats-server killed")
        elif kind < 16:
            self.nats.child.send_signal(signal.SIGSTOP)
            time.sleep(self.random.uniform(0, 12))
            self.nats.child.send_signal(signal.SIGCONT)
            self.count("nats-server stopped")
        elif kind < 18 and self.has_tmpfs and may_kill_sensor:
            with open(self.filler(), "wb", buffering=0) as filler:
                try:
                    while True:
                        filler.write(bytes(1 << 16))
                except OSError:
                    pass
            self.change(20)
            time.sleep(self.random.uniform(1, 6))
            self.filler().unlink()
            self.count("disks full")
        elif kind < 19 and self.has_clock:
            self.clock.write_text(self.random.choice(["+0", "+3600", "-3600", "+300000000"]) + "\n")
            self.count("clock steps")
        else:
            self.write_core(whole=False)
            self.count("torn documents of Core")

    def change(self, most):
        for _ in range(self.random.randrange(1, most)):
            self.install(self.random.randrange(len(self.agents)), self.random.randrange(VARIANTS))
            self.count("changes")

    def live(self):
        begun = time.monotonic()
        steady, memory = None, None
        while time.monotonic() - begun < self.seconds:
            passed = (time.monotonic() - begun) / self.seconds
            self.change(8)
            if self.random.random() < 0.5:
                self.write_core()
            self.fault(may_kill_sensor=passed < 0.6)
            time.sleep(self.random.uniform(0, 1.5))
            for service in [self.sensor, self.mirror, *self.agents]:
                service.check()
            # Two thirds are over: what the sensor needs is there by now.
            if passed > 0.7 and memory is None:
                memory, steady = self.sensor.rss(), self.sensor.descriptors()
        return memory, steady

    def end(self, memory, descriptors):
        say("everything is well from now on")
        self.clock.write_text("+0\n")
        self.filler().unlink(missing_ok=True)
        self.write_core()
        until, missing = time.monotonic() + SETTLE, set(range(len(self.agents)))
        begun = time.monotonic()
        while missing and time.monotonic() < until:
            for n in sorted(missing):
                if self.nats.newest(f"vm-{n}") == self.variants.packages[self.installed[n]]:
                    missing.discard(n)
            time.sleep(1)
        if missing:
            n = min(missing)
            self.failures.append(f"invariant 2: {len(missing)} guests are not what the stream says, vm-{n} is "
                                 f"{self.variants.packages[self.installed[n]]}, the stream says {self.nats.newest(f'vm-{n}')}")
        say(f"all arrived after {time.monotonic() - begun:.0f} s")
        status = run(self.binary, "status", "--state-dir", self.state, "--json")
        if '"dead":' in status and json.loads(status).get("dead"):
            self.failures.append(f"invariant 4: dead letters: {status}")
        self.check_memory(memory, descriptors)
        self.check_mirror()
        for service in [*self.agents, self.sensor, self.mirror]:
            service.check()
            service.terminate()
        self.check_files()

    def check_memory(self, memory, descriptors):
        now, open_now = self.sensor.rss(), self.sensor.descriptors()
        say(f"memory of the sensor: {memory} kB, then {now} kB; descriptors: {descriptors}, then {open_now}")
        if memory and now > memory * GROWTH + 512:
            self.failures.append(f"memory of the sensor grew from {memory} kB to {now} kB")
        # Each guest is in a wait, and a few are in transfers.
        most = len(self.agents) + 64
        if open_now > most:
            self.failures.append(f"{open_now} descriptors of the sensor, at most {most} are right")

    def check_mirror(self):
        home = self.scratch / "mirror"
        until = time.monotonic() + 60
        while True:
            tables = json.loads(run(self.binary, "mirror", "dump", "--state-dir", home))
            live = {row["serial_number"] for row in tables["component"] if not row.get("deleted_at")}
            wanted = {f"S{n}" for n in self.machines}
            if live == wanted:
                break
            if time.monotonic() > until:
                self.failures.append(f"invariant 10: the mirror has {sorted(live)}, Core has {sorted(wanted)}")
                break
            time.sleep(1)
        run(self.binary, "mirror", "check", "--state-dir", home)

    def check_files(self):
        left = list(self.tmp.iterdir())
        sockets = [path for path in self.scratch.rglob("*") if path.is_socket()]
        begun = [path for path in self.scratch.rglob("*.redb.new")]
        for what in [left, sockets, begun]:
            if what:
                self.failures.append(f"left behind: {[str(path) for path in what[:5]]}")
        aside = list(self.scratch.rglob("*.corrupt-*"))
        if aside:
            self.failures.append(f"taken for damaged: {[str(path) for path in aside[:5]]}")

    def stop(self):
        for service in [*self.agents, self.sensor, self.mirror, self.nats]:
            if service.child and service.child.poll() is None:
                service.child.kill()
                service.child.wait()
        if self.has_tmpfs:
            subprocess.run(["umount", self.state], check=False)


def watches():
    """Agents that may watch their databases here: half of what one user may have, others need some, too."""
    limit = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    say(f"at most {limit // 2} agents: fs.inotify.max_user_instances is {limit}")
    return limit // 2


def say(what):
    print(f"soak: {what}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--agents", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    arguments.agents = min(arguments.agents, watches())
    # Also where it is started in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    scratch = Path(tempfile.mkdtemp(prefix="afferent-soak-"))
    say(f"{arguments.agents} agents for {arguments.seconds:.0f} s, seed {arguments.seed}, in {scratch}")
    soak = None
    try:
        soak = Soak(arguments, scratch)
        soak.start()
        soak.end(*soak.live())
        say(", ".join(f"{count} {what}" for what, count in sorted(soak.counts.items())))
    except (Failure, KeyboardInterrupt) as failure:
        print(f"soak: {failure or 'interrupted'}", file=sys.stderr)
        if soak:
            soak.stop()
        shutil.rmtree(scratch)
        return 1
    finally:
        if soak:
            soak.stop()
    for failure in soak.failures:
        print(f"soak: {failure}", file=sys.stderr)
    if soak.failures:
        print(f"soak: logs and stores are kept in {scratch}", file=sys.stderr)
        return 1
    shutil.rmtree(scratch)
    say("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
