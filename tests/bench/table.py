"""What the benches find, as rows of one table."""

from __future__ import annotations

from dataclasses import dataclass

_HEAD = ("row", "what", "ours", "theirs", "figure", "goal", "")


@dataclass(frozen=True, slots=True)
class Row:
    """``ours`` and ``theirs`` as they are shown; ``figure``, mostly their ratio, is to reach ``goal``, or stay below.

    ``skipped``: why there is none.
    """

    name: str
    what: str
    ours: str = ""
    theirs: str = ""
    figure: float | None = None
    goal: float | None = None
    at_least: bool = True
    skipped: str = ""

    @property
    def missed(self) -> bool:
        if self.figure is None or self.goal is None:
            return False
        return self.figure < self.goal if self.at_least else self.figure > self.goal

    def cells(self) -> tuple[str, ...]:
        figure = "" if self.figure is None else f"{self.figure:.3g}"
        goal = "" if self.goal is None else f"{'>=' if self.at_least else '<='} {self.goal:g}"
        said = f"skipped: {self.skipped}" if self.skipped else "" if not goal else "MISSED" if self.missed else "met"
        return self.name, self.what, self.ours, self.theirs, figure, goal, said


def shown(rows: list[Row]) -> str:
    """As a table of Markdown, so that it can be pasted."""
    lines = [_HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(_HEAD))]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    return "\n".join([text[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *text[1:]])
