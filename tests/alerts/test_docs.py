"""docs/alerts.md explains every kind of alert, and no other."""

from __future__ import annotations

from gateway.health.problem import KINDS
from tests.packaging.kit import ROOT, rows


def test_every_kind_is_explained() -> None:
    """A kind that nobody can look up helps nobody at night."""
    assert {cells[0].strip("`") for cells in rows(ROOT / "docs" / "alerts.md", "kind", "when")} == set(KINDS)
