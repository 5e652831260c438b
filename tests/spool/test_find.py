"""Finding and showing: every message can be found by what a person knows of it, and its whole life is shown."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.model import Outcome, Verdict
from gateway.spool import Filter, SpoolError
from gateway.spool.sqlite import SQLite
from tests.builders import SENT, envelope
from tests.fakes import START
from tests.spool_kit import DEFERRED, LEASE, REJECTED, At, opened, settlement

MINUTE = timedelta(minutes=1)


async def fill(at: At) -> None:
    await at.put("a@x.org", ident="M1", sender="Ann@x.org", message_id="<one@x>", backend="b")
    await at.put("b@x.org", "c@x.org", ident="M2", sender="", client="till", peer="192.0.2.7",
                 deliveries={"b": ("b@x.org",), "other": ("c@x.org",)})  # fmt: skip
    await at.put("ann@X.ORG", ident="M3", message_id="bare", received_at=START - MINUTE, backend="other")
    await at.put("d@x.org", ident="M4", backend="b")
    await at.spool.hold(Filter(ids=("M4",)), START)
    for claim in await at.claim("other"):
        outcomes = {"M2": REJECTED, "M3": Outcome(Verdict.SENT, remote_id="Provider-7")}
        await at.spool.settle(settlement(claim, outcomes[claim.message.id]))


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, "M4 M3 M2 M1"),
        ({"ids": ("M2",)}, "M2"),
        ({"ids": ("m2",)}, ""),
        ({"ids": ()}, ""),
        ({"ids": ("M3", "M1"), "backend": "b"}, "M1"),
        ({"message_id": "<>"}, "M4 M2"),
        ({"message_id": "<one@x>"}, "M1"),
        ({"message_id": "one@x"}, "M1"),
        ({"message_id": " <bare> "}, "M3"),
        ({"address": "ANN@x.org"}, "M3 M1"),
        ({"sender": "ann@x.org"}, "M1"),
        ({"sender": "<Ann@x.org>"}, "M1"),
        ({"sender": "<>"}, "M2"),  # as lists show it: bounces
        ({"recipient": "ann@x.org"}, "M3"),
        ({"recipient": "c@x.org"}, "M2"),
        ({"remote_id": "Provider-7"}, "M3"),
        ({"remote_id": "Provider-8"}, ""),
        ({"state": "queued"}, "M2 M1"),
        ({"state": "held"}, "M4"),
        ({"state": "done"}, "M3"),
        ({"backend": "other"}, "M3 M2"),
        ({"backend": "b", "state": "queued"}, "M2 M1"),
        ({"backend": "other", "state": "queued"}, ""),
        ({"backend": "other", "state": "done"}, "M3"),
        ({"state": "sent"}, "M3"),
        ({"state": "unfinished"}, "M4 M2 M1"),
        ({"state": "unfinished", "backend": "b"}, "M4 M2 M1"),
        ({"state": "unfinished", "backend": "other"}, ""),
        ({"state": "in_doubt"}, ""),
        ({"upto": "M2"}, "M2 M1"),
        ({"upto": "M2", "backend": "other"}, "M2"),
        ({"client": "till"}, "M2"),
        ({"client": "c"}, "M4 M3 M1"),
        ({"client": "nix"}, ""),
        ({"peer": "192.0.2.7"}, "M2"),
        ({"peer": "192.0.2.7", "client": "c"}, ""),
        ({"recipient": "x.org", "client": "till"}, "M2"),
        ({"verdict": "rejected"}, "M2"),
        ({"address": "x' OR '1'='1"}, ""),
        ({"recipient": "%"}, ""),
    ],
)
async def test_find(at: At, wanted: dict[str, Any], found: str) -> None:
    """Each filter alone and with others, newest first; what is given but empty never widens it."""
    await fill(at)
    assert [row.id for row in await at.spool.find(Filter(**wanted))] == found.split()


async def test_a_rewritten_sender_is_shown_and_found_by_either_name(at: At) -> None:
    """Also where it was no address; a message that was not rewritten has none, and is not found by that."""
    for ident, was in (("M1", "Copier@printer.local"), ("M2", "root"), ("M3", "")):
        await at.put("a@x.org", ident=ident, envelope=envelope("a@x.org", sender="scan@x.org", original=was))
    for wanted, found in {
        "copier@PRINTER.local": ["M1"],
        "root": ["M2"],
        "scan@x.org": ["M3", "M2", "M1"],
        "<>": [],
    }.items():
        for name in ("address", "sender"):
            assert [row.id for row in await at.spool.find(Filter(**{name: wanted}))] == found
    assert [row.original for row in await at.spool.find()] == ["", "root", "Copier@printer.local"]
    assert (await at.show("M2")).message.original == "root"


async def test_find_goes_in_pages(at: At) -> None:
    """Each page begins before the last id of the one before."""
    await fill(at)
    assert [row.id for row in await at.spool.find(limit=2)] == ["M4", "M3"]
    assert [row.id for row in await at.spool.find(Filter(backend="b"), limit=2, before="M4")] == ["M2", "M1"]


async def test_a_line_of_the_list_says_what_matters(at: At) -> None:
    """The first recipients with their number, the backends, the next attempt, the last word on what is not yet sent."""
    many = [f"r{n}@x.org" for n in range(25)]
    await at.put(*many, client="till", login="app", listener="local", peer="127.0.0.1")
    (claim,) = await at.claim()
    outcomes = dict.fromkeys(many, SENT) | {"r3@x.org": DEFERRED}
    await at.spool.settle(settlement(claim, outcomes))
    (row,) = await at.spool.find()
    assert (row.recipients, row.recipient_count) == (tuple(many[:20]), 25)
    assert (row.backends, row.attempts, row.next_attempt_at) == (("b",), 1, START + MINUTE)
    assert (row.detail, row.sender, row.client, row.login) == ("greylisted", "s@example.com", "till", "app")
    assert (row.bounce, row.has_body, row.finished_at) == (False, True, None)


async def test_the_whole_life_is_shown(at: At) -> None:
    """Interrupted, deferred, under way: each attempt with its times, backend, recipients and answer."""
    ident = await at.put("a@x.org")
    await at.claim()
    at.clock.advance(LEASE.total_seconds())
    (claim,) = await at.claim(now=START + LEASE)
    ended = START + LEASE + MINUTE
    await at.spool.settle(settlement(claim, DEFERRED, ended_at=ended, next_attempt_at=ended))
    await at.claim(now=ended)
    detail = await at.show(ident)
    shown = asdict(detail)
    assert (detail.message.id, detail.state, detail.message.received_at) == (ident, "queued", START)
    assert [attempt["verdict"] for attempt in shown["attempts"]] == ["interrupted", "deferred", ""]
    times = {"started_at": START + LEASE, "ended_at": ended}
    said = {"verdict": "deferred", "code": 451, "enhanced": "4.7.1", "detail": "greylisted", "remote_id": ""}
    about = {"scope": "message", "said_by": "smtp", "fix": ""}
    assert shown["attempts"][1] == {"backend": "b", "recipients": ("a@x.org",)} | times | said | about
    assert shown["recipients"][0]["detail"] == "greylisted"
    due = {"state": "queued", "next_attempt_at": ended + LEASE}
    assert shown["deliveries"] == ({"backend": "b", "attempts": 3, "sticky": True, "in_doubt": 0} | due,)
    assert await at.spool.show("unknown") is None


async def test_a_reader_that_goes_away_leaves_nothing_behind(at: At) -> None:
    """Cancelled in mid-query, many times over: the next query is answered."""
    await fill(at)
    for turns in range(30):
        asking = asyncio.create_task(at.spool.find())
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    assert len(await at.spool.find()) == 4


async def test_readers_see_the_past_and_never_hold_up_the_writer(tmp_path: Path, at: At) -> None:
    """A reading transaction left open sees its moment; commits go on beside it."""
    readers = SQLite(tmp_path).readers()
    await at.put()
    async with readers.connect() as reader:
        count = "SELECT count(*) FROM message"
        assert (await reader.exec_driver_sql(count)).scalar() == 1
        await at.put()
        assert (await reader.exec_driver_sql(count)).scalar() == 1
        with pytest.raises(Exception, match="readonly"):
            await reader.exec_driver_sql("DELETE FROM message")
    await readers.dispose()
    assert len(await at.spool.find()) == 2


async def test_a_backup_is_a_whole_spool(tmp_path: Path) -> None:
    """Taken while mail comes in, readable only by us, and it opens as a spool with all that was acknowledged before."""
    copy = tmp_path / "copy"
    copy.mkdir()
    async with opened(tmp_path / "live") as at:
        before = [await at.put() for _ in range(20)]
        await asyncio.gather(at.spool.backup(copy / "spool.db"), *(at.put() for _ in range(20)))
    assert (copy / "spool.db").stat().st_mode & 0o777 == 0o600
    async with opened(copy) as at:
        assert set(before) <= {row.id for row in await at.spool.find()}
        assert not list(copy.glob("*.part"))


async def test_a_backup_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    """Half a copy would keep a disk full that it has filled."""
    async with opened(tmp_path / "live") as at:
        await at.put()
        (tmp_path / "taken").mkdir()
        with pytest.raises(SpoolError, match="Is a directory"):
            await at.spool.backup(tmp_path / "taken")
    assert {path.name for path in tmp_path.iterdir()} == {"live", "taken"}
