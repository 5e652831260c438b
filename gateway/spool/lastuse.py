"""When clients, tokens and passwords were last of use, as far as it is written down."""

# ruff: noqa: S608 - statements are put together from constants of ours; values are always bound

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf

from sqlmodel import Field, SQLModel

from gateway.clock import Clock
from gateway.lastuse import Kind, LastUse, Use
from gateway.model import SpoolTrouble
from gateway.spool.queries import Reader, Reading
from gateway.spool.records import micros, moment
from gateway.spool.transaction import Transaction
from gateway.spool.writer import Writer

_EVERY = 60.0  # seconds
Noted = tuple[Kind, str, Use]


class UseRow(SQLModel, table=True):
    """``name`` is a client's, or a token's id; bit n of ``days``: also n days before ``at``."""

    __tablename__ = "lastuse"
    __table_args__ = {"sqlite_with_rowid": False}

    kind: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    at: int
    peer: str
    days: int


# Of tokens only those that are listed here: other issuers make new ones all the time.
_NOTE = """
INSERT INTO lastuse (kind, name, at, peer, days) SELECT :kind, :name, :at, :peer, :days
WHERE :kind IN ('client', 'password') OR EXISTS (SELECT 1 FROM token WHERE jti = :name)
ON CONFLICT (kind, name) DO UPDATE SET at = excluded.at, peer = excluded.peer, days = excluded.days"""
# Where others note theirs, too, as lastuse.joined has it; alone the last is what came last, whatever the clock said.
_DAY = 86_400_000_000
_SHIFTED = f"""CASE WHEN abs(lastuse.at / {_DAY} - excluded.at / {_DAY}) < 31
    THEN {{0}}.days << CAST(abs(lastuse.at / {_DAY} - excluded.at / {_DAY}) AS INTEGER) ELSE 0 END"""
_JOIN = (
    _NOTE[: _NOTE.index("UPDATE SET")]
    + f"""UPDATE SET at = @greatest(lastuse.at, excluded.at),
    peer = CASE WHEN excluded.at >= lastuse.at THEN excluded.peer ELSE lastuse.peer END,
    days = (CASE WHEN excluded.at >= lastuse.at THEN excluded.days | {_SHIFTED.format("lastuse")}
        ELSE lastuse.days | {_SHIFTED.format("excluded")} END) & {(1 << 31) - 1}"""
)


class Uses(LastUse):
    """What is noted, for its owner to have it written down. ``others``: how to read what others on this spool note."""

    def __init__(self, writer: Writer, clock: Clock, known: Iterable[Noted], others: Reading | None = None) -> None:
        super().__init__(known)
        self._others = others
        self._writer = writer
        self._clock = clock
        self._written = -inf

    async def write(self, *, last: bool = False) -> None:
        """Unless that was done a moment ago; the ``last`` time in any case. What finds no room is written later."""
        now = self._clock.monotonic()
        if now - self._written < _EVERY and not last:
            return
        taken = self.take()
        if taken or self._others:
            self._written = now
        try:
            if taken:
                await self._writer.submit(lambda tx: _note(tx, taken), late=True)
                taken = []
            if self._others and not last:
                async with self._others() as reader:
                    self.learn(await known(reader))
        except SpoolTrouble:
            self.give_back(taken)


def _note(tx: Transaction, uses: Iterable[Noted]) -> None:
    for kind, name, use in uses:
        row = {"kind": kind, "name": name, "at": micros(use.at), "peer": use.peer, "days": use.days}
        tx.later(_JOIN if tx.engine.shared else _NOTE, row)


async def known(reader: Reader) -> Sequence[Noted]:
    """As the run before left it."""
    rows = await reader.all("SELECT * FROM lastuse")
    whole = [row for row in rows if isinstance(row["at"], int) and isinstance(row["days"], int)]  # else damaged
    return [(row["kind"], row["name"], Use(moment(row["at"]), row["peer"], row["days"])) for row in whole]
