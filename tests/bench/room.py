"""What a message takes of the disk: while it waits, when it is only history, and in the log."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing

from tests.bench.kit import Effort, Sink, gateway, scratch, sent, smtp_source, wait_until
from tests.bench.relay import config
from tests.bench.table import Row
from tests.flow.kit import Gateway

NAMES = ("room-waiting", "room-sent", "room-log")
_COUNT, _SIZE = 20_000, 1024


def run(wanted: set[str], effort: Effort) -> Iterator[Row]:
    count = effort.of(_COUNT)
    with ExitStack() as stack:
        disk = stack.enter_context(scratch())
        service = stack.enter_context(gateway(disk / "gateway", config(Sink(disk / "sink.log", stack))))
        if service.run("backend", "pause", "out").returncode:
            raise RuntimeError("it cannot be paused")
        empty = _used(service)
        smtp_source(service.port, count, _SIZE)
        waiting = _used(service) - empty
        if service.run("backend", "resume", "out").returncode not in (0, 75):
            raise RuntimeError("it cannot be resumed")
        wait_until(lambda: sent(service) >= count, "the last delivery")
        found = {
            "room-waiting": (f"spool for a message of {_SIZE // 1024} KiB that waits", waiting),
            "room-sent": ("spool for one that was sent, until retention.history is over", _used(service) - empty),
            "room-log": ("log of one that was taken and sent, at level info", service.log.stat().st_size),
        }
        for name, (what, octets) in found.items():
            if name in wanted:
                yield Row(name, what, f"{octets / count:.0f} bytes")


def _used(service: Gateway) -> int:
    """Octets in pages of the spool that hold something."""
    file = service.directory / "state" / "spool.db"
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as spool:
        names = ("page_size", "page_count", "freelist_count")
        size, pages, free = (int(spool.execute(f"PRAGMA {name}").fetchone()[0]) for name in names)
    return size * (pages - free)
