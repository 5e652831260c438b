"""A Filter as a condition of SQL, and as what an index can be asked for."""

# ruff: noqa: S608 - statements are put together from constants of ours; values are always bound

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.clock import first_id
from gateway.spool.keys import AFTER, Keys, keys_of
from gateway.spool.listing import Filter
from gateway.spool.scope import Scope
from gateway.spool.sql import IN_STATE, QUEUED

# What people call states, and the states of messages that this means. ``sent`` is how the log and recipients say done.
STATES: Mapping[str, tuple[str, ...]] = {
    "queued": ("queued",),
    "held": ("held",),
    "in_doubt": ("held",),
    "sent": ("done",),
    "done": ("done",),
    "failed": ("failed",),
    "corrupt": ("corrupt",),
    "unfinished": ("queued", "held", "corrupt"),
}
LAST = "~"  # behind every id
_QUEUED, _HELD = "d.state = 'queued'", "d.state = 'held'"
_OPEN = {"queued": (_QUEUED,), "held": (_HELD,), "in_doubt": (_HELD,), "unfinished": (_QUEUED, _HELD)}
_CONDITIONS = {
    "client": "client = :client",
    "peer": "peer = :peer",
    "message_id": "message_id IN (:message_id, '<' || :message_id || '>')",
    "remote_id": """EXISTS (SELECT 1 FROM attempt a
        WHERE a.message_id = message.id AND a.remote_id = :remote_id AND a.remote_id <> '')""",
    "verdict": "EXISTS (SELECT 1 FROM recipient r WHERE r.message_id = message.id AND r.verdict = :verdict)",
    "doubt": """EXISTS (SELECT 1 FROM recipient r
        WHERE r.message_id = message.id AND r.state = 'held' AND r.verdict = 'in_doubt')""",
    "untold": "(bounce OR sender = '') = :untold",
}
_CHANGING = ("state", "backend", "verdict")  # all else is true of a message for good


@dataclass(frozen=True, slots=True)
class Part:
    """``rows`` of a table, as a statement has them behind FROM; what is called ``column`` there is the id."""

    rows: str
    column: str = "id"


@dataclass(frozen=True, slots=True)
class Source:
    """Where the ids of all that meet one condition are found without looking at other messages.

    ``ordered``: an index has them by id. ``scans``: to find few, a whole index is read.
    """

    name: str
    parts: Sequence[Part]
    ordered: bool = True
    scans: bool = False

    @property
    def whole(self) -> bool:
        """To have the first of it, all of it is read or put in order."""
        return self.scans or not self.ordered


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of rows of message: conditions by name, their values, and sources for some of them.

    Ids are at least ``low`` and less than ``high``.
    """

    conditions: Mapping[str, str]
    values: Mapping[str, Any]
    sources: Sequence[Source] = ()
    low: str = ""
    high: str = LAST
    ids: Sequence[str] | None = None

    def meets(self, but: str = "") -> str:
        return " AND ".join(text for name, text in self.conditions.items() if name != but) or "TRUE"

    def within(self, low: str = "", high: str = LAST) -> Question:
        """Of those only ids from ``low``, and before ``high``."""
        return replace(self, low=max(low, self.low), high=min(high, self.high))


def behind(ident: str) -> str:
    """Between this id and the next."""
    return f"{ident} "


def question(which: Filter) -> Question:
    """What is given counts even if nothing is left of it: a slip never widens.

    Raises ValueError for a state that does not exist.
    """
    asked = _Asked()
    for name, text in _CONDITIONS.items():
        if name != "doubt" and getattr(which, name) not in ("", None):
            asked.conditions[name] = text
            asked.values[name] = getattr(which, name)
    if which.message_id:
        asked.values["message_id"] = which.message_id.strip().strip("<>")
    _states(which, asked)
    for name in ("sender", "recipient", "address"):
        if given := getattr(which, name):
            _addresses(name, given, asked)
    _columns(which, asked)
    if which.scope is not None:
        _scope(which.scope, asked)
    low = first_id(which.since) if which.since else ""
    ends = [first_id(which.until) if which.until else LAST, behind(which.upto) if which.upto else LAST]
    return Question(asked.conditions, asked.values, asked.sources, low, min(ends), which.ids)


@dataclass(slots=True)
class _Asked:
    conditions: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    sources: list[Source] = field(default_factory=list)


def _states(which: Filter, asked: _Asked) -> None:
    if which.state:
        if which.state not in STATES:
            raise ValueError(f"no state {which.state}; there are {', '.join(STATES)}")
        states = STATES[which.state]
        listed = ", ".join(f"'{state}'" for state in states)
        asked.conditions["state"] = f"state IN ({listed})"
        parts = [Part(QUEUED if state == "queued" else IN_STATE.format(state)) for state in states]
        asked.sources.append(Source("state", parts))
        if which.state == "in_doubt":
            asked.conditions["doubt"] = _CONDITIONS["doubt"]
    if which.backend:
        is_open = _OPEN.get(which.state, ())
        listed = " OR ".join(is_open) or "TRUE"
        asked.values["backend"] = which.backend
        asked.conditions["backend"] = f"""EXISTS (SELECT 1 FROM delivery d
            WHERE d.message_id = message.id AND d.backend = :backend AND ({listed}))"""
        of = "delivery d WHERE backend = :backend AND {}"  # partial indexes for what is open, without ids
        parts = [Part(of.format(one), "message_id") for one in is_open]
        everything = [Part("delivery WHERE backend = :backend", "message_id")]
        asked.sources.append(Source("backend", parts or everything, ordered=not parts, scans=not parts))


def _scope(scope: Scope, asked: _Asked) -> None:
    texts, values = scope.messages()
    asked.values |= values
    asked.conditions["scope"] = f"({' OR '.join(f'({text})' for text in texts) or 'FALSE'})"
    parts = [Part(f"message @by(message_by_client) WHERE {text}") for text in texts]
    asked.sources.append(Source("scope", parts))


def _columns(which: Filter, asked: _Asked) -> None:
    if which.client:
        asked.sources.append(Source("client", [Part("message @by(message_by_client) WHERE client = :client")]))
    if which.message_id:
        asked.sources.append(Source("message_id", [Part(f"message WHERE {_CONDITIONS['message_id']}")]))
    if which.remote_id:
        of = "attempt WHERE remote_id = :remote_id AND remote_id <> ''"
        asked.sources.append(Source("remote_id", [Part(of, "message_id")], ordered=False))
    if which.peer:
        of = "message @by(message_by_client) WHERE peer = :peer"  # which has it beside the id
        asked.sources.append(Source("peer", [Part(of)], ordered=False, scans=True))


@dataclass(frozen=True, slots=True)
class _Column:
    """That holds keys. ``more``: what else must hold, for its index."""

    table: str
    key: str
    index: str
    ident: str = "id"
    more: str = ""


_SENDERS = (
    _Column("message", "sender_key", "message_by_sender"),
    _Column("message", "original_key", "message_by_original", more=" AND original_key <> ''"),
)
_RECIPIENTS = (
    _Column("recipient", "key", "recipient_by_key", "message_id"),
    _Column("asked", "key", "asked_by_key", "message_id", more=" AND key <> ''"),  # a copy was not asked for
)
_COLUMNS = {"sender": _SENDERS, "recipient": _RECIPIENTS, "address": (*_SENDERS, *_RECIPIENTS)}
# Each domain that there is, by a jump from its first key behind its last: the keys of one person whatever the domain.
_EVERY_DOMAIN = """WITH RECURSIVE every(domain) AS (SELECT (SELECT substr({0}, 1, @instr({0}, '@') - 1)
        FROM {1} @by({2}) WHERE {0} >= '@'{3} ORDER BY {0} LIMIT 1)
    UNION ALL SELECT (SELECT substr({0}, 1, @instr({0}, '@') - 1)
        FROM {1} @by({2}) WHERE {0} > every.domain || '@' || :after{3} ORDER BY {0} LIMIT 1) FROM every
    WHERE domain IS NOT NULL) SELECT domain || :{4} AS at FROM every WHERE domain IS NOT NULL"""
_OF_EVERY = "({}) AS every CROSS JOIN {} @by({}) WHERE {}"  # in this order


def _addresses(name: str, given: str, asked: _Asked) -> None:
    meant = keys_of(given)
    checks, parts = [], []
    for n, keys in enumerate(meant):
        compared = _compared(keys, f"{name}{n}", asked)
        for column in _COLUMNS[name]:
            check = compared.format(column.key) + column.more
            rows = f"{column.table} @by({column.index}) WHERE {check}"
            parts.append(Part(_in_every_domain(column, keys, f"{name}{n}_at") if keys.local else rows, column.ident))
            if column.table != "message":
                check = f"EXISTS (SELECT 1 FROM {column.table} WHERE message_id = message.id AND {check})"
            checks.append(f"({check})")
    asked.conditions[name] = f"({' OR '.join(checks)})" if checks else "FALSE"
    scans = any(keys.local or keys.begins for keys in meant)
    asked.sources.append(Source(name, parts, ordered=all(keys.one for keys in meant), scans=scans))


def _in_every_domain(column: _Column, keys: Keys, at: str) -> str:
    """Rows of which nothing but the part before the @ is known, or how that begins."""
    of_column = (column.table, column.index)
    every = _EVERY_DOMAIN.format(column.key, *of_column, column.more, at)
    holds = "{0} >= every.at AND {0} < every.at || :after" if keys.begins else "{0} = every.at"
    return _OF_EVERY.format(every, *of_column, holds.format(column.key) + column.more)


def _compared(keys: Keys, name: str, asked: _Asked) -> str:
    """The condition on a column of keys, which is called {0} in it."""
    at, low, high = f"{name}_at", f"{name}_low", f"{name}_high"
    if keys.begins:
        asked.values |= {at: f"@{keys.local}", f"{name}_n": 1 + len(keys.local), "after": AFTER}
        return f"substr({{0}}, @instr({{0}}, '@'), :{name}_n) = :{at}"
    if keys.local:
        asked.values |= {at: f"@{keys.local}", "after": AFTER}
        return f"substr({{0}}, @instr({{0}}, '@')) = :{at}"
    if keys.high:
        asked.values |= {low: keys.low, high: keys.high}
        return f"{{0}} >= :{low} AND {{0}} < :{high}"
    asked.values[low] = keys.low
    return f"{{0}} = :{low}"


def still(which: Filter) -> tuple[str, dict[str, Any]]:
    """The part of the condition, on rows of message, that may have become untrue since it was read."""
    asked = question(Filter(**{name: getattr(which, name) for name in _CHANGING}))
    return asked.meets(), dict(asked.values)


def still_of_delivery(which: Filter) -> tuple[str, dict[str, Any]]:
    """The same on rows of delivery."""
    meets, values = still(which)
    return f"EXISTS (SELECT 1 FROM message WHERE message.id = delivery.message_id AND {meets})", values
