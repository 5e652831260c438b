"""Housekeeping of the queue: orphans and lifetimes, however many messages there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.config.models import BounceSettings, RouteSettings, Settings
from gateway.model import Outcome, SpoolFull
from gateway.spool import Filter
from tests.builders import LIFETIME, RAW
from tests.delivery.kit import DEFERRED, MISCONFIGURED, THROTTLED, House, house, routing, settings
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
    config = settings(tmp_path, "b", "other", routes=("b",))
    config = config.model_copy(update={"bounces": BounceSettings(mode="auto", backend="other")})
    async with house(tmp_path, config, backend, other) as at:
        identifier = await at.put("b")
        await at.tried(identifier)
        if by_operator:
            await at.dispatcher.pause("b", None)
        at.clock.advance(5 * 86400 + 60)
        await at.settled(identifier, state)
        if state == "failed":
            await until(lambda: len(other.calls) == 1)
            assert b"4.4.7" in other.calls[0][1]
        else:
            assert other.calls == []


def two_ways(path: Path) -> Settings:
    """Mail to good.example leaves by "b", other mail by nobody."""
    routes = (RouteSettings(backend=("b",), recipients=("*@good.example",)),)
    return settings(path, "b").model_copy(update={"routes": routes})


async def test_orphans_behind_others_are_found(tmp_path: Path) -> None:
    """More than a page that nobody can take hides none of those behind it; how many stay is said."""
    backend = ScriptedBackend("b")
    async with house(tmp_path, two_ways(tmp_path), backend) as at:
        await at.put_many(1001, "gone", "a@bad.example")
        good = await at.put_many(10, "gone", "a@good.example")
        while len(backend.calls) < 10:
            at.clock.advance(16)
            await at.clock.sleep(0.0)
        for identifier in good:
            await at.settled(identifier, "done")
        await at.queued("gone", 1001)
        assert at.logged("no_backend")[-1]["messages"] == 1001


async def test_who_is_stranded_is_not_routed_each_round(tmp_path: Path) -> None:
    """A long queue that nobody can take costs little; a reload that gives it a way is obeyed at once."""
    backend, config = ScriptedBackend("b"), two_ways(tmp_path)
    async with house(tmp_path, config, backend) as at:
        stranded = await at.put("gone", "a@bad.example")
        while not at.logged("no_backend"):
            at.clock.advance(16)
            await at.clock.sleep(0.0)
        pages, looks, rounds = at.spool.deliveries, [], []
        sweep = at.spool.sweep

        async def counting(*given: Any, **more: Any) -> Any:
            looks.append(given)
            return await pages(*given, **more)

        async def turning(*given: Any) -> int:
            rounds.append(given)
            return await sweep(*given)

        at.spool.deliveries, at.spool.sweep = counting, turning  # type: ignore[method-assign]
        while len(rounds) < 10:
            at.clock.advance(16)
            await at.clock.sleep(0.0)
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
    """However many are late: a page is written down together, and no second round is waited for."""
    backend = ScriptedBackend("b", replace(THROTTLED, retry_after=LIFETIME + timedelta(days=1)))
    async with house(tmp_path, settings(tmp_path, "b", bounces=BounceSettings(mode="off")), backend) as at:
        await at.tried(await at.put("b"))
        late = await at.put_many(450, "b")
        settling = Settling(at)
        at.clock.advance(LIFETIME.total_seconds() + 120)
        for identifier in late:
            await at.settled(identifier, "failed")
        assert (len(backend.calls), settling.most) == (1, 200)


async def test_bouncing_by_order_reaches_every_message(tmp_path: Path) -> None:
    """More than a page, settled together, each with a bounce that says who returned it."""
    backend, other = ScriptedBackend("b"), ScriptedBackend("other")
    config = settings(tmp_path, "b", "other", routes=("b",), bounces=BounceSettings(mode="auto", backend="other"))
    async with house(tmp_path, config, backend, other) as at:
        await at.dispatcher.pause("b", None)
        ids = await at.put_many(600, "b")
        settling = Settling(at)
        assert sorted(await at.dispatcher.bounce(Filter(backend="b"))) == sorted(ids)
        await until(lambda: len(other.calls) == 600)
        assert {await at.state(identifier) for identifier in ids} == {"failed"}
        assert settling.most > 100
        assert b"returned by the operator" in other.calls[0][1]
        assert b"Diagnostic-Code: x-gateway; " in other.calls[0][1]
        assert await at.dispatcher.bounce(Filter(ids=tuple(ids))) == []


async def test_large_mail_is_given_up_a_little_at_a_time(tmp_path: Path) -> None:
    """Giving up reads the bodies; never more of them together than memory can bear."""
    backend, off = ScriptedBackend("b"), BounceSettings(mode="off")
    async with house(tmp_path, settings(tmp_path, "b", bounces=off), backend) as at:
        await at.dispatcher.pause("b", None)
        await at.put_many(5, "b", raw=RAW + b"x" * 7_000_000)
        read, sizes = at.spool.bodies, []

        async def counting(ids: Sequence[str]) -> dict[str, bytes]:
            found = await read(ids)
            sizes.append(len(found))
            return found

        at.spool.bodies = counting  # type: ignore[method-assign]
        await at.dispatcher.bounce(Filter())
        assert sizes == [2, 2, 1]


async def test_a_full_disk_only_delays_housekeeping(tmp_path: Path) -> None:
    """It is said, the gauges go on, and the next round does what this one could not."""
    backend = ScriptedBackend("b")
    async with house(tmp_path, settings(tmp_path, "b"), backend) as at:
        move, refused = at.spool.move, []

        async def full(*given: Any) -> int:
            if not refused:
                refused.append(given)
                raise SpoolFull("not enough space in the spool")
            return await move(*given)

        at.spool.move = full  # type: ignore[method-assign]
        orphan = await at.put("gone")
        while await at.state(orphan) != "done":
            at.clock.advance(16)
            await at.clock.sleep(0.0)
        assert [line["reason"] for line in at.logged("housekeeping_waits")] == ["not enough space in the spool"]
        assert at.dispatcher.alive
