"""What a person or program is told at once: some news, and some that is over. As a mail's words and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from textwrap import wrap
from typing import Any

from gateway.alerts.events import Event

_WIDTH = 76


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """``news`` and ``over`` of the gateway ``hostname``; ``words`` stand before them, as in a test or a digest."""

    id: str
    at: datetime
    hostname: str
    news: tuple[Event, ...] = ()
    over: tuple[Event, ...] = ()
    title: str = ""
    words: tuple[str, ...] = ()

    @property
    def backends(self) -> frozenset[str]:
        """Those that it says something bad of: it should not have to leave by one of them."""
        return frozenset(one.problem.backend for one in self.news if one.problem.backend)

    @property
    def subject(self) -> str:
        """One line, without the name of the host."""
        if self.title:
            return self.title
        if self.news:
            first = self.news[0].problem.what.rstrip(".")
            return first if len(self.news) == 1 else f"{len(self.news)} things need you: {first} ..."
        first = self.over[0].problem.what.rstrip(".")
        return f"Over: {first}" if len(self.over) == 1 else f"{len(self.over)} things are over: {first} ..."

    def text(self) -> str:
        """Plain text for a mail: what, since, cost, cure."""
        lines = [*self.words, *_blocks(self.news)]
        if self.over:
            lines += ["Over:", "", *(f"  {line}" for one in self.over for line in wrap(one.problem.what, _WIDTH)), ""]
        lines += [f"This is the mail gateway at {self.hostname}. To see everything: gateway status"]
        return "\n".join(lines) + "\n"

    def body(self) -> bytes:
        """For programs. Times are ISO 8601 in UTC."""
        alerts = [_plain(one, "new") for one in self.news] + [_plain(one, "over") for one in self.over]
        whole = {"id": self.id, "at": _time(self.at), "host": self.hostname, "subject": self.subject, "alerts": alerts}
        if self.title:
            whole["text"] = self.text()
        return json.dumps(whole, ensure_ascii=False).encode("utf-8", "replace")


def _blocks(events: Sequence[Event]) -> Iterator[str]:
    for one in (event.problem for event in events):
        yield from wrap(one.what, _WIDTH)
        if one.since:
            yield f"  Since {one.since:%Y-%m-%d %H:%M:%SZ}."
        yield from wrap(one.cost, _WIDTH, initial_indent="  ", subsequent_indent="  ")
        yield from wrap(
            f"To do: {one.fix}", _WIDTH, initial_indent="  ", subsequent_indent="  ", break_long_words=False
        )
        if one.said:
            said = " ".join(one.said.split())[:500]
            yield from wrap(f"Said: {said}", _WIDTH, initial_indent="  ", subsequent_indent="  ")
        yield ""


def _plain(event: Event, state: str) -> dict[str, Any]:
    one = event.problem
    return {
        "state": state, "key": event.key, "kind": one.kind, "severity": one.severity, "what": one.what,
        "since": _time(one.since), "cost": one.cost, "fix": one.fix, "said": one.said, "backend": one.backend,
    }  # fmt: skip


def _time(when: datetime | None) -> str | None:
    return when.isoformat().replace("+00:00", "Z") if when else None
