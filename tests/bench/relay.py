"""Row 4: from SMTP to SMTP, all delivered and recorded as such, against Postfix."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

from tests.bench.kit import SESSIONS, Sink, gateway, race, scratch, smtp_source, wait_until
from tests.bench.postfix import postfix
from tests.flow.kit import Gateway

COUNT = 3000
_CONFIG = "backends:\n  smart: {{type: smtp, host: 127.0.0.1, port: {port}, tls: none}}\n"


def config(sink: Sink) -> str:
    return _CONFIG.format(port=sink.port)


def sent(service: Gateway) -> int:
    """Recipients whose delivery the gateway has recorded."""
    name = 'gateway_deliveries_total{backend="smart",result="sent"} '
    return int(float(service.get("/metrics")[1].partition(name)[2].split()[0]))


def relayed(port: int, sink: Sink, size: int, recorded: Callable[[], int], count: int = COUNT) -> float:
    """Messages a second until the sink has them all; then the sender's own record must say so, too."""
    taken, known = sink.taken() + count, recorded() + count
    started = time.monotonic()
    smtp_source(port, count, size)
    wait_until(lambda: sink.taken() >= taken, "the sink")
    seconds = time.monotonic() - started
    wait_until(lambda: recorded() >= known, "the record of the last delivery")
    if (sink.taken(), recorded()) != (taken, known):
        raise AssertionError("something was sent twice")
    return count / seconds


def main() -> None:
    with ExitStack() as stack:
        disk = stack.enter_context(scratch())
        near, far = Sink(disk / "sink-gateway.log", stack), Sink(disk / "sink-postfix.log", stack)
        ours = stack.enter_context(gateway(disk / "gateway", config(near)))
        theirs = stack.enter_context(postfix(disk / "postfix", relayhost=far.port))

        for size, goal in ((1024, 4.0), (10240, 2.5)):
            runs = {
                "gateway": lambda size=size: relayed(ours.port, near, size, lambda: sent(ours)),
                "postfix": lambda size=size: relayed(theirs.port, far, size, lambda: theirs.logged("status=sent")),
            }
            race(f"relay SMTP to SMTP, {size // 1024} KiB, {SESSIONS} sessions", runs, {"postfix": goal})
        if deferred := theirs.logged("status=deferred"):
            raise AssertionError(f"Postfix deferred {deferred} times: its figure counts for nothing")
