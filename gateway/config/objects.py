"""Errors and warnings about settings as objects, for programs: where, about what, in which words, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from gateway.config.document import Line

_BEGINS = (  # what to do begins so, in the words of these rooms
    "did you mean|write|allowed:|give|make|name|quote|begin|type|put|save|set|replace|chmod|it belongs|take|use|indent"
    "|stop|correct|add|look|install|have|so make|for others|needs?|usermod|groupadd|gateway"
)
_FIX = re.compile(rf"(?:[,;:]|\?) (?=(?:{_BEGINS})(?: |$))")


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """``file`` is that, a variable or "command line"; line and column are 0, key and fix "", where there is none."""

    file: str
    line: int
    column: int
    key: str
    text: str
    fix: str


def remarks(lines: Iterable[str]) -> list[Remark]:
    return [_remark(line) for line in lines]


def objects(lines: Iterable[str]) -> list[dict[str, str | int]]:
    """The same as plain values."""
    return [asdict(one) for one in remarks(lines)]


def _remark(line: str) -> Remark:
    place, key, text = (line.place, line.key, line.text) if isinstance(line, Line) else (None, "", line)
    found = list(_FIX.finditer(text))
    cut = found[0] if found else None
    what, fix = (text[: cut.start()].rstrip("?"), text[cut.end() :]) if cut else (text, text * text.startswith("must "))
    return Remark(
        file=place.source if place else "",
        line=place.line if place else 0,
        column=place.column if place else 0,
        key=key,
        text=what,
        fix=fix,
    )
