"""What is proposed to who mistyped something: only what has nearly all of it in common."""

from __future__ import annotations

import pytest

from gateway.likeness import closest
from gateway.spool import near

WORDS = [
    ("stauts", "status trace", "status"),  # swapped
    ("hst", "host port", "host"),  # missing
    ("starttlss", "none starttls", "starttls"),  # too many
    ("s3g", "s2g box", "s2g"),  # changed
    ("API-KEY", "api_key host", "api_key"),
    ("['smtp']", "smtp graph", "smtp"),
    ("1.4", "1.2 1.3", "1.3"),
    ("stat", "status trace", "status"),  # begins like that
    ("re", "reload refused", ""),
    ("re", "reload", ""),
    ("max", "max_size max_recipients", ""),  # so do two
    ("a", "b c", ""),
    ("text", "test-mode doctor queue", ""),
    ("form", "fix port", ""),
    ("read", "retry release", ""),
    ("sender", "send_as delay", ""),
    ("timeout", "time_zone bind", ""),
]


@pytest.mark.parametrize(("word", "options", "meant"), WORDS)
def test_a_word(word: str, options: str, meant: str) -> None:
    """A letter in four may be wrong, and always one."""
    assert closest(word, options.split()) == meant


@pytest.mark.parametrize(
    ("wanted", "known", "found"),
    [
        (
            "example.net@bob",
            ["example.net@max", "example.net@rob", "example.nte@bob"],
            ["example.nte@bob", "example.net@rob"],
        ),
        ("example.net@bob.miller", ["example.net@bob.muller", "example.org@tom.tiller"], ["example.net@bob.muller"]),
        ("a-company.example@info", ["another.example@info", "a-company.example@office"], []),
    ],
)
def test_an_address(wanted: str, known: list[str], found: list[str]) -> None:
    """Both sides of the @ must be like it: somebody else of the same domain is not close."""
    assert near.closest(wanted, known) == sorted(found)
