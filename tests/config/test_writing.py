"""Something put into a settings file: all else stays, to the comment; what cannot be exact is not done."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.document import ConfigError
from gateway.config.writing import (
    Inexact,
    block,
    data_of,
    flow,
    replace_file,
    scalar,
    with_entry,
    with_route,
    with_value,
)

NEW = {"type": "capture", "directory": "new"}
WHEN = datetime(2026, 12, 1, 5, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "backends:\n  x:\n    type: capture\n    directory: new\n"),
        ("# only this\n", "# only this\n\nbackends:\n  x:\n    type: capture\n    directory: new\n"),
        (
            "backends:   # ways out\n    # of old\n    a: {type: capture}  # mine\nlog: {}\n",
            "backends:   # ways out\n    x:\n      type: capture\n      directory: new\n"
            "    # of old\n    a: {type: capture}  # mine\nlog: {}\n",
        ),
        (
            "backends: {a: {type: capture}}  # one\n",
            "backends: {x: {type: capture, directory: new}, a: {type: capture}}  # one\n",
        ),
        ("backends: {}  # none\nb: 1\n", "backends:  # none\n  x:\n    type: capture\n    directory: new\nb: 1\n"),
        ("backends:\nb: 1", "backends:\n  x:\n    type: capture\n    directory: new\nb: 1"),
        ("a: 1\r\n", "a: 1\r\n\r\nbackends:\r\n  x:\r\n    type: capture\r\n    directory: new\r\n"),
    ],
    ids=["empty", "comment", "block", "braces", "none", "null", "crlf"],
)
def test_an_entry(before: str, after: str) -> None:
    assert with_entry(before, "backends", "x", NEW) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "routes:\n  # all\n  - {backend: a}  # o\n",
            "routes:\n  # all\n  - {backend: x}\n  - {backend: a}  # o\n",
        ),
        (
            "routes:\n- senders: [a@b.c]\n  backend: a\n\n# end\nlog: {}\n",
            "routes:\n- senders: [a@b.c]\n  backend: a\n- {backend: x}\n\n# end\nlog: {}\n",
        ),
        ("routes: [{backend: a}]\n", "routes: [{backend: x}, {backend: a}]\n"),
        ("routes: [{clients: [c], backend: a}]\n", "routes: [{clients: [c], backend: a}, {backend: x}]\n"),
        ("routes: []\n", "routes:\n  - {backend: x}\n"),
    ],
    ids=["before all", "behind some", "brackets", "brackets behind", "none"],
)
def test_a_route_stands_before_the_one_that_takes_all(before: str, after: str) -> None:
    assert with_route(before, {"backend": "x"}) == after


@pytest.mark.parametrize(
    "text",
    [
        "{backends: {a: {}}}",
        "backends: [a]",
        "backends: text",
        "backends:\n  x: {type: capture}\n",
        "a: 1\n...\n",
        "base: &b {q: 1}\nbackends:\n  ? a\n  : {}\n",
    ],
)
def test_what_cannot_be_exact_is_not_done(text: str) -> None:
    """Or it is, and then it says what was wanted."""
    try:
        made = with_entry(text, "backends", "x", NEW)
    except Inexact:
        return
    assert data_of(made)["backends"].keys() == {"a", "x"}


@pytest.mark.parametrize("text", ["a: [", "- a", "\t- :"])
def test_no_settings_at_all(text: str) -> None:
    with pytest.raises(ConfigError):
        with_value(text, "bounces", {})


VALUES = st.recursive(
    st.text() | st.booleans() | st.integers(), lambda one: st.lists(one) | st.dictionaries(st.text(), one), max_leaves=8
)


def told(value: Any) -> Any:
    """As text, which is how settings are read."""
    if isinstance(value, dict):
        return {key: told(one) for key, one in value.items()}
    return (
        [told(one) for one in value]
        if isinstance(value, list)
        else scalar(value)
        if type(value) is bool
        else str(value)
    )


@given(VALUES)
def test_whatever_is_written_reads_back(value: Any) -> None:
    """No text of a person becomes anything but itself: no key of its own, no comment, no truth."""
    assert data_of(f"a: {flow(value)}\n") == {"a": told(value)}
    assert data_of("\n".join(block("a", value, deep=True)) + "\n") == {"a": told(value)}


def test_a_file_is_replaced_beside_the_old_one(tmp_path: Path) -> None:
    """Owner and mode stay; a link stays one."""
    file, link = tmp_path / "real.yaml", tmp_path / "config.yaml"
    assert replace_file(file, "a: 1\n", WHEN) is None
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    file.chmod(0o640)
    link.symlink_to(file)
    kept = replace_file(link, "a: 2\n", WHEN)
    assert kept == tmp_path / "real.yaml.2026-12-01T050000Z"
    assert (kept.read_text(), file.read_text(), link.is_symlink()) == ("a: 1\n", "a: 2\n", True)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
