"""Durations as an operator writes them. Standard library only: commands need this and nothing else of the settings."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_duration(value: Any) -> timedelta:
    """``30s 5m 4h 5d 2w`` or 0; ``1h30m`` adds up. Raises ValueError in words for the operator."""
    if isinstance(value, timedelta):
        return value
    text = str(value).strip().lower()
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
