"""Row 4: from SMTP to SMTP, all delivered and recorded as such, against Postfix."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from tests.bench.kit import (
    NO_POSTFIX,
    Effort,
    Run,
    Sink,
    gateway,
    has_postfix,
    race,
    scratch,
    sent,
    smtp_source,
    wait_until,
)
from tests.bench.postfix import postfix
from tests.bench.table import Row

_SORTS = {"relay-1k": (1024, 4.0), "relay-10k": (10_240, 2.5)}
NAMES = tuple(_SORTS)
_COUNT = 2500
_CONFIG = "backends:\n  out: {{type: smtp, host: 127.0.0.1, port: {port}, tls: none}}\n"


def config(sink: Sink) -> str:
    return _CONFIG.format(port=sink.port)


def relayed(port: int, sink: Sink, size: int, recorded: Callable[[], int]) -> Run:
    """Messages a second until the sink has them all; then the sender's own record must say so, too."""

    def one(count: int) -> float:
        taken, known = sink.taken() + count, recorded() + count
        began = time.monotonic()
        smtp_source(port, count, size)
        wait_until(lambda: sink.taken() >= taken, "the sink")
        seconds = time.monotonic() - began
        wait_until(lambda: recorded() >= known, "the record of the last delivery")
        if (sink.taken(), recorded()) != (taken, known):
            raise AssertionError("something was sent twice")
        return count / seconds

    return one


def run(wanted: set[str], effort: Effort) -> Iterator[Row]:
    if not has_postfix():
        yield from (Row(name, "SMTP -> SMTP", skipped=NO_POSTFIX) for name in NAMES if name in wanted)
        return
    with ExitStack() as stack:
        disk = stack.enter_context(scratch())
        near, far = Sink(disk / "sink-gateway.log", stack), Sink(disk / "sink-postfix.log", stack)
        ours = stack.enter_context(gateway(disk / "gateway", config(near)))
        theirs = stack.enter_context(postfix(disk / "postfix", relayhost=far.port))
        for name, (size, goal) in _SORTS.items():
            if name in wanted:
                runs = {
                    "ours": relayed(ours.port, near, size, lambda: sent(ours)),
                    "Postfix": relayed(theirs.port, far, size, lambda: theirs.logged("status=sent")),
                }
                found = race(runs, _COUNT, effort)
                us, them = found["ours"], found["Postfix"]
                what = f"SMTP -> SMTP {size // 1024} KiB, all delivered : Postfix"
                yield Row(name, what, f"{us:.0f}/s", f"{them:.0f}/s", us / them, goal)
        if deferred := theirs.logged("status=deferred"):
            raise AssertionError(f"Postfix deferred {deferred} times: its figure counts for nothing")
