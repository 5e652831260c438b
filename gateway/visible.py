"""Text of strangers made fit to be looked at: nothing in it steers a terminal or turns a line round, and it ends."""

from __future__ import annotations

LONGEST = 300  # characters shown of a text, the rest on demand


def visible(text: str, most: int | None = LONGEST) -> str:
    """On one line, control and bidi characters written out, cut where it is longer than ``most`` (None: never)."""
    text = " ".join(text.split())
    if most is not None and len(text) > most:
        text = f"{text[: most - 1]}\u2026"
    return written_out(text)


def written_out(text: str, keep: str = "") -> str:
    """Characters that nobody sees (control, format, surrogates) as \\uXXXX, all but those in ``keep``."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else f"\\u{ord(char):04x}" for char in text)
