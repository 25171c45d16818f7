"""Keeps a thousand stalled connections to an agent open, and throws frames of noise at it.

Usage: attack.py SOCKET. Writes a line when the thousand are open, and one when told to stop by the
end of its input. A connection that the agent closes is opened again at once.
"""

import collections
import os
import random
import resource
import selectors
import socket
import struct
import sys
import threading

STALLED = 1000
GET_REPORT = b"\x00\x00\x00\x02\x12\x00"
# Each begins as something else would, and then stops.
OPENINGS = [
    b"",
    b"\x00\x00",
    b"\x00\x00\x10\x00" + b"half a body",
    b"\x00\x10\x00\x00" + b"half of a large body" * 200,
    # Asks for the report and never reads it.
    GET_REPORT,
    GET_REPORT,
    b"\x00\x00\x00\x05\xc2\x3e\x02\x20\x01",
]


def connect(path):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(10)
    connection.connect(path)
    return connection


def stall(path, n):
    while True:
        try:
            connection = connect(path)
            # As little as possible of an answer fits.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            connection.sendall(OPENINGS[n % len(OPENINGS)])
            connection.setblocking(False)
            return connection
        except OSError:
            pass


def noise(path):
    chance = random.Random(os.urandom(8))
    while True:
        try:
            with connect(path) as connection:
                length = chance.choice([0, 1, 2, 9, 100, 4096, 5000, 1 << 20, (1 << 20) + 1, 1 << 31])
                body = os.urandom(min(length, chance.choice([0, 7, 5000])))
                if chance.random() < 0.5:
                    # Nearly a request.
                    length, body = 2 + len(body), b"\x12" + bytes([len(body) & 0x7F]) + body
                connection.sendall(struct.pack(">I", length) + body)
                if chance.random() < 0.5:
                    connection.shutdown(socket.SHUT_WR)
                    connection.recv(100)
        except OSError:
            pass


def main():
    path = sys.argv[1]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    held = selectors.DefaultSelector()
    # Answers that nobody reads; the oldest are given up.
    unread = collections.deque(maxlen=STALLED)
    numbers = iter(range(1 << 60))

    def hold():
        n = next(numbers)
        held.register(stall(path, n), selectors.EVENT_READ)

    for _ in range(STALLED):
        hold()
    for _ in range(2):
        threading.Thread(target=noise, args=(path,), daemon=True).start()
    print("stalled", flush=True)
    held.register(sys.stdin, selectors.EVENT_READ)
    again = 0
    while True:
        for key, _ in held.select():
            if key.fileobj is sys.stdin:
                os.write(1, f"{again}\n".encode())
                os._exit(0)
            try:
                over = not key.fileobj.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                continue
            except OSError:
                over = True
            held.unregister(key.fileobj)
            if over:
                key.fileobj.close()
            else:
                unread.append(key.fileobj)
            again += 1
            hold()


main()
