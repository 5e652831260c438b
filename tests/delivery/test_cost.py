"""What a message costs from the door's ``put`` to its settlement, in what is counted and not in time.

A later change that asks the spool once more for each message, or hops to a thread once more, shows here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.delivery.kit import house
from tests.fakes import ScriptedBackend, until
from tests.spool_kit import statements


async def test_statements_commits_and_hops_of_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone, so that nothing is shared: two transactions, of what is put and claimed, and of what became of it. Each is
    one hop, and nobody looks beside the writer."""
    backend, hops = ScriptedBackend("b"), Counter[str]()
    async with house(tmp_path, backend) as at:

        async def through(ident: str) -> None:
            calls = len(backend.calls)
            await at.put("b", ident=ident)
            await until(lambda: len(backend.calls) > calls and at.dispatcher.status()["b"].in_flight == 0)

        await until(lambda: len(at.ended) == 1)  # the round of housekeeping at the start
        await at.dispatcher.publish()  # which that one ends with, and then wakes all
        await through("WARM000000000")
        await through("WARM000000001")
        loop, run = asyncio.get_running_loop(), asyncio.get_running_loop().run_in_executor

        def hop(executor: Any, call: Any, *given: Any) -> Any:
            hops["all"] += 1
            return run(executor, call, *given)

        monkeypatch.setattr(loop, "run_in_executor", hop)
        with statements() as seen:
            await through("M000000000001")
        assert (seen.count("COMMIT"), hops["all"]) == (2, 2)
        assert len(seen) <= 16, "\n".join(seen)


async def test_the_end_of_a_message_asks_for_nothing(tmp_path: Path) -> None:
    """What was sent leaves nothing behind that could be due: the queue is asked again only when there is news."""
    backend = ScriptedBackend("b")
    async with house(tmp_path, backend) as at:
        await until(lambda: len(at.ended) == 1)
        with statements() as seen:
            await at.put_many(200, "b")
            await until(lambda: len(backend.calls) == 200 and at.dispatcher.status()["b"].in_flight == 0)
        claims = sum("FROM (SELECT * FROM delivery WHERE backend" in text for text in seen)
        taken = sum(text.startswith("SELECT raw, ") for text in seen)
        assert 0 < taken <= claims <= taken + 1
