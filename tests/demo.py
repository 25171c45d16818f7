#!/usr/bin/env python3
"""One guest, one sensor, and the real rpm: how long a change takes to be durable at the sink.

Makes a scratch root with an RPM database, starts `afferent serve` and `afferent sense` on unix
sockets with their default settings, then builds, installs, upgrades and removes three small
packages with the real rpm in that root. For each transaction it prints when rpm returned and when
the new report was on disk at the sink. Everything it starts is stopped, everything it makes removed.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

PATIENCE = 10.0  # seconds that anything here may take
GOAL_MS = 50
BURST_GOAL_MS = 1000
QUIET = 0.5  # seconds between changes: the agent scans at once when nothing went on before
PACKAGES = {"nerve": "1", "spine": "1", "cortex": "1"}


def main():
    binary = Path(sys.argv[1]).resolve()
    scratch = Path(tempfile.mkdtemp(prefix="afferent-demo-"))
    guest = Guest(scratch)
    running = []
    try:
        say("building three small packages with rpmbuild")
        rpms = {(name, v): guest.build(name, v) for name in PACKAGES for v in ("1", "2")}
        guest.rpm("-i", guest.build("base", "1"))

        say("starting afferent serve (the guest) and afferent sense (the host)")
        sink = scratch / "central.ndjson"
        socket = scratch / "agent.sock"
        running.append(start(binary, scratch / "serve.log", "serve", "--root", guest.root,
                             "--listen", f"unix:{socket}", "--state-dir", scratch / "serve"))
        running.append(start(binary, scratch / "sense.log", "sense", "--vm", f"web-1=unix:{socket}",
                             "--deliver", f"file:{sink}", "--state-dir", scratch / "sense"))
        central = Central(scratch / "sense.log", sink)
        central.wait_until({"base": "1-1"})

        print(f"\n{'change':<28} {'rpm returned':<14} {'durable at sink':<16} {'after':>7}")
        worst = 0
        expected = {"base": "1-1"}
        for what, version, flag in [("install", "1", "-i"), ("upgrade", "2", "-U"), ("remove", None, "-e")]:
            for name in PACKAGES:
                time.sleep(QUIET)
                guest.rpm(flag, rpms[name, version] if version else name)
                worst = max(worst, central.report(expected, f"{what} {name} {version or ''}", name, version))
        for name in PACKAGES:
            guest.rpm("-i", rpms[name, "1"])
            expected[name] = "1-1"
        burst = central.report(expected, "install all, without a pause")

        print("\nthe last line at the sink:\n")
        print(json.dumps(central.last(), indent=2))
        print(f"\nslowest change: {worst:.0f} ms after rpm returned (goal: {GOAL_MS} ms)")
        print(f"three without a pause: {burst:.0f} ms, with the debounce time (goal: {BURST_GOAL_MS} ms)")
        return 0 if max(worst, burst) <= BURST_GOAL_MS else 1
    except Failure as failure:
        print(f"demo: {failure}", file=sys.stderr)
        for log in sorted(scratch.glob("*.log")):
            print(f"--- {log.name}\n{log.read_text()}", file=sys.stderr)
        return 1
    finally:
        for process in reversed(running):
            process.send_signal(signal.SIGTERM)
        for process in running:
            process.wait(PATIENCE)
        shutil.rmtree(scratch)


class Failure(Exception):
    """Something did not happen; the message says what."""


class Guest:
    """A scratch root with an RPM database of its own."""

    def __init__(self, scratch):
        self.root = scratch / "root"
        self.top = scratch / "build"
        (self.root / "var/lib/rpm").mkdir(parents=True)
        (self.root / "etc").mkdir()
        (self.root / "etc/os-release").write_text('ID=fedora\nNAME="Fedora Linux"\nVERSION_ID=42\n')
        (self.root / "etc/machine-id").write_text(os.urandom(16).hex() + "\n")

    def build(self, name, version):
        self.top.mkdir(exist_ok=True)
        spec = self.top / f"{name}.spec"
        spec.write_text(f"Name: {name}\nVersion: {version}\nRelease: 1\nSummary: demo\nLicense: Apache-2.0\n"
                        "BuildArch: noarch\n%description\nA package without files.\n%files\n")
        run("rpmbuild", "-bb", "--define", f"_topdir {self.top}", "--define", f"_dbpath {self.top}/db", spec)
        return self.top / f"RPMS/noarch/{name}-{version}-1.noarch.rpm"

    def rpm(self, *arguments):
        run("rpm", "--root", self.root, "--dbpath", "/var/lib/rpm", *arguments)


class Central:
    """What stands at the sink, and since when."""

    def __init__(self, log, sink):
        self.log, self.sink = log, sink

    def report(self, expected, what, name=None, version=None):
        """Waits for the report of a transaction that has just returned; gives the milliseconds."""
        returned = time.time()
        if name:
            expected.pop(name, None)
            if version:
                expected[name] = f"{version}-1"
        durable = self.wait_until(expected)
        took = max(0.0, (durable - returned) * 1000)
        print(f"{what:<28} {clock(returned):<14} {clock(durable):<16} {took:>4.0f} ms", flush=True)
        return took

    def wait_until(self, expected):
        """Waits until the newest accepted report lists exactly these packages; gives the time at
        which it was accepted, that is on disk."""
        end = time.time() + PATIENCE
        while time.time() < end:
            last = self.last()
            if last and {p["name"]: p["version"] for p in last["report"]["packages"]} == expected:
                key = f"{last['meta']['epoch']}:{last['meta']['generation']}"
                accepted = self.accepted(key)
                if accepted:
                    return accepted
            time.sleep(0.002)
        raise Failure(f"no report with {expected} within {PATIENCE:.0f} s")

    def accepted(self, key):
        for line in self.log.read_text().splitlines():
            event = json.loads(line) if line.startswith("{") else {}
            if event.get("message") == "accepted" and event.get("generation") == key:
                return datetime.fromisoformat(event["timestamp"].replace("Z", "+00:00")).timestamp()
        return None

    def last(self):
        """The last report: facts and short lines of an unchanged report are none."""
        if not self.sink.exists():
            return None
        lines = [json.loads(line) for line in self.sink.read_text().split("\n")[:-1] if line]
        return next((line for line in reversed(lines) if "report" in line), None)


def start(binary, log, *arguments):
    environment = dict(os.environ, AFFERENT_LOG="afferent=debug", AFFERENT_LOG_FORMAT="json")
    with open(log, "w") as out:
        return subprocess.Popen([binary, *map(str, arguments)], stdout=out, stderr=out, env=environment)


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"{command[0]} failed:\n{done.stdout}{done.stderr}")


def clock(seconds):
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%H:%M:%S.%f")[:-3]


def say(what):
    print(f"demo: {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
