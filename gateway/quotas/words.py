"""Rates and spans of time in words, for a reply of SMTP."""

from __future__ import annotations

from math import ceil, inf

from gateway.quota import Rate

_PERIODS = {1: "second", 60: "minute", 3600: "hour", 86400: "day"}


def spelled(what: str, rate: Rate) -> str:
    """30 messages a minute."""
    period = _PERIODS[int(rate.period.total_seconds())]
    words = what if rate.count != 1 else what.removesuffix("s")
    return f"{rate.count} {words} {'an' if period == 'hour' else 'a'} {period}"


def when(seconds: float) -> str:
    """Rounded up, so that whoever waits so long has waited long enough."""
    if seconds == inf:
        return "never for so many at once"
    for unit, word in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds > 2 * unit:
            return f"in {ceil(seconds / unit)} {word}s"
    return f"in {ceil(seconds)} second{'s' if ceil(seconds) != 1 else ''}"
