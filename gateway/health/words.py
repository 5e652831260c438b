"""Words that the command line, the pages and the alerts share: states of backends, numbers, spans of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

# A backend's state in data, and as a person reads it.
STATES: Mapping[str, str] = {
    "working": "Working",
    "slowed_down": "Slowed down",
    "paused": "Paused",
    "stopped": "Stopped",
    "": "Not running",
}
# Why no new mail is taken, in data (gateway.spool.space), and as a person reads it.
SHUT: Mapping[str, str] = {
    "disk": "the disk is full",
    "quota": "the quota of the service's user is used up",
    "database": "the disk of the database is full",
    "away": "the database does not answer",
    "spool_size": "the spool is as large as limits.spool_size",
    "missing": "spool.db, or a file in bodies/, was removed",
    "moved": "spool.db, or bodies/, was moved away",
    "replaced": "another file stands in the place of spool.db, or of one in bodies/",
    "log": "spool.db-wal was removed",
    "silent": "the disk does not answer",
}
_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60))


def state_word(state: str, who: str = "") -> str:
    """Working, Slowed down, Stopped, or Paused by whom, where that is known."""
    return f"Paused by {who}" if state == "paused" and who else STATES.get(state, state)


def number(count: int, noun: str) -> str:
    """1 message, 214 messages, 48,000 messages"""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def lasting(span: timedelta) -> str:
    """About how long, in words: 40 seconds, 44 minutes, 1 hour, 3 days. Nothing is shorter than 0 seconds."""
    seconds = max(span.total_seconds(), 0.0)
    for unit, length in _UNITS:
        if seconds >= length:
            return number(int(seconds // length), unit)
    return number(int(seconds), "second")


def octets(count: int) -> str:
    """1.2 GB, 340 MB, 12 kB"""
    for unit, scale in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 1000)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}" if count < 10 * scale else f"{count / scale:.0f} {unit}"
    return f"{count} B"


def unlike(name: str, by: str, read: Sequence[str], read_here: Sequence[str]) -> str:
    """What to do where the instance ``by``, which works a backend, does not have what the one that was asked has."""
    again = f"then: gateway backend fix {name}"
    if only := [key for key in read_here if key not in read]:
        what = ", ".join(only)
        return f"{what} was renewed on the machine that you asked, not on that of {by}: copy its file there, {again}"
    return (
        f"settings or secrets of it are not the same on the machine that you asked and at {by}: make them so, {again}"
    )
