"""Housekeeping of the queue: orphans and lifetimes, however many messages there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.models import BounceSettings
from gateway.model import Outcome
from tests.delivery.kit import DEFERRED, MISCONFIGURED, THROTTLED, house, settings
from tests.fakes import ScriptedBackend, until


@pytest.mark.parametrize(
    ("outcome", "by_operator", "state"),
    [(THROTTLED, False, "failed"), (MISCONFIGURED, False, "held"), (DEFERRED, True, "held")],
)
async def test_the_lifetime_ends_also_while_paused(
    tmp_path: Path, outcome: Outcome, by_operator: bool, state: str
) -> None:
    """Nothing waits for ever: what a provider kept back fails and is reported, what we kept back is held."""
    backend, other = ScriptedBackend("b", outcome), ScriptedBackend("other")
    config = settings(tmp_path, "b", "other", routes=("b",))
    config = config.model_copy(update={"bounces": BounceSettings(mode="auto", backend="other")})
    async with house(tmp_path, config, backend, other) as at:
        identifier = await at.put("b")
        await at.tried(identifier)
        if by_operator:
            await at.dispatcher.pause("b", None)
        at.clock.advance(5 * 86400 + 60)
        await at.settled(identifier, state)
        if state == "failed":
            await until(lambda: len(other.calls) == 1)
            assert b"4.4.7" in other.calls[0][1]
        else:
            assert other.calls == []
