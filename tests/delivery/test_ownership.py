"""A backend is worked by one instance at a time: gained and lost in mid-work, and asked for at each send."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.model import SpoolUnavailable
from tests.delivery.kit import house, routing, settings
from tests.fakes import ScriptedBackend, breathe, until


@dataclass
class Owned:
    """As the test says."""

    names: set[str] = field(default_factory=set)
    good: bool = True
    house: bool = True
    others: Collection[str] = ()
    told: list[str] = field(default_factory=list)
    stirred: int = 0

    def owns(self, backend: str) -> bool:
        return backend in self.names

    def owner(self, backend: str) -> str:
        return "" if backend in self.names else "elsewhere"

    def valid(self) -> bool:
        return self.good

    def alive(self) -> bool:
        return self.good

    def keeps_house(self) -> bool:
        return self.house

    def declared(self) -> Collection[str]:
        return self.others

    def ordered(self, backend: str) -> None:
        self.told.append(backend)

    def stir(self) -> None:
        self.stirred += 1


async def test_mail_waits_until_its_backend_is_gained(tmp_path: Path) -> None:
    """Accepted by an instance that does not work the backend, it is sent by it only after that has changed."""
    backend, own = ScriptedBackend("b"), Owned()
    async with house(tmp_path, backend, ownership=own) as at:
        first = await at.put("b")
        await at.rounds(lambda: len(at.ended) >= 2)
        assert not backend.calls
        own.names.add("b")
        at.dispatcher.gain("b")
        await at.settled(first, "done")


async def test_what_is_under_way_ends_where_it_began(tmp_path: Path) -> None:
    """Lost in the middle of sends: these are settled, what was only claimed is given back as if it never had been."""
    backend, own = ScriptedBackend("b"), Owned({"b"})
    backend.gate = asyncio.Event()
    async with house(tmp_path, backend, ownership=own, concurrency=2) as at:
        sent = await at.put_many(5, "b")
        await until(lambda: len(backend.calls) == 2)
        own.names.clear()
        losing = asyncio.ensure_future(at.dispatcher.lose("b"))
        await breathe()
        assert not losing.done()
        backend.gate.set()
        await losing
        assert len(backend.calls) == 2
        assert list((await at.spool.states(sent)).values()).count("done") == 2
        own.names.add("b")
        at.dispatcher.gain("b")
        await at.all_settled(sent, "done")
        assert sorted(message.id for message, _ in backend.calls) == sorted(sent)
        assert [len((await at.tried(ident)).attempts) for ident in sent] == [1] * 5


async def test_what_is_gained_again_sends_no_more_at_once_than_it_may(tmp_path: Path) -> None:
    """Its session lost and had again: what was sent for it before and has not ended takes its places."""
    backend, own = ScriptedBackend("b"), Owned({"b"})
    backend.gate = asyncio.Event()
    async with house(tmp_path, backend, ownership=own, concurrency=2) as at:
        sent = await at.put_many(5, "b")
        await until(lambda: len(backend.calls) == 2)
        losing = asyncio.ensure_future(at.dispatcher.lose("b"))
        await breathe()
        at.dispatcher.gain("b")
        for _ in range(20):
            await breathe()
        assert len(backend.calls) == 2
        backend.gate.set()
        await losing
        await at.all_settled(sent, "done")
        assert sorted(message.id for message, _ in backend.calls) == sorted(sent)


async def test_a_large_body_that_cannot_be_read_now_is_read_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim is given back and counts as none: it was never begun."""
    backend, own = ScriptedBackend("b"), Owned({"b"})
    async with house(tmp_path, backend, ownership=own) as at:
        refused: list[object] = []

        async def bodies(ids: object) -> dict[str, bytes]:
            refused.append(ids)
            raise SpoolUnavailable("away")

        with monkeypatch.context() as away:
            away.setattr(at.spool, "bodies", bodies)
            ident = await at.put("b", raw=b"Subject: x\r\n\r\n" + b"x" * 300_000)
            await until(lambda: bool(refused))
            await breathe()
        at.clock.advance(6)
        await at.settled(ident, "done")
        detail = await at.tried(ident)
        assert [len(detail.attempts), detail.deliveries[0].attempts] == [1, 1]
        assert not at.logged("bug")


async def test_nothing_is_sent_by_who_is_not_sure_that_it_is_his(tmp_path: Path) -> None:
    """Right before the network: the claim is given back, and counts as none."""
    backend, own = ScriptedBackend("b"), Owned({"b"}, good=False)
    async with house(tmp_path, backend, ownership=own) as at:
        ident = await at.put("b")
        for _ in range(20):
            await breathe()
        assert not backend.calls
        own.good = True
        at.clock.advance(6)
        await at.settled(ident, "done")
        detail = await at.tried(ident)
        assert [len(detail.attempts), detail.deliveries[0].attempts] == [1, 1]


async def test_mail_for_a_backend_of_another_instance_is_no_orphan(tmp_path: Path) -> None:
    """It stays where it is while somebody has that backend; and only who keeps house moves what nobody has."""
    backend, own = ScriptedBackend("b"), Owned({"b"}, others={"elsewhere"})
    async with house(tmp_path, backend, ownership=own) as at:
        ident = await at.put("elsewhere")
        await at.rounds(lambda: len(at.ended) >= 2)
        own.others, own.house = (), False
        await at.rounds(lambda: len(at.ended) >= 4)
        assert await at.state(ident) == "queued"
        assert not backend.calls
        own.house = True
        await at.rounds(lambda: bool(backend.calls))
        await at.settled(ident, "done")


async def test_a_check_is_made_anywhere_and_who_works_a_backend_is_told(tmp_path: Path) -> None:
    """Also where it is not worked: it tries what this machine has. One that there is not is worked nowhere else."""
    backend, own = ScriptedBackend("b"), Owned()
    async with house(tmp_path, backend, ownership=own) as at:
        assert (await at.dispatcher.check("b")).ok
        assert (at.dispatcher.elsewhere("b"), at.dispatcher.elsewhere("old")) == ("elsewhere", None)
        own.names.add("b")
        at.dispatcher.gain("b")
        assert (await at.dispatcher.check("b")).ok
        assert at.dispatcher.elsewhere("b") is None


async def test_what_is_ordered_of_a_backend_of_another_instance_reaches_its_owner(tmp_path: Path) -> None:
    """It is kept for who works it, who is told; here it is shown, with who ordered it. Whoever gains it obeys."""
    backend, own = ScriptedBackend("b"), Owned()
    async with house(tmp_path, backend, ownership=own) as at:
        await at.dispatcher.pause("b", None, "anna")
        status = at.dispatcher.status()["b"]
        assert (status.owner, status.state, status.who, own.told) == ("elsewhere", "paused", "anna", ["b"])
        own.names.add("b")
        at.dispatcher.gain("b")
        ident = await at.put("b")
        await at.rounds(lambda: len(at.ended) >= 3)
        assert (at.dispatcher.status()["b"].who, backend.calls) == ("anna", [])
        await at.dispatcher.resume("b")
        await at.settled(ident, "done")


async def test_what_was_ordered_at_another_instance_is_obeyed_once_it_is_heard_of(tmp_path: Path) -> None:
    """By who works it: a pause, its end, and nothing twice."""
    backend, own = ScriptedBackend("b"), Owned({"b"})
    async with house(tmp_path, backend, ownership=own) as at:
        await at.spool.pause("b", None, "anna")
        at.dispatcher.hear_of_orders()
        await until(lambda: at.paused_by("b") == "operator")
        ident = await at.put("b")
        await at.spool.resume("b")
        await at.dispatcher.look_at_orders()
        await at.settled(ident, "done")
        await at.dispatcher.look_at_orders()
        assert (len(at.logged("backend_paused")), len(at.logged("backend_resumed"))) == (1, 1)


async def test_nothing_is_sent_before_it_is_known_what_was_ordered(tmp_path: Path) -> None:
    """The queue cannot be asked when the backend is gained: its mail waits until it is known that nobody paused it."""
    backend, own = ScriptedBackend("b"), Owned()
    async with house(tmp_path, backend, ownership=own) as at:
        await at.spool.pause("b", None, "anna")
        left = at.refuse("ordered", *[SpoolUnavailable("away")] * 2)
        own.names.add("b")
        at.dispatcher.gain("b")
        await at.put("b")
        await at.rounds(lambda: not left and at.paused_by("b"))
        assert not backend.calls


async def test_a_backend_is_not_closed_under_the_sends_of_who_lost_it(tmp_path: Path) -> None:
    """A reload replaces it meanwhile: the old one is closed when the last of them has its answer."""
    old, new, own = ScriptedBackend("b"), ScriptedBackend("b"), Owned({"b"})
    old.gate = asyncio.Event()
    async with house(tmp_path, old, ownership=own) as at:
        ident = await at.put("b")
        await until(lambda: bool(old.calls))
        own.names.clear()
        losing = asyncio.ensure_future(at.dispatcher.lose("b"))
        config = settings(tmp_path, "b")
        await at.dispatcher.update(config, routing(config, {"b": new}), {"b": new})
        for _ in range(10):
            await breathe()
        assert not old.closed
        old.gate.set()
        await losing
        await until(lambda: old.closed)
        assert await at.state(ident) == "done"
