"""The RPM of version 0.1.0 is upgraded to that of this tree with its services running, put back, and upgraded again.

Both say that they are version 0.1.0, because the version of this tree is raised when it is released: the RPM under test has
release 2 instead of 1, so that rpm takes it for the newer one, and the commits in `--version` tell the programs apart.
"""

import json
import os

from guest import Guest
from harness import PORT, SERVE, Central, Sensor, generation, versions

SERVICES = (SERVE, "afferent-sense", "afferent-mirror")
STATE = "/var/lib/private/afferent"
OLD_RPM = "/mnt/old/afferent-*.rpm"
NEW_RPM = "/mnt/afferent-*-2.x86_64.rpm"
REFUSED = "written by a newer afferent"

# An agent of a second guest, `ghost`, which is a root directory of this one.
GHOST = ("systemd-run -q --unit=ghost afferent serve --root /srv/ghost --listen vsock:819 --allow-cid 1 "
         "--state-dir /srv/ghost-state")
CENTRAL = "systemd-run -q --unit=central perl /mnt/central.pl 8080 /run/requests"


class OldVersion:
    """A guest that begins with version 0.1.0, and a sensor of this version on the host."""

    def __init__(self, report, cache, binary, work, accel):
        self.report, self.check = report, report.check
        work = os.path.join(work, "old-version")
        os.makedirs(work)
        self.guest = Guest("old-1", 5, cache, work, accel)
        self.central = Central(os.path.join(work, "central.ndjson"))
        self.sensor = Sensor(binary, work, self.central)

    def run(self):
        try:
            self.guest.start()
            self.install()
            self.leave_pending()
            self.upgrade()
            self.put_back()
            self.upgrade_again()
        finally:
            self.sensor.stop()
            self.guest.stop()

    # -- what it looks at

    def running(self, service):
        """What the running program of a service says of itself, or nothing."""
        return self.guest.run(f"/proc/$(systemctl show -P MainPID {service})/exe --version", check=False)[0][1].strip()

    def all_run(self, program, when):
        states = self.guest.run("systemctl is-active " + " ".join(SERVICES), check=False)[0][1].split()
        self.check(states == ["active"] * 3 and [self.running(service) for service in SERVICES] == [program] * 3,
                   f"{when} serve, sense and mirror run as {program}", f"{states}, {[self.running(s) for s in SERVICES]}")

    def until(self, condition, limit=60):
        self.guest.run(f"timeout {limit} sh -c 'until {condition}; do sleep 0.1; done'", limit=limit + 30)

    def ghost(self):
        """The guest of the sensor under its unit whose agent is away when that sensor is upgraded."""
        # It ends with 4 while a service is degraded, which the sensor is without its Central.
        said, rest = [], self.guest.run("afferent status --json --vm ghost", check=False)[0][1].strip()
        while rest:
            service, end = json.JSONDecoder().raw_decode(rest)
            said, rest = [*said, service], rest[end:].strip()
        sense = next(service for service in said if service.get("service") == "sense")
        return next(guest for guest in sense["guests"] if guest["vm"] == "ghost")

    def mirrored(self):
        """Rows and audit log of the mirror, by the program that is installed."""
        ask = "afferent mirror {} --state-dir /var/lib/afferent/mirror"
        rows = json.loads(self.guest.out(ask.format("dump")))
        return [row["id"] for row in rows["component"]], self.guest.out(ask.format("audit"))

    def files(self):
        return self.guest.out(f"find {STATE} -type f | sort")

    def change(self, package):
        """Installs a package; the key of the report with it."""
        self.guest.out(f"rpm -i /mnt/{package}-1.0.rpm")
        return generation(self.central.wait(self.guest.name, lambda line: package in versions(line), package)[0])

    def requests(self):
        """Keys of the documents that the Central in the guest was sent."""
        heads = self.guest.out("cat /run/requests 2>/dev/null || true").lower()
        return [line.split(":", 1)[1].strip() for line in heads.splitlines() if line.startswith("idempotency-key:")]

    # -- the steps

    def install(self):
        guest = self.guest
        guest.out(f"rpm -i --nodeps {OLD_RPM}")
        self.old = guest.out("afferent --version")
        guest.out("sed -i 's/^#allow_cid.*/allow_cid = [\"2\", \"1\"]/' /etc/afferent/serve.toml"
                  " && sed -i 's|^deliver = .*|deliver = \"http://127.0.0.1:8080\"|' /etc/afferent/sense.toml"
                  " && printf '[[vm]]\\nid = \"ghost\"\\naddress = \"vsock:1:819\"\\n' >>/etc/afferent/roster.toml"
                  " && cp /mnt/inventory.json /etc/afferent/ && touch /etc/afferent/mirror.enabled"
                  " && sed -i 's|^#core = .*|core = \"file:/etc/afferent/inventory.json\"|' /etc/afferent/mirror.toml")
        guest.out(f"mkdir -p /srv/ghost/var/lib /srv/ghost/etc && cp -a /var/lib/rpm /srv/ghost/var/lib/ && {GHOST} && {CENTRAL}")
        guest.out("systemctl enable --now " + " ".join(SERVICES))
        self.sensor.start([guest])
        line, _ = self.central.wait(guest.name, lambda line: "afferent" in versions(line), "the first report of 0.1.0")
        self.check(line["meta"]["facts"].get("digest_form") is None, "the first report is one of version 0.1.0")
        self.until("grep -qs ghost/ /run/requests")
        self.until("journalctl -u afferent-mirror | grep -q mirrored")
        self.all_run(self.old, "before the upgrade")
        self.change("extra1")

    def leave_pending(self):
        """A report of a guest that is gone afterwards: only sense.redb has it."""
        guest = self.guest
        guest.out("systemctl stop central && rpm --root /srv/ghost --dbpath /var/lib/rpm -i --nodeps --nosignature /mnt/extra2-1.0.rpm")
        self.until("journalctl -u afferent-sense | grep -q \"not delivered vm=ghost\"")
        guest.out("systemctl stop ghost; rm /run/requests")
        self.pending = self.ghost()
        # 0.1.0 reads no store that its service has open.
        guest.out("systemctl stop afferent-mirror")
        self.mirror_before = self.mirrored()
        guest.out("systemctl start afferent-mirror")

    def upgrade(self):
        guest, check = self.guest, self.check
        before = generation(self.central.last(guest.name))
        lines = len(self.central.of(guest.name))
        guest.out(f"rpm -U --nodeps {NEW_RPM}")
        self.new = guest.out("afferent --version")
        check(self.new != self.old, "rpm -U installed another program", self.new)
        self.all_run(self.new, "after rpm -U")
        restarts = guest.out("systemctl show -P NRestarts " + " ".join(SERVICES)).split()
        check(restarts == ["0"] * 3, "rpm -U restarted each once, and none failed", str(restarts))
        # The change after that closes what belongs to the upgrade.
        self.central.wait(guest.name, lambda line: versions(line).get("afferent", "").endswith("-2"), "the upgrade itself")
        last = self.change("probe")
        new = self.central.of(guest.name)[lines:]
        keys = [generation(line) for line in new]
        numbers = [number for _, number in keys]
        check({epoch for epoch, _ in keys} == {before[0]} and numbers == sorted(set(numbers)) and numbers[0] > before[1],
              "the epoch stayed, no generation went back or came twice", f"{before}, then {keys}")
        # One for the upgrade, which is a change of packages itself, and one for the package after it.
        final = [line for line in new[:-1] if line["meta"]["facts"].get("digest_form") == "2" and self.has_only_new(line)]
        check(len(final) == 1 and keys[-1] == last, "the new agent sent one full report of what the upgrade left",
              str([(generation(line), line["meta"]["facts"].get("digest_form"), self.has_only_new(line)) for line in new]))
        after = self.ghost()
        kept = [(guest["known"], guest["guest_id"], guest["pending"]["key"]) for guest in (self.pending, after)]
        check(kept[0] == kept[1], "sense still has the report that was pending", f"{kept}")
        guest.out(CENTRAL)
        self.until("grep -qs ghost/ /run/requests")
        epoch, number = after["pending"]["key"].split(":")[:2]
        keys = self.requests()
        check(len(keys) == 1 and keys[0].startswith(f"ghost/{epoch}/{number}/"), "and delivers it, though its agent is gone", f"{keys}")
        self.until("journalctl -u afferent-mirror | grep -c mirrored | grep -qv \"^[01]$\"")
        check(self.mirrored()[0] == self.mirror_before[0] and self.mirrored()[1].startswith(self.mirror_before[1]),
              "the mirror has the same ids, and its audit log goes on", f"{self.mirror_before}, then {self.mirrored()}")

    def has_only_new(self, line):
        releases = [package["version"] for package in line["report"]["packages"] if package["name"] == "afferent"]
        return len(releases) == 1 and releases[0].endswith("-2")

    def put_back(self):
        guest, check = self.guest, self.check
        self.before = generation(self.central.last(guest.name))
        self.ghost_before, self.mirror_before, files = self.ghost(), self.mirrored(), self.files()
        cursor = guest.out("journalctl -n 0 --show-cursor").rsplit("cursor: ", 1)[1]
        guest.out(f"rpm -U --oldpackage --nodeps {OLD_RPM}")
        for service in SERVICES:
            self.until(f"journalctl -u {service} --after-cursor=\"{cursor}\" | grep -q \"{REFUSED}\"")
        check(guest.out("afferent --version") == self.old, "rpm -U --oldpackage put 0.1.0 back, and each of its services "
              f"refuses: {REFUSED}")
        check(guest.run("systemctl is-active -q " + " ".join(SERVICES), check=False)[0][0] != 0, "none of them runs")
        check(self.files() == files, "nothing is moved aside and nothing begun anew", f"{files}\n{self.files()}")

    def upgrade_again(self):
        guest, check = self.guest, self.check
        lines, requests = len(self.central.of(guest.name)), self.requests()
        # While nobody watches.
        guest.out("rpm -i /mnt/extra3-1.0.rpm")
        guest.out(f"rpm -U --nodeps {NEW_RPM}")
        self.all_run(self.new, "after rpm -U again, without more ado,")
        self.central.wait(guest.name, lambda line: "extra3" in versions(line), "what changed meanwhile")
        self.change("extra4")
        keys = [generation(line) for line in self.central.of(guest.name)[lines:]]
        numbers = [number for _, number in keys]
        check({epoch for epoch, _ in keys} == {self.before[0]} and numbers == sorted(set(numbers)) and numbers[0] > self.before[1],
              "serve goes on where it was: same epoch, higher generations", f"{self.before}, then {keys}")
        after = self.ghost()
        check(all(after[key] == self.ghost_before[key] for key in ("known", "guest_id", "accepted")) and self.requests() == requests,
              "sense knows what Central accepted, and sends nothing of it again", f"{self.ghost_before}, then {after}; {self.requests()}")
        check(self.mirrored()[0] == self.mirror_before[0] and self.mirrored()[1].startswith(self.mirror_before[1]),
              "and so does the mirror")
