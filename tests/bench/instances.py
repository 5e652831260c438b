"""Rows of PostgreSQL: one, two and four instances on one queue, against a single gateway with its own file."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from tests import postgres_kit
from tests.bench.kit import (
    SESSIONS,
    Effort,
    Run,
    Sink,
    gateway,
    pid,
    race,
    scratch,
    sent,
    smtp_source,
    wait_until,
)
from tests.bench.table import Row
from tests.flow.kit import Gateway, free_port

NAMES = ("pg-accept", "pg-relay")
_COUNTS = (1, 2, 4)
_ACCEPTED, _RELAYED = 2000, 1200
_OUT = "backends: {{out: {{type: smtp, host: 127.0.0.1, port: {port}, tls: none}}}}\n"
_SPOOL = 'spool: {{url: "{url}", instance: i{n}, failover: 10s}}\n'


def run(wanted: set[str], effort: Effort) -> Iterator[Row]:
    if not (any(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or shutil.which("initdb")):
        yield from (Row(name, "PostgreSQL", skipped="needs PostgreSQL: apt-get install postgresql") for name in wanted)
        return
    if "pg-accept" in wanted:
        with ExitStack() as stack:  # to a port where nobody listens: the backend rests
            casts = _casts(stack, _OUT.format(port=free_port()))
            rates, costs = _measured({name: _accepting(cast) for name, cast in casts.items()}, casts, _ACCEPTED, effort)
        yield from _rows("pg-accept", "accept 1 KiB", rates, costs)
    if "pg-relay" in wanted:
        with ExitStack() as stack:
            sink = Sink(stack.enter_context(scratch()) / "sink.log", stack)
            casts = _casts(stack, _OUT.format(port=sink.port))
            rates, costs = _measured({name: _relaying(cast) for name, cast in casts.items()}, casts, _RELAYED, effort)
        yield from _rows("pg-relay", "SMTP -> SMTP 1 KiB", rates, costs)


def _casts(stack: ExitStack, config: str) -> dict[str, list[Gateway]]:
    """A gateway with its file, and of each number of instances those, each number on a database of its own."""
    disk, server = stack.enter_context(scratch()), stack.enter_context(postgres_kit.cluster())
    casts = {"SQLite": [stack.enter_context(gateway(disk / "sqlite", config))]}
    for count in _COUNTS:
        server.create(f"of{count}")
        key, first, made = os.urandom(32), disk / f"pg{count}-0", list[Gateway]()
        for n in range(count):
            state = disk / f"pg{count}-{n}" / "state"
            state.mkdir(mode=0o700, parents=True)
            shared = {"spool.key": key} | ({"token.key": (first / "state/token.key").read_bytes()} if n else {})
            for name, data in shared.items():
                (state / name).write_bytes(data)
                (state / name).chmod(0o600)
            shown = config + _SPOOL.format(url=server.url(f"of{count}"), n=n)
            made.append(stack.enter_context(gateway(state.parent, shown, made=True)))
        casts[f"PostgreSQL x{count}"] = made
    return casts


def _handed_in(cast: list[Gateway], count: int) -> None:
    with ThreadPoolExecutor(len(cast)) as pool:
        each, sessions = count // len(cast), SESSIONS // len(cast)
        list(pool.map(lambda one: smtp_source(one.port, each, 1024, sessions=sessions), cast))


def _accepting(cast: list[Gateway]) -> Run:
    def one(count: int) -> float:
        began = time.monotonic()
        _handed_in(cast, count)
        return count / (time.monotonic() - began)

    return one


def _relaying(cast: list[Gateway]) -> Run:
    def one(count: int) -> float:
        known, count = sum(map(sent, cast)), count // len(cast) * len(cast)
        began = time.monotonic()
        _handed_in(cast, count)
        wait_until(lambda: sum(map(sent, cast)) >= known + count, "the last delivery", 0.02)
        return count / (time.monotonic() - began)

    return one


def _measured(
    runs: dict[str, Run], casts: dict[str, list[Gateway]], count: int, effort: Effort
) -> tuple[dict[str, float], dict[str, float]]:
    """Messages a second, and microseconds of the processor for each, of the gateways alone."""
    before = {name: _burnt(cast) for name, cast in casts.items()}
    rates = race(runs, count, effort)
    messages = effort.of(count) * (effort.rounds + 1)
    return rates, {name: (_burnt(cast) - before[name]) / messages * 1e6 for name, cast in casts.items()}


def _burnt(cast: list[Gateway]) -> float:
    """Seconds of all threads (proc_pid_schedstat(5))."""
    threads = (thread for one in cast for thread in Path(f"/proc/{pid(one)}/task").iterdir())
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def _rows(name: str, what: str, rates: dict[str, float], costs: dict[str, float]) -> Iterator[Row]:
    base = rates["SQLite"]
    for cast, rate in rates.items():
        if cast != "SQLite":
            cost = f"CPU {costs[cast]:.0f} : {costs['SQLite']:.0f} us"
            yield Row(name, f"{what}: {cast} : SQLite ({cost})", f"{rate:.0f}/s", f"{base:.0f}/s", rate / base)
