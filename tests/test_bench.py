"""The benches say plainly what was met, and docs/performance.md shows every row that they have and no other."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from tests.bench.__main__ import BENCHES
from tests.bench.table import Row, shown

PAGE = (Path(__file__).parent.parent / "docs/performance.md").read_text()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (Row("a", "", figure=4.0, goal=4.0), "met"),
        (Row("a", "", figure=3.99, goal=4.0), "MISSED"),
        (Row("a", "", figure=0.1, goal=0.1, at_least=False), "met"),
        (Row("a", "", figure=0.2, goal=0.1, at_least=False), "MISSED"),
        (Row("a", "", figure=0.2), ""),
        (Row("a", "", skipped="no Postfix"), "skipped: no Postfix"),
    ],
)
def test_a_row_says_whether_its_goal_was_met(row: Row, said: str) -> None:
    assert row.cells()[-1] == said
    assert shown([row]).splitlines()[2].rstrip(" |").endswith(said)


def test_the_page_has_every_row() -> None:
    """Half a table is never published: a row that was not measured would look as if it did not count."""
    names = {name for bench in BENCHES for name in importlib.import_module(f"tests.bench.{bench}").NAMES}
    table = PAGE.partition("<!-- figures -->")[2].partition("<!-- end of figures -->")[0]
    assert set(re.findall(r"^\| ([a-z]+-?\w*) ", table, re.MULTILINE)) - {"row"} == names
