"""Put, claim and settle: what goes in comes out, and every answer is written down."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.model import Envelope, Outcome, Recipient, Scope, SpoolUnavailable, Verdict
from tests.builders import IN_DOUBT, RAW, SENT
from tests.fakes import START, FakeClock
from tests.spool_kit import DEFERRED, LEASE, REJECTED, At, message, of, opened, settlement

MINUTE = timedelta(minutes=1)
ENDED = START + timedelta(seconds=1)  # by spool_kit.settlement


async def test_a_claim_brings_back_what_was_put(tmp_path: Path) -> None:
    """Envelope, DSN parameters, flags and bytes come back exactly; ``everyone`` is the whole envelope."""
    recipients = (Recipient("A@x.org", "FAILURE", "rfc822;A+40x.org"), Recipient("ü@x.org"), Recipient("c@x.org"))
    envelope = Envelope("", recipients, smtputf8=True, eightbit=True, ret="HDRS", envid="QQ+3D1")
    raw = bytes(range(256)) * 50
    one = message(
        envelope=envelope,
        raw=raw,
        deliveries={"b": ("ü@x.org", "A@x.org"), "other": ("c@x.org",)},
        message_id="<1@x>",
        header_from="s@x",
        authors=("s@x", "ü@x", ""),
        pin="b",
        bounce=True,
        received_at=(received := datetime(2026, 11, 20, 11, 59, 59, 999999, tzinfo=UTC)),
    )
    async with opened(tmp_path, clock=FakeClock(received)) as at:
        await at.spool.put(one)
        assert sorted(at.woken) == ["b", "other"]
        assert at.spool.counts() == {("b", "queued"): 1, ("other", "queued"): 1}
        (claim,) = await at.claim("b")
        assert await at.spool.bodies([one.id]) == {one.id: raw}
        found = claim.message
    assert found.envelope == Envelope("", recipients[:2], smtputf8=True, eightbit=True, ret="HDRS", envid="QQ+3D1")
    assert found.everyone == ("A@x.org", "ü@x.org", "c@x.org")
    same = ("id", "client", "message_id", "header_from", "authors", "pin", "bounce", "received_at", "expires_at")
    assert [getattr(found, name) for name in same] == [getattr(one, name) for name in same]
    assert (found.size, found.attempt) == (len(raw), 1)
    assert (claim.backend, claim.sticky, claim.in_doubt) == ("b", False, 0)


async def test_a_repeated_recipient_is_one_recipient(at: At) -> None:
    """The same address twice in the envelope is kept once, as first given; another spelling is another recipient."""
    twice = (Recipient("a@x.org", "NEVER"), Recipient("a@x.org"), Recipient("A@x.org"))
    await at.put(envelope=Envelope("s@x.org", twice), deliveries={"b": ("a@x.org", "A@x.org")})
    (claim,) = await at.claim()
    assert claim.message.envelope.recipients == (Recipient("a@x.org", "NEVER"), Recipient("A@x.org"))


async def test_only_due_deliveries_of_the_backend_are_claimed_earliest_first(at: At) -> None:
    """Not before their time, not from another backend, no more than asked for."""
    first, second, late = await at.put(), await at.put(), await at.put()
    await at.put(backend="other")
    for due, claim in zip((3, 1, 2), reversed(await at.claim()), strict=True):
        await at.spool.settle(settlement(claim, DEFERRED, next_attempt_at=START + due * MINUTE))
    now = START + 2 * MINUTE
    assert [claim.message.id for claim in await at.claim(now=now, limit=1)] == [second]
    assert [claim.message.id for claim in await at.claim(now=now)] == [first]
    assert await at.claim(now=now) == []
    assert [claim.message.id for claim in await at.claim(now=START + 3 * MINUTE)] == [late]


async def test_a_claimed_delivery_is_out_of_reach_until_its_lease_ends(at: At) -> None:
    """After that it is taken again: the first attempt is interrupted, the delivery sticky, and it was tried twice."""
    ident = await at.put()
    await at.claim()
    assert await at.spool.due("b") == START + LEASE
    assert await at.claim(now=START + LEASE - timedelta(microseconds=1)) == []
    at.clock.advance(LEASE.total_seconds())
    (again,) = await at.claim(now=START + LEASE)
    assert (again.message.attempt, again.sticky, again.in_doubt) == (2, True, 1)
    detail = await at.show(ident)
    assert [(row.verdict, row.ended_at) for row in detail.attempts] == [("interrupted", START + LEASE), ("", None)]


async def test_each_recipient_gets_its_own_outcome(at: At) -> None:
    """Sent, failed, again and held in one settlement: one attempt row for each distinct answer."""
    ident = await at.put("a@x.org", "b@x.org", "c@x.org", "d@x.org", "e@x.org")
    (claim,) = await at.claim()
    outcomes = {"a@x.org": SENT, "b@x.org": REJECTED, "c@x.org": DEFERRED, "d@x.org": IN_DOUBT, "e@x.org": SENT}
    states = {"a@x.org": "sent", "b@x.org": "failed", "c@x.org": "queued", "d@x.org": "held", "e@x.org": "sent"}
    began = START + timedelta(milliseconds=250)
    await at.spool.settle(settlement(claim, outcomes, states=states, started_at=began))
    assert await at.states(ident) == ("queued", states, {"b": "queued"})
    detail = await at.show(ident)
    answers = {row.recipients: (row.verdict, row.code, row.enhanced, row.detail) for row in detail.attempts}
    assert answers == {
        ("a@x.org", "e@x.org"): ("sent", 250, "2.0.0", "ok"),
        ("b@x.org",): ("rejected", 550, "5.1.1", "no such user"),
        ("c@x.org",): ("deferred", 451, "4.7.1", "greylisted"),
        ("d@x.org",): ("in_doubt", None, "", "lost after the dot"),
    }
    assert {(row.started_at, row.ended_at) for row in detail.attempts} == {(began, START + timedelta(seconds=1))}
    assert [row.detail for row in detail.recipients][:3] == ["ok", "no such user", "greylisted"]
    assert detail.deliveries[0].next_attempt_at == START + MINUTE
    (claim,) = await at.claim(now=START + MINUTE)
    assert [recipient.address for recipient in claim.message.envelope.recipients] == ["c@x.org"]
    assert (claim.sticky, claim.in_doubt, len(claim.message.everyone)) == (True, 1, 5)
    await at.spool.settle(settlement(claim))
    assert (await at.states(ident))[0] == "held"
    assert at.spool.counts() == {("b", "held"): 1}


async def test_what_is_sent_between_two_calls_is_written_down_while_the_attempt_goes_on(tmp_path: Path) -> None:
    """A crash then leaves in doubt only those of the call under way: whoever was sent to is not sent to again."""
    async with opened(tmp_path) as at:
        ident = await at.put("a@x.org", "b@x.org", "c@x.org")
        (claim,) = await at.claim()
        for address, left in (("a@x.org", ("b@x.org", "c@x.org")), ("b@x.org", ("c@x.org",))):
            await at.spool.settle(settlement(claim, {address: SENT}, next_attempt_at=None, under_way=left))
        states = {"a@x.org": "sent", "b@x.org": "sent", "c@x.org": "queued"}
        assert await at.states(ident) == ("queued", states, {"b": "queued"})
        assert await at.claim(now=START + timedelta(seconds=1)) == []  # nobody else may have it
        rows = [(row.recipients, row.verdict, row.ended_at is None) for row in (await at.show(ident)).attempts]
        assert sorted(rows) == [(("a@x.org",), "sent", False), (("b@x.org",), "sent", False), (("c@x.org",), "", True)]
    async with opened(tmp_path) as at:  # nobody settled it: that process is gone
        (claim,) = await at.claim()
        assert (claim.sticky, claim.message.interrupted) == (True, ("c@x.org",))
        assert [one.address for one in claim.message.envelope.recipients] == ["c@x.org"]
        await at.spool.settle(settlement(claim))
        assert (await at.states(ident))[0] == "done"


async def test_for_whom_an_answer_is_who_said_it_and_what_to_do_are_kept(at: At) -> None:
    """With the recipient until another answer comes, with the attempt for ever; without an answer there is nothing."""
    wrong = Outcome(
        Verdict.MISCONFIGURED, 401, detail="HTTP 401", scope=Scope.BACKEND, said_by="http", fix="renew the key"
    )
    ident = await at.put()
    found = []
    for turn, outcome in enumerate((wrong, IN_DOUBT, SENT)):
        await at.settle(outcome, now=START + turn * LEASE)
        detail = await at.show(ident)
        found.append([(row.scope, row.said_by, row.fix) for row in (*detail.recipients, *detail.attempts)])
    asked, doubt, sent = ("backend", "http", "renew the key"), ("message", "gateway", ""), ("message", "smtp", "")
    assert found == [[asked, asked], [doubt, asked, doubt], [sent, asked, doubt, sent]]
    other = await at.put()
    await at.claim()
    detail = await at.show(other)
    assert [(row.scope, row.said_by, row.fix) for row in (*detail.recipients, *detail.attempts)] == [("",) * 3] * 2


@pytest.mark.parametrize(
    ("outcome", "state", "body"), [(SENT, "done", False), (REJECTED, "failed", True), (DEFERRED, "queued", True)]
)
async def test_the_message_is_done_failed_or_queued(at: At, outcome: Outcome, state: str, body: bool) -> None:
    """Done drops the bytes at once (retention.sent_body 0); failed and queued keep them."""
    ident = await at.put("a@x.org", "b@x.org", deliveries={"b": ("a@x.org",), "other": ("b@x.org",)})
    for backend in ("b", "other"):
        assert (await at.states(ident))[0] == "queued"
        await at.settle(outcome, backend=backend)
    assert (await at.states(ident))[0] == state
    assert (await at.spool.raw(ident) is not None) == body
    (row,) = await at.spool.find(of(ident))
    assert (row.has_body, row.finished_at) == (body, None if state == "queued" else ENDED)


async def test_what_is_not_counted_costs_no_patience(at: At) -> None:
    """count_attempt False takes the attempt back; in_doubt counts attempts in a row, sticky stays."""
    steps = [
        (DEFERRED, False, (1, False, 0)),
        (DEFERRED, True, (2, False, 0)),
        (IN_DOUBT, True, (3, True, 1)),
        (IN_DOUBT, True, (4, True, 2)),
        (DEFERRED, True, (5, True, 0)),
    ]
    await at.put()
    now = START
    (claim,) = await at.claim()
    for outcome, counted, then in steps:
        now += MINUTE
        await at.spool.settle(settlement(claim, outcome, next_attempt_at=now, count_attempt=counted))
        (claim,) = await at.claim(now=now)
        assert (claim.message.attempt, claim.sticky, claim.in_doubt) == then


async def test_failover_moves_what_is_left_to_another_backend(at: At) -> None:
    """The rest is due there at once, with its attempts; what was sent stays where it was sent; the backend is woken."""
    ident = await at.put("a@x.org", "b@x.org")
    (claim,) = await at.claim()
    at.woken.clear()
    both = {"a@x.org": SENT, "b@x.org": DEFERRED}
    await at.spool.settle(settlement(claim, both, backend="other", next_attempt_at=START, count_attempt=False))
    assert at.woken == ["other"]
    assert at.spool.counts() == {("other", "queued"): 1}
    assert (await at.states(ident))[2] == {"b": "done", "other": "queued"}
    (claim,) = await at.claim("other")
    assert [recipient.address for recipient in claim.message.envelope.recipients] == ["b@x.org"]
    assert (claim.backend, claim.message.attempt) == ("other", 1)
    await at.spool.settle(settlement(claim))
    detail = await at.show(ident)
    assert {row.address: (row.backend, row.state) for row in detail.recipients} == {
        "a@x.org": ("b", "sent"),
        "b@x.org": ("other", "sent"),
    }


async def test_failover_joins_the_delivery_that_is_there(at: At) -> None:
    """A message with a delivery in the other backend gets no second one; while that is under way its lease holds."""
    ident = await at.put("a@x.org", "b@x.org", deliveries={"b": ("a@x.org",), "other": ("b@x.org",)})
    (claim,) = await at.claim("b")
    (busy,) = await at.claim("other")
    await at.spool.settle(settlement(claim, DEFERRED, backend="other", next_attempt_at=START))
    assert at.spool.counts() == {("other", "queued"): 1}
    assert await at.claim("other") == []
    await at.spool.settle(settlement(busy, SENT, next_attempt_at=None, ended_at=START + MINUTE))
    (joined,) = await at.claim("other", now=START + MINUTE)
    assert [recipient.address for recipient in joined.message.envelope.recipients] == ["a@x.org"]
    assert joined.sticky is False
    await at.spool.settle(settlement(joined))
    assert (await at.states(ident))[0] == "done"


async def test_bounces_go_in_with_the_settlement(at: At) -> None:
    """Both or neither: a bounce is there when its failure is, and its backend is woken."""
    ident = await at.put()
    report = message("s@example.com", backend="smart", sender="", bounce=True)
    (claim,) = await at.claim()
    at.woken.clear()
    await at.spool.settle(settlement(claim, REJECTED, bounces=(report,)))
    assert at.woken == ["smart"]
    assert ((await at.states(ident))[0], (await at.states(report.id))[0]) == ("failed", "queued")
    again = await at.put()
    (claim,) = await at.claim()
    with pytest.raises(SpoolUnavailable):  # the bounce's id is taken: nothing of the settlement is written
        await at.spool.settle(settlement(claim, REJECTED, bounces=(message(ident=again),)))
    assert (await at.states(again))[0] == "queued"


async def test_a_late_settlement_adds_only_what_was_sent(at: At) -> None:
    """A send that outlived its lease: sent is the truth, all else is for the claim that came after to say."""
    ident = await at.put("a@x.org", "b@x.org")
    (late,) = await at.claim()
    (current,) = await at.claim(now=START + LEASE)
    report = message("s@example.com", backend="smart")
    outcomes = {"a@x.org": SENT, "b@x.org": REJECTED}
    await at.spool.settle(settlement(late, outcomes, bounces=(report,), next_attempt_at=START))
    assert (await at.states(ident))[1] == {"a@x.org": "sent", "b@x.org": "queued"}
    assert await at.spool.show(report.id) is None
    assert await at.spool.due("b") == START + 2 * LEASE
    await at.spool.settle(settlement(current, {"a@x.org": DEFERRED, "b@x.org": SENT}))
    assert await at.states(ident) == ("done", {"a@x.org": "sent", "b@x.org": "sent"}, {"b": "done"})
    detail = await at.show(ident)
    assert sorted(row.verdict for row in detail.attempts) == ["deferred", "rejected", "sent", "sent"]


async def test_released_claims_are_as_if_never_taken(at: At) -> None:
    """No attempt row, no attempt counted, due as before."""
    ident = await at.put()
    claims = await at.claim()
    await at.spool.release_claims(claims)
    detail = await at.show(ident)
    assert (detail.attempts, detail.deliveries[0].attempts) == ((), 0)
    (claim,) = await at.claim()
    assert (claim.message.attempt, claim.sticky) == (1, False)
    await at.spool.settle(settlement(claim))
    await at.spool.release_claims([claim])  # too late: it was settled
    assert (await at.states(ident))[0] == "done"


async def test_an_empty_outcome_leaves_no_attempt(at: At) -> None:
    """A claim settled without touching the network writes states only; the last answer stays."""
    ident = await at.put()
    await at.settle({}, states={"a@example.org": "failed"})
    detail = await at.show(ident)
    assert (detail.state, detail.attempts, detail.recipients[0].verdict) == ("failed", (), "")


async def test_text_that_is_no_text_is_stored_all_the_same(at: At) -> None:
    """Surrogates in a header or in a provider's answer must neither refuse a message nor block a settlement."""
    ident = await at.put(message_id="<\udcff@x>", header_from="\udc80", login="\udc80")
    await at.settle(Outcome(Verdict.SENT, detail="ok \udcff", remote_id="\udcff"))
    assert (await at.states(ident))[0] == "done"


async def test_a_cancelled_claim_gives_its_deliveries_back(at: At) -> None:
    """Whoever asked is gone, so nobody will settle: the deliveries are due again, nothing was attempted."""
    await at.put()
    asking = asyncio.create_task(at.claim())
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await at.put(backend="other")  # the writer works in order: what it had to give back is back
    (claim,) = await at.claim()
    assert (claim.message.attempt, claim.sticky) == (1, False)


async def test_two_claimers_never_get_the_same_delivery(at: At) -> None:
    """Claims at the same time share the due deliveries."""
    ids = {await at.put() for _ in range(30)}
    taken = await asyncio.gather(*(at.claim(limit=7) for _ in range(6)))
    found = [claim.message.id for claims in taken for claim in claims]
    assert (len(found), set(found)) == (30, ids)


async def test_messages_survive_a_restart(tmp_path: Path) -> None:
    """Counts, bytes and schedules are as they were."""
    async with opened(tmp_path) as at:
        first = await at.put()
        second = await at.put(raw=RAW * 1000)
        await at.spool.hold(of(first), START)
        await at.settle(DEFERRED)
    async with opened(tmp_path) as at:
        assert at.spool.counts() == {("b", "held"): 1, ("b", "queued"): 1}
        assert await at.spool.due("b") == START + MINUTE
        (claim,) = await at.claim(now=START + MINUTE)
        assert (claim.message.id, claim.message.attempt) == (second, 2)
        assert await at.spool.bodies([first, second]) == {first: RAW, second: RAW * 1000}


async def test_a_doubt_is_told_to_the_next_attempts(at: At) -> None:
    """A backend that can look up what became of a lost answer must know of it, and go on knowing."""
    await at.put()
    [claim] = await at.claim()
    assert (claim.message.doubtful, claim.message.doubt_id) == (False, "")
    await at.spool.settle(settlement(claim, replace(IN_DOUBT, remote_id="draft-1"), next_attempt_at=START))
    [claim] = await at.claim()
    assert (claim.message.doubtful, claim.message.doubt_id) == (True, "draft-1")
    await at.spool.settle(settlement(claim, DEFERRED, next_attempt_at=START))
    [claim] = await at.claim()
    assert (claim.message.doubtful, claim.message.doubt_id) == (True, "draft-1")
    await at.spool.settle(settlement(claim, replace(SENT, remote_id="")))
    shown = await at.show(claim.message.id)
    assert shown.recipients[0].remote_id == ""


async def test_who_was_left_in_doubt_is_told_to_the_next_attempt(at: At) -> None:
    """He, and not those who were put off beside him; after an attempt without doubt nobody."""
    await at.put("a@x.org", "b@x.org")
    first, second = {"a@x.org": IN_DOUBT, "b@x.org": DEFERRED}, {"a@x.org": DEFERRED, "b@x.org": IN_DOUBT}
    for outcomes, doubted in ((first, ()), (second, ("a@x.org",)), (first, ("b@x.org",))):
        (claim,) = await at.claim(now=START + timedelta(hours=1))
        assert claim.doubted == doubted
        await at.spool.settle(settlement(claim, outcomes))
    (claim,) = await at.claim(now=START + timedelta(hours=1))
    await at.spool.settle(settlement(claim, DEFERRED))
    (claim,) = await at.claim(now=START + timedelta(hours=1))
    assert claim.doubted == ()


async def test_what_a_message_needs_is_kept_for_later_routes(at: At) -> None:
    """Failover must not hand it to a backend that loses half of it; nobody having looked is not the same as nothing."""
    for features in ({"attachments": "part 2", "signed": "x"}, {}, None):
        await at.put(features=features)
    found = [claim.message.features for claim in await at.claim()]
    assert [None if each is None else set(each) for each in found] == [{"attachments", "signed"}, set(), None]
