"""How long it takes from the start of the process to the first greeting, with 100,000 messages queued."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from gateway.clock import SystemClock
from tests.bench.kit import Effort, listens, scratch, wait_until
from tests.bench.spool import fill
from tests.bench.table import Row
from tests.flow.kit import Gateway

NAMES = ("start-empty", "start-clean", "start-killed")
_GOAL = 2.0
_QUEUED = 100_000
# Nobody listens there: that is why so much waits.
_CONFIG = "backends:\n  box: {type: smtp, host: 127.0.0.1, port: 9, tls: none}\n"


def run(wanted: set[str], effort: Effort) -> Iterator[Row]:
    count = effort.of(_QUEUED)
    with scratch() as disk:
        folder = disk / "gateway"
        folder.mkdir()
        service = Gateway(folder, _CONFIG)
        _listening(service, kill=False)  # makes the folder, its keys and the cache of what is compiled
        if "start-empty" in wanted:
            yield _row("start-empty", "start to listening, nothing queued", service, effort, kill=False, goal=None)
        if not wanted & {"start-clean", "start-killed"}:
            return
        state = folder / "state"
        for file in state.glob("spool*"):
            file.unlink()
        fill(disk / "full", count, SystemClock().now(), "box")
        for file in (disk / "full").iterdir():
            shutil.move(file, state / file.name)
        _listening(service, kill=False)  # looks through it, as it does with one that comes from elsewhere
        for name, what, kill in (("start-clean", "", False), ("start-killed", ", after kill -9", True)):
            if name in wanted:
                if kill:
                    _listening(service, kill=True)
                yield _row(name, f"start to listening, {count} queued{what}", service, effort, kill=kill, goal=_GOAL)


def _row(name: str, what: str, service: Gateway, effort: Effort, *, kill: bool, goal: float | None) -> Row:
    took, burnt = zip(*(_listening(service, kill=kill) for _ in range(effort.rounds)), strict=True)
    shown = f"{median(took):.2f} s"
    return Row(name, f"{what} (seconds; {median(burnt):.2f} of CPU)", shown, "", median(took), goal, at_least=False)


def _listening(service: Gateway, *, kill: bool) -> tuple[float, float]:
    """Seconds, and those of the processor, until somebody could connect; then the end of it."""
    began = time.monotonic()
    with service.log.open("ab") as log:
        command = [sys.executable, "-m", "gateway.cli", "--config", str(service.file), "serve"]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until(lambda: listens(service.port) or process.poll() is not None, "a listener", pause=0.002)
        took = time.monotonic() - began
        if process.poll() is not None:
            raise RuntimeError(service.log.read_text())
        burnt = sum(map(int, Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
        wait_until(lambda: '"started"' in service.log.read_text(), "the start to be over")
    finally:
        process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        process.wait(60)
    return took, burnt / os.sysconf("SC_CLK_TCK")
