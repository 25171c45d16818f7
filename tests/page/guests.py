"""Simulated guests: many agents in one process, each behind a unix socket, with the protocol of docs/protocol.md.

The sensor that pulls from them is the real one. A guest that waits is answered as soon as it changes; one that does not
is polled, so that ten thousand of them need no connection of their own.
"""

import asyncio
import hashlib
import struct
import threading
import time


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number, value):
    """A protobuf field: a number, text, or bytes that are text or a message. Defaults are left out."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value) if value else b""
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value if value else b""


def entry(number, key, value):
    """An entry of a map."""
    return field(number, field(1, key) + field(2, value))


def read_fields(data):
    """The fields of a message by number; of several with one number, the last."""
    fields, at = {}, 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = number()
        if tag & 7 == 0:
            fields[tag >> 3] = number()
        else:
            length = number()
            fields[tag >> 3] = data[at:at + length]
            at += length
    return fields


class Guest:
    """What an agent serves. Packages are (name, version, architecture)."""

    def __init__(self, name, packages, os=("rhel", "9.4"), facts=None, waits=True, version="0.2.0"):
        self.name, self.os, self.waits, self.version = name, os, waits, version
        self.packages = list(packages)
        self.facts = {"guest_id": hashlib.md5(name.encode()).hexdigest(), "scan_trigger": "scheduled", **(facts or {})}
        self.generation, self.generated_at = 1, time.time()
        self.changed = None

    def report(self):
        contents = bytearray()
        identifier, version = self.os
        distribution = (field(1, "1") + field(2, identifier) + field(3, identifier) + field(6, version)
                        + field(9, f"{identifier} {version}"))
        for number, (name, version, arch) in enumerate(self.packages, 1):
            package = (field(1, str(number)) + field(2, name) + field(3, version) + field(6, "binary")
                       + field(8, "sqlite:var/lib/rpm") + field(11, arch))
            contents += entry(5, str(number), package)
        contents += entry(6, "1", distribution)
        for number in range(1, len(self.packages) + 1):
            environment = field(1, "sqlite:var/lib/rpm") + field(3, "1")
            contents += entry(8, str(number), field(1, environment))
        return field(2, "IndexFinished") + field(3, 1) + field(5, bytes(contents))

    def meta(self):
        facts = b"".join(entry(5, name, value) for name, value in sorted(self.facts.items()))
        methods = field(4, "get_report") + (field(4, "wait_report") if self.waits else b"")
        at = field(1, int(self.generated_at)) + field(2, int(self.generated_at % 1 * 1e9))
        return (field(1, self.version) + field(2, at) + field(3, self.generation)
                + methods + facts + field(6, 77))

    def answer(self, unchanged):
        report = field(2, 1) if unchanged else field(1, self.report())
        return field(1, self.meta()) + field(2, report)

    async def serve(self, reader, writer):
        try:
            (length,) = struct.unpack(">I", await reader.readexactly(4))
            request = read_fields(await reader.readexactly(length))
            if 1000 in request:
                known = read_fields(request[1000])
                if known.get(1, 0) == self.generation:
                    try:
                        await asyncio.wait_for(self.changed.wait(), known.get(4, 0) / 1000)
                    except asyncio.TimeoutError:
                        pass
            else:
                known = read_fields(request.get(2, b""))
            answer = self.answer(known.get(1, 0) == self.generation)
            writer.write(struct.pack(">I", len(answer)) + answer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # The sensor went away, or all of this ends.
        finally:
            writer.close()


class Guests:
    """A directory of sockets, one a guest, as `--discover DIRECTORY` of the sensor takes it."""

    def __init__(self, directory, guests):
        self.directory = directory
        self.guests = {guest.name: guest for guest in guests}
        self.loop = asyncio.new_event_loop()
        self.servers = []
        started = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self.thread.start()
        started.wait()

    def _run(self, started):
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._listen())
        started.set()
        self.loop.run_forever()

    async def _listen(self):
        for guest in self.guests.values():
            guest.changed = asyncio.Event()
            path = f"{self.directory}/{guest.name}.sock"
            self.servers.append(await asyncio.start_unix_server(guest.serve, path))

    def change(self, name, packages):
        """A transaction in the guest: other packages, one more generation."""
        def change():
            guest = self.guests[name]
            guest.packages = list(packages)
            guest.generation, guest.generated_at = guest.generation + 1, time.time()
            guest.facts["scan_trigger"] = "reactive"
            guest.changed.set()
            guest.changed = asyncio.Event()
        self.loop.call_soon_threadsafe(change)

    def stop(self):
        async def close():
            for server in self.servers:
                server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.loop.stop()
        asyncio.run_coroutine_threadsafe(close(), self.loop)
        self.thread.join()
        self.loop.close()
