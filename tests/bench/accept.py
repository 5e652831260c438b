"""Rows 1 to 3: durable accept, against a Postfix that only accepts and a stock aiosmtpd that forgets."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.bench.kit import (
    NO_POSTFIX,
    Effort,
    Run,
    gateway,
    has_postfix,
    paused,
    race,
    scratch,
    smtp_source,
    started,
    stored,
)
from tests.bench.postfix import postfix
from tests.bench.table import Row
from tests.flow.kit import free_port


@dataclass(frozen=True, slots=True)
class _Sort:
    """A row for each rival that has a goal."""

    name: str
    what: str
    size: int
    count: int
    goals: dict[str, float]
    kept: bool = True


_SORTS = (
    _Sort("accept-1k", "accept 1 KiB, 50 kept sessions", 1024, 5000, {"Postfix": 4.0, "stock aiosmtpd": 2.5}),
    _Sort("accept-each", "accept 1 KiB, one per connection", 1024, 3000, {"Postfix": 1.8}, kept=False),
    _Sort("accept-10k", "accept 10 KiB, 50 kept sessions", 10_240, 3000, {"stock aiosmtpd": 3.0}),
    _Sort("accept-100k", "accept 100 KiB, 50 kept sessions", 102_400, 1000, {"Postfix": 1.5}),
)
NAMES = tuple(sort.name for sort in _SORTS)


def run(wanted: set[str], effort: Effort) -> Iterator[Row]:
    with ExitStack() as stack:
        disk = stack.enter_context(scratch())
        ours = stack.enter_context(gateway(disk / "gateway"))
        paused(ours, "box")
        theirs = stack.enter_context(postfix(disk / "postfix")) if has_postfix() else None
        stock = stack.enter_context(aiosmtpd())

        def accepted(port: int, sort: _Sort, kept: Callable[[], int] | None = None) -> Run:
            def one(count: int) -> float:
                before = kept() if kept else 0
                rate = count / smtp_source(port, count, sort.size, kept=sort.kept)
                if kept and kept() - before != count:
                    raise AssertionError("not all that was accepted is stored")
                return rate

            return one

        for sort in _SORTS:
            if sort.name not in wanted:
                continue
            runs = {"ours": accepted(ours.port, sort, lambda: stored(ours))}
            if "stock aiosmtpd" in sort.goals:
                runs["stock aiosmtpd"] = accepted(stock, sort)
            if "Postfix" in sort.goals and theirs is not None:
                runs["Postfix"] = accepted(theirs.port, sort, theirs.take_away)
            found = race(runs, sort.count, effort)
            for rival, goal in sort.goals.items():
                if rival not in found:
                    yield Row(sort.name, f"{sort.what} : {rival}", f"{found['ours']:.0f}/s", skipped=NO_POSTFIX)
                    continue
                us, them = found["ours"], found[rival]
                yield Row(sort.name, f"{sort.what} : {rival}", f"{us:.0f}/s", f"{them:.0f}/s", us / them, goal)


@contextmanager
def aiosmtpd() -> Iterator[int]:
    """The port of a stock one, that takes and forgets."""
    port = free_port()
    sink = ["-m", "aiosmtpd", "-n", "-c", "aiosmtpd.handlers.Sink", "-l", f"127.0.0.1:{port}"]
    with started([sys.executable, *sink], port):
        yield port
