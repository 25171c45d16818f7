"""One virtual machine: QEMU, its VSOCK device, and commands over its second serial port.

The VSOCK device is a program beside QEMU (vhost-device-vsock), so no kernel module is needed on the host. It gives the
host a unix socket on which `CONNECT PORT` reaches that port in the guest.
"""

import base64
import os
import shutil
import socket
import subprocess
import time

BOOT_LIMIT = 240
COMMAND_LIMIT = 120


class GuestError(Exception):
    """The guest did not do what it was told."""


def kvm_works(cache):
    """Whether a kernel boots with /dev/kvm as far as its panic about the missing disk. A device that opens proves nothing:
    nested in some machines it runs no instruction."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    try:
        subprocess.run(
            ["qemu-system-x86_64", "-M", "q35", "-accel", "kvm", "-cpu", "host", "-m", "256", "-nodefaults",
             "-display", "none", "-no-reboot", "-kernel", os.path.join(cache, "vmlinuz"), "-append", "panic=-1"],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=6, check=True)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        return False
    return True


class Guest:
    """A machine with a disk of its own on top of the shared base image."""

    def __init__(self, name, cid, cache, work, accel, base="base.img", kernel="audit=0"):
        self.name, self.cid, self.cache, self.accel = name, cid, cache, accel
        # What the kernel is told besides; it holds from the next start on.
        self.kernel = kernel
        self.dir = os.path.join(work, name)
        os.makedirs(self.dir)
        self.disk = self.path("disk.qcow2")
        self.machine_id = f"{cid:032x}"
        self.qemu = self.device = self.serial = None
        self.buffer = b""
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", os.path.join(cache, base),
                        self.disk], check=True)

    def path(self, name):
        return os.path.join(self.dir, name)

    @property
    def vsock(self):
        """The socket on which the host reaches this guest's ports."""
        return self.path("vsock")

    def start(self):
        """Boots, and returns the seconds until commands could be given."""
        began = time.monotonic()
        for leftover in ("device", "vsock", "serial"):
            if os.path.exists(self.path(leftover)):
                os.unlink(self.path(leftover))
        log = open(self.path("device.log"), "ab")
        self.device = subprocess.Popen(
            [os.path.join(self.cache, "tools/bin/vhost-device-vsock"), "--guest-cid", str(self.cid),
             "--socket", self.path("device"), "--uds-path", self.vsock], stdout=log, stderr=log)
        self._until(lambda: os.path.exists(self.path("device")), 10, "its VSOCK device")
        cpu = "host" if self.accel == "kvm" else "max"
        append = ("console=ttyS0 root=/dev/vda rw quiet panic=-1 mitigations=off systemd.show_status=0 "
                  f"{self.kernel} systemd.machine_id={self.machine_id} systemd.hostname={self.name}")
        self.qemu = subprocess.Popen(
            ["qemu-system-x86_64", "-M", "q35", "-accel", self.accel, "-cpu", cpu, "-m", "384", "-nodefaults",
             "-display", "none", "-no-reboot",
             "-object", "memory-backend-memfd,id=mem,size=384M,share=on", "-numa", "node,memdev=mem",
             "-kernel", os.path.join(self.cache, "vmlinuz"), "-initrd", os.path.join(self.cache, "initrd.gz"),
             "-append", append,
             "-serial", "file:" + self.path("console.log"),
             "-chardev", f"socket,id=serial,path={self.path('serial')},server=on,wait=off", "-serial", "chardev:serial",
             "-drive", f"file={self.disk},if=virtio,cache=writeback",
             "-drive", f"file={os.path.join(self.cache, 'payload.img')},if=virtio,format=raw,readonly=on",
             "-device", "virtio-rng-pci",
             "-chardev", f"socket,id=device,path={self.path('device')}",
             "-device", "vhost-user-vsock-pci,chardev=device"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.serial = socket.socket(socket.AF_UNIX)
        self._until(lambda: self.serial.connect_ex(self.path("serial")) == 0, 20, "its serial port")
        self.buffer = b""
        self._line(b"READY", began + BOOT_LIMIT)
        return time.monotonic() - began

    def run(self, command, check=True, limit=COMMAND_LIMIT):
        """Runs a shell command as root and returns (output, moment at which it had finished)."""
        self.serial.sendall(base64.b64encode(command.encode()) + b"\n")
        deadline = time.monotonic() + limit
        result = int(self._line(b"DONE ", deadline))
        finished = time.time()
        output = base64.b64decode(self._line(b"OUT ", deadline)).decode(errors="replace")
        if check and result != 0:
            raise GuestError(f"{self.name}: {command!r} gave {result}: {output}")
        return (output if check else (result, output)), finished

    def out(self, command):
        return self.run(command)[0].strip()

    def shut_down(self):
        """An orderly reboot: QEMU was told to end where the machine would start again."""
        self.serial.sendall(base64.b64encode(b"systemctl reboot") + b"\n")
        try:
            self.qemu.wait(90)
        except subprocess.TimeoutExpired as error:
            raise GuestError(f"{self.name}: does not shut down") from error
        self.stop()

    def stop(self):
        """Kills the machine as a power cut would; returns when it is gone."""
        for process in (self.qemu, self.device):
            if process and process.poll() is None:
                process.kill()
            if process:
                process.wait()
        if self.serial:
            self.serial.close()
        self.qemu = self.device = self.serial = None

    def save(self):
        """A copy of the disk of a machine that is off."""
        shutil.copyfile(self.disk, self.path("saved.qcow2"))

    def roll_back(self):
        shutil.copyfile(self.path("saved.qcow2"), self.disk)

    def talk(self, port, payload, limit=10):
        """One conversation with a port of the guest, as the hybrid protocol has it."""
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(limit)
            peer.connect(self.vsock)
            peer.sendall(f"CONNECT {port}\n".encode())
            answer = b""
            while not answer.endswith(b"\n"):
                byte = peer.recv(1)
                if not byte:
                    raise GuestError(f"{self.name}: port {port} refused")
                answer += byte
            peer.sendall(payload)
            return answer, peer.recv(65536)

    def _line(self, start, deadline):
        """Waits for the next line that begins with `start` and returns its rest."""
        while True:
            while b"\n" in self.buffer:
                line, self.buffer = self.buffer.split(b"\n", 1)
                line = line.strip(b"\r")
                if line.startswith(start):
                    return line[len(start):]
            left = deadline - time.monotonic()
            if left <= 0:
                raise GuestError(f"{self.name}: no {start.decode().strip()} in time; {self._console()}")
            self.serial.settimeout(left)
            try:
                data = self.serial.recv(65536)
            except TimeoutError:
                continue
            if not data:
                raise GuestError(f"{self.name}: the machine is gone; {self._console()}")
            self.buffer += data

    def _console(self):
        try:
            with open(self.path("console.log"), errors="replace") as log:
                return "its console ended with:\n" + "".join(log.readlines()[-20:])
        except OSError:
            return "it has no console log"

    def _until(self, condition, limit, what):
        deadline = time.monotonic() + limit
        while not condition():
            if time.monotonic() > deadline:
                raise GuestError(f"{self.name}: {what} does not appear")
            time.sleep(0.02)
