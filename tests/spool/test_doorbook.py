"""Refusals are kept: alike ones as one row, whatever their number, and never at the cost of mail or of others."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.config.models import RetentionSettings
from gateway.model import SpoolFull
from gateway.refusals import Refused
from gateway.spool import DoorBook, RefusalFilter, RefusalRow
from gateway.spool.doorbook import Row
from gateway.spool.refusals import MOST
from tests.fakes import START, FakeClock
from tests.spool.test_open import child
from tests.spool_kit import At, opened, peer, statements

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def refused(peer: str = "192.0.2.77", **more: Any) -> Refused:
    """A printer that nobody has listed."""
    given = {"listener": "devices", "stage": "mail", "reason": "relay_denied", "code": 550, "sender": "scan@x.example"}
    return Refused(**{**given, "peer": peer, **more})


def guess(n: int) -> Refused:
    """One of a network of guessers, each with an address of its own."""
    address = f"{20 + n // 65536}.{n // 256 % 256}.{n % 256}.1"
    return Refused(listener="devices", stage="auth", reason="auth_failed", code=535, peer=address, user="admin")


class Book:
    """A book over an open spool, and what can be read there."""

    def __init__(self, at: At) -> None:
        self.at = at
        self.book = DoorBook(at.spool.note_refusals, at.clock, at.events)

    async def write(self, *all_: Refused) -> None:
        for one in all_:
            self.book.note(one)
        await self.book.flush()

    async def rows(self, **which: Any) -> list[RefusalRow]:
        return list((await self.at.spool.refusals(RefusalFilter(**which), limit=1_000_000)).rows)


@pytest_asyncio.fixture
async def door(at: At) -> AsyncIterator[Book]:
    yield Book(at)


async def test_a_looping_printer_is_one_row(door: Book) -> None:
    """With its count, its first and its last time; all else is of the last one. The next hour has a row of its own."""
    await door.write(refused(size=100))
    door.at.clock.advance(60)
    await door.write(refused(size=200, helo="printer", recipients=("a@x.example", "b@x.example")), refused(size=300))
    (row,) = await door.rows()
    assert (row.count, row.first_at, row.last_at) == (3, START, START + timedelta(minutes=1))
    assert (row.size, row.helo, row.recipients, row.mixed) == (300, "", (), False)
    door.at.clock.advance(3600)
    await door.write(refused())
    assert [row.count for row in await door.rows()] == [1, 3]
    counts = (await door.at.spool.flow(door.at.clock.now(), 2, HOUR)).points
    assert [point.refused for point in counts] == [3, 1]


@pytest.mark.parametrize(
    "other",
    [
        {"listener": "local"}, {"stage": "rcpt"}, {"reason": "no_route"}, {"sender": "b@x.example"},
        {"peer": "192.0.2.78"}, {"client": "printers"},
    ],
)  # fmt: skip
async def test_what_tells_rows_apart(door: Book, other: dict[str, Any]) -> None:
    """Way in, stage, reason, sender, and client or address."""
    await door.write(refused(), Refused(**{**_fields(refused()), **other}), refused())
    assert sorted(row.count for row in await door.rows()) == [1, 2]


def _fields(of: Refused) -> dict[str, Any]:
    return {name: getattr(of, name) for name in of.__slots__}


async def test_a_client_is_one_whatever_its_address(door: Book) -> None:
    """And so is the /64 of an IPv6 host that changes its address all the time."""
    await door.write(refused("192.0.2.1", client="printers"), refused("192.0.2.2", client="printers"))
    await door.write(refused("2001:db8::1"), refused("2001:db8::2"))
    assert [row.count for row in await door.rows()] == [2, 2]


@pytest.mark.parametrize("number", [20_000, pytest.param(450_000, marks=pytest.mark.slow)])
async def test_bad_commands_without_end_are_one_row(door: Book, number: int) -> None:
    """Nothing grows with their number, and the writer has one row to write."""
    bad = Refused(listener="devices", stage="command", reason="unknown_command", code=500, peer="198.51.100.7")
    for _ in range(number):
        door.book.note(bad)
    with statements() as seen:
        await door.book.flush()
    assert [row.count for row in await door.rows()] == [number]
    assert sum("refusal" in text for text in seen) == 1
    assert seen.count("COMMIT") == 1


@pytest.mark.parametrize("number", [5000, pytest.param(100_000, marks=pytest.mark.slow)])
async def test_guessers_push_out_nobody(door: Book, number: int) -> None:
    """Any number of addresses makes few rows; who was turned away before or afterwards for another reason has his, and
    so has a stranger who comes again and again for the same one."""
    await door.write(refused("192.0.2.1"))
    for n in range(number):
        door.book.note(guess(n))
    again = Refused(listener="devices", stage="auth", reason="auth_failed", code=535, peer="203.0.114.9", user="scan")
    await door.write(refused("192.0.2.2"), *[again] * 9)
    rows = await door.rows()
    assert len(rows) < 250
    assert sum(row.count for row in rows) == number + 11
    assert {row.peer for row in rows if row.stage == "mail"} == {"192.0.2.1", "192.0.2.2"}
    assert [row.count for row in rows if row.peer == "203.0.114.9"] == [7]
    (mixed,) = [row for row in rows if row.mixed]
    assert (mixed.peer, mixed.reason, mixed.user) == ("", "auth_failed", "")


async def test_ever_new_senders_of_one_device_share_a_row(door: Book) -> None:
    """It keeps saying whose it is."""
    await door.write(*(refused(sender=f"{n}@x.example") for n in range(10_000)))
    rows = await door.rows()
    assert len(rows) == 21
    (mixed,) = [row for row in rows if row.mixed]
    assert (mixed.peer, mixed.sender, mixed.count) == ("192.0.2.77", "", 9980)


async def test_what_follows_from_a_refusal_is_no_other(door: Book) -> None:
    """A client that goes on after a refused MAIL has made one mistake."""
    await door.write(refused(), refused(reason="bad_sequence", follows=True))
    assert [row.reason for row in await door.rows()] == ["relay_denied"]


async def test_what_the_spool_does_not_take_now_waits(at: At) -> None:
    """Counted together with what comes meanwhile; memory is bounded, and what had to go is counted."""
    whole = False

    async def write(rows: Any, counts: Any) -> None:
        if not whole:
            raise SpoolFull("no")
        await at.spool.note_refusals(rows, counts)

    book = DoorBook(write, at.clock, at.events)
    for n in range(40):
        for m in range(400):
            at.clock.advance(0.001)
            book.note(refused(client=f"c{n}", sender=f"{m % 20}@x.example", reason=f"r{n}.{m // 20}"))
        await book.flush()
    whole = True
    await book.flush()
    page = await at.spool.refusals(limit=1_000_000)
    dropped = _metric(at, "refusals_dropped_total")
    assert len(page.rows) <= 10_000
    assert sum(row.count for row in page.rows) + dropped == 16_000
    assert (await at.spool.flow(START, 1, HOUR)).total.refused == 16_000


def _metric(at: At, name: str) -> float:
    text = at.events.render()[1].decode()
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"gateway_{name} ")))


async def test_no_room_for_mail_is_no_room_for_this(tmp_path: Path) -> None:
    """The last of the disk is for settling what is there."""
    async with opened(tmp_path, reserve=0.0) as at:
        at.spool.room.close("disk")
        with pytest.raises(SpoolFull):
            await at.spool.note_refusals([], {})


async def test_a_flood_is_written_once_a_second(at: At) -> None:
    """What comes while it is written waits for the next time, or the writer would do nothing else."""
    written = []

    async def write(rows: Any, counts: Any) -> None:
        written.append(len(rows))
        book.note(refused())  # it never ends

    book = DoorBook(write, at.clock, at.events)
    for n in range(251):
        book.note(refused(reason=f"r{n}"))
    await book.flush()
    assert written == [250, 1]
    await book.flush()
    assert written == [250, 1, 1]


SECRET = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJiaWxsaW5nIn0.c2lnbmF0dXJl"


async def test_what_strangers_wrote_is_cut_and_shows_no_token(door: Book, tmp_path: Path) -> None:
    """Wherever one is pasted, it is not in the file; nor is more than a little of anything."""
    long = "x" * 100_000
    await door.write(
        refused(sender=f"{SECRET}@x.example", user=SECRET, helo=SECRET, text=f"bad: {SECRET}", recipients=(SECRET,)),
        refused(sender=long, user=long, helo=long, text=long, detail=long, recipients=(long,) * 1000),
        refused(sender="\ud800", helo="\x1b[31m"),
    )
    rows = await door.rows()
    assert len(rows) == 3
    for row in rows:
        assert len(repr(row)) < 3000
    with closing(sqlite3.connect(tmp_path / "spool.db")) as file:
        assert all("eyJ" not in str(row) for row in file.execute("SELECT * FROM refusal"))


async def test_they_are_kept_so_long(tmp_path: Path) -> None:
    """retention.refusals, from the last of a row on."""
    clock, kept = FakeClock(), RetentionSettings(refusals=timedelta(days=2))
    async with opened(tmp_path, clock=clock) as at:
        door = Book(at)
        await door.write(refused("192.0.2.1"))
        clock.advance(86400)
        await door.write(*(refused(f"192.0.2.{n}") for n in range(2, 200)))
        clock.advance(86400 + 1)
        while await at.spool.sweep(at.spool.now(), kept):
            pass
        assert "192.0.2.1" not in {row.peer for row in await door.rows()}
        assert len(await door.rows()) == 198


async def test_what_the_clock_called_the_future_is_kept_no_longer(tmp_path: Path) -> None:
    """It was set back: they are of now, as far as anybody can tell, and go when what is of now goes."""
    clock, kept = FakeClock(), RetentionSettings(refusals=timedelta(days=2))
    async with opened(tmp_path, clock=clock) as at:
        door = Book(at)
        clock.set(timedelta(days=400))
        await door.write(*(refused(f"192.0.2.{n}") for n in range(1, 31)))
        clock.set(timedelta(days=-400))
        await door.write(refused("198.51.100.1"))
        await at.spool.sweep(at.spool.now(), kept)
        rows = await door.rows()
        assert len(rows) == 31
        assert all(row.first_at <= row.last_at <= clock.now() for row in rows)
        clock.advance(2 * 86400 + 1)
        while await at.spool.sweep(at.spool.now(), kept):
            pass
        assert await door.rows() == []


FILL = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
INSERT INTO refusal SELECT i, :at + i, :at + i, 1, 'd', 'auth', 'auth_failed', '20.0.0.' || i, FALSE, FALSE, '', '', '',
    '', '', '[]', 0, 535, '', '', '' FROM n"""


async def test_of_too_many_those_go_first_that_came_once(tmp_path: Path) -> None:
    """Oldest first; the printer that was turned away long before them all stays, and so does who came again."""
    clock = FakeClock()
    async with opened(tmp_path, clock=clock) as at:
        door = Book(at)
        await door.write(refused(), *[refused("8.8.8.8")] * 5)
    with closing(sqlite3.connect(tmp_path / "spool.db")) as file, file:
        file.execute(FILL.format(rows=MOST), {"at": int(START.timestamp() * 1_000_000) + 1})
    async with opened(tmp_path, clock=clock) as at:
        while await at.spool.sweep(at.spool.now(), RetentionSettings()):
            pass
        page = await at.spool.refusals(RefusalFilter(reason="relay_denied"))
        assert {row.peer for row in page.rows} == {"192.0.2.77", "8.8.8.8"}
        assert page.kept <= MOST
        assert (await at.spool.refusals(limit=1)).rows[0].id == f"{MOST:016x}"


@pytest.mark.parametrize("q", ["192.0.2.77", "192.0.2.77/32", "::ffff:192.0.2.77", "<192.0.2.77>"])
async def test_one_address_is_looked_up_among_all(door: Book, q: str) -> None:
    """However it is written; strangers may have made the addresses a hundred thousand."""
    await door.write(refused(), refused("192.0.2.78"), refused("2001:db8::1"))
    with statements() as seen:
        assert [row.peer for row in await door.rows(q=q)] == ["192.0.2.77"]
    assert not any("DISTINCT" in one for one in seen)
    assert {row.peer for row in await door.rows(q="192.0.2.76/30")} == {"192.0.2.77", "192.0.2.78"}


KEEP = """
import asyncio, sys
from pathlib import Path
from gateway.clock import SystemClock
from gateway.spool import DoorBook
from tests.spool.test_doorbook import refused
from tests.spool_kit import opened
async def main():
    async with opened(Path(sys.argv[1])) as at:
        book = DoorBook(at.spool.note_refusals, SystemClock(), at.events)
        book.start()
        book.note(refused())
        print("noted", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


def test_a_kill_takes_along_a_second_or_two(tmp_path: Path) -> None:
    """What was noted is written by itself, and is there after a kill."""
    with child(KEEP, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "noted\n"
        _until(lambda: peer(tmp_path, "SELECT count(*) FROM refusal") == [(1,)])
        process.kill()
    assert peer(tmp_path, "SELECT peer, count FROM refusal") == [("192.0.2.77", 1)]


def _until(true: Callable[[], bool]) -> None:
    while not true():
        pass


async def test_what_is_left_is_written_at_the_end(at: At) -> None:
    """A stop loses nothing."""
    book = DoorBook(at.spool.note_refusals, at.clock, at.events)
    book.start()
    book.note(refused())
    await book.aclose()
    assert [row.count for row in (await at.spool.refusals()).rows] == [1]


async def test_an_end_in_the_middle_of_writing_loses_none(at: At) -> None:
    """What is handed over is written once, the rest behind it."""
    begun = asyncio.Event()

    async def write(rows: Sequence[Row], counts: Counter[tuple[str, str]]) -> None:
        begun.set()
        await at.spool.note_refusals(rows, counts)

    book = DoorBook(write, at.clock, at.events)
    book.start()
    for n in range(400):
        book.note(refused(client=f"c{n}"))
    while not begun.is_set():
        at.clock.advance(1)
        await asyncio.sleep(0)
    await book.aclose()
    page = await at.spool.refusals(RefusalFilter(), limit=1000)
    assert (len(page.rows), {row.count for row in page.rows}) == (400, {1})
