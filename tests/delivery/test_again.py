"""Again and another way: what failed, what was sent, what waits; with messages that are stored, sent and failed."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.actor import Actor, Order
from gateway.clock import QueueIds
from gateway.config.models import RetentionSettings
from gateway.delivery import again as reasons
from gateway.delivery.again import Again, Step
from gateway.delivery.bounces import Bouncer
from gateway.delivery.orders import Orders
from gateway.model import Capabilities, Outcome, SpoolFull, Verdict
from gateway.spool import Filter, Told
from gateway.spool.seal import resealed
from tests import builders
from tests.builders import IN_DOUBT, RAW, SENT
from tests.fakes import START
from tests.spool_kit import DEFERRED, REJECTED, At, message, of, opened, peer, settlement

DAY = timedelta(days=1)
MANY = 600  # more than two steps
LARGE = Capabilities(35_000_000)


@dataclass
class Ordering:
    """A spool and who acts on it: backends b, other, and token, which sends with clients' own tokens only."""

    at: At
    again: Again
    order: Order

    async def all(self, steps: AsyncIterator[Step]) -> Step:
        """What all steps came to."""
        whole = Step()
        async for step in steps:
            for why, ids in step.left.items():
                whole.left.setdefault(why, []).extend(ids)
            changed, told = [*whole.changed, *step.changed], whole.told + step.told
            whole = replace(whole, changed=changed, told=told, copies=whole.copies | step.copies)
        return whole

    async def retry(self, which: Filter, backend: str = "") -> Step:
        return await self.all(self.again.retry(which, self.order, backend))

    async def reroute(self, which: Filter, backend: str = "other", *, force: bool = False) -> Step:
        return await self.all(self.again.reroute(which, self.order, backend, force=force))

    async def resend(self, which: Filter) -> Step:
        return await self.all(self.again.resend(which, self.order))

    async def failed(self, *addresses: str, **more: object) -> str:
        """One that failed for all."""
        ident = await self.at.put(*addresses, **more)
        for claim in await self.at.claim(str(more.get("backend", "b")), now=self.at.spool.now()):
            await self.at.spool.settle(settlement(claim, REJECTED, told=(Told("failed", "B1"),)))
        return ident

    async def many_failed(self) -> None:
        await asyncio.gather(*(self.at.put(ident=f"F{n:04d}") for n in range(MANY)))
        claims = await self.at.claim(limit=MANY)
        await asyncio.gather(*(self.at.spool.settle(settlement(claim, REJECTED)) for claim in claims))


@asynccontextmanager
async def ordering(directory: Path, **able: Capabilities) -> AsyncIterator[Ordering]:
    retention = RetentionSettings(sent_body=DAY)
    async with opened(directory, retention=retention) as at:
        settings = builders.settings("b", "other", "token", bounces={"mode": "off"})
        given = {"b": LARGE, "other": LARGE, "token": replace(LARGE, own_token=True)} | able
        table, rng = builders.routing(settings, given), random.Random(1)
        ids = QueueIds(at.clock, random.Random(2))
        again = Again(at.spool, at.events, at.clock, ids)
        bouncer = Bouncer(settings, table, at.events, ids, rng)
        again.update(Orders(table, settings.retry, bouncer, {}, rng), settings)
        yield Ordering(at, again, Order(Actor("ann", "socket"), "retry"))


async def test_failed_mail_waits_again(tmp_path: Path) -> None:
    """Only for those who did not get it; with a new lifetime and its old attempts, whole by its checksum, and sent."""
    async with ordering(tmp_path) as do:
        ident = await do.at.put("a@x.org", "b@x.org")
        (claim,) = await do.at.claim()
        both = {"a@x.org": SENT, "b@x.org": REJECTED}
        await do.at.spool.settle(settlement(claim, both, told=(Told("failed", "B1"),)))
        do.at.clock.advance(20 * 86400)
        do.at.woken.clear()
        step = await do.retry(of(ident))
        assert (step.changed, step.left, step.told, do.at.woken) == ([ident], {}, 1, ["b"])
        assert (await do.at.states(ident))[:2] == ("queued", {"a@x.org": "sent", "b@x.org": "queued"})
        detail = await do.at.show(ident)
        assert detail.message.expires_at == START + 25 * DAY
        assert [row.verdict for row in detail.attempts] == ["sent", "rejected"]
        assert [row.verdict for row in detail.recipients] == ["sent", ""]
        assert await do.at.spool.overdue(do.at.spool.now() + 4 * DAY) == []
        (claim,) = await do.at.claim(now=do.at.spool.now())
        assert [one.address for one in claim.message.envelope.recipients] == ["b@x.org"]
        assert (claim.message.attempt, await do.at.spool.bodies([ident])) == (1, {ident: RAW})
        await do.at.spool.settle(settlement(claim))
        assert (await do.at.states(ident))[0] == "done"
        (act,) = await do.at.spool.acts(message=ident)
        assert (act.name, act.verb, act.count) == ("ann", "retry", 1)


async def test_what_cannot_be_sent_again_says_why(tmp_path: Path) -> None:
    """The text is gone, or the client's own token; what waits or is sent is not what failed. Nothing of it changes."""
    async with ordering(tmp_path) as do:
        swept = await do.failed()
        await do.at.spool.sweep(do.at.spool.now() + 40 * DAY, RetentionSettings(history=365 * DAY))
        token = await do.failed(backend="token", pin="token", secret="its own")
        waiting, sent = await do.at.put(backend="other"), await do.at.put()
        await do.at.settle()
        before = [await do.at.states(ident) for ident in (swept, token, waiting, sent)]
        step = await do.retry(of(swept, token, waiting, sent, "unknown"))
        assert step.left == {reasons.NO_TEXT: [swept], reasons.TOKEN_GONE: [token]}
        assert step.changed == []
        assert [await do.at.states(ident) for ident in (swept, token, waiting, sent)] == before


async def test_where_its_backend_is_gone_or_cannot_any_more_it_goes_another_way(tmp_path: Path) -> None:
    """By what the routes say now; what was refused on its way in has no backend, and gets one too."""
    async with ordering(tmp_path, b=Capabilities(1)) as do:
        small, gone = await do.failed(), await do.failed(backend="gone")
        refused = message("a@x.org", deliveries={}, refused={"a@x.org": REJECTED})
        await do.at.spool.put(refused)
        assert sorted((await do.retry(Filter())).changed) == sorted([small, gone, refused.id])
        assert do.at.spool.counts() == {("other", "queued"): 3}
        assert len(await do.at.claim("other", now=do.at.spool.now())) == 3


async def test_failed_mail_by_the_thousand(tmp_path: Path) -> None:
    """All of it, in steps, each with a handful of statements; damaged bytes are found when it is sent, as ever."""
    async with ordering(tmp_path) as do:
        await do.many_failed()
        peer(tmp_path, "UPDATE body SET raw = x'00' WHERE message_id = 'F0007'")
        steps = [step async for step in do.again.retry(Filter(state="failed"), do.order)]
        assert [len(step.changed) for step in steps] == [250, 250, 100]
        assert do.at.spool.counts() == {("b", "queued"): MANY}
        ids = [f"F{n:04d}" for n in range(MANY)]
        assert sorted(await do.at.spool.bodies(ids)) == sorted(set(ids) - {"F0007"})


async def test_a_copy_of_what_was_sent(tmp_path: Path) -> None:
    """A new message to those who were sent it, which names the old one, as it was but for a line of trace."""
    async with ordering(tmp_path) as do:
        ident = await do.at.put("a@x.org", "b@x.org", message_id="<1@x>", client="till", authors=("s@example.com",))
        (claim,) = await do.at.claim()
        await do.at.spool.settle(settlement(claim, {"a@x.org": SENT, "b@x.org": REJECTED}))
        step = await do.resend(of(ident))
        copy = step.copies[ident]
        assert (step.changed, step.left) == ([ident], {})
        detail = await do.at.show(copy)
        assert [row.address for row in detail.recipients] == ["a@x.org"]
        row = detail.message
        assert (row.resend_of, row.message_id, row.client, row.sender) == (ident, "<1@x>", "till", "s@example.com")
        trace, raw = (await do.at.spool.bodies([copy]))[copy].split(b"From: ", 1)
        assert trace.startswith(b"Received: ")
        assert copy.encode() in trace
        assert b"From: " + raw == RAW
        assert (await do.at.states(ident))[0] == "failed"  # what was said of it stays true
        waiting = await do.at.put()
        assert (await do.resend(of(waiting))).changed == []


async def test_copies_are_all_or_none_for_a_step_and_a_full_disk_ends_it(tmp_path: Path) -> None:
    """What is not kept, or not whole, says so; where there is no room nothing is half done."""
    async with ordering(tmp_path) as do:
        swept, damaged, token = await do.at.put(), await do.at.put(), await do.at.put(pin="token", secret="x")
        for claim in await do.at.claim():
            await do.at.spool.settle(settlement(claim))
        peer(tmp_path, "UPDATE message SET has_body = 0 WHERE id = ?", swept)
        peer(tmp_path, "UPDATE body SET raw = x'00' WHERE message_id = ?", damaged)
        step = await do.resend(of(swept, damaged, token))
        assert (step.changed, step.left[reasons.TOKEN_GONE]) == ([], [token])
        assert sorted(step.left[reasons.NO_TEXT]) == sorted([swept, damaged])
        whole = await do.at.put()
        await do.at.settle()
        do.at.spool.room.close("disk")
        with pytest.raises(SpoolFull):
            await do.resend(of(whole))
        assert (await do.at.spool.find(Filter(state="queued"))) == []


async def doubtful(do: Ordering, **more: object) -> str:
    ident = await do.at.put(**more)
    await do.at.settle(IN_DOUBT, next_attempt_at=START + DAY)
    return ident


async def test_what_waits_goes_another_way(tmp_path: Path) -> None:
    """Due at once by another backend; held mail stays held. What is under way, in doubt, demanded of one backend or too
    much for the other stays, and says why."""
    small = replace(LARGE, max_bytes=len(RAW))
    async with ordering(tmp_path, other=small) as do:
        doubt = await doubtful(do)
        busy = await do.at.put()
        await do.at.claim()
        pinned, big, there = await do.at.put(pin="b"), await do.at.put(raw=RAW * 2), await do.at.put(backend="other")
        held, waits = await do.at.put(), await do.at.put()
        await do.at.spool.hold(of(held), START)
        do.at.woken.clear()
        step = await do.reroute(Filter(state="unfinished"))
        assert sorted(step.changed) == sorted([held, waits])
        (why,) = set(step.left) - {reasons.SENDING, reasons.IN_DOUBT, reasons.PINNED, reasons.THERE}
        assert "too big" in why
        assert {ident for ids in step.left.values() for ident in ids} == {doubt, busy, pinned, big, there}
        assert step.left[reasons.SENDING] == [busy]
        assert do.at.spool.counts() == {("b", "queued"): 4, ("other", "queued"): 2, ("other", "held"): 1}
        assert "other" in do.at.woken
        assert sorted((await do.reroute(of(doubt, pinned, big), force=True)).changed) == sorted([doubt, pinned])
        claims = {claim.message.id: claim for claim in await do.at.claim("other", now=do.at.spool.now())}
        assert claims.keys() == {waits, doubt, pinned, there}
        assert (claims[doubt].sticky, claims[doubt].message.doubt_id, claims[doubt].in_doubt) == (False, "", 0)
        detail = await do.at.show(doubt)
        assert [row.verdict for row in detail.attempts] == ["in_doubt", ""]


async def test_what_failed_goes_another_way_as_well(tmp_path: Path) -> None:
    """By the backend that is named and no other."""
    async with ordering(tmp_path, other=Capabilities(1)) as do:
        ident = await do.failed()
        step = await do.retry(of(ident), "other")
        assert (step.changed, ["too big" in why for why in step.left]) == ([], [True])
        assert (await do.retry(of(ident), "b")).changed == [ident]


async def test_after_a_crash_states_are_right(tmp_path: Path) -> None:
    """Half of an order is carried out: each message is either as it was or as it should be, and the rest can be asked
    for again."""
    async with ordering(tmp_path) as do:
        await do.many_failed()
        steps = do.again.retry(Filter(state="failed"), do.order)
        first = await anext(steps)
        await steps.aclose()
    async with ordering(tmp_path) as do:
        assert len(await do.at.spool.find(Filter(state="queued"), limit=MANY)) == len(first.changed) == 250
        assert len((await do.retry(Filter(state="failed"))).changed) == MANY - 250
        assert do.at.spool.counts() == {("b", "queued"): MANY}
        assert len(await do.at.claim(limit=MANY, now=do.at.spool.now())) == MANY


@pytest.mark.parametrize("size", [0, 1, 7, 4096, 3_000_001])
def test_a_seal_is_renewed_without_the_bytes(size: int) -> None:
    """The same as over all of it anew; and where it did not hold before, it does not hold afterwards."""
    raw, rng = random.Random(size).randbytes(size), random.Random(1)
    columns = {"sender": "ä@x", "ret": "", "envid": "", "smtputf8": 1, "eightbit": 0, "received_at": 5, "expires_at": 9}
    recipients = [{"address": f"r{n}@x", "notify": "", "orcpt": ""} for n in range(3)]

    def sealed(values: dict[str, object]) -> int:
        text = "\0".join(map(str, [*values.values(), *(v for row in recipients for v in row.values())]))
        return zlib.crc32(raw, zlib.crc32(text.encode()))

    for _ in range(5):
        changed = {"expires_at": rng.getrandbits(52)}
        row = {**columns, "checksum": sealed(columns), "size": size}
        assert resealed(row, recipients, changed) == sealed(columns | changed)
        assert resealed({**row, "checksum": 7}, recipients, changed) != sealed(columns | changed)


async def test_a_deferred_retry_is_deferred_as_from_the_first(tmp_path: Path) -> None:
    """Its attempts count anew, so that the first pause is the shortest, and its sender may hear of a delay again."""
    async with ordering(tmp_path) as do:
        ident = await do.failed()
        do.at.clock.advance(3600)
        await do.retry(of(ident))
        assert [page async for page in do.at.spool.late("b", until=START + timedelta(minutes=30))] == []
        claim = await do.at.settle(DEFERRED, now=do.at.spool.now())
        assert claim.message.attempt == 1
        outcome = Outcome(Verdict.REJECTED, detail="no")
        await do.at.settle(outcome, now=do.at.spool.now() + DAY)
        assert (await do.at.states(ident))[0] == "failed"
