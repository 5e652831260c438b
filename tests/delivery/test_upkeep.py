"""Housekeeping of the queue: orphans and lifetimes, however many messages there are."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.config.models import RouteSettings, Settings
from gateway.model import Outcome, SpoolFull, SpoolUnavailable
from gateway.spool import Filter
from tests.builders import LIFETIME, RAW
from tests.delivery.kit import DEFERRED, FULL, MISCONFIGURED, THROTTLED, House, house, routing, settings
from tests.fakes import ScriptedBackend, until


@pytest.mark.parametrize(
    ("outcome", "by_operator", "state"),
    [(THROTTLED, False, "failed"), (MISCONFIGURED, False, "held"), (DEFERRED, True, "held")],
)
async def test_the_lifetime_ends_also_while_paused(
    tmp_path: Path, outcome: Outcome, by_operator: bool, state: str
) -> None:
    """Nothing waits for ever: what a provider kept back fails and is reported, what we kept back is held."""
    backend, other = ScriptedBackend("b", outcome), ScriptedBackend("other")
    async with house(tmp_path, backend, other, routes=("b",), bounces={"backend": "other"}) as at:
        identifier = await at.put("b")
        await at.tried(identifier)
        if by_operator:
            await at.dispatcher.pause("b", None)
        at.clock.advance(5 * 86400 + 60)
        await at.rounds(lambda: other.calls if state == "failed" else at.spool.counts().get(("b", "held")))
        await at.settled(identifier, state)
        if state == "failed":
            assert b"4.4.7" in other.calls[0][1]
        else:
            assert other.calls == []


def two_ways(path: Path) -> Settings:
    """Mail to good.example leaves by "b", other mail by nobody."""
    routes = (RouteSettings(backend=("b",), recipients=("*@good.example",)),)
    return settings(path, "b", notice=timedelta(0)).model_copy(update={"routes": routes})


async def test_orphans_behind_others_are_found(tmp_path: Path) -> None:
    """More than a page that nobody can take hides none of those behind it; how many stay is said."""
    backend = ScriptedBackend("b")
    async with house(tmp_path, backend, config=two_ways(tmp_path)) as at:
        await at.put_many(1001, "gone", "a@bad.example")
        good = await at.put_many(10, "gone", "a@good.example")
        await at.rounds(lambda: len(backend.calls) == 10)
        for identifier in good:
            await at.settled(identifier, "done")
        await at.queued("gone", 1001)
        assert at.logged("no_backend")[-1]["messages"] == 1001


async def test_bounces_go_by_the_settings_of_now(tmp_path: Path) -> None:
    """Those that wait for the bounces.backend of before are not stranded where a reload names another, or none."""
    backend, config = ScriptedBackend("b"), settings(tmp_path, "b")
    async with house(tmp_path, backend, config=config) as at:
        bounce = await at.put("gone", sender="", bounce=True, pin="gone")
        pinned = await at.put("gone", pin="gone")
        await at.rounds(lambda: backend.calls)
        await at.settled(bounce, "done")
        assert await at.state(pinned) == "queued"


async def test_who_is_stranded_is_not_routed_each_round(tmp_path: Path) -> None:
    """A long queue that nobody can take costs little; a reload that gives it a way is obeyed at once."""
    backend, config = ScriptedBackend("b"), two_ways(tmp_path)
    async with house(tmp_path, backend, config=config) as at:
        ends = at.clock.now() + timedelta(days=9999)  # on a busy machine many rounds pass
        stranded = await at.put("gone", "a@bad.example", expires_at=ends)
        await at.rounds(lambda: at.logged("no_backend"))
        looks, rounds = at.calls("deliveries"), at.calls("sweep")
        await at.rounds(lambda: len(rounds) == 10)
        assert looks == []
        open_to_all = settings(tmp_path, "b")
        await at.dispatcher.update(open_to_all, routing(open_to_all, {"b": backend}), {"b": backend})
        await at.settled(stranded, "done")


class Settling:
    """Counts what is settled at the same time."""

    def __init__(self, at: House) -> None:
        self.running = self.most = 0
        self.settle = at.spool.settle
        at.spool.settle = self  # type: ignore[method-assign, assignment]

    async def __call__(self, *given: Any) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.settle(*given)
        finally:
            self.running -= 1


async def test_the_end_of_many_lifetimes_is_one_round(tmp_path: Path) -> None:
    """However many are late: a page is written down together, and the round that sees them ends with all of them."""
    backend = ScriptedBackend("b", replace(THROTTLED, retry_after=LIFETIME + timedelta(days=1)))
    async with house(tmp_path, backend, bounces={"mode": "off"}) as at:
        await at.tried(await at.put("b"))
        late = await at.put_many(450, "b")
        settling = Settling(at)
        at.clock.advance(LIFETIME.total_seconds() + 120)
        await at.rounds(lambda: settling.most)
        await until(lambda: len(at.begun) == len(at.ended))
        await at.all_settled(late, "failed")
        assert (len(backend.calls), settling.most) == (1, 200)


async def test_bouncing_by_order_reaches_every_message(tmp_path: Path) -> None:
    """More than a page, settled together, each with a bounce that says who returned it."""
    backend, other = ScriptedBackend("b"), ScriptedBackend("other")
    async with house(tmp_path, backend, other, routes=("b",), bounces={"backend": "other"}) as at:
        await at.dispatcher.pause("b", None)
        ids = await at.put_many(600, "b")
        settling = Settling(at)
        assert sorted(await at.dispatcher.bounce(Filter(backend="b"))) == sorted(ids)
        await until(lambda: len(other.calls) == 600)
        assert await at.spool.states(ids) == dict.fromkeys(ids, "failed")
        assert settling.most > 100
        assert b"returned by the operator" in other.calls[0][1]
        assert b"Diagnostic-Code: x-gateway; " in other.calls[0][1]
        assert await at.dispatcher.bounce(Filter(ids=tuple(ids))) == {}


@pytest.mark.parametrize(
    ("sender", "mode", "told"), [("s@x.org", "auto", True), ("", "auto", False), ("s@x.org", "off", False)]
)
async def test_whether_the_sender_is_told_is_said(tmp_path: Path, sender: str, mode: str, told: bool) -> None:
    """A bounce that is not written is not claimed."""
    async with house(tmp_path, ScriptedBackend("b"), bounces={"mode": mode}) as at:
        await at.dispatcher.pause("b", None)
        identifier = await at.put("b", sender=sender)
        assert await at.dispatcher.bounce(Filter(untold=bool(sender))) == {}
        assert await at.dispatcher.bounce(Filter(untold=not sender)) == {identifier: told}
        detail = await at.spool.show(identifier)
        assert detail is not None
        bounces = [row.id for row in await at.spool.find() if row.bounce]
        reason = "" if told else "off" if mode == "off" else "null_sender"
        assert [(row.kind, row.reason, row.made_at) for row in detail.bounces] == [("failed", reason, at.clock.now())]
        assert [row.bounce_id for row in detail.bounces if row.bounce_id] == bounces
        assert len(bounces) == told


async def test_nothing_is_said_before_it_is_written(tmp_path: Path) -> None:
    """On a full disk nobody was told and nothing has failed: the log says so only once it has, and no try is shown."""
    async with house(tmp_path, ScriptedBackend("b")) as at:
        await at.dispatcher.pause("b", None)
        identifier = await at.put("b")
        at.refuse("settle", FULL)
        with pytest.raises(SpoolFull):
            await at.dispatcher.bounce(Filter())
        assert at.logged("failed") == at.logged("bounced") == []
        detail = await at.spool.show(identifier)
        assert detail is not None
        assert (detail.state, detail.attempts) == ("queued", ())
        assert await at.dispatcher.bounce(Filter()) == {identifier: True}
        assert [line["id"] for line in at.logged("failed") + at.logged("bounced")] == [identifier] * 2


async def test_damaged_mail_is_not_said_to_be_returned(tmp_path: Path) -> None:
    """Its sender may be damaged, too: it stays for a person to look at."""
    async with house(tmp_path, ScriptedBackend("b")) as at:
        await at.dispatcher.pause("b", None)
        identifier = await at.put("b")
    with closing(sqlite3.connect(tmp_path / "spool.db")) as file, file:
        file.execute("UPDATE body SET raw = raw || 'x'")
    async with house(tmp_path, ScriptedBackend("b")) as at:
        await at.dispatcher.resume("b")
        await at.settled(identifier, "corrupt")
        assert await at.dispatcher.bounce(Filter(ids=(identifier,))) == {}
        assert at.logged("failed") == at.logged("bounced") == []
        assert await at.state(identifier) == "corrupt"


async def test_a_stop_does_not_wait_for_all_that_is_bounced(tmp_path: Path) -> None:
    """It ends after the step under way; whoever asked is told, and what is left is as it was."""
    async with house(tmp_path, ScriptedBackend("b")) as at:
        await at.dispatcher.pause("b", None)
        ids, go = await at.put_many(600, "b"), asyncio.Event()
        steps = at.calls("bodies", go)
        bouncing = asyncio.create_task(at.dispatcher.bounce(Filter(backend="b")))
        await until(lambda: bool(steps))
        draining = asyncio.create_task(at.dispatcher.drain(1))
        await at.clock.sleep(0)
        go.set()
        with pytest.raises(SpoolUnavailable, match="stopping"):
            await bouncing
        await draining
        found = [detail for identifier in ids if (detail := await at.spool.show(identifier))]
        tries = {(detail.state, tuple(attempt.verdict for attempt in detail.attempts)) for detail in found}
        assert (len(steps), tries) == (1, {("failed", ("rejected",)), ("queued", ())})


async def test_large_mail_is_given_up_a_little_at_a_time(tmp_path: Path) -> None:
    """Giving up reads the bodies; never more of them together than memory can bear."""
    async with house(tmp_path, ScriptedBackend("b"), bounces={"mode": "off"}) as at:
        await at.dispatcher.pause("b", None)
        await at.put_many(5, "b", raw=RAW + b"x" * 7_000_000)
        read = at.calls("bodies")
        await at.dispatcher.bounce(Filter())
        assert [len(ids) for (ids,) in read] == [2, 2, 1]


async def test_a_full_disk_only_delays_housekeeping(tmp_path: Path) -> None:
    """It is said, the gauges go on, and the next round does what this one could not."""
    backend = ScriptedBackend("b")
    async with house(tmp_path, backend, notice=timedelta(0)) as at:
        at.refuse("move", FULL)
        orphan = await at.put("gone")
        await at.rounds(lambda: backend.calls)
        await at.settled(orphan, "done")
        assert [line["reason"] for line in at.logged("housekeeping_waits")] == ["not enough space in the spool"]
        assert at.dispatcher.alive
