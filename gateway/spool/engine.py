"""What one database does otherwise than another. The rest of the spool is one text and one logic.

Statements are written with these marks, which an engine renders: ``@in(:ids)`` is "one of this list", ``@pairs(:keys)``
the same for two columns and a list of pairs, ``@least(`` and ``@greatest(`` are the smaller and the larger of two
values, ``@instr(`` is where in the first the second begins, ``@like`` is LIKE that takes ASCII letters of either case
for the same, ``@list(column)`` all of them as JSON, ``@by(name)`` behind a table says which index serves.
``@raw(column)`` is a body where that is small, else b"";
``@lock`` behind a query keeps its rows from others until the commit, ``@skip`` leaves out what others keep, too. Flags
are TRUE, FALSE or a bound bool.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.clock import Clock
from gateway.spool.steady import SpoolTime

OUT_OF_ORDER = "the spool cannot be written, try again later"
UNREADABLE = "the database cannot be read, try again later: gateway spool info says why"


class Trouble(Enum):
    """Why a transaction failed, and so what to do."""

    OURS = "ours"  # our mistake, or data that break a rule: nothing is wrong with the database
    FAILED = "failed"  # refused, and rolled back whole
    AGAIN = "again"  # undone for the sake of another instance: try the same once more
    BUSY = "busy"  # somebody else holds it: whoever else tries now waits as long
    FULL = "full"
    BROKEN = "broken"  # the connection and what it remembers are not to be trusted


class Unreadable(Exception):
    """What an operation looks at cannot be made out; undone whole, it has harmed nothing else."""


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes. ``total`` and ``free`` are of the disk, ``used`` is what the spool takes of it.

    A ``total`` of 0: nobody knows. ``reusable`` of that hold nothing; ``owed`` is what it will yet grow by without new
    mail. ``ballast`` is set aside for a full disk, and ``held`` of it is there. The log can take ``log`` for what comes
    at once; ``blocked`` of it could not be used anew for a reader. ``astray`` is as in ``Engine.committed``; then
    nothing else is known.
    """

    used: int
    free: int
    total: int
    reusable: int = 0
    owed: int = 0
    ballast: int = 0
    held: int = 0
    log: int = 2**62
    blocked: int = 0
    astray: str = ""


Row = Mapping[str, Any]  # by names of columns


class Connection(Protocol):
    """The one that writes, of one thread at a time. Its errors are the driver's, which the engine can classify."""

    def begin(self) -> AbstractContextManager[None]:
        """A transaction: committed at the end, undone by whatever is raised."""

    def all(self, statement: str, values: Mapping[str, Any] = ..., /) -> Sequence[Row]:
        """Run it; what it returns, if anything."""

    def many(self, statement: str, rows: Sequence[Any], /) -> None:
        """Run it for each of these rows, which are mappings, or all tuples."""

    def close(self) -> None: ...


class Engine(Protocol):
    """One database. All of it blocks and belongs into a thread, except where it says that it is quick.

    ``connection`` is one that it opened.
    """

    name: str  # where it is, for messages to the operator
    kind: str  # sqlite or postgresql
    version: str  # of the database's own software
    owner: str  # of the attempts made here: "" where nobody else can make any
    shared: bool  # with other instances: rows that are changed have to be locked first
    notes: dict[str, list[str]]  # what an operator should know of files: "missing" ones, those "left" for others

    def open(self) -> Connection:
        """Ours alone, whole, and of our schema: the connection that writes. Raises SpoolError."""

    def reopen(self) -> Connection:
        """Another one after BROKEN, looked through before it is used. Raises SpoolError or the database's error."""

    def resume(self, *, made: bool) -> tuple[Connection, bool]:
        """Where it is shared: the same, and whether the last group is committed all the same, of which only that was
        missing (``made``)."""

    def hasten(self) -> None:
        """The service stops: wait for nobody any more. Quick."""

    def time(self, clock: Clock, connection: Any) -> SpoolTime:
        """What the spool's time goes on from."""

    def may_claim(self, connection: Any, backend: str) -> bool:
        """Within a transaction: whether this instance works that backend, and will until the commit."""

    def announce(self, connection: Any, backends: Collection[str]) -> None:
        """Within a transaction: with its commit, let others know that these have new work."""

    def readers(self) -> AsyncEngine:
        """A few connections for looking, which cannot write. Each transaction of theirs sees one moment. Quick."""

    def close(self) -> None:
        """Somebody else may have it now."""

    def classify(self, error: BaseException) -> Trouble:
        """May try the disk: what the database calls an error of the disk may be a quota."""

    def distrust(self) -> None:
        """Something of it was found damaged: look all through at the next start. Quick."""

    def explain(self, error: BaseException) -> str:
        """In words for the operator, with what the disk itself says. May try it."""

    def probe(self, connection: Any) -> None:
        """Change something within a transaction, so that the commit shows whether the disk takes writes."""

    def committed(self, connection: Any, now: int) -> str:
        """After each commit, in the writer's thread: note what the log holds (``now`` in microseconds). Returns what is
        wrong with the place of what was committed, "" for nothing."""

    def lengthy(self) -> bool:
        """After ``committed``: whether the log should be shortened now. Quick."""

    def shorten(self, connection: Any) -> None:
        """Keep the log short, in the writer's thread, when nobody waits for an answer."""

    def rescue(self, connection: Any) -> Connection:
        """Put all that the connection sees back into its place; from then on another one writes.

        Raises SpoolError, OSError where that cannot be done now.
        """

    def finish(self, connection: Any) -> None:
        """The last of the connections: leave nothing in the log, and close it."""

    def relieve(self, connection: Any) -> str:
        """There is no room: give up the ballast, and let what is in the log go where it belongs.

        Returns what has no room: disk or quota.
        """

    def set_aside(self) -> int:
        """Make the ballast again; returns 0, or the errno that says why it cannot be had."""

    def render(self, statement: str) -> str:
        """Put in what the marks stand for. Quick."""

    def listed(self, values: Sequence[Any]) -> Any:
        """One bound value for ``@in`` or ``@pairs``. Quick."""

    def stow(self, raw: bytes) -> tuple[bytes, int, int, int]:
        """Within a transaction: columns of body (raw, segment, start, length) for these bytes, which may now stand in a
        file of their own; by the commit they are on disk. Raises OSError."""

    def body(self, row: Any) -> bytes:
        """What these columns (sql.BODY) lead to, unchecked; less where it cannot be read. Of any thread, which may be
        late: what was deleted since its look at the row is not there any more."""

    def drop(self, rows: Iterable[Any]) -> None:
        """Within a transaction, of deleted rows of body (segment, start, length): after its commit the bytes go."""

    def allow(self, octets: int) -> None:
        """So much new mail may stand elsewhere than in the room that is unused within. Quick."""

    def attempt_ids(self, connection: Any) -> Iterator[int]:
        """Numbers that no attempt had before, in rising order."""

    def count(self, counts: Mapping[tuple[str, str], int]) -> None:
        """By how much deliveries grew, by (backend, state). Quick."""

    def recounted(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Where others change them, too: how many there are in all. Quick."""

    def counts(self) -> Mapping[tuple[str, str], int]:
        """Deliveries by (backend, state), of the states queued and held. Quick."""

    def space(self) -> Space:
        """Raises OSError."""

    def shrink(self, connection: Any) -> int:
        """Give back to the disk what is unused, where that is much and takes no time; returns the bytes. On no account
        in a transaction."""

    def copy(self, to: Path) -> None:
        """A consistent copy of a spool in use, durable when this returns. Raises SpoolError."""
