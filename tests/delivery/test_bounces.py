"""Who is told what of mail that fails, is late or was passed on."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.models import BounceSettings
from tests.delivery.kit import DEFERRED, REJECTED, house, settings
from tests.fakes import SENT, ScriptedBackend, until


async def test_a_rejection_bounces_and_fails(tmp_path: Path) -> None:
    """A permanent refusal makes one report by the null sender to the sender; the message ends as failed."""
    backend = ScriptedBackend("b", REJECTED, SENT)
    async with house(tmp_path, settings(tmp_path, "b"), backend) as at:
        identifier = await at.put("b")
        await at.settled(identifier, "failed")
        await until(lambda: len(backend.calls) == 2)
        report, raw = backend.calls[1]
        assert report.envelope.sender == ""
        assert [r.address for r in report.envelope.recipients] == ["s@x.org"]
        assert b"no such user" in raw


@pytest.mark.parametrize(("sender", "notify"), [("", ""), ("s@x.org", "NEVER"), ("s@x.org", "SUCCESS")])
async def test_nobody_is_told_who_must_not_be(tmp_path: Path, sender: str, notify: str) -> None:
    """No report for the null sender, nor where NOTIFY does not ask for failures."""
    backend = ScriptedBackend("b", REJECTED)
    async with house(tmp_path, settings(tmp_path, "b"), backend) as at:
        identifier = await at.put("b", sender=sender, notify=notify)
        await at.settled(identifier, "failed")
        assert [row.id for row in await at.spool.find()] == [identifier]


async def test_a_bounce_is_never_bounced(tmp_path: Path) -> None:
    """When the report is refused too, it fails alone."""
    backend = ScriptedBackend("b", REJECTED)
    async with house(tmp_path, settings(tmp_path, "b"), backend) as at:
        await at.settled(await at.put("b"), "failed")
        await until(lambda: len(backend.calls) == 2)
        await at.settled(backend.calls[1][0].id, "failed")
        assert len(await at.spool.find()) == 2


async def test_success_is_reported_where_asked(tmp_path: Path) -> None:
    """NOTIFY=SUCCESS into a world without DSN gives one relayed report (RFC 3461 5.2.2)."""
    backend = ScriptedBackend("b")
    async with house(tmp_path, settings(tmp_path, "b"), backend) as at:
        await at.put("b", notify="SUCCESS,FAILURE")
        await until(lambda: len(backend.calls) == 2)
        assert b"Action: relayed" in backend.calls[1][1]


async def test_the_sender_hears_of_a_delay_once(tmp_path: Path) -> None:
    """After four hours without success one delay notice goes to the sender."""
    slow, other = ScriptedBackend("slow", DEFERRED), ScriptedBackend("other")
    config = settings(tmp_path, "slow", "other", routes=("slow",))
    config = config.model_copy(update={"bounces": BounceSettings(mode="auto", backend="other")})
    async with house(tmp_path, config, slow, other) as at:
        await at.put("slow")
        for n in range(1, 11):
            await until(lambda n=n: len(slow.calls) >= n)
            await until(lambda: at.dispatcher.status()["slow"].in_flight == 0)
            at.clock.advance(3700)
        await until(lambda: len(other.calls) >= 1)
        assert len(other.calls) == 1
        assert b"Action: delayed" in other.calls[0][1]
