"""What accepting a message costs, in what is counted and not in time: so that a later change cannot quietly undo it.

All at the door's own faces: octets in at the wire, replies out at a transport, a message at ``put``.
"""

from __future__ import annotations

import asyncio
import sys
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest

import gateway
from tests.smtp.kit import Rig, rig
from tests.spool_kit import opened, statements

LINES = b"From: Copier <a@example.com>\r\nTo: b@example.org\r\nSubject: scan\r\nMessage-ID: <1@copier>\r\n" + (
    b"Date: Mon, 30 Nov 2026 20:11:36 +0000\r\n\r\n"
)
PIECE = 65_536
OURS = f"{Path(gateway.__file__).parent}/"


def of(size: int) -> bytes:
    """A message of about this size and its end."""
    line = b"x" * 70 + b"\r\n"
    return LINES + line * ((size - len(LINES)) // len(line)) + b".\r\n"


class Line(asyncio.Transport):
    """Keeps what is sent, write by write."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.sent: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        self.sent.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


class Talk:
    """A client of a listener, without a socket between them."""

    def __init__(self, made: Rig) -> None:
        self.line = Line()
        self.wire = cast(asyncio.Protocol, made.listener.new_connection())
        self.wire.connection_made(self.line)

    async def says(self, data: bytes, until: bytes) -> list[bytes]:
        """What is written from then on, up to a reply that begins so."""
        del self.line.sent[:]
        for at in range(0, len(data), PIECE):
            self.wire.data_received(data[at : at + PIECE])
        while not (self.line.sent and self.line.sent[-1].splitlines()[-1].startswith(until)):
            await asyncio.sleep(0)
        return list(self.line.sent)

    async def delivers(self, message: bytes) -> None:
        await self.says(b"MAIL FROM:<a@example.com>\r\n", b"250 2.1.0")
        await self.says(b"RCPT TO:<b@example.org>\r\n", b"250 2.1.5")
        await self.says(b"DATA\r\n", b"354")
        await self.says(message, b"250 2.0.0 Ok: queued")

    async def leaves(self) -> None:
        await self.says(b"QUIT\r\n", b"221")
        self.wire.connection_lost(None)


async def greeted(made: Rig) -> Talk:
    """One whose second message is still to come: what is made once is there."""
    talk = Talk(made)
    await talk.says(b"", b"220")
    await talk.says(b"EHLO client.example\r\n", b"250 ")
    await talk.delivers(of(1024))
    return talk


class Calls:
    """Functions of Python that are called, and octets that methods of bytes go over, in this thread."""

    def __init__(self) -> None:
        self.made = Counter[str]()
        self.octets = 0

    def __enter__(self) -> Calls:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: Any, event: str, called: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(OURS):
            self.made[f"{frame.f_code.co_filename.removeprefix(OURS)}:{frame.f_code.co_name}"] += 1
        elif event == "c_call" and isinstance(text := getattr(called, "__self__", None), bytes | bytearray):
            self.octets += len(text) if called.__name__ not in ("startswith", "endswith", "__len__") else 0


async def test_replies_leave_in_as_few_writes_as_there_are_turns() -> None:
    """Without PIPELINING (RFC 2920) four, with it two, also where the next message begins behind the last one's end."""
    async with rig() as made:
        talk = await greeted(made)
        begin = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n"
        wrote = await talk.says(begin, b"354")
        assert [len(each.splitlines()) for each in wrote] == [3]
        wrote = await talk.says(of(1024) + begin, b"354")
        assert [each[:3] for each in wrote] == [b"250"]
        assert len(await talk.says(of(1024), b"250 2.0.0 Ok: queued")) == 1
        for command, reply in ((begin[:27], b"250 2.1.0"), (begin[27:52], b"250 2.1.5"), (b"DATA\r\n", b"354")):
            assert len(await talk.says(command, reply)) == 1
        await talk.says(b".\r\n", b"554")
        await talk.leaves()


@pytest.mark.parametrize(("size", "calls", "passes"), [(1024, 165, 7), (102_400, 185, 5)])
async def test_calls_and_passes_over_the_octets(size: int, calls: int, passes: int) -> None:
    """Of one more message by the same people: nothing is parsed or decided again that was parsed or decided before."""
    async with rig() as made:
        talk, message = await greeted(made), of(size)
        with Calls() as seen:
            await talk.delivers(message)
        await talk.leaves()
    assert len(made.messages) == 2
    assert sum(seen.made.values()) <= calls, seen.made.most_common()
    assert seen.octets <= passes * size


async def test_calls_of_a_connection() -> None:
    """From the greeting to QUIT; who comes from there, and what that client may, is known."""
    async with rig() as made:
        await (await greeted(made)).leaves()
        with Calls() as seen:
            talk = Talk(made)
            await talk.says(b"", b"220")
            await talk.says(b"HELO client.example\r\n", b"250 ")
            await talk.leaves()
    assert sum(seen.made.values()) <= 80, seen.made.most_common()


async def test_octets_in_memory_at_once() -> None:
    """A large message comes in pieces; at its end there are what has come and what will be stored."""
    async with rig() as made:
        talk, message = await greeted(made), of(5_000_000)
        tracemalloc.start()
        await talk.delivers(message)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        await talk.leaves()
    assert peak <= 2.3 * len(message)


async def test_statements_commits_and_hops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One transaction, which is one hop to the spool's thread."""
    async with opened(tmp_path) as at, rig() as made:
        made.put = at.spool.put
        talk, hops = await greeted(made), Counter[str]()
        loop = asyncio.get_running_loop()
        run = loop.run_in_executor

        def hop(executor: Any, work: Any, *given: Any) -> Any:
            hops["thread"] += 1
            return run(executor, work, *given)

        monkeypatch.setattr(loop, "run_in_executor", hop)
        for size in (1024, 102_400):
            hops.clear()
            with statements() as seen:
                await talk.delivers(of(size))
            assert (seen.count("COMMIT"), hops["thread"]) == (1, 1)
            assert len(seen) <= 8, "\n".join(seen)
        await talk.leaves()
