"""The event loop that is set is the one that runs; where it cannot be had, mail goes on and somebody is told."""

from __future__ import annotations

import asyncio
import sys

import pytest

from gateway.runtime import choose, running


@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
def test_the_loop_is_the_one_that_is_set(name: str) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed")
    loop = choose(name)

    async def look() -> str:
        return running()

    with asyncio.Runner(loop_factory=loop.make) as runner:
        assert runner.run(look()) == name
    assert (loop.name.partition(" ")[0], loop.lacking) == (name, "")


def test_without_uvloop_it_is_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    """No wheel for this platform, or nobody installed it."""
    monkeypatch.setitem(sys.modules, "uvloop", None)
    loop = choose("uvloop")
    assert loop.name == "asyncio"
    assert "event_loop: uvloop cannot be had" in loop.lacking
