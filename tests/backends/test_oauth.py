"""The token cache, whatever provider stands behind it: single flight, the old token while it lives, failures."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.backends.shared.base import NoAnswer, refused
from gateway.backends.shared.oauth import AccessToken, BlockingHttp, TokenCache, unavailable
from gateway.model import Outcome, Verdict
from tests.backends import kit
from tests.backends.gmail_fake import Recorder
from tests.backends.kit import Web, http
from tests.fakes import FakeClock, until


@dataclass
class Source:
    """Gives t1, t2, ... for an hour each, or what the script says; ``gate`` holds it up, as a slow provider does."""

    clock: FakeClock
    script: list[Exception | timedelta] = field(default_factory=list)
    calls: int = 0
    gate: threading.Event = field(default_factory=threading.Event)
    threads: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.gate.set()

    def __call__(self, line: BlockingHttp) -> AccessToken:
        self.calls += 1
        number = self.calls
        self.threads.add(threading.get_ident())
        assert self.gate.wait(10)
        step = self.script.pop(0) if self.script else timedelta(hours=1)
        if isinstance(step, Exception):
            raise step
        return AccessToken(f"t{number}", self.clock.now() + step)


@dataclass
class Bench:
    cache: TokenCache
    source: Source
    clock: FakeClock
    signals: Recorder


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    clock, signals = FakeClock(), Recorder()
    source = Source(clock)
    async with kit.context(tmp_path, clock) as context:
        cache = TokenCache("gm", source, replace(context, signals=signals))
        yield Bench(cache, source, clock, signals)
        source.gate.set()
        await cache.aclose()


async def settled(bench: Bench, refreshes: int) -> None:
    await until(lambda: len(bench.signals.refreshes) == refreshes)


async def failing(bench: Bench) -> NoAnswer:
    with pytest.raises(NoAnswer) as caught:
        await bench.cache.get()
    return caught.value


async def test_a_token_is_kept_until_four_fifths_of_its_life_are_over(bench: Bench) -> None:
    """In a thread of its own, and told to the operator."""
    assert await bench.cache.get() == "t1"
    assert bench.cache.ends == bench.clock.now() + timedelta(hours=1)
    bench.clock.advance(0.74 * 3600)
    assert await bench.cache.get() == "t1"
    assert bench.source.calls == 1
    assert threading.get_ident() not in bench.source.threads
    assert bench.signals.refreshes == [("ok", "")]


async def test_the_old_token_serves_while_the_new_one_is_fetched(bench: Bench) -> None:
    await bench.cache.get()
    bench.clock.advance(0.86 * 3600)
    bench.source.gate.clear()
    assert [await bench.cache.get() for _ in range(10)] == ["t1"] * 10
    await until(lambda: bench.source.calls == 2)
    assert await bench.cache.get() == "t1"
    bench.source.gate.set()
    await settled(bench, 2)
    assert await bench.cache.get() == "t2"
    assert bench.source.calls == 2


@pytest.mark.parametrize("seconds", [0, 3571, 100_000], ids=["none yet", "within the margin", "expired"])
async def test_a_hundred_that_need_a_token_cause_one_refresh(bench: Bench, seconds: float) -> None:
    if seconds:
        await bench.cache.get()
        bench.clock.advance(seconds)
    before = bench.source.calls
    tokens = await asyncio.gather(*(bench.cache.get() for _ in range(100)))
    assert set(tokens) == {f"t{before + 1}"}
    assert bench.source.calls == before + 1


async def test_a_refused_token_is_not_handed_out_again_and_the_late_get_the_new_one(bench: Bench) -> None:
    assert await bench.cache.get() == "t1"
    tokens = await asyncio.gather(*(bench.cache.get(stale="t1") for _ in range(50)))
    assert set(tokens) == {"t2"}
    assert await bench.cache.get(stale="t1") == "t2"
    assert bench.source.calls == 2


async def test_a_refused_token_waits_for_the_refresh_that_runs_already(bench: Bench) -> None:
    await bench.cache.get()
    bench.clock.advance(0.86 * 3600)
    bench.source.gate.clear()
    assert await bench.cache.get() == "t1"
    late = asyncio.create_task(bench.cache.get(stale="t1"))
    await until(lambda: bench.source.calls == 2)
    bench.source.gate.set()
    assert await late == "t2"
    assert bench.source.calls == 2


@pytest.mark.parametrize(("error", "seconds"), [(refused("no", "fix"), 5), (unavailable("away"), 5)])
async def test_a_failure_is_the_answer_for_a_while(bench: Bench, error: NoAnswer, seconds: float) -> None:
    bench.source.script = [error]
    for _ in range(3):
        assert (await failing(bench)).outcome == error.outcome
    bench.clock.advance(seconds - 0.1)
    assert await failing(bench) is error
    assert bench.source.calls == 1
    bench.clock.advance(0.1)
    assert await bench.cache.get() == "t2"


async def test_an_expired_token_and_a_provider_that_is_down_do_not_make_a_storm(bench: Bench) -> None:
    """A failure counts as well for whom the old token has run out under."""
    bench.source.script = [timedelta(hours=1), unavailable("away"), unavailable("away")]
    await bench.cache.get()
    bench.clock.advance(4000)
    for _ in range(5):
        await failing(bench)
    assert bench.source.calls == 2
    bench.clock.advance(5)
    await failing(bench)
    assert bench.source.calls == 3


async def test_while_the_old_token_lives_a_failed_refresh_is_tried_again_after_a_minute(bench: Bench) -> None:
    bench.source.script = [timedelta(hours=1), unavailable("away")]
    await bench.cache.get()
    bench.clock.advance(0.86 * 3600)
    assert await bench.cache.get() == "t1"
    await settled(bench, 2)
    bench.clock.advance(59)
    assert await bench.cache.get() == "t1"
    assert bench.source.calls == 2
    bench.clock.advance(1)
    assert await bench.cache.get() == "t1"
    await settled(bench, 3)
    assert await bench.cache.get() == "t3"
    assert [result for result, _ in bench.signals.refreshes] == ["ok", "unavailable", "ok"]


async def test_a_token_that_ran_out_is_not_used_because_its_refresh_failed(bench: Bench) -> None:
    bench.source.script = [timedelta(hours=1), unavailable("away")]
    await bench.cache.get()
    bench.clock.advance(3560)
    assert await bench.cache.get() == "t1"
    await settled(bench, 2)
    bench.clock.advance(20)  # its last 30 seconds have begun
    assert await bench.cache.get() == "t3"


async def test_forget_failure_asks_again_at_once(bench: Bench) -> None:
    bench.source.script = [refused("no", "fix")]
    await failing(bench)
    bench.cache.forget_failure()
    assert await bench.cache.get() == "t2"


async def test_a_fault_of_a_message_counts_as_refused_and_a_bug_is_not_hidden(bench: Bench) -> None:
    bench.source.script = [NoAnswer(Outcome(Verdict.REJECTED, None, "5.1.8", "nobody")), RuntimeError("secret words")]
    assert (await failing(bench)).outcome.verdict is Verdict.REJECTED
    bench.clock.advance(60)
    with pytest.raises(RuntimeError):
        await bench.cache.get()
    assert bench.signals.refreshes == [("refused", "nobody"), ("unavailable", "RuntimeError")]


async def test_a_failure_told_to_many_does_not_grow(bench: Bench) -> None:
    """Every raise would add frames to the one exception, and they would keep the messages that waited."""
    bench.source.script = [refused("no", "fix")]
    for _ in range(20):
        error = await failing(bench)
    depth, trace = 0, error.__traceback__
    while trace:
        depth, trace = depth + 1, trace.tb_next
    assert depth < 5


async def test_closing_answers_those_who_wait(bench: Bench) -> None:
    """They are not cancelled themselves, so they must not see a cancellation."""
    bench.source.gate.clear()
    waiting = asyncio.create_task(bench.cache.get())
    await until(lambda: bench.source.calls == 1)
    await bench.cache.aclose()
    with pytest.raises(NoAnswer, match="being closed"):
        await waiting


@pytest.mark.parametrize("life", [0, 10, -5])
async def test_a_token_that_hardly_lives_is_used_once(bench: Bench, life: float) -> None:
    bench.source.script = [timedelta(seconds=life), timedelta(seconds=life)]
    assert await bench.cache.get() == "t1"
    assert await bench.cache.get() == "t2"


# -- the line of a blocking library ----------------------------------------------------------------------------------


async def test_the_line_is_the_houses_own_client(tmp_path: Path) -> None:
    async with (
        Web(lambda request: http(201, request.body[::-1], {"X-Y": "z"})) as web,
        kit.context(tmp_path) as context,
    ):
        line = BlockingHttp(context.fetch, asyncio.get_running_loop())

        def ask(url: str) -> Callable[[], object]:
            return lambda: line.request("PUT", url, headers={"x-a": "b"}, content=b"abc")

        answer = await asyncio.to_thread(ask(web.url + "/p"))
        assert (answer.status, answer.body, answer.headers["x-y"]) == (201, b"cba", "z")
        assert (web.requests[0].method, web.requests[0].headers["x-a"]) == ("PUT", "b")
        with pytest.raises(NoAnswer, match="cannot connect"):
            await asyncio.to_thread(ask("http://127.0.0.1:1/"))
        with pytest.raises(NoAnswer, match="not encrypted"):
            await asyncio.to_thread(ask("http://sts.googleapis.com/"))
        web.handler = kit.reset_at_once
        with pytest.raises(NoAnswer, match="connection lost"):
            await asyncio.to_thread(ask(web.url))
