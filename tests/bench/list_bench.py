"""How long lists take: ``python -m tests.bench.list_bench [--history N] [--queued N]``, by default a million, 100,000.

For each question the slowest of its first, middle and last page and of the oldest first, and how long counting takes.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from itertools import islice
from pathlib import Path

from gateway.clock import SystemClock, first_id
from gateway.events import Events
from gateway.model import NewMessage
from gateway.spool import Cut, Filter, putting
from gateway.spool.records import micros
from gateway.spool.sqlite import SQLite
from gateway.spool.transaction import Transaction
from gateway.spool.vault import Vault
from tests.spool_kit import message, opened

_SPAN = timedelta(days=90)
_BATCH = 2000
_OVER = (
    "UPDATE recipient SET state = 'sent', verdict = 'sent' WHERE message_id IN (SELECT value FROM json_each(:ids))",
    "UPDATE delivery SET state = 'done' WHERE message_id IN (SELECT value FROM json_each(:ids))",
    """UPDATE message SET state = CASE WHEN abs(checksum) % 100 = 0 THEN 'failed' ELSE 'done' END, finished_at = :now,
        has_body = FALSE WHERE id IN (SELECT value FROM json_each(:ids))""",
    "DELETE FROM body WHERE message_id IN (SELECT value FROM json_each(:ids))",
)


def messages(number: int) -> Iterator[NewMessage]:
    """Over 90 days: what is frequent, what was frequent long ago, and three of what is rare."""
    rng, end = random.Random(1), SystemClock().now()
    for n in range(number):
        at, old = end - _SPAN + _SPAN * (n / number), n < number * 0.03
        rare = n in (10, number // 2, number - 50)
        domain = "oldbig.example" if old else rng.choice(("big.example", f"d{rng.randrange(3000)}.example.net"))
        client = "oldone" if old else rng.choices(("printers", "billing", "web"), (60, 30, 10))[0]
        yield message(
            f"user{rng.randrange(50_000)}@{'rare.example' if rare else domain}",
            ident=f"{first_id(at)[:-2]}{n % 1000:03d}",
            sender=f"app{rng.randrange(40)}@our.example",
            client="seldom" if rare else client,
            peer="198.51.100.7" if rare else f"192.0.2.{rng.randrange(200)}",
            backend="office" if n % 3 else "s2g",
            received_at=at,
        )


def fill(directory: Path, history: int, queued: int) -> None:
    engine, source = SQLite(directory), messages(history + queued)
    now = micros(SystemClock().now())
    with closing(engine), closing(engine.open()) as connection:
        vault = Vault(bytes(32), Events())
        for done in range(0, history + queued, _BATCH):
            with connection.begin():
                transaction = Transaction(connection, engine, now, now, vault=vault, drop_sent=True)
                some = list(islice(source, _BATCH))
                putting.put(transaction, some)
                transaction.flush()
                over = engine.listed([one.id for one in some][: max(0, history - done)])
                for statement in _OVER:
                    connection.all(statement, {"ids": over, "now": now})


QUESTIONS = {
    "everything": Filter(),
    "unfinished": Filter(state="unfinished"),
    "sent": Filter(state="sent"),
    "held, none": Filter(state="held"),
    "client, frequent": Filter(client="printers"),
    "client, long ago": Filter(client="oldone"),
    "client, rare": Filter(client="seldom"),
    "client, none": Filter(client="nobody"),
    "peer, rare": Filter(peer="198.51.100.7"),
    "peer, none": Filter(peer="203.0.113.9"),
    "domain, frequent": Filter(recipient="big.example"),
    "domain, long ago": Filter(recipient="oldbig.example"),
    "domain, rare": Filter(address="rare.example"),
    "domain, none": Filter(address="nix.example"),
    "all below a domain": Filter(address="*.example.net"),
    "one address": Filter(address="user77@big.example"),
    "name without a domain": Filter(address="user77"),
    "name, none": Filter(address="nobody"),
    "backend, none": Filter(backend="gone"),
    "backend, queued": Filter(backend="office", state="queued"),
    "older than 85 days": Filter(until=SystemClock().now() - timedelta(days=85)),
    "never together": Filter(client="oldone", recipient="big.example"),
}


async def measure(directory: Path) -> None:
    async with opened(directory, clock=SystemClock()) as at:
        (middle,) = (await at.spool.page(Filter(until=SystemClock().now() - _SPAN / 2), Cut(limit=1))).messages
        last = first_id(SystemClock().now() - _SPAN * 0.99)
        cuts = (Cut(), Cut(before=middle.id), Cut(before=last), Cut(after=middle.id), Cut(oldest=True))
        for name, which in QUESTIONS.items():
            took = []
            for cut in cuts:
                began = time.perf_counter()
                await at.spool.page(which, cut)
                took.append(time.perf_counter() - began)
            began = time.perf_counter()
            total = await at.spool.total(which)
            counted = time.perf_counter() - began
            more = "+" if total.more else ""
            print(f"{name:24} page {max(took) * 1e3:4.0f} ms   total {counted * 1e3:4.0f} ms  {total.number}{more}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--history", type=int, default=1_000_000)
    parser.add_argument("--queued", type=int, default=100_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="list-bench-") as directory:
        fill(Path(directory), given.history, given.queued)
        asyncio.run(measure(Path(directory)))


if __name__ == "__main__":
    main()
