"""Takes the picture of the page in docs/: a fleet of 240 guests in which updates are installed for some minutes.

    python3 -B tests/page/picture.py PROGRAM FILE [MINUTES]
"""

import base64
import collections
import os
import pathlib
import random
import struct
import sys
import tempfile
import time
import zlib

import fleet
import test_page
from browser import Browser


def main():
    test_page.PROGRAM, file = os.path.abspath(sys.argv[1]), sys.argv[2]
    end = time.monotonic() + 60 * float(sys.argv[3] if len(sys.argv) > 3 else 5)
    draw = random.Random(7)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        scratch = pathlib.Path(scratch)
        guests = fleet.make(240)
        more = ["--vm", f"db-241=unix:{scratch / 'nobody.sock'}"]
        sensor = test_page.GuestsSensor(scratch / "sensor", guests, more)
        try:
            sensor.wait_for(len(guests))
            while time.monotonic() < end:
                update(sensor, draw.choice(guests))
                time.sleep(draw.uniform(0.5, 4))
            take(sensor, scratch, file)
        finally:
            sensor.close()


def update(sensor, guest):
    """Installs one of the updates that a guest is behind with."""
    newest = {name: versions[-1] for system in (fleet.RHEL9, fleet.RHEL8) if system["os"] == guest.os
              for name, versions in system["packages"].items()}
    old = [at for at, (name, version, _) in enumerate(guest.packages) if newest.get(name, version) != version]
    if old:
        packages = list(guest.packages)
        name, _, arch = packages[old[0]]
        packages[old[0]] = (name, newest[name], arch)
        sensor.guests.change(guest.name, packages)


def small(png):
    """The same picture with a palette, in a third of the bytes: the edges of letters need no exact colours."""
    at, chunks = 8, {}
    while at < len(png):
        (length,), kind = struct.unpack(">I", png[at:at + 4]), png[at + 4:at + 8]
        chunks[kind] = chunks.get(kind, b"") + png[at + 8:at + 8 + length]
        at += 12 + length
    width, height, depth, colours, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, interlaced) == (8, 0) and colours in (2, 6), "another kind of PNG"
    step = 3 if colours == 2 else 4
    data, stride = zlib.decompress(chunks[b"IDAT"]), width * step
    above, rows = bytearray(stride), []
    for line in range(height):
        begin = line * (stride + 1)
        row = unfiltered(data[begin], bytearray(data[begin + 1:begin + 1 + stride]), above, step)
        rows.append([bytes(row[x:x + 3]) for x in range(0, stride, step)])
        above = row
    counts = collections.Counter(pixel for row in rows for pixel in row)
    exact = {pixel for pixel, _ in counts.most_common(64)}
    shown = {pixel: pixel if pixel in exact else bytes(value & 0xe0 | 0x10 for value in pixel) for pixel in counts}
    palette = {pixel: n for n, pixel in enumerate(sorted(set(shown.values())))}
    lines = b"".join(b"\0" + bytes(palette[shown[pixel]] for pixel in row) for row in rows)
    table = b"".join(palette)
    return png[:8] + b"".join(chunk(kind, body) for kind, body in [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)), (b"PLTE", table),
        (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b"")])


def unfiltered(kind, row, above, step):
    """A row of a PNG without its filter."""
    for x, value in enumerate(row):
        left, up = (row[x - step] if x >= step else 0), above[x]
        if kind == 4:
            corner = above[x - step] if x >= step else 0
            near = [abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)]
            guess = (left, up, corner)[near.index(min(near))]
        else:
            guess = (0, left, up, (left + up) // 2)[kind]
        row[x] = value + guess & 255
    return row


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def take(sensor, scratch, file):
    browser = Browser(scratch)
    try:
        browser.size(1280, 800)
        browser.open(sensor.login())
        browser.wait("the summary", "return document.querySelector('#summary')?.checkVisibility()")
        browser.view("#/find?q=openssl%20%3C%201%3A3.0.7-28.el9_4&os=rhel-9")
        browser.wait("guests", "return document.querySelector('h1')?.textContent === 'Find' && document.querySelectorAll('main tbody tr').length > 3")
        browser.run("document.activeElement.blur()")
        with open(file, "wb") as out:
            out.write(small(base64.b64decode(browser.ask("GET", "/screenshot"))))
    finally:
        browser.close()


if __name__ == "__main__":
    main()
