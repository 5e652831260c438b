"""What an operator and retention may do: hold, release, retry, delete, fail, move; sweeping; tokens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.config.models import RetentionSettings
from gateway.model import SpoolUnavailable
from gateway.spool import TokenRow
from tests.builders import RAW, SENT
from tests.fakes import START
from tests.spool_kit import DEFERRED, LEASE, REJECTED, At, of, opened, peer, settlement

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


async def test_held_mail_stays_until_released(at: At) -> None:
    """Hold takes it out of the queue, release makes it due now and wakes its backends; each says what it changed."""
    ident = await at.put("a@x.org", "b@x.org", deliveries={"b": ("a@x.org",), "other": ("b@x.org",)})
    assert await at.spool.hold(of(ident, "unknown"), START) == 1
    assert await at.spool.hold(of(ident), START) == 0
    assert at.spool.counts() == {("b", "held"): 1, ("other", "held"): 1}
    assert (await at.states(ident))[0] == "held"
    assert await at.claim() == []
    at.woken.clear()
    assert await at.spool.release(of(ident), START + MINUTE) == 1
    assert (sorted(at.woken), await at.spool.due("b")) == (["b", "other"], START + MINUTE)
    assert await at.spool.release(of(ident), START) == 0
    assert at.spool.counts() == {("b", "queued"): 1, ("other", "queued"): 1}


async def test_what_is_released_after_its_end_lives_as_long_again(at: At) -> None:
    """It is not given up at the first delay, and whole by its checksum; what has time left keeps its end."""
    late, other = await at.put(expires_at=START + DAY), await at.put(expires_at=START + 5 * DAY)
    await at.spool.hold(of(late, other), START)
    at.clock.advance(2 * 86400)
    assert await at.spool.release(of(late, other), at.spool.now()) == 2
    ends = [(await at.show(ident)).message.expires_at for ident in (late, other)]
    assert ends == [START + 3 * DAY, START + 5 * DAY]
    assert await at.spool.overdue(at.spool.now() + MINUTE) == []
    assert await at.spool.bodies([late, other]) == {late: RAW, other: RAW}


@pytest.mark.parametrize(("outcome", "state"), [(SENT, "done"), (DEFERRED, "held"), (REJECTED, "failed")])
async def test_hold_during_a_send_keeps_what_it_can(at: At, outcome: object, state: str) -> None:
    """The send under way is not called back: its final answers count, what is left is held."""
    ident = await at.put()
    (claim,) = await at.claim()
    await at.spool.hold(of(ident), START)
    await at.spool.settle(settlement(claim, outcome))  # type: ignore[arg-type]
    assert (await at.states(ident))[0] == state


async def test_retry_makes_due_what_waits_and_leaves_what_is_under_way(at: At) -> None:
    """Only a delivery that rests may be hurried: one under way would be sent twice."""
    waiting, busy, done = [await at.put() for _ in range(3)]
    claims = {claim.message.id: claim for claim in await at.claim()}
    await at.spool.settle(settlement(claims[waiting], DEFERRED, next_attempt_at=START + DAY))
    await at.spool.settle(settlement(claims[done]))
    at.woken.clear()
    assert await at.spool.retry(of(waiting, busy, done), START + MINUTE) == 1
    assert at.woken == ["b"]
    assert [claim.message.id for claim in await at.claim(now=START + MINUTE)] == [waiting]


async def test_deleted_mail_is_gone_from_every_table(at: At) -> None:
    """Also in mid-send: its settlement changes nothing and sends no report; the log keeps the id."""
    ident, other = await at.put(), await at.put()
    claim = next(claim for claim in await at.claim() if claim.message.id == ident)
    assert await at.spool.delete(of(ident, "unknown"), START) == 1
    assert at.spool.counts() == {("b", "queued"): 1}
    await at.spool.settle(settlement(claim, REJECTED, backend="elsewhere"))
    assert await at.spool.show(ident) is None
    assert await at.spool.raw(ident) is None
    assert [row.id for row in await at.spool.find()] == [other]
    assert at.spool.counts() == {("b", "queued"): 1}
    assert [line["id"] for line in at.logged("deleted")] == [ident]


async def test_fail_claims_queued_and_held_but_not_what_is_under_way(at: At) -> None:
    """The caller gets claims on all that can be given up, held too, and settles them."""
    busy = await at.put()
    await at.claim()
    queued, held, done = [await at.put() for _ in range(3)]
    await at.spool.hold(of(held), START)
    found = {claim.message.id: claim for claim in await at.claim()}
    await at.spool.settle(settlement(found[done]))
    await at.spool.settle(settlement(found[queued], DEFERRED, next_attempt_at=START + DAY))
    (claims,) = [page async for page in at.spool.fail(of(busy, queued, held, done), START)]
    assert sorted(claim.message.id for claim in claims) == sorted([queued, held])
    for claim in claims:
        assert [recipient.address for recipient in claim.message.envelope.recipients] == ["a@example.org"]
        await at.spool.settle(settlement(claim, REJECTED))
        assert (await at.states(claim.message.id))[0] == "failed"


async def test_deliveries_are_what_waits_for_a_backend(at: At) -> None:
    """Not held, not under way, the oldest first."""
    await at.put()
    await at.claim()
    held = await at.put()
    await at.spool.hold(of(held), START)
    ids = [await at.put() for _ in range(3)]
    assert [delivery.message.id for delivery in await at.waiting()] == ids
    assert await at.waiting("other") == []
    assert await at.spool.queued() == {"b": 4}


async def test_a_delivery_can_be_moved(at: At) -> None:
    """From a backend that is no longer there to another: due now, woken, its history kept."""
    ident = await at.put(backend="old")
    await at.settle(DEFERRED, next_attempt_at=START + DAY, backend="old")
    (delivery,) = await at.waiting("old")
    await at.spool.move([delivery.delivery_id], "new", START)
    assert (at.woken[-1], await at.spool.queued()) == ("new", {"new": 1})
    (claim,) = await at.claim("new")
    assert (claim.message.id, claim.message.attempt) == (ident, 2)
    await at.spool.move([delivery.delivery_id], "third", START)  # nothing waits there any more
    assert await at.spool.queued() == {"new": 1}


async def test_overdue_is_what_no_backend_takes_at_the_end_of_its_lifetime(at: At) -> None:
    """Past its lifetime and due for a minute: claimed to be given up. Held and busy ones are left alone."""
    busy = await at.put(expires_at=START + MINUTE)
    await at.claim()
    late = await at.put(expires_at=START + MINUTE)
    held = await at.put(expires_at=START + MINUTE)
    await at.put(expires_at=START + DAY)
    await at.spool.hold(of(held), START)
    assert await at.spool.overdue(START + MINUTE - timedelta(microseconds=1)) == []
    (claim,) = await at.spool.overdue(START + LEASE)
    assert claim.message.id == late
    await at.spool.settle(settlement(claim, REJECTED))
    assert (await at.states(late))[0] == "failed"
    assert (await at.states(busy))[0] == "queued"


async def test_oldest_and_due_by_backend(at: At) -> None:
    """The age of the oldest queued message, and when a backend has to get up next."""
    assert (await at.spool.oldest(), await at.spool.due("b")) == ({}, None)
    held = await at.put()
    await at.spool.hold(of(held), START)
    at.clock.advance(60)
    await at.put()
    at.clock.advance(60)
    await at.put()
    await at.put(backend="other")
    assert await at.spool.oldest() == {"b": START + MINUTE, "other": START + 2 * MINUTE}
    assert await at.spool.due("b") == START + MINUTE


@pytest.mark.parametrize(
    ("age", "left"),
    [(0, "sent failed queued"), (1, "sent failed queued"), (2, "failed queued"), (31, "queued"), (91, "queued")],
)
async def test_bodies_go_when_their_time_is_up(tmp_path: Path, age: int, left: str) -> None:
    """Sent ones after sent_body, failed ones after failed_body, waiting ones never."""
    retention = RetentionSettings(sent_body="36h", failed_body="30d", history="90d")  # type: ignore[arg-type]
    async with opened(tmp_path, retention=retention) as at:
        ids = {name: await at.put() for name in ("sent", "failed", "queued")}
        names = {ident: name for name, ident in ids.items()}
        for claim in await at.claim():
            outcome = {"sent": SENT, "failed": REJECTED, "queued": DEFERRED}[names[claim.message.id]]
            await at.spool.settle(settlement(claim, outcome))
        await at.spool.sweep(START + timedelta(days=age), retention)
        assert [name for name, ident in ids.items() if await at.spool.raw(ident) == RAW] == left.split()
        rows = {names[row.id]: row.has_body for row in await at.spool.find()}
        assert [name for name in ids if rows.get(name)] == left.split()
        assert ("sent" in rows) == (age < 90)
        assert await at.spool.sweep(START + timedelta(days=age), retention) == 0


async def test_sweeping_goes_on_until_all_is_swept(tmp_path: Path) -> None:
    """More than one step's worth is swept by asking until nothing is left, and history takes every row along."""
    async with opened(tmp_path, retention=RetentionSettings(sent_body="1d")) as at:  # type: ignore[arg-type]
        ids = [await at.put(str(n) + "@x.org") for n in range(401)]
        for claim in await at.claim(limit=1000):
            await at.spool.settle(settlement(claim))
        swept = [0]
        while count := await at.spool.sweep(START + 91 * DAY, RetentionSettings()):
            swept.append(count)
        assert (sum(swept), max(swept)) == (802, 400)
        assert [await at.spool.show(ident) for ident in ids[:3]] == [None] * 3
        assert peer(tmp_path, "SELECT 1 FROM attempt UNION SELECT 1 FROM recipient UNION SELECT 1 FROM body") == []


async def test_changed_retention_takes_effect_with_the_next_sweep(tmp_path: Path) -> None:
    """After a reload the sweep brings the new rule: bodies kept before are dropped at once from then on."""
    async with opened(tmp_path, retention=RetentionSettings(sent_body="1d")) as at:  # type: ignore[arg-type]
        for kept in (True, False):
            ident = await at.put()
            await at.settle()
            assert (await at.spool.raw(ident) is not None) == kept
            await at.spool.sweep(START, RetentionSettings())


async def test_tokens_are_remembered_and_revoked(tmp_path: Path) -> None:
    """By id, also one minted elsewhere; by subject, where the latest time wins. Revoking twice keeps the first time."""
    minted = TokenRow("j1", "own", "billing", "for the till", START, START + DAY)
    async with opened(tmp_path) as at:
        await at.spool.add_token(minted)
        with pytest.raises(SpoolUnavailable):
            await at.spool.add_token(minted)
        await at.spool.revoke(jti="j1", now=START + MINUTE)
        await at.spool.revoke(jti="j1", now=START + DAY)
        await at.spool.revoke(jti="foreign", now=START)
        await at.spool.revoke(subject="staff", now=START + DAY)
        await at.spool.revoke(subject="staff", now=START)
    async with opened(tmp_path) as at:
        rows = {row.jti: row for row in await at.spool.tokens()}
        assert rows["j1"] == TokenRow("j1", "own", "billing", "for the till", START, START + DAY, START + MINUTE)
        assert rows["foreign"].revoked_at == START
        assert await at.spool.revocations() == ({"j1", "foreign"}, {"staff": START + DAY})


async def test_a_subject_s_tokens_are_revoked_whatever_clock_made_them(at: At) -> None:
    """The machine that made one may be ahead of the one where it is revoked; what is made later is good."""
    for jti, minutes in (("ahead", 10), ("before", -10), ("others", 10)):
        who = "till" if jti == "others" else "billing"
        await at.spool.add_token(TokenRow(jti, "own", who, "", START + minutes * MINUTE, None))
    await at.spool.revoke(subject="billing", now=START)
    await at.spool.add_token(TokenRow("later", "own", "billing", "", START + MINUTE, None))
    assert await at.spool.revocations() == ({"ahead", "before"}, {"billing": START})


@pytest.mark.parametrize("bad", ["yesterday", "2026-11-20T12:00:00", 5])
def test_token_times_must_be_times_with_a_zone(bad: object) -> None:
    """Text in ISO 8601 is read, anything else is refused."""
    assert TokenRow("j", issued_at="2026-11-20T12:00:00Z").issued_at == datetime(2026, 11, 20, 12, tzinfo=UTC)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"time|format"):
        TokenRow("j", expires_at=bad)  # type: ignore[arg-type]


async def test_last_uses_outlive_a_restart(tmp_path: Path) -> None:
    """Accepted mail and logins are noted in memory, written now and then and at the end; of tokens only the listed."""
    rows = "SELECT kind, name, peer FROM lastuse ORDER BY 1, 2"
    async with opened(tmp_path) as at:
        await at.spool.add_token(TokenRow("listed", "own", "app", "", START, None))
        await at.put(client="copier", peer="192.0.2.7")
        at.spool.uses.note("token", "listed", START, "::1")
        at.spool.uses.note("token", "foreign", START, "::1")
        assert peer(tmp_path, rows) == []
        await at.spool.uses.write()
        written = [("client", "copier", "192.0.2.7"), ("token", "listed", "::1")]
        assert peer(tmp_path, rows) == written
        await at.put(client="app", peer="192.0.2.8")
        await at.spool.uses.write()  # a moment later
        assert peer(tmp_path, rows) == written
    async with opened(tmp_path) as at:
        assert {name: use.at for name in ("copier", "app") if (use := at.spool.uses.of("client", name))} == {
            "copier": START,
            "app": START,
        }
        assert at.spool.uses.of("token", "foreign") is None
