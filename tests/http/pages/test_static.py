"""What the pages are made of: templates that trust nothing, and files that stay small."""

from __future__ import annotations

from pathlib import Path

import pytest


def test_templates_trust_nothing() -> None:
    """No template says that something is safe; values of strangers are in no attribute that the script reads."""
    folder = Path(__file__).parents[3] / "gateway/http/pages"
    for path in folder.rglob("*.html"):
        text = path.read_text()
        assert "|safe" not in text.replace(" ", ""), path
        assert "autoescape" not in text, path
    assert "innerHTML" not in (folder / "static/pages.js").read_text()
    assert "eval(" not in (folder / "static/pages.js").read_text()


@pytest.mark.parametrize(("name", "most", "lines"), [("pages.css", 22_000, 1000), ("pages.js", 8_000, 150)])
def test_what_is_sent_along_is_small(name: str, most: int, lines: int) -> None:
    text = (Path(__file__).parents[3] / "gateway/http/pages/static" / name).read_text()
    assert len(text.encode()) <= most
    assert len(text.splitlines()) <= lines
