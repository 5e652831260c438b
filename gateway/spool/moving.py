"""All of a spool into an empty one, of whatever engines: copied whole, then compared with what was read.

Who opens the two (``Source``, ``Target``) sees to it that nobody else has them, and that the target is as it was
unless this comes to its end. Who the instances are is not copied, nor what the clocks showed: that is the target's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any, Protocol, TypeVar

from sqlalchemy import Boolean, Integer, LargeBinary, Table

from gateway.spool.records import SpoolError
from gateway.spool.schema import METADATA
from gateway.spool.seal import intact, moved
from gateway.spool.steady import STEP

T = TypeVar("T")
Row = tuple[Any, ...]
Record = dict[str, Any]
Tell = Callable[[int, int], object]  # so many rows are done, of so many
OWN = ("alembic_version", "clock", "cluster", "instance")  # of each database alone
# Of the spool's own time (steady): they go on in the target as they stood in the source.
_STEADY = {
    "message": ("expires_at", "finished_at"),
    "delivery": ("next_attempt_at", "received_at"),
    "poll": ("next_at",),
    "signin": ("made_at", "seen_at", "expires_at", "ended_at"),
    "backend": ("paused_since", "paused_until"),
    "secret": ("changed_at",),
    "step": ("spool_at",),
    "act": ("spool_at",),
}
_CRASH_DELAY = 60_000_000  # as changes.recover puts it off
_LOST = "interrupted, may have been sent"
_EVERY = 200  # rows


@dataclass(frozen=True, slots=True)
class Layout:
    """A table as it is copied: its columns, what each holds, and by which its rows are ordered."""

    name: str
    columns: tuple[str, ...]
    kinds: tuple[type, ...]
    order: tuple[str, ...]
    counter: str = ""  # the column that the database counts up, if there is one

    def record(self, row: Row) -> Record:
        return dict(zip(self.columns, row, strict=True))

    def row(self, record: Record) -> Row:
        return tuple(record[name] for name in self.columns)


def _layout(table: Table) -> Layout:
    columns = list(table.columns)
    order = [column.name for column in table.primary_key.columns]
    if table.name == "body":  # where the bytes lie is each engine's own
        columns = [column for column in columns if column.name in ("message_id", "raw")]
    counter = order[0] if len(order) == 1 and isinstance(table.columns[order[0]].type, Integer) else ""
    return Layout(
        table.name, tuple(column.name for column in columns), tuple(map(_kind, columns)), tuple(order), counter
    )


def _kind(column: Any) -> type:
    kinds = ((Boolean, bool), (Integer, int), (LargeBinary, bytes))
    return next((kind for of, kind in kinds if isinstance(column.type, of)), str)


LAYOUTS = {name: _layout(table) for name, table in sorted(METADATA.tables.items()) if name not in OWN}


class Side(Protocol):
    """One of the two spools. What it raises is SpoolError, OSError or its database's own."""

    name: str

    def now(self) -> int:
        """The spool's time, microseconds."""

    def count(self, table: str) -> int: ...

    def rows(self, layout: Layout, order: Sequence[str] = ()) -> Iterator[Row]:
        """In the order of these columns, by default the layout's; several may be read at the same time."""


class Source(Side, Protocol):
    uncounted: int  # microseconds that passed, but that mail has not grown older by
    key: str  # digest of the key that its secrets are sealed with, "" where that is not known


class Target(Side, Protocol):
    def agree(self, key: str) -> None:
        """Whoever uses it must have the key of this digest. Raises SpoolError where another lies there."""

    def write(self, layout: Layout, rows: Iterable[Row]) -> None:
        """All of a table that has none."""

    def complete(self) -> None:
        """What is to be done once all rows are there."""


@dataclass(slots=True)
class Moved:
    """How many rows of each table were copied and compared; ``verified`` messages have their bytes and checksum.

    ``damaged`` are those that had not before. ``interrupted`` attempts were under way when the source was left.
    """

    rows: dict[str, int] = field(default_factory=dict)
    verified: int = 0
    damaged: list[str] = field(default_factory=list)
    interrupted: int = 0
    replaced: int = 0  # NULs in texts


def move(source: Source, target: Target, wall: int, tell: Tell) -> Moved:
    """``wall`` is what the clock shows, microseconds. Raises SpoolError where the target is not what was read."""
    done = Moved()
    if source.key:
        target.agree(source.key)
    whole = sum(source.count(name) for name in LAYOUTS)
    progress = _Progress(tell, 2 * whole + source.count("body"))
    change = _Change(source, target.now(), wall, done)
    sums = {}
    for name, layout in LAYOUTS.items():
        seen = Digest()
        target.write(layout, progress.of(seen.of(change.rows(layout))))
        sums[name], done.rows[name] = seen, seen.rows
    target.complete()
    for name, layout in LAYOUTS.items():
        found = Digest()
        for _ in progress.of(found.of(target.rows(layout))):
            pass
        if found != sums[name]:
            text = f"{found.rows} rows of table {name} are in {target.name}, and not the {seen.rows} that were read"
            raise SpoolError(f"{text}: nothing was copied; look for what is wrong with its disk, then try again")
    damaged = []
    for ident, good in progress.of(checked(target)):
        done.verified += good
        damaged += [] if good else [ident]
    if damaged:
        before = {ident for ident, good in checked(source) if not good}
        if spoilt := [ident for ident in damaged if ident not in before]:
            raise SpoolError(f"message {spoilt[0]} does not meet its checksum in {target.name}: nothing was copied")
    done.damaged = damaged
    return done


class _Progress:
    def __init__(self, tell: Tell, whole: int) -> None:
        self._tell, self._whole, self._done = tell, whole, 0

    def of(self, rows: Iterable[T]) -> Iterator[T]:
        for row in rows:
            self._done += 1
            if self._done % _EVERY == 0:
                self._tell(min(self._done, self._whole), self._whole)
            yield row
        self._tell(min(self._done, self._whole), self._whole)


class Digest:
    """Of the rows of a table, in whatever order they come."""

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def of(self, rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            self.rows += 1
            self._sum += _fingerprint(row)
            yield row

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Digest) and (self.rows, self._sum) == (other.rows, other._sum)

    __hash__ = None  # type: ignore[assignment]


def _fingerprint(row: Row) -> int:
    made = hashlib.blake2b(digest_size=16)
    for value in row:
        if isinstance(value, bytes):
            made.update(b"%d:" % len(value))
            made.update(value)
        else:
            made.update(f"{value!r}\0".encode("utf-8", "surrogatepass"))
    return int.from_bytes(made.digest(), "big")


def typed(layout: Layout, row: Sequence[Any], where: str) -> Row:
    """As all engines have it. Raises SpoolError for a value that is of no use there: only damage makes one."""
    found = tuple(map(_as, layout.kinds, row))
    if ... in found:
        column = layout.columns[found.index(...)]
        key = " ".join(str(value) for value in row[: len(layout.order)])
        text = f"{where} is damaged: table {layout.name} has no {column} that makes sense at {key}"
        raise SpoolError(f"{text}: delete that message (gateway queue delete), or put a backup in its place")
    return found


def _as(kind: type, value: Any) -> Any:
    if value is None or type(value) is kind:
        return value
    if kind in (int, bool) and isinstance(value, int) and (kind is int or value in (0, 1)):
        return kind(value)
    return bytes(value) if kind is bytes and isinstance(value, memoryview) else ...


class _Change:
    """What is otherwise in the target: its time, what is under way nowhere any more, and text without NULs."""

    def __init__(self, source: Source, now: int, wall: int, done: Moved) -> None:
        shift = now - source.now()
        self._shift = 0 if abs(shift) < STEP.total_seconds() * 1_000_000 else shift
        self._source, self._now, self._wall, self._done = source, now, wall, done

    def rows(self, layout: Layout) -> Iterator[Row]:
        made: Iterable[Row] = self._source.rows(layout)
        if layout.name == "message":
            made = (layout.row(self._message(*each)) for each in with_recipients(self._source))
        elif layout.name == "delivery":
            made = (layout.row(self._delivery(layout.record(row))) for row in made)
        elif layout.name == "attempt":
            made = self._attempts(layout)
        elif layout.name == "backend":
            made = (layout.row(layout.record(row) | {"owner": ""}) for row in made)
        steady = [layout.columns.index(name) for name in _STEADY.get(layout.name, ())] if self._shift else ()
        for row in made:
            yield self._readable(self._later(row, steady) if steady else row)

    def _later(self, row: Row, places: Sequence[int]) -> Row:
        changed = list(row)
        for n in places:
            changed[n] = None if row[n] is None else row[n] + self._shift
        return tuple(changed)

    def _readable(self, row: Row) -> Row:
        """PostgreSQL knows no NUL within a text."""
        if not any(type(value) is str and "\0" in value for value in row):
            return row
        self._done.replaced += 1
        return tuple(_without_nul(value) for value in row)

    def _message(self, message: Record, recipients: Sequence[Record]) -> Record:
        """With the checksum of what its rows say then, so that what was damaged before stays so."""
        now = {**message, "expires_at": message["expires_at"] + self._shift}
        after = _plain(now), [_plain(each) for each in recipients]
        return {**message, "checksum": moved((message, recipients), after)}

    def _delivery(self, row: Record) -> Record:
        if row["attempt_id"] is None:
            now, by, at = self._now - self._shift, self._source.uncounted, row["next_attempt_at"]
            sooner = by and row["state"] == "queued" and at > now  # as keeper has it
            return row | {"next_attempt_at": max(now, at - by)} if sooner else row
        due = self._now - self._shift + row["in_doubt"] * _CRASH_DELAY
        return row | {"next_attempt_at": due, "sticky": True, "in_doubt": row["in_doubt"] + 1, "attempt_id": None}

    def _attempts(self, layout: Layout) -> Iterator[Row]:
        """And those that nobody will end."""
        yield from self._source.rows(layout)
        deliveries = LAYOUTS["delivery"]
        empty = {name: "" if kind is str else None for name, kind in zip(layout.columns, layout.kinds, strict=True)}
        for each in map(deliveries.record, self._source.rows(deliveries)):
            if each["attempt_id"] is None:
                continue
            self._done.interrupted += 1
            known = {name: each[name] for name in ("message_id", "backend", "addresses", "started_at", "owner")}
            ended = {"id": each["attempt_id"], "ended_at": self._wall, "verdict": "interrupted", "detail": _LOST}
            yield layout.row(empty | known | ended)


def _plain(record: Record) -> Record:
    return {name: _without_nul(value) for name, value in record.items()}


def _without_nul(value: Any) -> Any:
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}") if isinstance(value, str) else value


def with_recipients(side: Side) -> Iterator[tuple[Record, list[Record]]]:
    """Each message with its recipients, in the order of the envelope."""
    layout, of = LAYOUTS["message"], LAYOUTS["recipient"]
    key = itemgetter(of.columns.index("message_id"))
    groups = groupby(side.rows(of, ("message_id", "n")), key)
    ident, group = next(groups, (None, iter(())))
    for message in map(layout.record, side.rows(layout)):
        while ident is not None and ident < message["id"]:  # of no message
            ident, group = next(groups, (None, iter(())))
        yield message, [of.record(row) for row in group] if ident == message["id"] else []


def checked(side: Side) -> Iterator[tuple[str, bool]]:
    """Each message that has its bytes yet, and whether they and its rows meet its checksum."""
    bodies = side.rows(LAYOUTS["body"])
    ident, raw = next(bodies, (None, b""))
    for message, recipients in with_recipients(side):
        while ident is not None and ident < message["id"]:
            ident, raw = next(bodies, (None, b""))
        if message["has_body"]:
            yield message["id"], ident == message["id"] and intact(message, recipients, raw)
