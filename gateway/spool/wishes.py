"""What operators wish looked at of a backend that another instance works: kept until that one has done it and said what
came of it. One at a time is kept of each backend; who wishes the same meanwhile has the same answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.spool.records import micros, moment
from gateway.spool.sql import clean
from gateway.spool.transaction import Transaction

ONE = "SELECT wanted FROM backend WHERE name = :name"
_KEEP = "UPDATE backend SET wanted = :wanted WHERE name = :name"
FIX = "fix"


@dataclass(frozen=True, slots=True)
class Wish:
    """``what`` is check or fix, ``at`` the spool's time; ``number`` grows with each. ``done`` is what came of it, None
    while it is to be done."""

    number: int
    what: str
    who: str
    at: datetime
    done: Mapping[str, Any] | None = None

    @property
    def text(self) -> str:
        given = {"number": self.number, "what": self.what, "who": self.who, "at": micros(self.at), "done": self.done}
        return json.dumps(given, separators=(",", ":"))


def read(text: str) -> Wish | None:
    """None where there never was one, or none that this version understands."""
    try:
        found = json.loads(text)
        done = found["done"] if isinstance(found["done"], dict) else None
        return Wish(int(found["number"]), str(found["what"]), str(found["who"]), moment(found["at"]), done)
    except (ValueError, TypeError, KeyError, OverflowError):
        return None


def want(tx: Transaction, backend: str, what: str, who: str) -> int:
    """Returns its number, 0 where nobody ever worked such a backend."""
    rows = tx.all(f"{ONE} @lock", name=backend)
    if not rows:
        return 0
    before = read(rows[0]["wanted"])
    if before is not None and before.done is None and before.what == FIX:
        what = FIX
    wish = Wish(before.number + 1 if before else 1, what, clean(who), moment(tx.now))
    tx.all(_KEEP, name=backend, wanted=wish.text)
    return wish.number


def done(tx: Transaction, backend: str, number: int, found: Mapping[str, Any]) -> Wish | None:
    """What came of that one; returns the one that was wished for meanwhile, which is still to be done."""
    rows = tx.all(f"{ONE} @lock", name=backend)
    wish = read(rows[0]["wanted"]) if rows else None
    if wish is None or wish.done is not None:
        return None
    if wish.number != number:
        return wish
    kept = Wish(wish.number, wish.what, wish.who, wish.at, found)
    tx.all(_KEEP, name=backend, wanted=kept.text)
    return None
