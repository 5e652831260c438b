"""Rows 1 and 3: durable accept over 50 kept sessions, against accepting Postfix and forgetful aiosmtpd."""

from __future__ import annotations

import sys
from contextlib import ExitStack

from tests.bench.kit import SESSIONS, gateway, paused, race, scratch, smtp_source, started, stored
from tests.bench.postfix import postfix
from tests.flow.kit import free_port

COUNT = 5000


def main() -> None:
    with ExitStack() as stack:
        disk = stack.enter_context(scratch())
        ours = stack.enter_context(gateway(disk / "gateway"))
        paused(ours, "box")
        theirs = stack.enter_context(postfix(disk / "postfix"))
        stock = free_port()
        sink = ["-m", "aiosmtpd", "-n", "-c", "aiosmtpd.handlers.Sink", "-l", f"127.0.0.1:{stock}"]
        stack.enter_context(started([sys.executable, *sink], stock))

        def ourselves(size: int) -> float:
            before = stored(ours)
            rate = COUNT / smtp_source(ours.port, COUNT, size)
            expect(stored(ours) - before)
            return rate

        def postfix_accepts(size: int) -> float:
            rate = COUNT / smtp_source(theirs.port, COUNT, size)
            expect(theirs.take_away())
            return rate

        def aiosmtpd_forgets(size: int) -> float:
            return COUNT / smtp_source(stock, COUNT, size)

        goals = {1024: {"postfix": 4.0, "stock aiosmtpd": 2.5}, 10240: {"stock aiosmtpd": 3.0}}
        for size, goal in goals.items():
            runs = {
                "gateway": lambda size=size: ourselves(size),
                "postfix": lambda size=size: postfix_accepts(size),
                "stock aiosmtpd": lambda size=size: aiosmtpd_forgets(size),
            }
            race(f"accept, {size // 1024} KiB, {SESSIONS} kept sessions", runs, goal)


def expect(count: int) -> None:
    if count != COUNT:
        raise AssertionError(f"{count} messages stored of {COUNT} accepted")
