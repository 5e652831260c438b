"""What the packaging tests read: the repository's own files, the fenced blocks and tables of its Markdown."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, its text without indentation, and the HTML comment right above it, if any."""

    page: str
    line: int
    language: str
    text: str
    mark: str


def blocks(page: Path, language: str = "") -> list[Block]:
    found: list[Block] = []
    lines: list[str] = []
    mark, fence, start, kind = "", "", 0, ""
    for number, line in enumerate(page.read_text().splitlines(), 1):
        opened = re.match(r"^( *)```(\w*)$", line)
        if not fence and opened:
            fence, kind, start, lines = opened[1] + "```", opened[2], number, []
        elif fence and line.rstrip() == fence:
            indent = len(fence) - 3
            text = "".join(f"{inside[indent:]}\n" for inside in lines)
            found.append(Block(page.name, start, kind, text, mark))
            fence = mark = ""
        elif fence:
            lines.append(line)
        else:
            mark = line.strip() if line.startswith("<!--") else ""
    assert not fence, f"{page.name}:{start}: fenced block without an end"
    return [block for block in found if not language or block.language == language]


def rows(page: Path, *heads: str) -> list[list[str]]:
    """The cells of every table row of the page whose header row begins with ``heads``."""
    found: list[list[str]] = []
    inside = False
    for line in page.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            inside = False
        elif cells[: len(heads)] == list(heads):
            inside = True
        elif inside and set(line) - set("|- "):
            found.append(cells)
    return found


def program(name: str) -> str | None:
    """A program beside this Python (a checker of the dev extra) or on the path."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)
