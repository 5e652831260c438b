"""Row 7: fdatasync and fsync calls per message at 50 sessions, counted by strace from the start of the process on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench.kit import Sink, gateway, paused, scratch, smtp_source, stored, verdict, wait_until
from tests.bench.relay import config, relayed, sent
from tests.flow.kit import Gateway

COUNT = 5000
GOAL = 0.1
_CALLS = ("fdatasync", "fsync")


@contextmanager
def traced(folder: Path, settings: str = "") -> Iterator[tuple[Gateway, Path]]:
    """A gateway under strace, and the file that holds the counts once it has ended."""
    counts = folder.with_name(folder.name + ".strace")
    # -D: the gateway itself is our child. --seccomp-bpf: only the counted calls cost anything.
    prefix = ("strace", "-D", "-f", "--seccomp-bpf", "-c", "-o", str(counts), "-e", f"trace={','.join(_CALLS)}")
    with gateway(folder, settings, prefix=prefix) as service:
        yield service, counts
    wait_until(lambda: counts.exists() and "total" in counts.read_text(), "the counts of strace")


def calls(counts: Path) -> int:
    """From lines of: % time, seconds, usecs/call, calls, [errors,] name."""
    lines = [line.split() for line in counts.read_text().splitlines()]
    return sum(int(words[3]) for words in lines if words and words[-1] in _CALLS)


def main() -> None:
    with ExitStack() as stack:
        disk = stack.enter_context(scratch())
        with traced(disk / "accept") as (ours, counts):
            paused(ours, "box")
            rate = COUNT / smtp_source(ours.port, COUNT, 1024)
            if stored(ours) != COUNT:
                raise AssertionError("not all are stored")
        print(f"\nfsync per message ({rate:.0f}/s under strace)")
        verdict("accept only", calls(counts) / COUNT, GOAL, at_least=False)
        sink = Sink(disk / "sink.log", stack)
        with traced(disk / "relay", config(sink)) as (ours, counts):
            rate = relayed(ours.port, sink, 1024, lambda: sent(ours), COUNT)
        verdict(f"accept, send and settle ({rate:.0f}/s)", calls(counts) / COUNT, GOAL, at_least=False)
