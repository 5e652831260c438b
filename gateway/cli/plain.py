"""Plain text for people: aligned tables, times in UTC, sizes; and JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any

import click

from gateway.visible import written_out


def say(text: str = "", *, err: bool = False) -> None:
    """Print. What strangers wrote (file names, answers) must not steer the terminal: control characters are shown."""
    click.echo(written_out(text, keep="\n"), err=err)


def show_json(value: Any) -> None:
    say(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def visible(text: str) -> str:
    """As ``say`` would print it."""
    return written_out(text, keep="")


def one_line(text: str) -> str:
    return " ".join(text.split())


def table(header: Sequence[str], rows: Iterable[Sequence[object]], below: Sequence[str] = ()) -> None:
    """Columns aligned with spaces; the last one is as wide as it likes. ``below``: a line under each row, or ""."""
    lines = [tuple(header), *(tuple(" ".join(str(cell).split()) for cell in row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line, more in zip_longest(lines, ("", *below), fillvalue=""):
        say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        if more:
            say(f"  {more}")


def now() -> datetime:
    from gateway.clock import SystemClock

    return SystemClock().now()


def pause(seconds: float) -> None:
    """KeyboardInterrupt ends it."""
    import asyncio

    from gateway.clock import SystemClock

    asyncio.run(SystemClock().sleep(seconds))


def moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


def stamp(when: datetime | None) -> str:
    """2026-11-20 10:15:00Z"""
    return f"{when:%Y-%m-%d %H:%M:%SZ}" if when else "-"


def span(seconds: float) -> str:
    """About how long, in one unit: 40 s, 4 min, 3 h, 2 d."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def relative(when: datetime | None) -> str:
    """in 4 min, 4 min ago, or - for never."""
    if when is None:
        return "-"
    seconds = (when - now()).total_seconds()
    return f"in {span(seconds)}" if seconds > 0 else f"{span(-seconds)} ago"


def size(number: int) -> str:
    for unit, scale in (("MB", 1_000_000), ("kB", 1000)):
        if number >= scale:
            return f"{number / scale:.1f} {unit}"
    return f"{number} B"
