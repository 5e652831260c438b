"""What a message costs between a backend's ``send`` and its provider, in what is counted and not in time.

A later change that reads a message once more, copies it once more or makes a connection once more shows here.
"""

from __future__ import annotations

import asyncio
import random
import re
import sys
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import gateway
from gateway.answer import Answer
from gateway.backends import Context
from gateway.fetch import Fetch
from gateway.model import Backend, Verdict
from tests.backends import kit
from tests.backends.kit import spooled
from tests.backends.test_contract import HARNESS, make
from tests.fakes import FakeClock

HEADER = b"From: a@corp.example\r\nTo: b@x.example\r\nSubject: hello\r\n\r\n"
LINE = b"0123456789 abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456\r\n"
SMALL = HEADER + LINE * 136  # 10 KiB
LARGE = HEADER + LINE * 8000  # 600 kB
HTTP = sorted(HARNESS.keys() - {"capture", "smtp"})
OURS = str(Path(gateway.__file__).parent)


class Watched(Fetch):
    """Notes what a message of ``least`` bytes and more has taken in memory when its request is there."""

    least = 1 << 60
    peak = 0

    async def request(self, method: str, url: str, *, content: bytes | None = None, **more: Any) -> Answer:
        if len(content or b"") >= self.least:
            self.peak = tracemalloc.get_traced_memory()[1]
        return await super().request(method, url, content=content, **more)


@pytest.fixture
async def context(tmp_path: Path) -> AsyncIterator[Context]:
    fetch = Watched(trust=kit.trust())
    yield Context("relay.example", tmp_path, FakeClock(), fetch, random.Random(1))
    await fetch.aclose()


async def sent(backend: Backend, raw: bytes, queue_id: str = "Q1") -> None:
    outcomes = await backend.send(spooled("b@x.example", queue_id=queue_id), raw)
    assert [outcome.verdict for outcome in outcomes.values()] == [Verdict.SENT]


@contextmanager
def calls() -> Iterator[Counter[str]]:
    """How often each Python function of ours is called, by name; ``httpx`` for any of that library."""
    seen = Counter[str]()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            file = frame.f_code.co_filename
            if file.startswith(OURS):
                seen[frame.f_code.co_name] += 1
            elif "/httpx" in file:
                seen["httpx"] += 1

    sys.setprofile(note)
    try:
        yield seen
    finally:
        sys.setprofile(None)


@dataclass(frozen=True)
class Cost:
    """At most ``calls`` of our functions. ``scans``: how often a header is read, by the tree of parts that the JSON
    APIs need, too, and by Graph once more in what it repairs. ``memory``: bytes besides the message, as a multiple of
    it: base64 is 4/3 of it, and stands there in pieces and as one.
    """

    calls: int
    scans: int
    memory: float


COSTS = {
    "gmail": Cost(130, 1, 0.8),
    "graph": Cost(180, 2, 2.8),
    "js2mail": Cost(400, 2, 4.0),
    "justemails": Cost(300, 2, 4.0),
    "mailpass": Cost(400, 2, 4.0),
    "smtp2go": Cost(125, 1, 2.8),
    "temp_mail": Cost(300, 2, 4.0),
}


@pytest.mark.parametrize("kind", HTTP)
async def test_a_message_is_read_once_and_goes_past_httpx(kind: str, context: Context) -> None:
    async with HARNESS[kind](context) as bench:
        backend = make(bench, context)
        await sent(backend, SMALL, "WARM")
        with calls() as seen:
            await sent(backend, SMALL)
        await backend.aclose()
    assert (seen["scan_part"], seen["httpx"]) == (COSTS[kind].scans, 0)
    assert seen.total() <= COSTS[kind].calls, seen.most_common()


@pytest.mark.parametrize("kind", HTTP)
async def test_how_often_a_message_stands_in_memory(kind: str, context: Context) -> None:
    assert isinstance(context.fetch, Watched)
    async with HARNESS[kind](context) as bench:
        backend = make(bench, context)
        await sent(backend, SMALL, "WARM")
        context.fetch.least = len(LARGE) // 2
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            await sent(backend, LARGE)
        finally:
            tracemalloc.stop()
        await backend.aclose()
    assert 0 < context.fetch.peak - before <= COSTS[kind].memory * len(LARGE)


@pytest.mark.parametrize("kind", HTTP)
async def test_a_hundred_messages_take_a_hundred_requests_and_few_connections(kind: str, context: Context) -> None:
    """As many as are under way at once. Twice a busy machine may let them rest for too long (half a second)."""
    more = {"quota_units": 20_000} if kind == "gmail" else {}
    async with HARNESS[kind](context) as bench:
        backend = make(bench, context, concurrency=4, **more)
        await sent(backend, SMALL, "WARM")
        numbers = iter(range(100))

        async def worker() -> None:
            for number in numbers:
                await sent(backend, SMALL, f"Q{number}")

        await asyncio.gather(*(worker() for _ in range(4)))
        await backend.aclose()
        assert bench.web is not None
        requests = [request for request in bench.web.requests if not re.search(r"token|oauth2|openid", request.path)]
        assert len(requests) == 101
        assert bench.web.connections <= 3 * 4
