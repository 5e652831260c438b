"""What the message tests share: real messages, a trace, and a way to count work without a clock."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from gateway.message import Trace, normalise_newlines

NOW = datetime(2026, 11, 20, 11, 23, 51, tzinfo=UTC)
TRACE = Trace(
    queue_id="01KQ2M8V3N7XJ",
    hostname="relay.example.com",
    helo="printer.example.net",
    peer="192.0.2.17",
    protocol="ESMTPSA",
    sender="scan@example.com",
    recipients=("bob@example.org",),
    received_at=NOW,
    message_id="<01KQ2M8V3N7XJ@relay.example.com>",
    tls="TLSv1.3 TLS_AES_256_GCM_SHA384",
)


def cpython_messages() -> list[Path]:
    """CPython's own test messages, where its test package is installed."""
    return sorted(Path(sysconfig.get_path("stdlib"), "test", "test_email", "data").glob("msg_*.txt"))


def canonical(path: Path) -> bytes:
    return normalise_newlines(path.read_bytes())


def python_calls(work: Callable[[], object]) -> int:
    """How many Python and C calls ``work`` makes: a measure that no other process disturbs."""
    count = 0

    def tick(*_: object) -> None:
        nonlocal count
        count += 1

    sys.setprofile(tick)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count
