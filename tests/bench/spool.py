"""The spool alone: what it takes from many putters with and without group commit on a slow disk, and what claims cost.

As a program it is one run of putters: ``python -m tests.bench.spool DIRECTORY NUMBER GROUP``.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median

from gateway.clock import SystemClock, first_id
from gateway.events import Events
from gateway.model import NewMessage
from gateway.spool import putting, sqlite, writer
from gateway.spool.records import micros
from gateway.spool.transaction import Transaction
from gateway.spool.vault import Vault
from tests.bench.kit import Effort, scratch
from tests.bench.table import Row
from tests.fakes import START
from tests.spool_kit import message, opened, settlement

NAMES = ("disk-0", "disk-1", "disk-5", "disk-10")
_GOALS = {"disk-5": 10.0}
_COUNTS = {"disk-0": 4000, "disk-1": 2500, "disk-5": 800, "disk-10": 400}
_PUTTERS = 50
_GROUP = 256
_RAW = b"From: s@example.com\r\nMessage-ID: <abc@example.com>\r\n\r\n".ljust(1024, b"x")
_ROOT = Path(__file__).parents[2]
_SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
    int result = real(fd);
    usleep(atoi(getenv("SYNC_DELAY")));
    return result;
}
"""


def run(wanted: set[str], effort: Effort) -> Iterator[Row]:
    """A disk that takes so many milliseconds more for each fdatasync: a real SSD 1, a disk that turns 5 to 10."""
    for name in NAMES:
        if name not in wanted:
            continue
        delay = int(name.partition("-")[2])
        if delay and shutil.which("gcc") is None:
            yield Row(name, f"group commit, fdatasync +{delay} ms", skipped="needs gcc")
            continue
        count = effort.of(_COUNTS[name])
        pairs = [(_in_child(4 * count, _GROUP, delay), _in_child(count, 1, delay)) for _ in range(effort.rounds)]
        together, single = (median(figures) for figures in zip(*pairs, strict=True))
        what = f"spool, fdatasync +{delay} ms, 50 putters: group commit : a commit each"
        yield Row(name, what, f"{together:.0f}/s", f"{single:.0f}/s", together / single, _GOALS.get(name))


def _in_child(number: int, group: int, delay: int) -> float:
    """Messages per second in a process of its own."""
    with scratch() as disk:
        environ = {**os.environ, "PYTHONPATH": str(_ROOT), "SYNC_DELAY": str(delay * 1000)}
        if delay:
            environ["LD_PRELOAD"] = _shim(disk)
        command = [sys.executable, "-m", __name__, str(disk), str(number), str(group)]
        return float(json.loads(subprocess.run(command, env=environ, check=True, capture_output=True).stdout))


def _shim(disk: Path) -> str:
    (disk / "shim.c").write_text(_SHIM)
    target = disk / "shim.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", target, disk / "shim.c", "-ldl"], check=True)
    return str(target)


async def _put(directory: Path, number: int, group: int) -> None:
    writer.GROUP = group  # type: ignore[misc]
    async with opened(directory / "spool", clock=SystemClock()) as at:
        waiting = iter(list(messages(number, START)))

        async def put() -> None:
            for one in waiting:
                await at.spool.put(one)

        began = time.perf_counter()
        await asyncio.gather(*(put() for _ in range(_PUTTERS)))
        print(json.dumps(number / (time.perf_counter() - began)))


def messages(number: int, at: datetime, backend: str = "b") -> Iterator[NewMessage]:
    stem = first_id(at)[:-7]
    for n in range(number):
        yield message(
            f"user{n}@example.org", ident=f"{stem}{n:07d}", raw=_RAW, message_id=f"<{n}@example.com>",
            received_at=at, backend=backend,
        )  # fmt: skip


def fill(directory: Path, number: int, at: datetime = START, backend: str = "b") -> None:
    """A new spool with so many queued that came ``at`` this time."""
    directory.mkdir(parents=True, exist_ok=True)
    engine = sqlite.SQLite(directory)
    connection = engine.open()
    source, vault, now = messages(number, at, backend), Vault(bytes(32), Events()), micros(at)
    for _ in range(0, number, 1000):
        with connection.begin():
            transaction = Transaction(connection, engine, now, now, vault=vault, drop_sent=True)
            putting.put(transaction, list(itertools.islice(source, 1000)))
            transaction.flush()
    connection.close()
    engine.close()


async def claims(directory: Path, sizes: tuple[int, ...], turns: int = 150) -> dict[int, float]:
    """Seconds for each of 100 claimed, at each queue size in turn; what was claimed is settled and replaced."""
    cost: dict[int, list[float]] = {size: [] for size in sizes}
    fresh = itertools.count(10**9)
    now = START + timedelta(days=1)
    async with AsyncExitStack() as stack:
        spools = {}
        for size in sizes:
            fill(directory / str(size), size)
            spools[size] = await stack.enter_async_context(opened(directory / str(size)))
        for turn in range(turns):
            for size, at in spools.items():
                began = time.perf_counter()
                found = await at.claim(now=now)
                if turn >= 10:  # pages warm, statements prepared
                    cost[size].append((time.perf_counter() - began) / len(found))
                await asyncio.gather(*(at.spool.settle(settlement(claim)) for claim in found))
                await asyncio.gather(*(at.put(ident=f"{next(fresh):013d}", raw=_RAW, received_at=now) for _ in found))
    return {size: median(found) for size, found in cost.items()}


if __name__ == "__main__":
    asyncio.run(_put(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
