"""``python -m tests.bench [accept] [relay] [claim] [fsync]``: the goals of performance.md that need whole processes.

Without a name all are listed and run. Features root, Postfix (with smtp-source and smtp-sink) and strace. The machine
should have nothing else to do: Postfix has many processes to be given a share of it, the gateway has one.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys

ROWS = ("accept", "relay", "claim", "fsync")
TOOLS = ("postfix", "smtp-source", "smtp-sink", "strace")


def main(names: list[str]) -> None:
    if unknown := set(names) - set(ROWS):
        sys.exit(f"no bench {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    missing = [tool for tool in TOOLS if shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if missing or os.getuid():
        sys.exit(f"needs {', '.join(missing)} (apt-get install postfix strace)" if missing else "needs to be root")
    benches = {name: importlib.import_module(f"tests.bench.{name}") for name in names or ROWS}
    for name, bench in benches.items():
        print(f"{name:8} {(bench.__doc__ or '').splitlines()[0]}")
    for bench in benches.values():
        bench.main()


if __name__ == "__main__":
    main(sys.argv[1:])
