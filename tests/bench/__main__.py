"""``python -m tests.bench [accept|relay|fsync|claim ...]``: the goals that can be measured, competitors alternating."""

from __future__ import annotations

import sys

from tests.bench import accept, fsync, relay, spool_bench

RUNS = {"accept": accept.main, "relay": relay.main, "fsync": fsync.main, "claim": spool_bench.main}


def main() -> None:
    chosen = sys.argv[1:] or list(RUNS)
    del sys.argv[1:]  # the benches have options of their own
    for name in chosen:
        RUNS[name]()


main()
