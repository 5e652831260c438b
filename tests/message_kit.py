"""What the message tests share: real messages, and a way to count work without a clock."""

from __future__ import annotations

import cProfile
import sysconfig
from collections.abc import Callable
from pathlib import Path

from gateway.message import normalise_newlines


def cpython_messages() -> list[Path]:
    """CPython's own test messages, where its test package is installed."""
    return sorted(Path(sysconfig.get_path("stdlib"), "test", "test_email", "data").glob("msg_*.txt"))


def canonical(path: Path) -> bytes:
    return normalise_newlines(path.read_bytes())


def python_calls(work: Callable[[], object]) -> int:
    """How many Python and C calls ``work`` makes, and returns: a measure that no other process disturbs."""
    profile = cProfile.Profile()
    profile.runcall(work)
    return 2 * sum(entry.callcount for entry in profile.getstats())
