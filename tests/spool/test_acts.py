"""Orders of operators: one row for each, which messages it changed, however many; bounded."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.actor import Actor, Order, Role
from gateway.config.models import RetentionSettings
from gateway.spool import Filter, acts
from tests.fakes import START
from tests.spool_kit import At, of, peer, statements

ANNA = Actor("anna", "socket", Role.ADMIN)
DAY = timedelta(days=1)


@pytest.mark.parametrize("verb", ["hold", "retry", "delete"])
async def test_an_order_is_kept_with_what_it_changed(at: At, verb: str) -> None:
    """Who, when, by which way, what, how many; for each message which orders changed it, also when it is gone."""
    ident, held = await at.put(), await at.put()
    await at.spool.hold(of(held), START)
    assert await getattr(at.spool, verb)(Filter(state="queued"), START, order=Order(ANNA, verb, "all queued")) == 1
    (act,) = await at.spool.acts()
    assert (act.name, act.way, act.verb, act.what, act.count) == ("anna", "socket", verb, "all queued", 1)
    assert (act.made_at, act.messages) == (START, (ident,))
    assert [row.id for row in await at.spool.acts(message=ident)] == [act.id]
    assert await at.spool.acts(message=held) == []
    if verb != "delete":
        assert [row.verb for row in (await at.show(ident)).acts] == [verb]
    (line,) = at.logged("act")
    assert (line["by"], line["way"], line["verb"], line["count"]) == ("anna", "socket", verb, 1)
    assert [line["by"] for line in at.logged("deleted")] == (["anna"] if verb == "delete" else [])


async def test_any_name_can_be_kept(at: At) -> None:
    """A token may hold what no file takes; the order is carried out."""
    ident = await at.put()
    assert await at.spool.hold(of(ident), START, order=Order(Actor("a\udc80", "token"), "hold", "b\udc80")) == 1
    assert [act.count for act in await at.spool.acts()] == [1]


async def test_an_order_of_many_steps_is_one_act(at: At) -> None:
    """Over all its steps and filters it counts together; each step costs as many statements as one message does."""
    ids = list(await asyncio.gather(*(at.put() for _ in range(600))))
    order = Order(ANNA, "hold")
    with statements() as one:
        await at.spool.hold(of(ids[0]), START, order=Order(ANNA, "hold"))
    with statements() as many:
        await at.spool.hold(of(*ids[1:400]), START, order=order)
    assert len(many) < 3 * len(one)
    await at.spool.hold(of(*ids), START, order=order)
    last, first = await at.spool.acts()
    assert (first.count, last.count, len(last.messages)) == (1, 599, 20)
    named = await at.spool.acted_on(last.id, limit=500)
    named += await at.spool.acted_on(last.id, after=named[-1])
    assert named == sorted(ids[1:])


async def test_what_changed_nothing_is_no_act(at: At) -> None:
    await at.spool.hold(of("unknown"), START, order=Order(ANNA, "hold"))
    assert await at.spool.acts() == []
    assert at.logged("act") == []


async def test_orders_about_something_else(at: At) -> None:
    """A pause, a token: kept beside those about messages, in pages."""
    for number in range(3):
        await at.spool.act(Order(ANNA, "pause", f"backend {number}"))
    page = await at.spool.acts(limit=2)
    assert [row.what for row in page] == ["backend 2", "backend 1"]
    assert [row.what for row in await at.spool.acts(limit=2, before=page[-1].id)] == ["backend 0"]


async def test_acts_go_with_history(at: At, tmp_path: Path) -> None:
    """As long as history is kept, not longer; nothing of them stays."""
    ident = await at.put()
    await at.spool.hold(of(ident), START, order=Order(ANNA, "hold"))
    kept = RetentionSettings(history=DAY)
    assert await at.spool.sweep(at.spool.now() + DAY - timedelta(seconds=1), kept) == 0
    assert await at.spool.sweep(at.spool.now() + DAY, kept) == 1
    assert (await at.spool.acts(), peer(tmp_path, "SELECT count(*) FROM act_message")) == ([], [(0,)])
    assert (await at.show(ident)).acts == ()


async def test_acts_cannot_fill_the_disk(at: At, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who orders something of the whole queue every minute: the oldest of too many keep their number only."""
    monkeypatch.setattr(acts, "MOST", 5)
    ids = [await at.put() for _ in range(3)]
    for _ in range(2):
        await at.spool.hold(of(*ids), START, order=Order(ANNA, "hold"))
        await at.spool.release(of(*ids), START, order=Order(ANNA, "release"))
    while await at.spool.sweep(at.spool.now(), RetentionSettings()):
        pass
    assert [(row.verb, row.count, len(row.messages)) for row in await at.spool.acts()] == [
        ("release", 3, 3),
        ("hold", 3, 0),
        ("release", 3, 0),
        ("hold", 3, 0),
    ]
