"""What a figure was measured on: interpreter, loop, SQLite, processors, load, disk."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import sys
import sysconfig
import time
from pathlib import Path

from tests.bench.kit import scratch


def described() -> str:
    """Lines of "name: value"."""
    return "\n".join((
        f"python: {platform.python_version()} ({platform.python_implementation()}, {_build()}), {sys.executable}",
        f"sqlite: {sqlite3.sqlite_version}; system: {platform.system()} {platform.release()} {platform.machine()}",
        f"processors: {os.cpu_count()}; load: {load()}; one fdatasync of 4 KiB in /var/tmp: {fdatasync() * 1e6:.0f} us",
    ))  # fmt: skip


def _build() -> str:
    """How the interpreter was optimised: without profiles it is 1.2 to 1.35 times slower."""
    said = sysconfig.get_config_var("CONFIG_ARGS") or ""
    lto = "with LTO" if "--with-lto" in said else "without LTO"
    if "--enable-optimizations" in said:
        return f"with PGO, {lto}"
    if Path(sys.executable).resolve().is_relative_to("/usr/bin"):
        return "the distribution's, which does not say how"
    return f"without PGO, which costs 1.2 to 1.35x; {lto}"


def load() -> str:
    return " ".join(f"{one:.1f}" for one in os.getloadavg())


def fdatasync() -> float:
    """Seconds, the median."""
    took = []
    with scratch() as disk:
        file = os.open(Path(disk, "probe"), os.O_WRONLY | os.O_CREAT)
        try:
            for _ in range(200):
                os.write(file, bytes(4096))
                began = time.perf_counter()
                os.fdatasync(file)
                took.append(time.perf_counter() - began)
        finally:
            os.close(file)
    return statistics.median(took)
