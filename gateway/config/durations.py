"""Durations and times as an operator writes them. Standard library only: commands need nothing else of the settings."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta
from typing import Any

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_duration(value: Any) -> timedelta:
    """``30s 5m 4h 5d 2w`` or 0; ``1h30m`` adds up. Raises ValueError in words for the operator."""
    if isinstance(value, timedelta):
        return value
    text = str(value).strip().lower()
    if text.isdigit() and text.strip("0"):
        raise ValueError(f'"{value}" has no unit, write for example {text}s for seconds or {text}m for minutes')
    if not re.fullmatch("0|([0-9]{1,9}[smhdw])+", text):
        raise ValueError(f'"{value}" is not a duration, write for example 30s, 5m, 4h or 5d')
    seconds = sum(int(number) * SECONDS[unit] for number, unit in re.findall("([0-9]+)([smhdw])", text))
    if seconds > 3660 * 86400:
        raise ValueError(f'"{value}" is more than ten years')
    return timedelta(seconds=seconds)


def format_duration(value: timedelta) -> str:
    """The largest unit that leaves nothing over: ``90m``, ``2h``, ``0``."""
    seconds = int(value.total_seconds())
    for unit in ("d", "h", "m"):
        if seconds and seconds % SECONDS[unit] == 0:
            return f"{seconds // SECONDS[unit]}{unit}"
    return f"{seconds}s" if seconds else "0"


def parse_moment(text: str, now: datetime) -> datetime:
    """A time, as ``2026-11-20``, ``2026-11-20T10:15`` or ``10:15`` (the last one), or an age: ``2h`` is that long ago.

    Times without a zone are UTC, as they are shown. Raises ValueError in words for the operator.
    """
    given = text.strip()
    if re.fullmatch("([0-9]+[smhdwSMHDW])+", given):
        return now - parse_duration(given)
    try:
        if re.fullmatch("[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?", given):
            found = datetime.combine(now.date(), time.fromisoformat(given if given[2] == ":" else f"0{given}"), UTC)
            return found if found <= now else found - timedelta(days=1)
        found = datetime.fromisoformat(given)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f'"{text}" is neither a time, as 2026-11-20T10:15Z or 10:15, nor an age, as 2h')
