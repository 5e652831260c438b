"""An instance as a process of its own, to be stopped and killed: what it has, a hundred times a second, as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

from gateway.clock import SystemClock
from tests.postgresql.member_kit import BACKENDS, Party


async def main(url: str, name: str, failover: str) -> None:
    party = Party(url, name, SystemClock(), backends=BACKENDS, failover=timedelta(seconds=float(failover)))
    member = party.member
    await member.begin()
    member.share()
    seen = time.monotonic()
    while True:
        now = time.monotonic()
        said = {"at": now, "slept": now - seen, "valid": member.valid(), "owned": sorted(member.owned())}
        more = {"number": member.number, "lost": len(party.lost), "anew": ("anew", "") in party.heard}
        print(json.dumps(said | more), flush=True)
        seen = now
        await asyncio.sleep(0.01)


class Process:
    """One of them, and all that it said."""

    def __init__(self, url: str, name: str, failover: float, folder: Path) -> None:
        self.name = name
        self._file = folder / f"{name}.{time.monotonic_ns()}"
        with self._file.open("wb") as out:
            command = [sys.executable, "-m", "tests.postgresql.member_process", url, name, str(failover)]
            self.popen = Popen(command, stdin=DEVNULL, stdout=out)

        self._read, self._said = 0, list[dict[str, Any]]()

    @property
    def said(self) -> list[dict[str, Any]]:
        with self._file.open("rb") as file:
            file.seek(self._read)
            whole, end, _ = file.read().rpartition(b"\n")
        self._read += len(whole) + len(end)
        self._said += map(json.loads, whole.splitlines())
        return self._said

    @property
    def owned(self) -> list[str]:
        said = self.said
        return said[-1]["owned"] if said else []


@contextmanager
def process(url: str, name: str, failover: float, folder: Path) -> Iterator[Process]:
    made = Process(url, name, failover, folder)
    try:
        yield made
    finally:
        made.popen.kill()
        made.popen.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
