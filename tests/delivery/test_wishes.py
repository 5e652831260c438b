"""A check that is wished for at an instance that does not work the backend is made by the one that does, once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.model import SpoolUnavailable
from gateway.spool.wishes import Wish, read
from tests.delivery.kit import House, house
from tests.delivery.test_ownership import Owned
from tests.fakes import ScriptedBackend, breathe, until


class Granting:
    def __init__(self, at: House) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        at.dispatcher.wishes.grant = self

    async def __call__(self, name: str, wish: Wish) -> Mapping[str, Any]:
        self.asked.append((name, wish.what, wish.who))
        await self.gate.wait()
        return {"said": f"{wish.what} for {wish.who}"}


async def known(at: House) -> None:
    """A row of it, as an instance makes one that works it."""
    await at.spool.pause("b", None, "x")
    await at.spool.resume("b")


async def test_who_works_it_does_what_is_wished_for_elsewhere(tmp_path: Path) -> None:
    """Once it hears of it; the one that asked hears what came of it. What was wished for meanwhile is done, too, and a
    fix is not forgotten for a check that comes behind it."""
    async with house(tmp_path, ScriptedBackend("b"), ownership=Owned({"b"})) as at:
        granting = Granting(at)
        await known(at)
        granting.gate.clear()
        assert await at.spool.want("b", "check", "anna") == 1
        at.dispatcher.hear_of_orders()
        await until(lambda: len(granting.asked) == 1)
        assert [await at.spool.want("b", what, who) for what, who in (("fix", "otto"), ("check", "ida"))] == [2, 3]
        await at.dispatcher.look_at_orders()
        assert len(granting.asked) == 1
        granting.gate.set()
        await until(lambda: len(granting.asked) == 2)
        assert granting.asked == [("b", "check", "anna"), ("b", "fix", "ida")]
        for _ in range(20):
            await breathe()
        wish = await at.spool.wish("b")
        assert wish is not None
        assert (wish.number, wish.done) == (3, {"said": "fix for ida"})
        await at.dispatcher.look_at_orders()
        assert len(granting.asked) == 2


async def test_who_gains_it_does_what_its_last_owner_did_not(tmp_path: Path) -> None:
    """Killed before it had said what came of it."""
    own = Owned()
    async with house(tmp_path, ScriptedBackend("b"), ownership=own) as at:
        granting = Granting(at)
        await known(at)
        await at.spool.want("b", "fix", "anna")
        await at.dispatcher.look_at_orders()
        assert granting.asked == []
        own.names.add("b")
        at.dispatcher.gain("b")
        await until(lambda: granting.asked == [("b", "fix", "anna")])


async def test_what_the_database_did_not_take_is_done_again(tmp_path: Path) -> None:
    async with house(tmp_path, ScriptedBackend("b"), ownership=Owned({"b"})) as at:
        granting = Granting(at)
        await known(at)
        left = at.refuse("wish_done", SpoolUnavailable("away"))
        await at.spool.want("b", "check", "anna")
        await at.dispatcher.look_at_orders()
        await until(lambda: not left)
        await breathe()
        await at.dispatcher.look_at_orders()
        await until(lambda: len(granting.asked) == 2)


async def test_who_asks_is_told_or_waits_no_longer_than_he_said(tmp_path: Path) -> None:
    own = Owned()
    async with house(tmp_path, ScriptedBackend("b"), ownership=own) as at:
        assert await at.dispatcher.wishes.ask("b", "check", "anna", 5) is None  # nobody ever worked it
        await known(at)
        asking = asyncio.ensure_future(at.dispatcher.wishes.ask("b", "check", "anna", 5))
        await until(lambda: own.told == ["b", "b"])
        assert await at.spool.wish_done("b", 1, {"said": "good"}) is None
        while not asking.done():
            at.clock.advance(0.2)
            await breathe()
        wish = asking.result()
        assert wish is not None
        assert wish.done == {"said": "good"}
        asking = asyncio.ensure_future(at.dispatcher.wishes.ask("b", "check", "anna", 5))
        while not asking.done():
            at.clock.advance(0.2)
            await breathe()
        assert asking.result() is None
        assert read("{}") is read("") is None
