"""Acts on messages: what was done, to which nothing was done and why; on many as work that can be stopped."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.http.outcome import Changed
from gateway.http.work import AT_ONCE, KEPT, RESULTS, Busy, Work, Works
from gateway.model import SpoolFull
from gateway.spool import Filter
from tests.http.kit import Service, ask
from tests.spool_kit import REJECTED, settlement

M = "/api/v1/messages"
MANY = 1001


async def put_many(running: Service, number: int = MANY) -> None:
    await asyncio.gather(*(running.put(n) for n in range(1, number + 1)))


async def ended(running: Service, number: int) -> dict[str, Any]:
    """Once it has."""
    while True:
        found: dict[str, Any] = (await ask(running, "GET", f"/api/v1/work/{number}")).json
        if found["ended_at"]:
            return found
        await asyncio.sleep(0)


async def test_what_is_about_many_goes_on_as_work(running: Service) -> None:
    """The answer names it; looked at, it says how far it is, and at the end what the act would have answered."""
    await put_many(running)
    body = {"filter": {"recipient": "example.net"}, "background": True}
    reply = await ask(running, "POST", f"{M}/hold", body)
    work = reply.json["work"]
    assert (reply.status, work["verb"], work["total"], work["state"]) == (202, "hold", 1000, "running")
    assert (work["total_more"], work["what"]) == (True, "all with recipient example.net")
    found = await ended(running, work["id"])
    assert (found["state"], found["changed"], found["error"]) == ("done", MANY, "")
    assert (found["total"], found["total_more"]) == (MANY, False)
    page = (await ask(running, "GET", f"{M}?recipient=example.net&limit=1&total=exact")).json
    assert (page["total"], page["total_more"]) == (MANY, False)
    assert found["result"] == {"changed": MANY, "unchanged": [], "why": []}
    assert running.spool.counts() == {("box", "held"): MANY}
    assert [one["id"] for one in (await ask(running, "GET", "/api/v1/work")).json["work"]] == [work["id"]]


@pytest.mark.parametrize(("number", "background"), [(3, True), (MANY, False), (MANY, None)])
async def test_what_is_about_few_is_done_at_once(running: Service, number: int, background: object) -> None:
    """And so is what was not asked for as work."""
    await put_many(running, number)
    reply = await ask(running, "POST", f"{M}/hold", {"filter": {}, "background": background})
    assert (reply.status, reply.json["changed"]) == (200, number)


async def test_work_is_stopped_between_two_steps(running: Service) -> None:
    """What was done holds, what was not is as it was, and both are said."""
    await put_many(running)
    work = (await ask(running, "POST", f"{M}/hold", {"filter": {}, "background": True})).json["work"]
    assert (await ask(running, "POST", f"/api/v1/work/{work['id']}/stop")).json["state"] == "stopping"
    found = await ended(running, work["id"])
    assert (found["state"], 0 < found["changed"] < MANY) == ("stopped", True)
    assert running.spool.counts()["box", "held"] == found["changed"] == found["result"]["changed"]
    (act,) = await running.spool.acts()
    assert act.count == found["changed"]
    assert (await ask(running, "POST", f"/api/v1/work/{work['id']}/stop")).json["state"] == "stopped"


@pytest.mark.parametrize("path", ["/api/v1/work/7", "/api/v1/work/x", "/api/v1/work/%C2%B2"])
async def test_unknown_work(running: Service, path: str) -> None:
    """It may have been forgotten."""
    reply = await ask(running, "GET", path)
    assert (reply.status, "no work" in reply.json["detail"]) == (404, True)


async def test_only_the_last_answers_are_kept_whole(running: Service) -> None:
    """Each may name 250,000 messages: who orders that again and again must not fill the memory."""
    works = Works(running.clock, running.events)

    async def answers(work: Work) -> None:
        work.result = Changed(changed=0, unchanged=["M001"], why=[])

    for _ in range(RESULTS + 2):
        works.start("retry", "", "ann", total=1, total_more=False, run=answers)
        while not works.all()[0].ended_at:
            await asyncio.sleep(0)
    works.start("retry", "", "ann", total=1, total_more=False, run=answers)
    assert [work.result is not None for work in works.all()[1:]] == [True] * RESULTS + [False] * 2
    await works.aclose()


async def test_works_are_few_and_not_kept_for_ever(running: Service) -> None:
    """Who orders without end is refused; what fails says why; the end of the service waits for the step under way."""
    works, go = Works(running.clock, running.events), asyncio.Event()

    def start(run: Any) -> Work:
        return works.start("hold", "", "ann", total=1, total_more=False, run=run)

    async def waits(work: Work) -> None:
        await go.wait()
        work.go_on(1)

    async def full(_work: Work) -> None:
        raise SpoolFull("no room")

    async def bug(_work: Work) -> None:
        raise LookupError

    failed, broken = start(full), start(bug)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (failed.state, failed.error) == ("failed", "no room")
    assert (broken.state, broken.error) == ("failed", "internal error, see the log")
    for _ in range(KEPT + 5):
        start(full)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert len(works.all()) == KEPT
    busy = [start(waits) for _ in range(AT_ONCE)]
    with pytest.raises(Busy):
        start(waits)
    closing = asyncio.create_task(works.aclose())
    await asyncio.sleep(0)
    go.set()
    await closing
    assert {work.state for work in busy} == {"stopped"}
    assert works.all()[0] is busy[-1]
    with pytest.raises(Busy):
        start(full)


async def test_each_id_that_nothing_was_done_to_says_why(running: Service) -> None:
    """No such message, nothing to do in its state, and no text any more are different answers."""
    for number in range(1, 4):
        await running.put(number)
    await running.spool.hold(Filter(ids=("M002",)), running.spool.now())
    reply = await ask(running, "POST", f"{M}/retry", {"ids": ["M001", "M002", "M009"]})
    assert reply.json == {
        "changed": 1,
        "told": 0,
        "unchanged": ["M002", "M009"],
        "why": [
            {"why": "it is held", "count": 1, "ids": ["M002"]},
            {"why": "no such message", "count": 1, "ids": ["M009"]},
        ],
    }
    reply = await ask(running, "POST", f"{M}/M002/retry")
    assert (reply.status, reply.json["detail"]) == (409, "message M002: nothing to retry: it is held")
    assert (await ask(running, "POST", f"{M}/M009/retry")).status == 404


@pytest.mark.parametrize(
    ("verb", "body", "status", "words"),
    [
        ("reroute", {"filter": {}}, 400, "no backend given"),
        ("reroute", {"filter": {}, "backend": "none"}, 404, "no backend none; there are box"),
        ("reroute", {"filter": {}, "backend": "box", "force": "yes"}, 400, "force must be"),
        ("resend", {"filter": {}}, 400, "never for all"),
        ("retry", {"filter": {"state": "lost"}}, 400, "no state lost"),
        ("retry", {"filter": {"since": "noon"}}, 400, "since"),
    ],
)
async def test_unclear_orders_change_nothing(
    running: Service, verb: str, body: object, status: int, words: str
) -> None:
    """They are refused in words."""
    await running.put(1)
    before = await running.spool.show("M001")
    reply = await ask(running, "POST", f"{M}/{verb}", body)
    assert (reply.status, words in reply.json["detail"]) == (status, True), reply.json
    assert await running.spool.show("M001") == before


async def test_all_that_failed_is_retried_only_when_it_is_asked_for(running: Service) -> None:
    """All is what waits: history is not sent again by it. Without a service what failed is left, and it is said."""
    await running.put(1)
    await running.put(2)
    given = {"now": running.spool.now(), "lease": running.settings.retry.lifetime, "limit": 1}
    (one,) = (await running.spool.claim("box", **given)).claims
    await running.spool.settle(settlement(one, REJECTED))
    failed = one.message.id
    assert (await ask(running, "POST", f"{M}/retry", {"filter": {}})).json["changed"] == 1
    assert (await running.spool.states([failed])) == {failed: "failed"}
    dispatcher, running.dispatcher = running.dispatcher, None
    reply = await ask(running, "POST", f"{M}/{failed}/retry")
    assert (reply.status, "gateway serve" in reply.json["detail"]) == (409, True)
    running.dispatcher = dispatcher
    assert (await ask(running, "POST", f"{M}/retry", {"filter": {"state": "failed"}})).json["changed"] == 1
    assert (await running.spool.states([failed])) == {failed: "queued"}
