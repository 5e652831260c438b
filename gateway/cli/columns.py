"""Tables in as much room as the terminal has: what is cut first, and what goes where even that is too much."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from shutil import get_terminal_size

import click

from gateway.cli.plain import one_line, say

wide_option = click.option("--wide", is_flag=True, help="Cut nothing off to fit the terminal.")


@dataclass(frozen=True, slots=True)
class Columns:
    """Their names. ``least`` are those that can be cut, and how far; ``gone`` those that go then, the first first."""

    names: Sequence[str]
    least: Mapping[str, int] = field(default_factory=dict)
    gone: Sequence[str] = ()

    def lines(self, rows: Iterable[Sequence[object]], width: int | None) -> Iterator[str]:
        """The header and a line for each row, no wider than that: the widest columns give way first. None: no cut."""
        cells = [tuple(one_line(str(cell)) for cell in row) for row in rows]
        columns = dict(zip(self.names, zip(self.names, *cells, strict=True), strict=True))
        widths = {name: max(map(len, column)) for name, column in columns.items()}
        while width is not None and sum(widths.values()) + 2 * (len(widths) - 1) > width:
            room = {name: widths[name] for name, least in self.least.items() if widths.get(name, 0) > least}
            if room:
                widths[max(room, key=lambda name: (widths[name], name))] -= 1
            elif gone := next((name for name in self.gone if name in widths), ""):
                del widths[gone]
            else:
                break
        for n in range(len(cells) + 1):
            yield "  ".join(cut(columns[name][n], size).ljust(size) for name, size in widths.items()).rstrip()

    def show(self, rows: Iterable[Sequence[object]], *, wide: bool, below: Sequence[str] = ()) -> None:
        """Print them. ``below``: a line under each row, or ""."""
        for line, more in zip_longest(self.lines(rows, None if wide else room()), ("", *below), fillvalue=""):
            say(line)
            if more:
                say(f"  {more}")


def cut(text: str, width: int | None) -> str:
    return text if width is None or len(text) <= width else f"{text[: max(0, width - 1)]}…"


def room() -> int | None:
    """Columns of the terminal (COLUMNS, if it is set); None where there is none, for a program reads it."""
    return get_terminal_size().columns if sys.stdout.isatty() else None
