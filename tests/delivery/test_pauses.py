"""A pause by an operator stays in force until it is withdrawn or over, whatever becomes of the service meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.model import SpoolUnavailable
from tests.delivery.kit import house
from tests.fakes import ScriptedBackend


async def test_a_pause_outlives_a_restart_with_who_and_since_when(tmp_path: Path) -> None:
    """Nothing is sent before it is known, and it is withdrawn once for all."""
    async with house(tmp_path, ScriptedBackend("b")) as at:
        at.clock.advance(100)
        await at.dispatcher.pause("b", None, "anna")
        before = at.dispatcher.status()["b"]
        ident = await at.put("b")
    backend = ScriptedBackend("b")
    async with house(tmp_path, backend) as at:
        status = at.dispatcher.status()["b"]
        assert (status.state, status.who, status.paused_until, backend.calls) == ("paused", "anna", None, [])
        assert status.reason == before.reason == "paused by anna"
        await at.dispatcher.pause("b", 60, "otto")  # as ever: only the end is another
        assert at.dispatcher.status()["b"].who == "anna"
        await at.dispatcher.resume("b")
        await at.settled(ident, "done")
    async with house(tmp_path, ScriptedBackend("b")) as at:
        assert at.paused_by("b") == ""


@pytest.mark.parametrize(("lasts", "after"), [(60.0, 61.0), (8 * 3600.0, 9 * 3600.0)])
async def test_a_pause_for_a_time_ends_while_the_service_is_down(tmp_path: Path, lasts: float, after: float) -> None:
    """Also one that is longer than mail grows old in such a time."""
    async with house(tmp_path, ScriptedBackend("b")) as at:
        await at.dispatcher.pause("b", lasts, "anna")
        ident = await at.put("b")
    async with house(tmp_path, ScriptedBackend("b"), later=after) as at:
        assert at.paused_by("b") == ""
        await at.settled(ident, "done")


async def test_a_pause_for_a_time_goes_on_after_a_restart(tmp_path: Path) -> None:
    async with house(tmp_path, ScriptedBackend("b")) as at:
        await at.dispatcher.pause("b", 3 * 3600, "anna")
    async with house(tmp_path, ScriptedBackend("b"), later=2 * 3600.0) as at:
        until = at.dispatcher.status()["b"].paused_until
        assert until is not None
        assert (until - at.clock.now()).total_seconds() == pytest.approx(3600, abs=10)


async def test_a_backend_that_left_the_configuration_leaves_no_trouble(tmp_path: Path) -> None:
    async with house(tmp_path, ScriptedBackend("b"), ScriptedBackend("c")) as at:
        await at.dispatcher.pause("b", None, "anna")
    backend = ScriptedBackend("c")
    async with house(tmp_path, backend) as at:
        await at.settled(await at.put("c"), "done")
        assert list(at.dispatcher.status()) == ["c"]


async def test_a_resume_that_cannot_be_kept_is_obeyed_and_said_to_end(tmp_path: Path) -> None:
    async with house(tmp_path, ScriptedBackend("b")) as at:
        await at.dispatcher.pause("b", None, "anna")
        at.refuse("resume", SpoolUnavailable("away"))
        with pytest.raises(SpoolUnavailable, match="b works again, but would be paused again after a restart: away"):
            await at.dispatcher.resume("b")
        assert at.paused_by("b") == ""


async def test_a_pause_that_cannot_be_kept_is_obeyed_and_said_to_end(tmp_path: Path) -> None:
    backend = ScriptedBackend("b")
    async with house(tmp_path, backend) as at:
        at.refuse("pause", SpoolUnavailable("away"))
        with pytest.raises(SpoolUnavailable, match="b is paused, but a restart would end that: away"):
            await at.dispatcher.pause("b", None, "anna")
        assert at.paused_by("b") == "operator"
