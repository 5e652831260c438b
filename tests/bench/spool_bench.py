"""Figures of the spool (reference/performance.md, goals 6 to 8): ``python -m tests.bench.spool_bench [--large N]``.

Competitors alternate within one run and medians are compared: trust the ratios, not the absolute figures.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from statistics import median

from gateway.clock import SystemClock
from gateway.events import Events
from gateway.model import NewMessage
from gateway.spool import putting, sql, sqlite, tables, writer
from gateway.spool.transaction import Transaction
from gateway.spool.vault import Vault
from tests.fakes import START
from tests.spool_kit import At, message, opened, settlement

RAW = b"From: s@example.com\r\nMessage-ID: <abc@example.com>\r\n\r\n".ljust(1024, b"x")
ROOT = Path(__file__).parents[2]
SHIM = """
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


def messages() -> Iterator[NewMessage]:
    for n in itertools.count():
        yield message(f"user{n}@example.org", ident=f"{n:013d}", raw=RAW, message_id=f"<{n}@example.com>")


async def put_all(at: At, number: int, putters: int) -> float:
    """Messages per second."""
    waiting = iter(list(itertools.islice(messages(), number)))

    async def put() -> None:
        for one in waiting:
            await at.spool.put(one)

    began = time.perf_counter()
    await asyncio.gather(*(put() for _ in range(putters)))
    return number / (time.perf_counter() - began)


def put_in_child(number: int, putters: int, group: int, *, delay: int = 0, strace: bool = False) -> tuple[float, float]:
    """Messages per second and fdatasync calls per message in a process of its own; ``delay`` in microseconds."""
    with tempfile.TemporaryDirectory(prefix="spool-bench-") as directory:
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "SYNC_DELAY": str(delay)}
        command = [sys.executable, "-m", __spec__.name if __spec__ else __name__, "--child"]
        command += [directory, str(number), str(putters), str(group)]
        if delay:
            environ["LD_PRELOAD"] = build_shim(Path(directory))
        if strace:
            tracer = ["strace", "--seccomp-bpf", "-f", "-c", "-e", "trace=fdatasync", "-o", f"{directory}/st"]
            command = [*tracer, *command]
        said = subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout
        calls = re.search(r"(\d+)\s+fdatasync", Path(f"{directory}/st").read_text()) if strace else None
        return json.loads(said), int(calls[1]) / number if calls else 0.0


def build_shim(directory: Path) -> str:
    (directory / "shim.c").write_text(SHIM)
    target = directory / "shim.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", target, directory / "shim.c", "-ldl"], check=True)
    return str(target)


async def child(directory: str, number: int, putters: int, group: int) -> None:
    writer.GROUP = group  # type: ignore[misc]
    async with opened(Path(directory) / "spool", clock=SystemClock()) as at:
        print(json.dumps(await put_all(at, number, putters)))


def bench_puts() -> None:
    figures = [put_in_child(20_000, 50, 256)[0] for _ in range(3)]
    print(f"put, 1 KiB, 50 putters: {median(figures):.0f}/s  (of {', '.join(f'{f:.0f}' for f in figures)})")
    if shutil.which("strace"):
        for putters in (1, 10, 50):
            print(f"fdatasync per message, {putters} putters: {put_in_child(3000, putters, 256, strace=True)[1]:.3f}")


def bench_group_commit() -> None:
    delays = (0, 1000, 5000) if shutil.which("gcc") else (0,)
    for delay in delays:
        number = 4000 if delay < 5000 else 1000
        pairs = [
            (put_in_child(number, 50, 256, delay=delay)[0], put_in_child(number, 50, 1, delay=delay)[0])
            for _ in range(3)
        ]
        together, single = (median(figures) for figures in zip(*pairs, strict=True))
        print(f"group commit, sync +{delay / 1000:g} ms: {together:.0f}/s, one by one {single:.0f}/s", end="")
        print(f"  ratio {together / single:.1f}")


def bench_statements(directory: Path) -> None:
    """Many rows in one statement against one for each, for 50 recipients."""
    connection = sqlite.SQLite(directory).open()
    numbers = itertools.count()
    columns = "message_id address notify orcpt n key backend updated_at"
    statement = sql.insert_into(tables.Recipient, columns, state="'queued'", **sql.NO_ANSWER)
    cost: dict[str, list[float]] = {"many": [], "executemany": []}
    for name in ("many", "executemany") * 200:
        rows = [(f"{next(numbers):013d}", "a@x.org", "", "", 0, "a@x.org", "b", 0) for _ in range(50)]
        with connection.begin():
            began = time.perf_counter()
            (connection.many if name == "many" else connection.executemany)(statement, rows)
            cost[name].append((time.perf_counter() - began) / 50)
    connection.close()
    print("insert, us a row: " + ", ".join(f"{name} {median(figures) * 1e6:.1f}" for name, figures in cost.items()))


def fill(directory: Path, number: int) -> None:
    directory.mkdir()
    engine = sqlite.SQLite(directory)
    connection = engine.open()
    source, vault = messages(), Vault(bytes(32), Events())
    for _ in range(0, number, 1000):
        with connection.begin():
            transaction = Transaction(connection, engine, 0, 0, vault=vault, drop_sent=True)
            for one in itertools.islice(source, 1000):
                putting.put(transaction, [one])
            transaction.flush()
    connection.close()
    engine.close()


async def bench_claims(directory: Path, sizes: tuple[int, ...], rounds: int = 150) -> None:
    """Claims of 100 at each queue size in turn; what was claimed is settled and replaced, so that the size stays."""
    cost: dict[int, list[float]] = {size: [] for size in sizes}
    fresh = itertools.count(10**9)
    now = START + timedelta(days=1)
    async with AsyncExitStack() as stack:
        spools = {}
        for size in sizes:
            fill(directory / str(size), size)
            spools[size] = await stack.enter_async_context(opened(directory / str(size)))
        for turn in range(rounds):
            for size, at in spools.items():
                began = time.perf_counter()
                claims = await at.claim(now=now)
                if turn >= 10:  # pages warm, statements prepared
                    cost[size].append((time.perf_counter() - began) / len(claims))
                await asyncio.gather(*(at.spool.settle(settlement(claim)) for claim in claims))
                await asyncio.gather(*(at.put(ident=f"{next(fresh):013d}", raw=RAW, received_at=now) for _ in claims))
    figures = {size: median(cost[size]) * 1e6 for size in sizes}
    print(f"claim, us each: {', '.join(f'{f:.1f} at {size}' for size, f in figures.items())}", end="")
    print(f"  ratio {figures[sizes[-1]] / figures[sizes[0]]:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", type=int, default=1_000_000, help="queued messages in the large spool")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        asyncio.run(child(given.child[0], *map(int, given.child[1:])))
        return
    bench_puts()
    bench_group_commit()
    with tempfile.TemporaryDirectory(prefix="spool-bench-") as directory:
        bench_statements(Path(directory))
        asyncio.run(bench_claims(Path(directory), (1000, given.large)))


if __name__ == "__main__":
    main()
