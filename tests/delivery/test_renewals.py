"""Keys that renew themselves are looked after: when each wants it, and the trouble of one is not the others'."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.checks import Renewed
from gateway.delivery.renewals import Renewals
from gateway.events import Events
from gateway.model import Backend
from tests.fakes import FakeClock

KEPT = Renewed("kept", "good", 3600.0)
FAILED = Renewed("failed", "addKey: HTTP 401", 3600.0, trouble="addKey: HTTP 401", fix="object_id")


class Key:
    """A backend as far as its key goes; ``answers`` come once each, then ``last``."""

    def __init__(self, *answers: Renewed | Exception | None, last: Renewed | None = KEPT) -> None:
        self.answers = list(answers)
        self.last = last
        self.looks: list[bool] = []
        self.holds = asyncio.Event()
        self.holds.set()

    async def renew(self, *, ordered: bool = False) -> Renewed | None:
        self.looks.append(ordered)
        await self.holds.wait()
        found = self.answers.pop(0) if self.answers else self.last
        if isinstance(found, Exception):
            raise found
        return found


class Kept:
    """Renewals at work over these."""

    def __init__(self, backends: Mapping[str, Any]) -> None:
        self.clock = FakeClock()
        self.events = Events(clock=self.clock)
        self.backends: dict[str, Backend] = dict(backends)
        self.renewals = Renewals(lambda: self.backends, self.events, self.clock)

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async def pass_(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await self.settle()


@asynccontextmanager
async def at_work(**backends: Any) -> AsyncIterator[Kept]:
    kept = Kept(backends)
    task = asyncio.create_task(kept.renewals.run())
    try:
        await kept.settle()
        yield kept
    finally:
        task.cancel()
        await asyncio.wait({task})
        await kept.renewals.aclose()
        kept.events.close()


async def test_each_is_looked_at_when_it_wants() -> None:
    """At the start, then after ``again`` seconds of the most impatient."""
    waits = Renewed("waits", "soon", 15.0)
    office = Key(waits, waits)
    async with at_work(office=office) as kept:
        assert len(office.looks) == 1
        await kept.pass_(15)
        assert len(office.looks) == 2
        await kept.pass_(15)
        assert len(office.looks) == 3
        await kept.pass_(3599)
        assert len(office.looks) == 3
        await kept.pass_(1)
        assert len(office.looks) == 4


async def test_nobody_waits_where_nothing_renews_itself() -> None:
    """Until backends change."""
    box = Key(last=None)
    async with at_work(box=box, plain=object()) as kept:
        assert kept.clock.sleepers == 0
        kept.backends["office"] = office = Key()  # type: ignore[assignment]
        kept.renewals.look_again()
        await kept.settle()
        assert office.looks == [False]  # type: ignore[attr-defined]


async def test_a_bug_of_one_is_reported_and_the_others_go_on() -> None:
    bad, good = Key(ValueError("x")), Key()
    async with at_work(bad=bad, good=good) as kept:
        assert kept.events.memory.bugs is not None
        await kept.pass_(3600)
        assert (len(bad.looks), len(good.looks)) == (2, 2)


async def test_trouble_is_kept_until_it_is_over() -> None:
    """For whoever asks what needs him."""
    office = Key(FAILED, last=KEPT)
    async with at_work(office=office) as kept:
        assert kept.events.memory.renewals["office"] == ("addKey: HTTP 401", "object_id")
        await kept.pass_(3600)
        assert kept.events.memory.renewals["office"] == ("", "")
        office.last = None  # it is switched off
        await kept.pass_(3600)
        assert "office" not in kept.events.memory.renewals


async def test_an_order_begins_now_and_is_followed_up() -> None:
    """And what it began is looked at again by itself; a backend that is not there is none."""
    office = Key(KEPT, Renewed("waits", "soon", 15.0))
    async with at_work(office=office, box=Key(last=None)) as kept:
        found = await kept.renewals.order("office")
        assert found is not None
        assert found.result == "waits"
        await kept.settle()
        assert office.looks == [False, True, False]
        assert await kept.renewals.order("box") is None
        with pytest.raises(KeyError):
            await kept.renewals.order("nothing")


async def test_a_stop_waits_for_no_renewal() -> None:
    """It goes on at the next start."""
    office = Key()
    async with at_work(office=office) as kept:
        office.holds.clear()
        ordered = asyncio.create_task(kept.renewals.order("office"))
        await kept.settle()
        await kept.renewals.aclose()
        with pytest.raises(asyncio.CancelledError):
            await ordered
