"""What the scripts here share: a record of checks, Central as a file, and `sense` on the host."""

import json
import os
import signal
import statistics
import subprocess
import time
import traceback

from guest import GuestError

PORT = 818
ARRIVES = 120
SERVE = "afferent-serve"


class Failed(Exception):
    """A check did not hold."""


class Report:
    """What was checked and how long things took."""

    def __init__(self):
        self.began = time.monotonic()
        self.passed, self.failed, self.latencies, self.notes = [], [], {}, []

    def say(self, text):
        print(f"[{time.monotonic() - self.began:6.1f} s] {text}", flush=True)

    def check(self, holds, text, detail=""):
        if not holds:
            raise Failed(f"{text}: {detail}" if detail else text)
        self.passed.append(text)
        self.say(f"ok    {text}")

    def latency(self, kind, seconds):
        self.latencies.setdefault(kind, []).append(seconds)
        self.say(f"ok    {kind}: at Central {seconds * 1000:.0f} ms after rpm had finished")

    def scenario(self, title, body):
        self.say(f"      -- {title}")
        try:
            body()
        except (Failed, GuestError, OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
            self.failed.append(f"{title}: {error}")
            self.say(f"FAIL  {title}: {error}")
            if not isinstance(error, (Failed, GuestError)):
                traceback.print_exc()

    def page(self, accel):
        """All of it, as text."""
        lines = ["=== real machines: what was checked ===",
                 f"accelerator {accel}, {os.cpu_count()} cores, {time.monotonic() - self.began:.0f} s"]
        lines += [f"  ok    {text}" for text in self.passed] + [f"  FAIL  {text}" for text in self.failed]
        lines += ["", "from the end of the rpm command in the guest to the line at Central, in milliseconds:",
                  f"  {'what':<44}{'times':>6}{'median':>9}{'worst':>9}"]
        lines += [f"  {kind:<44}{len(seconds):>6}{statistics.median(seconds) * 1000:>9.0f}{max(seconds) * 1000:>9.0f}"
                  for kind, seconds in self.latencies.items()]
        lines += [f"  {note}" for note in self.notes]
        return "\n".join([*lines, "", f"{len(self.passed)} passed, {len(self.failed)} failed"])


class Central:
    """The file that `sense` delivers to, read as it grows."""

    def __init__(self, path):
        self.path, self.read, self.rest = path, 0, b""
        self.lines = []

    def poll(self):
        if not os.path.exists(self.path):
            return
        with open(self.path, "rb") as sink:
            sink.seek(self.read)
            data = sink.read()
        if not data:
            return
        now = time.time()
        self.read += len(data)
        *whole, self.rest = (self.rest + data).split(b"\n")
        documents = [json.loads(line) for line in whole]
        # Facts that changed alone, and reports that the file has already, are short lines.
        self.lines += [(now, line) for line in documents if "report" in line]

    def of(self, vm):
        self.poll()
        return [line for _, line in self.lines if line["vm"]["id"] == vm]

    def last(self, vm):
        return self.of(vm)[-1]

    def wait(self, vm, wanted, what, limit=ARRIVES):
        """The first line of `vm` from now on, or the last one there is, for which `wanted` holds, and when it was seen."""
        deadline = time.monotonic() + limit
        self.poll()
        start = max((i for i, (_, line) in enumerate(self.lines) if line["vm"]["id"] == vm), default=0)
        while True:
            for seen, line in self.lines[start:]:
                if line["vm"]["id"] == vm and wanted(line):
                    return line, seen
            if time.monotonic() > deadline:
                raise Failed(f"{vm}: {what} did not arrive at Central within {limit} s")
            time.sleep(0.002)
            self.poll()


class Sensor:
    """`afferent sense` on the host."""

    def __init__(self, binary, work, central):
        self.binary, self.work, self.central, self.process = binary, work, central, None

    def start(self, guests):
        command = [self.binary, "sense", "--state-dir", os.path.join(self.work, "sense"), "--deliver", f"file:{self.central.path}"]
        for guest in guests:
            command += ["--vm", f"{guest.name}=hybrid:{guest.vsock}:{PORT}"]
        os.makedirs(os.path.join(self.work, "sense"), exist_ok=True)
        log = open(os.path.join(self.work, "sense.log"), "ab")
        self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def stop(self, how=signal.SIGTERM):
        if self.process:
            self.process.send_signal(how)
            self.process.wait(30)
            self.process = None


def versions(line):
    """What a line says is installed: name to version."""
    return {package["name"]: package["version"] for package in line["report"]["packages"]}


def generation(line):
    return line["meta"]["epoch"], line["meta"]["generation"]
