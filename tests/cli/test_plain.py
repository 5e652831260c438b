"""Text for people: times, sizes, tables, the life line, and nothing that steers a terminal."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from gateway.cli import plain


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (59, "59 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7199, "120 min"),
        (7200, "2 h"),
        (432000, "5 d"),
    ],
)
def test_span(seconds: float, text: str) -> None:
    """One unit, fine enough to be useful."""
    assert plain.span(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (35_000_000, "35.0 MB")])
def test_size(number: int, text: str) -> None:
    """Decimal units, as in the configuration."""
    assert plain.size(number) == text


def test_relative() -> None:
    """Past, future, never."""
    assert plain.relative(None) == "-"
    assert plain.relative(plain.now() + timedelta(hours=3, seconds=5)) == "in 3 h"
    assert plain.relative(plain.now() - timedelta(minutes=4)) == "4 min ago"


@pytest.mark.parametrize("text", ["\x1b]0;owned\x07", "\x9b2J", "\u202e", "\r"])
def test_control_characters_are_shown(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """A file name or an answer from outside cannot move the cursor; JSON stays JSON."""
    plain.say(f"name{text}")
    plain.show_json({"name": text})
    said, _, printed = capsys.readouterr().out.partition("\n")
    assert text not in said + printed
    assert json.loads(printed)["name"] == text


def test_table_with_lines_between(capsys: pytest.CaptureFixture[str]) -> None:
    """What belongs to one row stands under it."""
    plain.table(("A", "B"), [("x", "y"), ("z", "")], ["to do: this", ""])
    assert capsys.readouterr().out == "A  B\nx  y\n  to do: this\nz\n"


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Aligned columns, one line for each row whatever stands in it."""
    plain.table(("A", "LONG"), [("xx", "y\nz"), (1, "")])
    assert capsys.readouterr().out == "A   LONG\nxx  y z\n1\n"
