"""What a tenant may see: whose mail, and of when. The one place where that becomes a condition of SQL.

A message belongs to who its client belonged to when it was accepted, and its queue id says when that was. So nothing is
written with a message for it, and a client that moves takes none of its old mail along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.clock import first_id

EVER = 2**62  # microseconds
_HOUR = 3_600_000_000
_DAY = 24 * _HOUR
_LAST = "~"  # behind every id
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A copy that an operator sent again is of when the first of its kind was accepted.
_FIRST = """(WITH RECURSIVE up(id, of) AS (SELECT m.id, m.resend_of FROM message m WHERE m.id = message.resend_of
    UNION SELECT m.id, m.resend_of FROM message m JOIN up ON m.id = up.of WHERE up.of <> '')
    SELECT min(CASE WHEN of <> '' THEN of ELSE id END) FROM up)"""
_OURS = f"""message.client = :{{0}} AND message.id >= :{{0}}_low AND message.id < :{{0}}_high AND (
    message.resend_of = '' OR
    (message.resend_of >= :{{0}}_low AND coalesce({_FIRST}, message.resend_of) >= :{{0}}_low))"""


@dataclass(frozen=True, slots=True)
class Term:
    """Times in microseconds; ``until`` is not within."""

    client: str
    since: int
    until: int = EVER

    @property
    def open(self) -> bool:
        return self.until >= EVER


@dataclass(frozen=True, slots=True)
class Scope:
    """What a tenant may see. Of no terms nothing."""

    tenant: str
    terms: tuple[Term, ...] = ()

    def messages(self) -> tuple[list[str], dict[str, Any]]:
        """Conditions on rows of message, one of which has to hold, and their values."""
        values: dict[str, Any] = {}
        for name, term in self._named():
            ends = _LAST if term.open else first_id(_moment(term.until))
            values |= {name: term.client, f"{name}_low": first_id(_moment(term.since)), f"{name}_high": ends}
        return [_OURS.format(name) for name, _ in self._named()], values

    def meets(self) -> tuple[str, dict[str, Any]]:
        """The same as one condition."""
        texts, values = self.messages()
        return _any(f"({text})" for text in texts), values

    def refusals(self) -> tuple[str, dict[str, Any]]:
        """On rows of refusal: those of whom nobody else is among."""
        text = "client = :{0} AND first_at >= :{0}_since AND last_at < :{0}_until AND NOT mixed"
        return self._between(text, lambda term: (term.since, term.until))

    def hours(self) -> tuple[str, dict[str, Any]]:
        """On rows of tally: only hours, and where it has ended days, that were the tenant's from end to end."""
        text = "client = :{0} AND hour_at >= :{0}_since AND hour_at <= :{0}_until"
        return self._between(text, lambda term: (-(-term.since // _HOUR) * _HOUR, max(0, term.until - _DAY)))

    def _between(self, text: str, times: Callable[[Term], tuple[int, int]]) -> tuple[str, dict[str, Any]]:
        values: dict[str, Any] = {}
        for name, term in self._named():
            since, until = times(term)
            values |= {name: term.client, f"{name}_since": since, f"{name}_until": until}
        return _any(f"({text.format(name)})" for name, _ in self._named()), values

    def _named(self) -> list[tuple[str, Term]]:
        return [(f"scope{n}", term) for n, term in enumerate(self.terms)]


def _any(texts: Iterable[str]) -> str:
    return f"({' OR '.join(texts) or 'FALSE'})"


def _moment(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)
