"""bounces.mode digest: a sender gets one mail about all that failed, whatever is killed or set meanwhile."""

from __future__ import annotations

from datetime import timedelta
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest

from gateway.actor import Actor, Order
from gateway.config.models import RetentionSettings
from gateway.spool import Filter
from tests.builders import BAD_LOGIN, NO_USER
from tests.delivery.kit import REJECTED, House, house, settings
from tests.fakes import SENT, ScriptedBackend, breathe

DIGEST = {"mode": "digest", "backend": "other"}


async def due(at: House) -> None:
    """An hour passes, and a round of housekeeping."""
    at.clock.advance(3601)
    begun = len(at.ended)
    await at.rounds(lambda: len(at.ended) > begun + 1)


def text_of(raw: bytes) -> tuple[str, str]:
    mail = message_from_bytes(raw, policy=policy.default)
    return mail["Subject"], mail.get_content()


async def again(at: House, ident: str) -> None:
    """An operator has it tried again."""
    async for _ in at.dispatcher.again.retry(Filter(ids=(ident,)), Order(Actor("anna", "api"), "retry", "")):
        pass


async def reasons(at: House, ident: str) -> list[str]:
    detail = await at.spool.show(ident)
    assert detail is not None
    return [row.reason for row in detail.bounces]


@pytest.mark.parametrize("count", [1, 3, 320])
async def test_one_mail_about_all_that_failed(tmp_path: Path, count: int) -> None:
    """Nothing at once, then one for the sender with each message and its reason; the life of each names that mail."""
    bad, other = ScriptedBackend("bad", REJECTED), ScriptedBackend("other")
    async with house(tmp_path, bad, other, routes=("bad",), bounces=DIGEST) as at:
        ids = await at.put_many(count, "bad")
        await at.all_settled(ids, "failed")
        assert other.calls == []
        detail = await at.spool.show(ids[0])
        assert detail is not None
        assert [(row.kind, row.bounce_id, row.reason) for row in detail.bounces] == [("failed", "", "digest")]
        await due(at)
        await at.rounds(lambda: other.calls)
        [(message, raw)] = other.calls
        assert [one.address for one in message.envelope.recipients] == ["s@x.org"]
        assert message.bounce
        subject, text = text_of(raw)
        assert subject == f"Undelivered mail: {count} message{'s' if count > 1 else ''}"
        assert text.count("to a@x.org: 5.1.1 no such user") == min(count, 200)
        assert ("And 120 more." in text) == (count == 320)
        for ident in ids:
            detail = await at.spool.show(ident)
            assert detail is not None
            assert [(row.bounce_id, row.reason) for row in detail.bounces] == [(message.id, "")]
        await due(at)
        assert len(other.calls) == 1


async def test_each_sender_hears_of_his_own(tmp_path: Path) -> None:
    """And of those recipients alone for whom he asked to be told (RFC 3461 4.1)."""
    bad, other = ScriptedBackend("bad", {"a@x.org": NO_USER, "b@x.org": SENT}), ScriptedBackend("other")
    async with house(tmp_path, bad, other, routes=("bad",), bounces=DIGEST) as at:
        for sender, notify in (("s@x.org", ""), ("t@x.org", ""), ("never@x.org", "NEVER"), ("", "")):
            ident = await at.put("bad", "a@x.org", "b@x.org", sender=sender, notify=notify)
            await at.settled(ident, "failed")
        await due(at)
        await at.rounds(lambda: len(other.calls) == 2)
        to = {call.envelope.recipients[0].address: text_of(raw)[1] for call, raw in other.calls}
    assert set(to) == {"s@x.org", "t@x.org"}
    assert "t@x.org" not in to["s@x.org"]
    assert "b@x.org" not in to["s@x.org"]


async def test_a_delay_is_told_in_it_too(tmp_path: Path) -> None:
    """After four hours, also of a backend that rests."""
    bad, other = ScriptedBackend("bad", BAD_LOGIN), ScriptedBackend("other")
    async with house(tmp_path, bad, other, routes=("bad",), bounces=DIGEST) as at:
        await at.put("bad")
        for _ in range(6):
            await due(at)
        await at.rounds(lambda: other.calls)
        subject, text = text_of(other.calls[0][1])
        assert subject == "Delayed mail: 1 message"
        assert "to a@x.org: 5.7.8 wrong password" in text
        assert "To do: correct the password" in text
        assert len(other.calls) == 1


async def test_what_was_kept_for_a_digest_outlives_the_setting(tmp_path: Path) -> None:
    """A restart with another mode, or a crash, takes nobody's digest away."""
    bad, other = ScriptedBackend("bad", REJECTED), ScriptedBackend("other")
    async with house(tmp_path, bad, other, routes=("bad",), bounces=DIGEST) as at:
        await at.settled(await at.put("bad"), "failed")
    bad, other = ScriptedBackend("bad", REJECTED), ScriptedBackend("other")
    async with house(tmp_path, bad, other, routes=("bad",), bounces={"backend": "other"}) as at:
        await due(at)
        await at.rounds(lambda: other.calls)
        assert len(other.calls) == 1


@pytest.mark.parametrize(("bounces", "why"), [({"mode": "off"}, "off"), ({"backend": "gone"}, "no_backend")])
async def test_why_nobody_is_told_is_kept(tmp_path: Path, bounces: Any, why: str) -> None:
    """Settings may have changed since."""
    bad, other = ScriptedBackend("bad", REJECTED), ScriptedBackend("other")
    async with house(tmp_path, bad, other, routes=("bad",), bounces=DIGEST) as at:
        ident = await at.put("bad")
        await at.settled(ident, "failed")
    async with house(tmp_path, ScriptedBackend("bad", REJECTED), routes=("bad",), bounces=bounces) as at:
        await due(at)
        detail = await at.spool.show(ident)
        assert detail is not None
        assert [(row.bounce_id, row.reason) for row in detail.bounces] == [("", why)]
        assert [line["reason"] for line in at.logged("digest")] == [why]


async def test_a_digest_that_fails_is_not_told_of(tmp_path: Path) -> None:
    """No digest of a digest: no loop."""
    bad = ScriptedBackend("bad", REJECTED)
    async with house(tmp_path, bad, bounces={"mode": "digest"}) as at:
        await at.settled(await at.put("bad"), "failed")
        for _ in range(3):
            await due(at)
        assert len(await at.spool.find()) == 2


async def test_a_message_that_was_deleted_is_left_out(tmp_path: Path) -> None:
    """Nobody can look at it any more."""
    bad, other = ScriptedBackend("bad", REJECTED), ScriptedBackend("other")
    async with house(tmp_path, bad, other, routes=("bad",), bounces=DIGEST) as at:
        ident = await at.put("bad")
        await at.settled(ident, "failed")
        await at.spool.delete(Filter(ids=(ident,)), at.clock.now())
        await due(at)
        assert await at.spool.find() == []


async def test_what_was_sent_meanwhile_is_not_told_as_late(tmp_path: Path) -> None:
    """A digest says what is so when it is written, not what was so an hour before."""
    late, other = ScriptedBackend("late"), ScriptedBackend("other")
    async with house(tmp_path, late, other, routes=("late",), bounces=DIGEST, notice=timedelta(seconds=20)) as at:
        await at.dispatcher.pause("late", None)
        ident = await at.put("late")
        while await reasons(at, ident) != ["digest"]:
            begun = len(at.ended)
            await at.rounds(lambda before=begun: len(at.ended) > before)
        await at.dispatcher.resume("late")
        await at.settled(ident, "done")
        await due(at)
        assert other.calls == []
        assert await reasons(at, ident) == ["over"]


async def test_what_was_sent_again_meanwhile_is_not_told_as_failed(tmp_path: Path) -> None:
    """By order of an operator."""
    bad, other = ScriptedBackend("bad", REJECTED, SENT), ScriptedBackend("other")
    async with house(tmp_path, bad, other, routes=("bad",), bounces=DIGEST) as at:
        ident = await at.put("bad")
        await at.settled(ident, "failed")
        await again(at, ident)
        await at.settled(ident, "done")
        await due(at)
        assert other.calls == []
        assert await reasons(at, ident) == ["over"]


async def test_what_failed_twice_is_told_once(tmp_path: Path) -> None:
    """Retried, or by two backends: it is one message."""
    bad, other = ScriptedBackend("bad", REJECTED), ScriptedBackend("other")
    async with house(tmp_path, bad, other, routes=("bad",), bounces=DIGEST) as at:
        ident = await at.put("bad")
        await at.settled(ident, "failed")
        await again(at, ident)
        while len(await reasons(at, ident)) < 2:
            await breathe()
        await due(at)
        await at.rounds(lambda: other.calls)
        subject, text = text_of(other.calls[0][1])
        assert subject == "Undelivered mail: 1 message"
        assert text.count("a@x.org") == 1
        assert await reasons(at, ident) == ["", ""]


async def test_history_is_kept_until_it_is_told(tmp_path: Path) -> None:
    """However short it is."""
    bad, other = ScriptedBackend("bad", REJECTED), ScriptedBackend("other")
    config = settings(tmp_path, "bad", "other", routes=("bad",), bounces=DIGEST)
    config = config.model_copy(update={"retention": RetentionSettings(history=timedelta(0))})
    async with house(tmp_path, bad, other, config=config) as at:
        ident = await at.put("bad")
        await at.settled(ident, "failed")
        await due(at)
        await at.rounds(lambda: other.calls)
        while await at.spool.show(ident) is not None:
            begun = len(at.ended)
            await at.rounds(lambda before=begun: len(at.ended) > before)
