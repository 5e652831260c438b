"""``python -m tests.bench cpu``: microseconds of the processor for each message, by thread of a real process.

What a machine does beside it hardly counts here, so this is the figure for comparing two versions.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.bench.kit import Effort, Sink, gateway, paused, pid, scratch, sent, smtp_source, wait_until
from tests.bench.relay import config
from tests.flow.kit import Gateway

_KINDS = {  # octets, messages of a run, one for each connection
    "accept 1 KiB": (1024, 4000, True),
    "accept 1 KiB, one per connection": (1024, 2500, False),
    "accept 10 KiB": (10_240, 2500, True),
    "accept 100 KiB": (102_400, 600, True),
}
_RELAYED = {"SMTP -> SMTP 1 KiB": (1024, 2500), "SMTP -> SMTP 10 KiB": (10_240, 1500)}


def main(effort: Effort) -> None:
    print("CPU microseconds a message: all threads, then each by itself, the loop's first; medians")
    with ExitStack() as stack:
        disk = stack.enter_context(scratch())
        ours = stack.enter_context(gateway(disk / "accept"))
        paused(ours, "box")
        for what, (size, count, kept) in _KINDS.items():

            def accept(number: int, size: int = size, kept: bool = kept) -> None:
                smtp_source(ours.port, number, size, kept=kept)

            _show(what, ours, accept, count, effort)
        near = Sink(disk / "sink.log", stack)
        relay = stack.enter_context(gateway(disk / "relay", config(near)))
        for what, (size, count) in _RELAYED.items():

            def through(number: int, size: int = size) -> None:
                known = sent(relay) + number
                smtp_source(relay.port, number, size)
                wait_until(lambda: sent(relay) >= known, "the record of the last delivery")

            _show(what, relay, through, count, effort)


def _show(what: str, service: Gateway, run: Callable[[int], None], count: int, effort: Effort) -> None:
    run(min(1000, count))
    found: list[dict[str, float]] = []
    for _ in range(effort.rounds):
        before = _burnt(service)
        run(effort.of(count))
        time.sleep(0.3)  # the log's thread comes last
        found.append({name: (now - before.get(name, 0)) / effort.of(count) for name, now in _burnt(service).items()})
    each = {name: statistics.median(one.get(name, 0.0) for one in found) for name in found[-1]}
    total = statistics.median(sum(one.values()) for one in found)
    threads = "  ".join(f"{each[name] * 1e6:.0f}" for name in sorted(each, key=int) if each[name] > 2e-6)
    print(f"  {what:34} {total * 1e6:6.0f}   {threads}", flush=True)


def _burnt(service: Gateway) -> dict[str, float]:
    """Seconds by thread id (proc_pid_schedstat(5)): the loop's is the lowest."""
    threads = Path(f"/proc/{pid(service)}/task").iterdir()
    return {one.name: int((one / "schedstat").read_text().split()[0]) / 1e9 for one in threads}
