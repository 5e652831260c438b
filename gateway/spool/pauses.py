"""What operators ordered of backends: it stays in force until it is withdrawn or over. And how these stand, as the
instance that works them says. Times are the spool's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from gateway.spool.records import moment
from gateway.spool.sql import clean
from gateway.spool.transaction import Transaction

_SAID = "SELECT name, paused, paused_since, paused_until, paused_by, asked, wanted FROM backend"
_ONE = f"{_SAID} WHERE name = :name"
ALL = f"{_SAID} ORDER BY name"
_PAUSE = """
INSERT INTO backend (name, number, paused, paused_since, paused_until, paused_by, asked)
SELECT CAST(:name AS TEXT), coalesce(max(number), 0) + 1, CAST(:paused AS BOOLEAN), CAST(:since AS BIGINT),
    CAST(:until AS BIGINT), CAST(:who AS TEXT), 1 FROM backend WHERE TRUE
ON CONFLICT (name) DO UPDATE SET paused = excluded.paused, paused_since = excluded.paused_since,
    paused_until = excluded.paused_until, paused_by = excluded.paused_by, asked = backend.asked + 1
RETURNING asked"""
_RESUME = """
UPDATE backend SET paused = FALSE, paused_until = NULL, asked = asked + 1 WHERE name = :name RETURNING asked"""

_STAND = "UPDATE backend SET standing = :standing WHERE name = :name AND owner = :owner"


@dataclass(frozen=True, slots=True)
class Ordered:
    """The last order for a backend; ``asked`` counts them. ``until`` None is for ever. ``wanted`` is what else is
    wished for (wishes)."""

    backend: str
    paused: bool
    since: datetime
    until: datetime | None
    who: str
    asked: int
    wanted: str

    def holds(self, now: datetime) -> bool:
        """Whether it has to rest."""
        return self.paused and (self.until is None or self.until > now)


def ordered(row: Any) -> Ordered:
    until = None if row["paused_until"] is None else moment(row["paused_until"])
    since, paused = moment(row["paused_since"]), bool(row["paused"])
    return Ordered(row["name"], paused, since, until, row["paused_by"], row["asked"], row["wanted"])


def pause(tx: Transaction, backend: str, lasts: timedelta | None, who: str) -> int:
    """Of one that is paused already only the end is another. Returns Ordered.asked."""
    since, until = tx.now, None if lasts is None else tx.now + lasts // timedelta(microseconds=1)
    for row in tx.all(_ONE, name=backend):
        if ordered(row).holds(moment(tx.now)):
            since, who = row["paused_since"], row["paused_by"]
    given = {"name": backend, "paused": True, "since": since, "until": until, "who": clean(who)}
    return int(tx.all(_PAUSE, **given)[0]["asked"])


def resume(tx: Transaction, backend: str) -> int:
    """Returns Ordered.asked, 0 where none ever ordered anything of it."""
    found = tx.all(_RESUME, name=backend)
    return int(found[0]["asked"]) if found else 0


def stand(tx: Transaction, texts: Mapping[str, str]) -> None:
    """How these stand, as who works them says; one that another works by now says it himself. A late step."""
    for name, text in sorted(texts.items()):
        tx.all(_STAND, name=name, standing=text, owner=tx.engine.owner)
