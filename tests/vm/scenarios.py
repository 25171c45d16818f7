#!/usr/bin/env python3
"""The product in real machines: our RPM, its unit and real rpm transactions in guests, `sense` on the host, and VSOCK.

Usage: scenarios.py CACHE BINARY. Prints each check as it is made, and at the end a page with the latencies, which is also
in CACHE/report.txt.
"""

import base64
import json
import os
import pathlib
import re
import shutil
import signal
import sys
import tempfile

from guest import Guest, GuestError, kvm_works
from harness import PORT, SERVE, Central, Report, Sensor, generation, versions
from kube_api import KubeApi, instance
from old_version import OldVersion


class Story:
    """The scenarios in the order in which they build on one another."""

    def __init__(self, cache, binary, work, accel):
        self.report = Report()
        self.cache, self.binary, self.work, self.accel = cache, binary, work, accel
        self.central = Central(os.path.join(work, "central.ndjson"))
        self.sensor = Sensor(binary, work, self.central)
        self.one = Guest("web-1", 3, cache, work, accel)
        self.two = None

    def run(self):
        scenarios = [
            ("the RPM goes in, and nothing starts by itself", self.install),
            ("the unit runs unprivileged under its hardening", self.enable),
            ("the other units", self.other_units),
            ("package changes arrive at Central", self.changes),
            ("the configuration is edited, the agent hangs", self.reload),
            ("sense at work under its unit", self.sense_unit),
            ("the mirror at work under its unit", self.mirror_unit),
            ("a sensor on a node of KubeVirt", self.kubevirt_node),
            ("the RPM database is rebuilt", self.rebuild),
            ("who may not ask is refused", self.refused),
            ("the sensor is killed", self.sensor_killed),
            ("the guest reboots", self.reboot),
            ("the guest loses its power", self.power_cut),
            ("the guest's disk goes back to an older state", self.rollback),
            ("a second guest", self.second),
            ("the RPM is upgraded", self.upgrade),
            ("the RPM is removed and installed again", self.removal),
            ("version 0.1.0 is upgraded, put back, and upgraded again", self.old_version),
        ]
        only = os.environ.get("VM_SCENARIOS")
        try:
            self.report.say(f"ok    {self.one.name} took commands {self.one.start():.1f} s after power on ({self.accel})")
            for title, body in scenarios:
                if not only or body.__name__ in only.split() + ["install", "enable"]:
                    self.report.scenario(title, body)
        except GuestError as error:
            self.report.failed.append(str(error))
            self.report.say(f"FAIL  {error}")
        finally:
            if self.report.failed:
                self.evidence()
            for stop in (self.sensor.stop, self.one.stop, self.two.stop if self.two else None):
                if stop:
                    stop()
        page = self.report.page(self.accel)
        print(f"\n{page}")
        pathlib.Path(self.cache, "report.txt").write_text(page + "\n")
        return not self.report.failed

    def evidence(self):
        """What a failure leaves to read."""
        print("\n--- the end of the sensor's log")
        log = pathlib.Path(self.work, "sense.log")
        if log.exists():
            print("\n".join(log.read_text(errors="replace").splitlines()[-30:]))
        if self.one.qemu:
            print(f"--- {SERVE} in {self.one.name}")
            try:
                print(self.one.run(f"systemctl status {SERVE} --no-pager -n 0; journalctl -u {SERVE} --no-pager -n 30", check=False)[0][1])
            except GuestError as error:
                print(error)

    # -- the scenarios

    def install(self):
        guest, check = self.one, self.report.check
        guest.out("rpm -i --nodeps /mnt/afferent-*-1.x86_64.rpm")
        states = guest.run(f"systemctl is-enabled {SERVE} afferent-sense afferent-mirror; systemctl is-active {SERVE}", check=False)[0][1]
        check(states.split() == ["disabled", "disabled", "disabled", "inactive"], "after rpm -i all units are there, disabled, not running", states)
        check(guest.out("afferent --version").startswith("afferent "), "the binary runs in the guest")
        check(guest.run("rpm -V --nodeps afferent", check=False)[0] == (0, ""), "rpm -V finds nothing changed")
        result, output = guest.run("systemd-analyze verify --man=no afferent-serve.service afferent-sense.service afferent-mirror.service 2>&1 | grep afferent", check=False)[0]
        check(result != 0, "systemd-analyze verify is clean where the units are installed", output)

    def enable(self):
        guest, check = self.one, self.report.check
        listing = "cd /var/lib/rpm && stat -c '%n %s %y %i' . .??* *"
        before = guest.out(listing)
        guest.out(f"systemctl enable --now {SERVE}")
        check(guest.out(f"systemctl is-active {SERVE}") == "active", "systemctl enable --now: active, as its READY=1 said")
        pid = guest.out(f"systemctl show -P MainPID {SERVE}")
        status = dict(line.split(":", 1) for line in guest.out(f"cat /proc/{pid}/status").splitlines() if ":" in line)
        check(status["Uid"].split()[0] != "0", "serve does not run as root")
        check(int(status["CapEff"], 16) == 1 << 10, "its one capability is to bind a low port", status["CapEff"])
        check(status["NoNewPrivs"].strip() == "1" and status["Seccomp"].strip() == "2", "no new privileges, system calls filtered")
        check(guest.out("stat -c '%U %a' /var/lib/rpm/rpmdb.sqlite") == "root 644", "the database it reads is root's")
        self.sensor.start([guest])
        line, _ = self.central.wait(guest.name, lambda line: "afferent" in versions(line), "the first report")
        check(line["vm"]["address"].startswith("hybrid:"), "the first report came over VSOCK through the hybrid socket")
        after = guest.out(listing)
        check(before == after, "reading the database changed nothing in its directory", f"{before}\n{after}")
        self.same_as_rpm(guest)
        memory = int(guest.out(f"systemctl show -P MemoryCurrent {SERVE}"))
        self.report.notes.append(f"serve in the guest uses {memory / 1e6:.1f} MB (its control group), {int(status['VmRSS'].split()[0]) / 1e3:.1f} MB resident")

    def other_units(self):
        guest, check = self.one, self.report.check
        result, output = guest.run("afferent status", check=False)[0]
        check(result == 0 and "serve" in output, "afferent status reaches serve under its unit", output)
        guest.out("systemctl start afferent-sense")
        pid = guest.out("systemctl show -P MainPID afferent-sense")
        status = dict(line.split(":", 1) for line in guest.out(f"cat /proc/{pid}/status").splitlines() if ":" in line)
        check(status["Uid"].split()[0] != "0" and int(status["CapEff"], 16) == 0,
              "sense starts with the configuration as it came, without root and without any capability")
        guest.out("systemctl stop afferent-sense")
        guest.run("systemctl start afferent-mirror", check=False)
        gate = guest.out("systemctl show -P ConditionResult -P ActiveState afferent-mirror").split()
        check("no" in gate and "inactive" in gate, "the mirror does not start before it is let", str(gate))

    def same_as_rpm(self, guest):
        query = r"rpm -qa --qf '%{NAME}\t%{EPOCHNUM}\t%{VERSION}\t%{RELEASE}\t%{ARCH}\t%{SOURCERPM}\t%{MODULARITYLABEL}\n' | grep -v ^gpg-pubkey | LC_ALL=C sort"
        said = guest.out("afferent scan --format tsv")
        self.report.check(said == guest.out(query), "scan --format tsv equals rpm -qa", said)
        installed = guest.out(r"rpm -qa --qf '%{NAME} %{VERSION}-%{RELEASE}\n' | grep -v ^gpg-pubkey")
        installed = dict(row.split() for row in installed.splitlines())
        self.report.check(versions(self.central.last(guest.name)) == installed, f"Central has what rpm -qa says in {guest.name}",
                          f"{versions(self.central.last(guest.name))} and {installed}")

    def change(self, guest, command, wanted, kind):
        """Runs an rpm command and measures until its result is at Central."""
        _, finished = guest.run(command)
        _, seen = self.central.wait(guest.name, lambda line: wanted(versions(line)), kind)
        # A negative time would mean that the report overtook the word that rpm was done.
        self.report.latency(kind, max(0.0, seen - finished))

    def changes(self):
        guest = self.one
        for _ in range(3):
            self.change(guest, "rpm -i /mnt/probe-1.0.rpm", lambda v: v.get("probe") == "1.0-1", "install")
            self.change(guest, "rpm -U /mnt/probe-2.0.rpm", lambda v: v.get("probe") == "2.0-1", "upgrade")
            self.change(guest, "rpm -e probe", lambda v: "probe" not in v, "erase")
        self.change(guest, "rpm -i /mnt/extra1-1.0.rpm; rpm -i /mnt/extra2-1.0.rpm; rpm -i /mnt/extra3-1.0.rpm",
                    lambda v: {"extra1", "extra2", "extra3"} <= v.keys(), "three transactions without a pause")
        self.same_as_rpm(guest)
        seen = [generation(line) for line in self.central.of(guest.name)]
        self.report.check(seen == sorted(set(seen)), "generations only grew, none came twice", str(seen))

    def rebuild(self):
        guest = self.one
        before = len(self.central.of(guest.name))
        guest.out("rpm --rebuilddb")
        self.change(guest, "rpm -i /mnt/probe-1.0.rpm", lambda v: v.get("probe") == "1.0-1", "install after rebuilddb")
        self.change(guest, "rpm -e probe", lambda v: "probe" not in v, "erase after rebuilddb")
        arrived = len(self.central.of(guest.name)) - before
        self.report.check(arrived == 2, "rebuilddb itself, which changes no package, sent nothing", f"{arrived} reports")

    def drop_in(self, *lines):
        """Restarts serve with settings of its unit changed; with none, as it came."""
        folder = f"/run/systemd/system/{SERVE}.service.d"
        text = "\\n".join(["[Service]", *lines])
        put = f"mkdir -p {folder} && printf '{text}\\n' >{folder}/test.conf" if lines else f"rm -r {folder}"
        self.one.out(f"{put} && systemctl daemon-reload && systemctl restart {SERVE}")

    def until(self, condition, limit=60):
        """Waits in the guest for a command to succeed."""
        self.one.run(f"timeout {limit} sh -c 'until {condition}; do sleep 0.1; done'", limit=limit + 30)

    def refused(self):
        guest, check = self.one, self.report.check
        result, output = guest.run(f"timeout 20 afferent pull vsock:1:{PORT}", check=False)[0]
        check(result not in (0, 124), "a dial from CID 1 is refused: only the host may ask", output)
        self.drop_in("Environment=AFFERENT_ALLOW_CID=2,1")
        said = json.loads(guest.out(f"timeout 20 afferent pull vsock:1:{PORT} --format json"))
        check(said is not None, "with CID 1 allowed, vsock:1 answers through vsock_loopback")
        self.drop_in()

    def reload(self):
        guest, check = self.one, self.report.check
        pid = guest.out(f"systemctl show -P MainPID {SERVE}")
        guest.out("cp -a /etc/afferent/serve.toml /run/ && sed -i 's/^#reactive_debounce.*/reactive_debounce = \"200ms\"/' /etc/afferent/serve.toml"
                  f" && systemctl reload {SERVE}")
        self.until(f"journalctl -u {SERVE} | grep -q \"configuration read again\"")
        guest.out(f"cp -a /run/serve.toml /etc/afferent/ && systemctl reload {SERVE}")
        check(guest.out(f"systemctl show -P MainPID {SERVE}") == pid, "systemctl reload: the edited configuration is read, the process stays")
        self.drop_in("WatchdogSec=10s")
        guest.out(f"kill -STOP $(systemctl show -P MainPID {SERVE})")
        self.until(f"[ $(systemctl show -P NRestarts {SERVE}) -ge 1 ] && systemctl is-active -q {SERVE}")
        check("watchdog" in guest.out(f"journalctl -u {SERVE}"), "an agent that hangs is killed by its watchdog and started again")
        self.drop_in()
        self.change(guest, "rpm -i /mnt/probe-1.0.rpm", lambda v: v.get("probe") == "1.0-1", "install after a restart")
        self.change(guest, "rpm -e probe", lambda v: "probe" not in v, "erase")

    def sense_unit(self):
        guest, check = self.one, self.report.check
        self.drop_in("Environment=AFFERENT_ALLOW_CID=2,1")
        guest.out("cp -a /etc/afferent /run/etc-afferent && printf '[[vm]]\\nid = \"self\"\\naddress = \"vsock:1:818\"\\n' >>/etc/afferent/roster.toml"
                  " && systemctl enable --now afferent-sense")
        self.until("grep -qs self /var/log/afferent/reports.ndjson")
        check(True, "sense as a unit, with a guest in roster.toml: dials VSOCK, delivers to /var/log/afferent/reports.ndjson")
        guest.out("systemd-run -q --unit=central perl /mnt/central.pl 8080 /run/requests && (umask 077; echo s3cret >/etc/afferent/central-token)"
                  " && sed -i 's|^deliver = .*|deliver = \"http://127.0.0.1:8080\"|; s|^#token_file|token_file|' /etc/afferent/sense.toml"
                  " && afferent check-config sense /etc/afferent/sense.toml && systemctl restart afferent-sense")
        self.change(guest, "rpm -i /mnt/probe-1.0.rpm", lambda v: v.get("probe") == "1.0-1", "install with a second sensor")
        self.until("grep -qs idempotency-key /run/requests")
        requests = guest.out("tr A-Z a-z </run/requests")
        check("authorization: bearer s3cret" in requests and "idempotency-key: self/" in requests,
              "and posts to Central with the token of LoadCredential=, which only root can read on disk", requests)
        check(guest.out("stat -c %a /etc/afferent/central-token; stat -c %U /run/credentials/afferent-sense.service/central-token").split()[0] == "600",
              "the token's file is root's alone")
        result, output = guest.run("afferent status", check=False)[0]
        check(result == 0 and "sense" in output and "serve" in output, "afferent status reaches both", output)
        self.domains()
        guest.out("systemctl disable --now afferent-sense && systemctl stop central && rm -r /etc/afferent && cp -a /run/etc-afferent /etc/afferent")
        self.drop_in()
        self.change(guest, "rpm -e probe", lambda v: "probe" not in v, "erase")

    def domains(self):
        """A sensor that finds this guest as a domain of libvirt, at its loopback, twice under one name."""
        guest = self.one
        guest.out("mkdir -p /run/domains/qemu")
        for number, uuid in enumerate(("0c9d2b0e-7f4e-4a34-8a3c-9f4c3a5b1c11", "5d1f6d62-0b7e-4c0f-9d59-0a2f6f0b2222"), 1):
            guest.out(f"echo \"<domstatus state='running'><domain><name>self</name><uuid>{uuid}</uuid><devices><vsock><cid address='1'/></vsock>"
                      "</devices></domain></domstatus>\" >/run/domains/new && mv /run/domains/new /run/domains/qemu/self.xml")
            if number == 1:
                guest.out("systemd-run -q --unit=domains afferent sense --discover libvirt:/run/domains/qemu --deliver file:/run/domains/out "
                          "--state-dir /run/domains/state")
            self.until(f"[ $(grep -c \"\\\"packages\\\":\" /run/domains/out) = {number} ]")
        lines = [json.loads(line) for line in guest.out("systemctl stop domains && cat /run/domains/out").splitlines()]
        self.report.check([generation(line) for line in lines] == [generation(lines[0])] * 2 and lines[0]["report"] == lines[1]["report"],
                          "a domain of libvirt that is defined anew, with the same agent and report, is reported in full again", str(lines))

    def kubevirt_node(self):
        """A sensor that finds this guest by the API of a cluster and dials its CID, as on a node. The guest is its own node: a
        kernel with vsock_loopback reaches its own CID. The API server is on the host, at the end of a VSOCK port."""
        guest, check, place = self.one, self.report.check, "/run/node"
        api = KubeApi(f"{guest.vsock}_8443", self.work)
        self.drop_in("Environment=AFFERENT_ALLOW_CID=2,1")
        api.put(instance("web", guest.cid, run=1), "ADDED")
        config = {"current-context": "it", "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
                  "clusters": [{"name": "it", "cluster": {"server": "https://127.0.0.1:8443", "certificate-authority": f"{place}/ca"}}],
                  "users": [{"name": "it", "user": {"token": "t"}}]}
        guest.out(f"mkdir {place}")
        for name, text in (("ca", pathlib.Path(api.certificate).read_text()), ("config", json.dumps(config)),
                           # Reports, without short lines about facts that changed alone.
                           ("reports", f"""grep '"packages":' {place}/out"""),
                           ("status", f"afferent status --json --state-dir {place}/state"),
                           ("waits", f"""sh {place}/reports | grep -q vsock && sh {place}/status | grep -Eq '"state": ?"waiting"'""")):
            guest.out(f"echo {base64.b64encode(text.encode()).decode()} | base64 -d >{place}/{name}")
        guest.out("systemd-run -q --unit=forward perl /mnt/forward.pl 8443"
                  f" && systemd-run -q --unit=node afferent sense --discover kubevirt --kube-cluster vm --kubeconfig {place}/config"
                  f" --kube-node n1 --dial node --poll-interval 24h --deliver file:{place}/out --state-dir {place}/state")
        self.until(f"sh {place}/waits")
        line = json.loads(guest.out(f"sh {place}/reports"))
        check((line["vm"]["id"], line["vm"]["address"]) == ("vm:shop:web", f"vsock:{guest.cid}:{PORT}"),
              "a machine that the API names is dialed over AF_VSOCK by its CID, and a wait is held with it", str(line["vm"]))
        facts = line["meta"]["facts"]
        check((facts["kubevirt.node"], facts["kubevirt.cid"]) == ("n1", str(guest.cid)), "its report has its node and its CID as facts", str(facts))
        took = []
        for number in range(20):
            command = "rpm -e probe" if number % 2 else "rpm -i /mnt/probe-1.0.rpm"
            ended = int(guest.out(f"{command} >{place}/rpm 2>&1 && date +%s%N"))
            self.until(f"[ $(sh {place}/reports | wc -l) = {number + 2} ]")
            # Of the file, to which nothing else is written.
            took.append(max(0, int(guest.out(f"stat -c %.9Y {place}/out").replace(".", "")) - ended) // 1_000_000)
        took.sort()
        check(True, "twenty changes came, with a day between polls")
        self.report.notes.append(f"from its node, rpm to the line at the sink: median {took[10]} ms, worst {took[-1]} ms of {len(took)}")
        # It starts anew with a CID at which nobody is, and then with the one that it has.
        api.put(instance("web", 77, run=2))
        self.until(f"sh {place}/status | grep -q vsock:77:{PORT}")
        guest.out("rpm -i /mnt/probe-1.0.rpm")
        api.put(instance("web", guest.cid, run=3))
        self.until(f"[ $(sh {place}/reports | wc -l) = 22 ]")
        check(True, "a machine that starts anew with another CID is dialed there, and its change arrives")
        check(all("labelSelector=kubevirt.io%2FnodeName%3Dn1" in target for target in api.targets), "only the node's own machines were asked for",
              str(api.targets))
        guest.out(f"systemctl stop node forward && rm -r {place}")
        api.stop()
        self.drop_in()
        self.central.wait(guest.name, lambda line: "probe" in versions(line), "the last install, at the host's sensor too")
        self.change(guest, "rpm -e probe", lambda v: "probe" not in v, "erase after a restart")

    def mirror_unit(self):
        guest, check = self.one, self.report.check
        guest.out("cp /mnt/inventory.json /etc/afferent/ && sed -i 's|^#core = .*|core = \"file:/etc/afferent/inventory.json\"|' /etc/afferent/mirror.toml"
                  " && touch /etc/afferent/mirror.enabled && systemctl start afferent-mirror")
        self.until("journalctl -u afferent-mirror | grep -q mirrored")
        pid = guest.out("systemctl show -P MainPID afferent-mirror")
        status = dict(line.split(":", 1) for line in guest.out(f"cat /proc/{pid}/status").splitlines() if ":" in line)
        result, output = guest.run("afferent status", check=False)[0]
        check(result == 0 and "mirror" in output, "afferent status reaches the mirror", output)
        guest.out("systemctl stop afferent-mirror")
        rows = json.loads(guest.out("afferent mirror dump --state-dir /var/lib/afferent/mirror"))["component"]
        check(len(rows) == 1 and status["Uid"].split()[0] != "0", "the mirror, once let, keeps its copy without root", str(rows))
        guest.out("rm -r /etc/afferent && cp -a /run/etc-afferent /etc/afferent")

    def sensor_killed(self):
        guest = self.one
        self.sensor.stop(signal.SIGKILL)
        guest.out("rpm -i /mnt/probe-1.0.rpm")
        before = len(self.central.of(guest.name))
        self.sensor.start([guest])
        self.central.wait(guest.name, lambda line: versions(line).get("probe") == "1.0-1", "what changed while no sensor ran")
        self.report.check(len(self.central.of(guest.name)) == before + 1, "after kill -9 of sense: what was missed arrives, once")
        guest.out("rpm -e probe")
        self.central.wait(guest.name, lambda line: "probe" not in versions(line), "the erase")

    def reboot(self):
        guest, check = self.one, self.report.check
        before, count = generation(self.central.last(guest.name)), len(self.central.of(guest.name))
        guest.shut_down()
        seconds = guest.start()
        check(guest.out(f"systemctl is-active {SERVE}") == "active", f"after a reboot ({seconds:.0f} s) serve runs again by itself")
        # The next change is one generation on, in the same epoch, and is the next line: nothing was sent again.
        self.change(guest, "rpm -i /mnt/probe-1.0.rpm", lambda v: v.get("probe") == "1.0-1", "first install after a reboot")
        after, lines = generation(self.central.last(guest.name)), len(self.central.of(guest.name))
        check(after == (before[0], before[1] + 1), "same epoch, and the generation went on", f"{before} then {after}")
        check(lines == count + 1, "the reboot itself sent nothing again", f"{lines - count} lines")

    def power_cut(self):
        guest, check = self.one, self.report.check
        guest.out("rpm -e probe && sync -f /var/lib/rpm")
        self.central.wait(guest.name, lambda line: "probe" not in versions(line), "the erase")
        before = generation(self.central.last(guest.name))
        guest.run("rpm -i /mnt/extra4-1.0.rpm && sync -f /var/lib/rpm")
        guest.stop()
        guest.start()
        line, _ = self.central.wait(guest.name, lambda line: "extra4" in versions(line), "a change just before the power cut")
        check(line["meta"]["epoch"] == before[0] and line["meta"]["generation"] > before[1], "after kill -9 of the machine: same epoch, generation not backwards",
              f"{before} then {generation(line)}")
        self.same_as_rpm(guest)

    def rollback(self):
        guest, check = self.one, self.report.check
        guest.shut_down()
        guest.save()
        guest.start()
        old = versions(self.central.last(guest.name))
        self.change(guest, "rpm -U /mnt/probe-1.0.rpm", lambda v: v.get("probe") == "1.0-1", "first install after a reboot")
        self.change(guest, "rpm -U /mnt/probe-2.0.rpm", lambda v: v.get("probe") == "2.0-1", "upgrade")
        guest.stop()
        guest.roll_back()
        guest.start()
        self.central.wait(guest.name, lambda line: versions(line) == old, "the state of the older disk")
        check(True, "after a rollback of the disk Central is told the older state")
        # The same generation numbers are given again, to other content: Central must get it all the same.
        self.change(guest, "rpm -i /mnt/probe-3.0.rpm", lambda v: v.get("probe") == "3.0-1", "install")
        guest.out("rpm -e probe")
        self.central.wait(guest.name, lambda line: "probe" not in versions(line), "the erase")

    def second(self):
        check = self.report.check
        self.two = two = Guest("db-1", 4, self.cache, self.work, self.accel)
        two.start()
        two.out(f"rpm -i --nodeps /mnt/afferent-*-1.x86_64.rpm && systemctl enable --now {SERVE}")
        result, output = two.run(f"timeout 20 afferent pull vsock:{self.one.cid}:{PORT}", check=False)[0]
        check(result not in (0, 124), "another guest of the host that dials the first one gets nothing", output)
        self.sensor.stop()
        self.sensor.start([self.one, two])
        line, _ = self.central.wait(two.name, lambda line: "afferent" in versions(line), "the second guest's first report")
        check(line["meta"]["epoch"] != self.central.last(self.one.name)["meta"]["epoch"], "the second guest has an epoch of its own")
        self.change(two, "rpm -i /mnt/probe-1.0.rpm", lambda v: v.get("probe") == "1.0-1", "install in the second guest")
        self.change(self.one, "rpm -i /mnt/extra5-1.0.rpm", lambda v: "extra5" in v, "install in the first, with two")
        check("extra5" not in versions(self.central.last(two.name)), "and neither has the other's packages")
        two.stop()
        self.change(self.one, "rpm -e extra5", lambda v: "extra5" not in v, "erase while the other guest is dead")

    def upgrade(self):
        guest, check = self.one, self.report.check
        before = generation(self.central.last(guest.name))
        old = guest.out(f"systemctl show -P MainPID {SERVE}")
        guest.out("sed -i 's/^#rescan_interval.*/rescan_interval = \"6h\"/' /etc/afferent/serve.toml")
        self.change(guest, "rpm -U --nodeps /mnt/afferent-*-2.x86_64.rpm", lambda v: v["afferent"].endswith("-2"), "rpm -U of afferent itself")
        states = guest.out(f"systemctl is-active {SERVE}; systemctl is-enabled {SERVE}").split()
        check(states == ["active", "enabled"] and guest.out(f"systemctl show -P MainPID {SERVE}") != old, "rpm -U restarted serve and left it enabled", str(states))
        check(guest.run("systemctl is-active afferent-sense", check=False)[0][0] != 0, "and started nothing else")
        after = generation(self.central.last(guest.name))
        check(after == (before[0], before[1] + 1), "state was kept: same epoch, one generation on", f"{before} then {after}")
        check(guest.out("grep -c '^rescan_interval = \"6h\"' /etc/afferent/serve.toml; ls /etc/afferent") ==
              "1\nmirror.toml\nroster.toml\nsense.toml\nserve.toml\nserve.toml.rpmnew", "the edited configuration was kept, the new one lies beside it",
              guest.out("ls /etc/afferent"))

    def removal(self):
        guest, check = self.one, self.report.check
        epoch = self.central.last(guest.name)["meta"]["epoch"]
        guest.out("rpm -e afferent")
        states = guest.run(f"systemctl is-active {SERVE}; systemctl is-enabled {SERVE}; pgrep afferent; ls /usr/bin/afferent", check=False)[0][1]
        check(states.splitlines()[0] in ("inactive", "unknown") and "No such file" in states and "enabled" not in states.split(),
              "rpm -e stopped and disabled serve", states)
        left = guest.out("find / -xdev \\( -path /proc -o -path /sys -o -path /run -o -path /var/log/journal \\) -prune -o -name '*afferent*' -print "
                         "-o -path '/etc/afferent/*' -print -o -path '/var/lib/private/afferent/*' -print | sort")
        elsewhere = [path for path in left.splitlines() if not path.startswith(("/var/lib/", "/var/log/"))]
        expected = ["/etc/afferent", "/etc/afferent/serve.toml.rpmnew", "/etc/afferent/serve.toml.rpmsave"]
        check(elsewhere == expected and "/var/lib/private/afferent/serve/serve.redb" in left.splitlines(),
              "it left the edited configuration and the state, and nothing else", left)
        guest.out(f"rpm -i --nodeps /mnt/afferent-*-2.x86_64.rpm && systemctl enable --now {SERVE}")
        line, _ = self.central.wait(guest.name, lambda line: line["meta"]["epoch"] == epoch and "afferent" in versions(line), "a report after installing again")
        check(line["meta"]["epoch"] == epoch, "installed again it is the same guest: same epoch")
        guest.out("rpm -e afferent")
        purge = re.search(r"to purge it: `sudo ([^`]*)`", pathlib.Path("README.md").read_text())[1]
        guest.out(" ".join(purge.split()))
        left = guest.out("find / -xdev \\( -path /proc -o -path /sys -o -path /run -o -path /var/log/journal \\) -prune -o -name '*afferent*' -print")
        check(left == "", "the command of the README purges what removal keeps", left)

    def old_version(self):
        if not os.path.isdir(os.path.join(self.cache, "payload/old")):
            self.report.say("skipped: there is no RPM of version 0.1.0, which is built from the history of this repository")
            return
        self.sensor.stop()
        self.one.stop()
        OldVersion(self.report, self.cache, self.binary, self.work, self.accel).run()


def main():
    cache, binary = (os.path.abspath(argument) for argument in sys.argv[1:3])
    accel = os.environ.get("VM_ACCEL") or ("kvm" if kvm_works(cache) else "tcg")
    work = tempfile.mkdtemp(prefix="afferent-vm-")
    good = Story(cache, binary, work, accel).run()
    if good:
        shutil.rmtree(work)
    else:
        print(f"logs and disks are in {work}")
    sys.exit(0 if good else 1)


main()
