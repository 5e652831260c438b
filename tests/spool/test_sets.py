"""What an operator and the house do to many messages: all of them, in small steps, with few statements."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.model import NewMessage
from gateway.spool import Filter, Late, Notice, Told
from tests.fakes import START
from tests.spool_kit import DEFERRED, REJECTED, At, message, of, opened, peer, settlement, statements

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
MANY = 1500  # more than any page of old


async def put_many(at: At, number: int, **more: object) -> list[str]:
    return list(await asyncio.gather(*(at.put(**more) for _ in range(number))))  # type: ignore[arg-type]


async def defer_all(at: At) -> None:
    claims = await at.claim(limit=10_000)
    tomorrow = (settlement(claim, DEFERRED, next_attempt_at=START + DAY) for claim in claims)
    await asyncio.gather(*(at.spool.settle(one) for one in tomorrow))


async def test_retry_reaches_every_message_of_a_backend(at: At) -> None:
    """As many as there are, not the first thousand; and none of another backend."""
    await put_many(at, MANY)
    other = await at.put(backend="other", received_at=START + MINUTE)
    await defer_all(at)
    assert await at.spool.retry(Filter(backend="b", state="queued"), START + MINUTE) == MANY
    assert len(await at.claim(now=START + MINUTE, limit=10_000)) == MANY
    assert [claim.message.id for claim in await at.claim("other", now=START + MINUTE)] == [other]


async def test_orders_reach_every_message(at: At) -> None:
    """Hold, release and delete by a filter: the number of messages, the ids of each step, one log line for each."""
    ids = await put_many(at, MANY, sender="till@example.com")
    kept = await at.put(sender="other@example.com")
    which = Filter(sender="Till@EXAMPLE.com")
    steps: list[int] = []
    assert await at.spool.hold(which, START, lambda step: steps.append(len(step))) == MANY
    assert (sum(steps), max(steps) <= 500) == (MANY, True)
    assert at.spool.counts() == {("b", "held"): MANY, ("b", "queued"): 1}
    assert await at.spool.release(Filter(state="held"), START) == MANY
    assert await at.spool.hold(of(*ids, *ids, "unknown"), START) == MANY  # also by so many ids, given twice
    assert await at.spool.delete(which, START) == MANY
    assert [row.id for row in await at.spool.find()] == [kept]
    assert sorted(line["id"] for line in at.logged("deleted")) == ids


async def test_mail_gets_in_between_the_steps(at: At) -> None:
    """What is put while many messages are changed is on disk before the order is carried out to the end."""
    await put_many(at, MANY)
    seen: list[int] = []
    putting: list[asyncio.Task[str]] = []

    def step(ids: object) -> None:
        seen.append(sum(task.done() for task in putting))
        putting.append(asyncio.create_task(at.put()))

    assert await at.spool.hold(Filter(backend="b"), START, step) == MANY
    assert len(seen) > 1
    assert seen[-1] >= len(seen) - 2
    await asyncio.gather(*putting)


async def test_what_no_longer_fits_is_left_alone(at: At) -> None:
    """A message that was released after the page was read is no longer one of the held ones to be deleted."""
    ids = sorted(await put_many(at, 600))
    await at.spool.hold(Filter(), START)
    released: list[asyncio.Task[int]] = []

    def first_step(_: object) -> None:
        if not released:  # it stands in the writer's queue before the next step does
            released.append(asyncio.create_task(at.spool.release(of(ids[0]), START)))

    number = await at.spool.delete(Filter(state="held"), START, first_step)
    left = [row.id for row in await at.spool.find()]
    assert await released[0] + number == 600
    assert left in ([], [ids[0]])
    assert len(left) == 600 - number


async def test_bouncing_goes_in_pages(at: At) -> None:
    """Claims on every message that fits, page by page; each page is settled before the next is claimed."""
    ids = await put_many(at, 700)
    held = await at.put(sender="other@example.com")
    await at.spool.hold(of(held), START)
    given_up = []
    async for claims in at.spool.fail(Filter(backend="b", state="queued"), START):
        assert len(claims) <= 500
        given_up += [claim.message.id for claim in claims]
        await asyncio.gather(*(at.spool.settle(settlement(claim, REJECTED)) for claim in claims))
    assert sorted(given_up) == ids
    assert Counter(row.state for row in await at.spool.find(limit=1000)) == {"failed": 700, "held": 1}


async def test_expiry_takes_all_in_turns(at: At) -> None:
    """250 late ones are claimed in pages until none is left."""
    await put_many(at, 250, expires_at=START + MINUTE)
    pages = []
    while claims := await at.spool.overdue(START + DAY):
        pages.append(len(claims))
        await asyncio.gather(*(at.spool.settle(settlement(claim, REJECTED)) for claim in claims))
    assert pages == [200, 50]
    assert await at.spool.queued() == {}


async def test_pages_of_deliveries_reach_the_last(at: At) -> None:
    """Ten behind a thousand are found, and in the order they came; what is moved or deleted meanwhile hides nothing."""
    await put_many(at, 1000, received_at=START)
    late = [await at.put(received_at=START + n * MINUTE) for n in range(1, 11)]
    found = []
    async for page in at.spool.deliveries("b", limit=300):
        found += [delivery.message.id for delivery in page]
        await at.spool.move([delivery.delivery_id for delivery in page[::2]], "c", START)
        await at.spool.delete(of(found[-1]), START)
    assert found[-10:] == late
    assert len(found) == len(set(found)) == 1010


async def test_a_page_of_deliveries_is_never_empty_before_the_end(tmp_path: Path, at: At) -> None:
    """A whole page whose rows make no sense does not end the paging."""
    damaged, good = await at.put(), await at.put(received_at=START + MINUTE)
    peer(tmp_path, "UPDATE message SET authors = 'x' WHERE id = ?", damaged)
    pages = [[delivery.message.id for delivery in page] async for page in at.spool.deliveries("b", limit=1)]
    assert pages == [[good]]


async def test_failover_of_thousands_is_a_handful_of_statements(at: At) -> None:
    """3,000 deliveries: a fixed number of statements for each page, not one or more for each message."""
    ids = await put_many(at, 3000)
    moved = 0
    with statements() as seen:
        async for page in at.spool.deliveries("b"):
            moved += await at.spool.move([delivery.delivery_id for delivery in page], "c", START)
    assert moved == 3000
    assert len(seen) < 200
    assert at.spool.counts() == {("c", "queued"): 3000}
    assert sorted(claim.message.id for claim in await at.claim("c", limit=5000)) == ids


async def test_a_delivery_under_way_is_not_moved(at: At) -> None:
    """It may be on the wire: by another backend it would go out twice."""
    await at.put()
    (delivery,) = await at.waiting()
    await at.claim()
    assert await at.spool.move([delivery.delivery_id], "c", START) == 0
    assert at.spool.counts() == {("b", "queued"): 1}


async def test_bodies_do_not_wait_behind_names_and_tokens(tmp_path: Path) -> None:
    """A name server that hangs fills the loop's own threads; reading mail, measuring and copying go on."""
    free = threading.Event()
    hanging = ThreadPoolExecutor(1)
    loop = asyncio.get_running_loop()
    loop.set_default_executor(hanging)
    stuck = loop.run_in_executor(None, free.wait)
    try:
        async with asyncio.timeout(30), opened(tmp_path / "spool") as at:
            ident = await at.put()
            assert list(await at.spool.bodies([ident])) == [ident]
            await at.spool.backup(tmp_path / "copy.db")
        assert not stuck.done()
    finally:
        free.set()
        await stuck


def notice(late: Late, bounce: NewMessage) -> Notice:
    ids = tuple(delivery.delivery_id for delivery in late.deliveries)
    return Notice(late.message.id, ids, (bounce,), (Told("delayed", bounce.id),))


async def test_late_mail_is_found_by_age(at: At) -> None:
    """Page by page the oldest first, the young not at all; told once, in a few statements for all of them."""
    ids = await put_many(at, 450)
    at.clock.advance(60)
    await put_many(at, 10)
    given = {"until": START + MINUTE / 2, "limit": 200}
    pages = []
    async for page in at.spool.late("b", **given):
        pages.append([late.message.id for late in page])
        with statements() as seen:
            await at.spool.notice([notice(late, message("s@example.com", backend="other")) for late in page])
        assert len(seen) <= 31  # five tables get up to 200 rows, 64 at a time
    assert ([len(page) for page in pages], sorted(ident for page in pages for ident in page)) == (
        [200, 200, 50],
        sorted(ids),
    )
    assert at.spool.counts() == {("b", "queued"): 460, ("other", "queued"): 450}
    assert [page async for page in at.spool.late("b", **given)] == []
    assert [page async for page in at.spool.late("b", until=START + MINUTE * 2, after=START + MINUTE)] == []
    (row,) = (await at.show(ids[0])).bounces
    assert (row.kind, row.bounce_id != "") == ("delayed", True)


@pytest.mark.parametrize("change", ["claim", "hold", "delete", "move", "notice"])
async def test_what_changes_under_a_notice_is_not_told_of(at: At, change: str) -> None:
    """Between the look and the transaction: nothing is put, and nothing is marked; nor what was under way before."""
    ident = await at.put()
    ((late,),) = [page async for page in at.spool.late("b", until=START)]
    match change:
        case "claim":
            await at.claim()
            ((busy,),) = [page async for page in at.spool.late("b", until=START)]
            assert busy.deliveries == ()
        case "hold":
            await at.spool.hold(of(ident), START)
        case "delete":
            await at.spool.delete(of(ident), START)
        case "move":
            await at.spool.move([late.deliveries[0].delivery_id], "c", START)
        case "notice":
            assert await at.spool.notice([notice(late, message(backend="other"))]) == [ident]
    before = at.spool.counts()
    assert await at.spool.notice([notice(late, message(backend="other"))]) == []
    assert at.spool.counts() == before


async def test_past_its_end_it_is_not_late(at: At) -> None:
    """A bounce comes next."""
    await at.put(expires_at=START + MINUTE)
    at.clock.advance(60)
    assert [page async for page in at.spool.late("b", until=at.spool.now())] == []
