"""What the benches share: real processes on free ports, smtp-source as the client, medians of alternating runs."""

from __future__ import annotations

import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.flow.kit import Gateway, free_port

SESSIONS = 50
GIVE_UP = 120.0  # seconds for one run
NO_POSTFIX = "needs root and Postfix: apt-get install postfix"
Run = Callable[[int], float]  # hands in so many messages, returns messages per second


@dataclass(frozen=True, slots=True)
class Effort:
    """``rounds`` of runs that are ``share`` as long as usual."""

    rounds: int = 3
    share: float = 1.0

    def of(self, count: int) -> int:
        return max(SESSIONS, int(count * self.share))


def race(runs: Mapping[str, Run], count: int, effort: Effort) -> dict[str, float]:
    """Every contestant in turn, several times after one run to get warm; the medians of their rates."""
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run(effort.of(count))
    for _ in range(effort.rounds):
        for name, run in runs.items():
            rates[name].append(run(effort.of(count)))
    return {name: statistics.median(found) for name, found in rates.items()}


def has_postfix() -> bool:
    return os.getuid() == 0 and shutil.which("postfix") is not None


def smtp_source(port: int, count: int, size: int, *, sessions: int = SESSIONS, kept: bool = True) -> float:
    """``count`` messages; seconds until the last has its 250. Any other reply is an error. ``kept``: many messages in a
    connection, else one."""
    command = ["smtp-source", *(["-d"] if kept else []), "-s", str(sessions), "-m", str(count), "-l", str(size)]
    command += ["-f", "sender@example.com", "-t", "recipient@example.org", f"127.0.0.1:{port}"]
    started = time.monotonic()
    subprocess.run(command, check=True, timeout=GIVE_UP)
    return time.monotonic() - started


def wait_until(true: Callable[[], bool], what: str, pause: float = 0.005) -> None:
    deadline = time.monotonic() + GIVE_UP
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(pause)


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory on a real disk, the same for all contestants, that a daemon with another user id can reach."""
    folder = Path(tempfile.mkdtemp(prefix="gateway-bench-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def started(command: list[str], port: int = 0, log: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is stopped at the end; waits until it listens on ``port``."""
    with ExitStack() as stack:
        output = stack.enter_context(log.open("wb")) if log else subprocess.DEVNULL
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            if port:
                wait_until(lambda: listens(port) or process.poll() is not None, f"{command[0]} on port {port}")
            if process.poll() is not None:
                raise RuntimeError(f"{command} ended at once" + (f": {log.read_text()}" if log else ""))
            yield process
        finally:
            process.terminate()
            process.wait(30)


def listens(port: int) -> bool:
    """Looks without connecting: a sink would count the session, and Postfix log it."""
    suffix = f"0100007F:{port:04X} 00000000:0000 0A"  # 127.0.0.1:port, LISTEN
    return suffix in Path("/proc/net/tcp").read_text()


@contextmanager
def gateway(folder: Path, config: str = "", *, prefix: tuple[str, ...] = (), made: bool = False) -> Iterator[Gateway]:
    """``gateway serve`` with shipped defaults: policy, limits, JSON log to a file, metrics; run under ``prefix``. The
    folder may be ``made`` already."""
    folder.mkdir(exist_ok=made)
    service = Gateway(folder, config)
    command = [*prefix, sys.executable, "-m", "gateway.cli", "--config", str(service.file), "serve"]
    with started(command, service.http_port, service.log) as service.process:
        wait_until(lambda: service.get("/readyz")[0] == 200, "readiness")
        yield service


def pid(service: Gateway) -> int:
    assert service.process is not None
    return service.process.pid


def paused(service: Gateway, backend: str) -> None:
    """From now on only accepting costs anything."""
    done = service.run("backend", "pause", backend)
    if done.returncode:
        raise RuntimeError(done.stderr)


def stored(service: Gateway) -> int:
    """Messages in the spool, read from its file."""
    file = service.directory / "state" / "spool.db"
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as spool:
        count: int = spool.execute("SELECT count(*) FROM message").fetchone()[0]
    return count


def sent(service: Gateway) -> int:
    """Recipients whose delivery by the backend "out" the gateway has recorded."""
    name = 'gateway_deliveries_total{backend="out",result="sent"} '
    return int(float(service.get("/metrics")[1].partition(name)[2].split()[0]))


class Sink:
    """``smtp-sink``, that counts what it takes. It runs through: Postfix defers for minutes after it was away."""

    def __init__(self, log: Path, stack: ExitStack) -> None:
        self._log = log
        self.port = free_port()
        user = ["-u", "nobody"] if os.getuid() == 0 else []
        stack.enter_context(started(["smtp-sink", "-c", *user, f"127.0.0.1:{self.port}", "1000"], self.port, log))

    def taken(self) -> int:
        """Messages so far, from the counters that are written behind each other, ended by CR."""
        with self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - 200))
            lines = file.read().split(b"\r")
        last = next((line for line in reversed(lines[:-1] if len(lines) > 1 else []) if b"mesg=" in line), b"mesg=0")
        return int(last.partition(b"mesg=")[2].split()[0])
