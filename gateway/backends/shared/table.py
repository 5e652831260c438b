"""One shape for every table of answers: a status, a code or words -> what it means, for whom, and what to do."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from gateway.model import Outcome, SaidBy, Scope, Verdict

TOO_BIG = "send it smaller, or by another backend; set max_size on backends.{name}, then clients hear it at once"
ANY = range(1000)  # every status, and 0 for words that came without one


@dataclass(frozen=True, slots=True)
class Row:
    """``code`` (or one of them) ends the provider's, ``text`` is searched in its words.

    ``pause`` is how long to wait at least; the provider may ask for more. Without a ``scope`` a verdict that rests the
    backend is about that, and any other about the message. ``{name}`` in ``fix`` stands for the backend.
    """

    statuses: Collection[int]
    verdict: Verdict
    enhanced: str
    code: str | tuple[str, ...] = ""
    text: str = ""
    pause: timedelta | None = None
    scope: Scope | None = None
    fix: str = ""

    def fits(self, status: int, code: str, words: str) -> bool:
        return (
            status in self.statuses
            and code.endswith(self.code)
            and (not self.text or re.search(self.text, words, re.IGNORECASE | re.DOTALL) is not None)
        )

    def outcome(self, said_by: SaidBy, code: int | None, detail: str, known: Mapping[str, object]) -> Outcome:
        """``known`` is what the braces in ``fix`` stand for."""
        scope, fix = self.scope, self.fix.format_map(known)
        if scope is None:
            scope = Scope.BACKEND if self.verdict in (Verdict.THROTTLED, Verdict.MISCONFIGURED) else Scope.MESSAGE
        return Outcome(self.verdict, code, self.enhanced, detail, scope=scope, said_by=said_by, fix=fix)


def first(rows: Iterable[Row], status: int, code: str, words: str) -> Row:
    """The first row that fits decides. The last of every table fits all."""
    return next(row for row in rows if row.fits(status, code, words))
