"""How people are told of states and answers: the words that commands and pages have in common, quick to load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shown:
    """A state as people read it: ``tone`` is quiet, ok, warn or bad, ``icon`` the name of its shape."""

    word: str
    icon: str
    tone: str


# Of messages and of recipients. "Sent" is never said of waiting mail, "delivered" only where a provider said so.
STATES: Mapping[str, Shown] = {
    "waiting": Shown("Waiting", "clock", "quiet"),
    "held": Shown("Held", "bars", "warn"),
    "in_doubt": Shown("In doubt", "question", "warn"),
    "sent": Shown("Sent", "tick", "ok"),
    "delivered": Shown("Delivered", "tick", "ok"),
    "failed": Shown("Failed", "octagon", "bad"),
    "partly_failed": Shown("Partly failed", "octagon", "bad"),
    "damaged": Shown("Damaged", "octagon", "bad"),
}


def spoken(code: int | None, enhanced: str, detail: str, said_by: str) -> tuple[str, str]:
    """The codes that the other side really gave, and its own words without them.

    An enhanced code comes by SMTP only (RFC 3463); beside any other answer it is one of ours, for a bounce.
    ``said_by`` is "" in rows that an older version wrote.
    """
    number = "" if said_by == "gateway" else str(code or "")
    enhanced = "" if said_by in ("gateway", "http") else enhanced
    words = detail
    words = words.removeprefix(f"HTTP {number}").removeprefix(number).lstrip(" -") if number else words
    words = words.removeprefix(enhanced).lstrip() if enhanced else words
    return " ".join(filter(None, (number, enhanced))), " ".join(words.split())


def people(found: tuple[str, ...] | list[str], count: int = 0, most: int = 3) -> str:
    """a@x, b@x, c@x and 7 more; ``count`` is how many there are where ``found`` is not all of them."""
    more = max(count, len(found)) - most
    return ", ".join(found[:most]) + (f" and {more} more" if more > 0 else "")
