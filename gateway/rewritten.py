"""What became of a recipient that was asked for, kept beside what it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Why = Literal["alias", "redirect", "copy"]


@dataclass(frozen=True, slots=True)
class Rewritten:
    """``asked`` is the address of RCPT, "" for a copy that nobody asked for; ``became`` who gets the mail instead.

    ``by``: the setting that says so.
    """

    asked: str
    became: tuple[str, ...]
    why: Why
    by: str
