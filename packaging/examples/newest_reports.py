"""Keeps the newest report of every guest in SQLite, from a NATS stream that any number of sensors write.

  pip install -r requirements.txt
  python3 newest_reports.py --server nats://n1,nats://n2,nats://n3 --stream REPORTS --db guests.sqlite

Table `guests`: vm, seen_at (milliseconds), generation, digest, meta and report (JSON), stored_at (milliseconds). Any
number of runs may follow one another: the consumer is durable, and a message is acknowledged only when its transaction
is on disk. What arrives twice, or late, changes nothing: the document with the highest seen_at counts, see
docs/consumers.md. Stop it whenever you like, with any signal.
"""

import argparse
import asyncio
import contextlib
import gzip
import json
import sqlite3
import sys
import time
from datetime import datetime

import nats
from nats.errors import Error, TimeoutError as NothingYet
from nats.js.api import AckPolicy, ConsumerConfig

# A document that was seen so much later than now was seen when it came: a host's clock was ahead.
AHEAD_MS = 5 * 60 * 1000
BATCH = 200

SCHEMA = """
CREATE TABLE IF NOT EXISTS guests (
    vm TEXT PRIMARY KEY, seen_at INTEGER NOT NULL, generation INTEGER NOT NULL, digest TEXT NOT NULL,
    meta TEXT NOT NULL, report TEXT NOT NULL, stored_at INTEGER NOT NULL
) WITHOUT ROWID
"""


def seen_at(meta, now):
    """When the document counts as seen, in milliseconds since 1970."""
    seen = datetime.fromisoformat(meta["seen_at"].replace("Z", "+00:00"))
    seen = round(seen.timestamp() * 1000)
    return now if seen > now + AHEAD_MS else seen


def store(db, document, now):
    """Stores a document if nothing newer is there."""
    meta, vm = document["meta"], document["vm"]["id"]
    seen = seen_at(meta, now)
    if document.get("type") == "facts" or document.get("unchanged"):
        # Of the report that is here, or of none.
        db.execute(
            "UPDATE guests SET seen_at = ?, meta = ?, stored_at = ? WHERE vm = ? AND digest = ? AND seen_at < ?",
            (seen, json.dumps(meta), now, vm, meta["digest"], seen),
        )
    elif document.get("type") is None:
        db.execute(
            """INSERT INTO guests VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (vm) DO UPDATE SET
                   seen_at = excluded.seen_at, generation = excluded.generation, digest = excluded.digest,
                   meta = excluded.meta, report = excluded.report, stored_at = excluded.stored_at
               WHERE excluded.seen_at > seen_at""",
            (vm, seen, meta["generation"], meta["digest"], json.dumps(meta), json.dumps(document["report"]), now),
        )


def document_in(message):
    """The document in a message."""
    body = message.data
    if (message.headers or {}).get("Content-Encoding") == "gzip":
        body = gzip.decompress(body)
    return json.loads(body)


async def follow(connection, db, options):
    """Stores what comes, until something fails."""
    config = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, ack_wait=30, max_ack_pending=10 * BATCH)
    subscription = await connection.jetstream().pull_subscribe(
        "", durable=options.durable, stream=options.stream, config=config
    )
    print("following", flush=True)
    while True:
        try:
            messages = await subscription.fetch(BATCH, timeout=5)
        except NothingYet:
            # An idle stream, or a consumer that lost its leader: asking for its state tells them apart.
            await subscription.consumer_info()
            continue
        now = round(time.time() * 1000)
        with db:  # one transaction
            for message in messages:
                store(db, document_in(message), now)
        for message in messages:
            await message.ack()


async def say(error):
    """The library goes on by itself; a word is enough."""
    print(f"connection: {type(error).__name__}: {error}", file=sys.stderr, flush=True)


async def main(options):
    with contextlib.closing(sqlite3.connect(options.db)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute(SCHEMA)
        while True:
            try:
                connection = await nats.connect(
                    options.server.split(","),
                    user_credentials=options.creds,
                    max_reconnect_attempts=5,
                    connect_timeout=5,
                    error_cb=say,
                )
                try:
                    await follow(connection, db, options)
                finally:
                    await asyncio.wait_for(connection.close(), timeout=5)
            except (Error, OSError, asyncio.TimeoutError) as error:
                print(f"again in a second: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                await asyncio.sleep(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", required=True, help="addresses, separated by commas")
    parser.add_argument("--stream", default="REPORTS")
    parser.add_argument("--db", required=True, help="the SQLite file")
    parser.add_argument("--durable", default="newest-reports", help="name of the consumer in the stream")
    parser.add_argument("--creds", help="file with credentials (.creds)")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(parser.parse_args()))
