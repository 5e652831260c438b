"""Telling systemd how we are: READY, RELOADING, STOPPING, WATCHDOG (sd_notify(3)). Silent where there is no systemd."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def notify(*lines: str) -> None:
    """Send one datagram to $NOTIFY_SOCKET; ``@name`` is an abstract socket. Never raises."""
    if address := os.environ.get("NOTIFY_SOCKET", ""):
        abstract = address.startswith("@")
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as channel:
            channel.sendto("\n".join(lines).encode(), f"\0{address[1:]}" if abstract else address)


def listens() -> bool:
    """Whether there is a systemd that is told."""
    return bool(os.environ.get("NOTIFY_SOCKET"))


def watchdog_interval() -> float | None:
    """Half of what systemd waits for a sign of life, in seconds; None when it does not watch."""
    micros = os.environ.get("WATCHDOG_USEC", "")
    mine = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(micros) / 2_000_000 if micros.isdigit() and mine else None
