"""Row 10: how long a client waits from the final dot to its 250, at a steady rate, against Postfix."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack
from statistics import median, quantiles

from tests.bench.kit import NO_POSTFIX, Effort, gateway, has_postfix, paused, scratch
from tests.bench.postfix import postfix
from tests.bench.table import Row

NAMES = ("latency",)
_GOAL = 0.5
_RATE, _SECONDS, _LINKS = 160, 8, 20
_BODY = b"Subject: x\r\nMessage-ID: <%d@example.com>\r\n\r\n" + (b"y" * 76 + b"\r\n") * 12


def run(_: set[str], effort: Effort) -> Iterator[Row]:
    if not has_postfix():
        yield Row("latency", "p99 of dot -> 250", skipped=NO_POSTFIX)
        return
    with ExitStack() as stack:
        disk = stack.enter_context(scratch())
        ours = stack.enter_context(gateway(disk / "gateway"))
        paused(ours, "box")
        theirs = stack.enter_context(postfix(disk / "postfix"))
        seconds = max(2.0, _SECONDS * effort.share)
        found: dict[int, list[float]] = {ours.port: [], theirs.port: []}
        for port in found:
            asyncio.run(_steady(port, 2.0))
        for _round in range(effort.rounds):
            for port, waits in found.items():
                waits.append(quantiles(asyncio.run(_steady(port, seconds)), n=100)[98])
        us, them = (median(waits) for waits in found.values())
        what = f"p99 of dot -> 250 at {_RATE}/s : Postfix"
        yield Row("latency", what, f"{us * 1e3:.1f} ms", f"{them * 1e3:.1f} ms", us / them, _GOAL, at_least=False)


async def _steady(port: int, seconds: float) -> list[float]:
    """Seconds from dot to reply of each message; they begin when it is their time, whatever became of those before."""
    links: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(_LINKS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await _said(reader)
        await _say(reader, writer, b"EHLO client.example")
        links.put_nowait((reader, writer))

    async def hand_in(number: int) -> float:
        reader, writer = await links.get()
        for line in (b"MAIL FROM:<a@example.com>", b"RCPT TO:<b@example.org>", b"DATA"):
            await _say(reader, writer, line)
        writer.write(_BODY % number)
        began = time.perf_counter()
        await _say(reader, writer, b".")
        took = time.perf_counter() - began
        links.put_nowait((reader, writer))
        return took

    loop = asyncio.get_running_loop()
    first, tasks = loop.time(), []
    for number in range(int(_RATE * seconds)):
        await asyncio.sleep(first + number / _RATE - loop.time())
        tasks.append(loop.create_task(hand_in(number)))
    waits = await asyncio.gather(*tasks)
    while not links.empty():
        links.get_nowait()[1].close()
    return waits


async def _say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes) -> None:
    writer.write(line + b"\r\n")
    await _said(reader)


async def _said(reader: asyncio.StreamReader) -> None:
    while (line := await reader.readline())[3:4] == b"-":
        pass
    if line[:1] not in (b"2", b"3"):
        raise AssertionError(line)
