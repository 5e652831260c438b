"""Hand-over: a message is claimed in the commit that puts it, for a worker who has nothing else to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.model import Envelope, NewMessage, Recipient, SpoolTrouble, SpoolUnavailable
from gateway.spool import Claim, Offer
from tests.builders import NO_USER, new_message
from tests.spool_kit import At, foreign_lock, opened, statements

LEASE = timedelta(minutes=30)


class Taker:
    """Offers to take everything for these backends, and remembers what came of it; it may not want that any more."""

    def __init__(self, *backends: str, wants: bool = True) -> None:
        self.backends = backends
        self.wants = wants
        self.got: list[tuple[Claim | None, bytes]] = []

    def offer(self, backend: str) -> Offer | None:
        return Offer(LEASE, self._taken) if backend in self.backends else None

    def _taken(self, claim: Claim | None, raw: bytes) -> bool:
        self.got.append((claim, raw))
        return self.wants

    @property
    def claims(self) -> list[Claim]:
        return [claim for claim, _ in self.got if claim is not None]


MAIL = {
    "plain": new_message("a@example.org"),
    "several, one twice": new_message("a@example.org", "b@example.org", "a@example.org"),
    "two ways": replace(
        new_message("a@example.org", "b@example.org"), deliveries={"b": ("b@example.org",), "c": ("a@example.org",)}
    ),
    "some of many, in another order, one refused, one way for nobody": replace(
        new_message("d@example.org", "b@example.org", "A@example.org", "b@example.org", "c@example.org"),
        deliveries={"c": (), "b": ("A@example.org", "d@example.org"), "d": ("c@example.org",)},
        refused={"b@example.org": NO_USER},
    ),
    "all that may be asked for": replace(
        new_message("ä@example.org"),
        envelope=Envelope(
            "ö@example.com", (Recipient("ä@example.org", "SUCCESS,FAILURE", "rfc822;x@y"),), True, True, "HDRS", "env",
            "was@example.com",
        ),
        authors=("ö@example.com", "broken \udcff@example.com"), message_id="<1@\udcff>", header_from="ö@example.com",
        features={"html": "text/html", "attachment": "a.pdf"}, pin="b", secret="their token", login="l", peer="::1",
    ),
    "a bounce without features": replace(new_message("a@example.org"), bounce=True, features={}),
}  # fmt: skip


@pytest.mark.parametrize("message", MAIL.values(), ids=MAIL)
async def test_it_is_claimed_as_from_the_queue(tmp_path: Path, message: NewMessage) -> None:
    """What a worker is given at once is what he would have claimed a moment later, and nobody else gets it."""
    taker = Taker("b", "c", "d")
    async with opened(tmp_path, offer=taker.offer) as at:
        at.clock.advance(3)
        await at.spool.put(message)
        assert {raw for _, raw in taker.got} == {message.raw}
        assert at.woken == []
        for claim in taker.claims:
            assert await at.claim(claim.backend, now=at.clock.now()) == []
            assert [row.ended_at for row in (await at.show(message.id)).attempts] == [None] * len(taker.claims)
        assert {claim.backend for claim in taker.claims} == {name for name, whom in message.deliveries.items() if whom}
        await at.spool.release_claims(taker.claims)
        for claim in taker.claims:
            (again,) = await at.claim(claim.backend, now=at.clock.now())
            assert replace(again, attempt_id=claim.attempt_id) == claim


async def test_only_what_was_offered_is_taken(tmp_path: Path) -> None:
    """Of a message for two backends one may be claimed; the other's worker is woken, as ever."""
    taker = Taker("c")
    async with opened(tmp_path, offer=taker.offer) as at:
        await at.spool.put(MAIL["two ways"])
        assert [claim.backend for claim in taker.claims] == ["c"]
        assert at.woken == ["b"]
        assert [claim.message.envelope.recipients[0].address for claim in await at.claim("b")] == ["b@example.org"]
        assert at.spool.counts() == {("b", "queued"): 1, ("c", "queued"): 1}


async def test_a_lease_that_ends_sets_it_free(tmp_path: Path) -> None:
    """Whoever took it and never says what became of it may have sent it: it is due again, in doubt."""
    taker = Taker("b")
    async with opened(tmp_path, offer=taker.offer) as at:
        await at.spool.put(new_message())
        (claim,) = await at.claim(now=at.clock.now() + LEASE)
        assert (claim.sticky, claim.in_doubt, claim.message.attempt) == (True, 1, 2)


async def test_after_a_crash_it_was_interrupted(tmp_path: Path) -> None:
    """What nobody has settled when the file is opened anew may have been sent: retried, and never elsewhere."""
    taker = Taker("b")
    async with opened(tmp_path, offer=taker.offer) as at:
        await at.spool.put(message := new_message())
    async with opened(tmp_path) as at:
        assert [row.verdict for row in (await at.show(message.id)).attempts] == ["interrupted"]
        (claim,) = await at.claim()
        assert (claim.sticky, claim.message.interrupted) == (True, ("a@example.org",))


async def test_what_is_not_wanted_any_more_is_given_back(tmp_path: Path) -> None:
    """Whoever offered may be gone by then, and the spool about to close: nobody thinks that it was sent."""
    taker = Taker("b", wants=False)
    async with opened(tmp_path, offer=taker.offer) as at:
        with foreign_lock(tmp_path):
            putting = [asyncio.create_task(at.put("a@example.org")), asyncio.create_task(at.put())]
            await asyncio.sleep(0)
            closing = asyncio.create_task(at.spool.aclose())
            await asyncio.sleep(0)
            assert taker.got == []
        await closing
        ids = await asyncio.gather(*putting)
    assert [claim.message.id for claim in taker.claims] == ids
    async with opened(tmp_path) as at:
        claims = await at.claim()
        assert [(one.message.id, one.sticky, one.in_doubt, one.message.attempt) for one in claims] == [
            (ident, False, 0, 1) for ident in ids
        ]


def _no_room(at: At) -> None:
    at.spool.room.shut = "disk"


def _gone(at: At) -> None:
    at.spool.room.shut = "missing"


@pytest.mark.parametrize("trouble", [_no_room, _gone])
async def test_what_is_not_accepted_is_not_taken(tmp_path: Path, trouble: Callable[[At], None]) -> None:
    """Where there is no room nobody offers anything that he would then wait for."""
    taker = Taker("b")
    async with opened(tmp_path, offer=taker.offer) as at:
        trouble(at)
        with pytest.raises(SpoolTrouble):
            await at.spool.put(new_message())
        assert taker.got == []


async def test_a_commit_that_fails_gives_the_offer_back(tmp_path: Path) -> None:
    """Whoever offered hears that it came to nothing, and its neighbours are handed over all the same."""
    taker = Taker("b")
    async with opened(tmp_path, offer=taker.offer) as at:
        await at.spool.put(first := new_message())
        with pytest.raises(SpoolTrouble):
            await at.spool.put(first)  # the same queue id: a rule of the file refuses it
        assert [claim is None for claim, _ in taker.got] == [False, True]
        await at.spool.put(new_message())
        assert len(taker.claims) == 2


async def test_a_group_that_fails_is_handed_over_one_by_one(tmp_path: Path) -> None:
    """One of those committed together breaks a rule, so each is tried alone: it alone is not taken, nobody twice."""
    taker = Taker("b")
    async with opened(tmp_path, offer=taker.offer) as at:
        await at.spool.put(first := new_message())
        messages = [new_message(), new_message(), first, new_message()]
        answers = await asyncio.gather(*map(at.spool.put, messages), return_exceptions=True)
        assert [type(answer) for answer in answers] == [type(None), type(None), SpoolUnavailable, type(None)]
        told = [claim and claim.message.id for claim, _ in taker.got]
        assert told == [first.id, messages[0].id, messages[1].id, None, messages[3].id]
        assert at.spool.counts() == {("b", "queued"): 4}


async def test_a_mistake_of_who_takes_it_costs_nobody_an_answer(tmp_path: Path) -> None:
    """It is reported as a bug; the writer lives, and all who wait are told that their mail is safe."""

    def offer(backend: str) -> Offer:
        return Offer(LEASE, lambda claim, raw: bool(raw.index(b"not there")))

    async with opened(tmp_path, offer=offer) as at:
        await asyncio.gather(*(at.put() for _ in range(3)))
        await at.put()
        assert at.spool.counts() == {("b", "queued"): 4}
        assert [line["error"] for line in at.logged("bug")] == ["ValueError"] * 4


async def test_many_at_once_are_few_statements(tmp_path: Path) -> None:
    """More than a page of messages handed over in one commit: claimed by as many statements as they are put by."""
    taker = Taker("b")
    async with opened(tmp_path, offer=taker.offer) as at:
        messages = [new_message() for _ in range(300)]
        with statements() as seen:
            await at.spool.put(*messages)
        assert [claim.message.id for claim in taker.claims] == [message.id for message in messages]
        assert len({claim.delivery_id for claim in taker.claims}) == 300
        assert len(seen) <= 50, len(seen)
        assert _counts(seen, "COMMIT") == 1


def _counts(seen: Sequence[str], what: str) -> int:
    return sum(text.startswith(what) for text in seen)
