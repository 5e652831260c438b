"""``python -m tests.bench [ROW...] [--quick]``: one table of all goals, ours and others side by side.

``python -m tests.bench cpu`` shows microseconds of the processor by thread instead. Postfix (as root), strace and gcc
are wanted for some rows, which are skipped without. The machine should have nothing else to do: Postfix has many
processes to be given a share of it, the gateway has one.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from types import ModuleType

from gateway.config.models import Settings
from tests.bench.kit import NO_POSTFIX, Effort
from tests.bench.machine import described, load
from tests.bench.table import Row, shown

BENCHES = ("accept", "relay", "api", "claim", "fsync", "spool", "memory", "room", "latency", "start", "instances")


def main() -> None:
    benches = [importlib.import_module(f"tests.bench.{name}") for name in BENCHES]
    known = [name for bench in benches for name in bench.NAMES]
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(known)}; or cpu. Default: every row.")
    parser.add_argument(
        "--quick", action="store_true", help="one short round each: whether it runs, no figures to quote"
    )
    given = parser.parse_args()
    if unknown := set(given.rows) - {*known, "cpu"}:
        parser.error(f"no row {', '.join(sorted(unknown))}")
    os.environ["PATH"] += ":/usr/sbin"  # where others than root do not look
    if shutil.which("smtp-source") is None:
        sys.exit(NO_POSTFIX)
    effort = Effort(rounds=1, share=0.2) if given.quick else Effort()
    print(described(), f"event_loop: {Settings.model_fields['event_loop'].default}, as shipped", sep="\n", flush=True)
    if "cpu" in given.rows:
        importlib.import_module("tests.bench.cpu").main(effort)
        return
    began = time.monotonic()
    rows = [row for bench in benches for row in _found(bench, set(given.rows) or set(known), effort)]
    print(f"\n{shown(rows)}\n\n{time.monotonic() - began:.0f} s; load at the end: {load()}")


def _found(bench: ModuleType, wanted: set[str], effort: Effort) -> Iterator[Row]:
    wanted = wanted & set(bench.NAMES)
    for row in bench.run(wanted, effort) if wanted else ():
        print(f"  {'  '.join(filter(None, row.cells()))}", file=sys.stderr, flush=True)
        yield row


if __name__ == "__main__":
    main()
