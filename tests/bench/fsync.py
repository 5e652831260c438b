"""Row 7: fdatasync and fsync calls per message at 50 sessions, counted by strace from the start of the process on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench.kit import Effort, Sink, gateway, paused, scratch, smtp_source, stored, wait_until
from tests.bench.relay import config, relayed, sent
from tests.bench.table import Row
from tests.flow.kit import Gateway

NAMES = ("fsync-accept", "fsync-relay")
_COUNT = 4000
_GOAL = 0.1
_CALLS = ("fdatasync", "fsync")


def run(wanted: set[str], effort: Effort) -> Iterator[Row]:
    if shutil.which("strace") is None:
        yield from (Row(name, "fdatasync per message", skipped="needs strace") for name in NAMES if name in wanted)
        return
    count = effort.of(_COUNT)
    with ExitStack() as stack:
        disk = stack.enter_context(scratch())
        if "fsync-accept" in wanted:
            with _traced(disk / "accept") as (ours, counts):
                paused(ours, "box")
                smtp_source(ours.port, count, 1024)
                if stored(ours) != count:
                    raise AssertionError("not all are stored")
            yield _row("fsync-accept", "fdatasync a message, accepted only", counts, count)
        if "fsync-relay" in wanted:
            sink = Sink(disk / "sink.log", stack)
            with _traced(disk / "relay", config(sink)) as (ours, counts):
                relayed(ours.port, sink, 1024, lambda: sent(ours))(count)
            yield _row("fsync-relay", "fdatasync a message, accepted, sent and settled", counts, count)


def _row(name: str, what: str, counts: Path, count: int) -> Row:
    calls = _calls(counts)
    return Row(name, what, f"{calls} for {count}", "", calls / count, _GOAL, at_least=False)


@contextmanager
def _traced(folder: Path, settings: str = "") -> Iterator[tuple[Gateway, Path]]:
    """A gateway under strace, and the file that holds the counts once it has ended."""
    counts = folder.with_name(folder.name + ".strace")
    # -D: the gateway itself is our child. --seccomp-bpf: only the counted calls cost anything.
    prefix = ("strace", "-D", "-f", "--seccomp-bpf", "-c", "-o", str(counts), "-e", f"trace={','.join(_CALLS)}")
    with gateway(folder, settings, prefix=prefix) as service:
        yield service, counts
    wait_until(lambda: counts.exists() and "total" in counts.read_text(), "the counts of strace")


def _calls(counts: Path) -> int:
    """From lines of: % time, seconds, usecs/call, calls, [errors,] name."""
    lines = [line.split() for line in counts.read_text().splitlines()]
    return sum(int(words[3]) for words in lines if words and words[-1] in _CALLS)
