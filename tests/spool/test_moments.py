"""Questions of one moment: one transaction for all that one answer is made of, and for nobody else."""

from __future__ import annotations

import asyncio

from gateway.spool import Filter
from tests.spool_kit import At, of, statements


async def test_what_one_task_asks_is_of_one_moment(at: At) -> None:
    """From its first question on. What comes in meanwhile others see, and it does itself afterwards."""
    first = await at.put()
    async with at.spool.one_moment():
        second = await at.put()
        assert await at.spool.count(of(first, second)) == 2, "nothing was asked before"
        assert set(await at.spool.states([first, second])) == {first, second}
        third = await at.put()
        assert await at.spool.states([third]) == {}
        assert (await at.spool.total(Filter())).number == 2
        assert await asyncio.create_task(at.spool.states([third])) == {third: "queued"}
    assert await at.spool.states([third]) == {third: "queued"}


async def test_it_is_one_transaction_and_none_for_who_asks_nothing(at: At) -> None:
    with statements() as seen:
        async with at.spool.one_moment():
            pass
        assert seen == []
        async with at.spool.one_moment():
            await at.spool.backlog()
            await at.spool.acts()
            await at.spool.checks()
    assert [text for text in seen if text.startswith("BEGIN")] == ["BEGIN"]


async def test_what_waits_is_one_question(at: At) -> None:
    """However many backends there are; by each what has waited longest."""
    idents = {name: await at.put(backend=name) for name in ("a", "b", "c")}
    for name in idents:
        await at.put(backend=name)
    with statements() as seen:
        found = await at.spool.backlog()
    assert {name: row.message_id for name, row in found.firsts.items()} == idents
    assert len(seen) == 2, "BEGIN and the question"
