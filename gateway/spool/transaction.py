"""One write transaction: statements of many operations gathered into few, and states derived from the recipients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from gateway.spool import counting
from gateway.spool.engine import Connection, Engine, Row
from gateway.spool.records import DeliveryId
from gateway.spool.sql import EXTENT
from gateway.spool.vault import Vault

# Messages, and what each still has to do: as it stands, and as it follows from the recipients (``to_do``, ``becomes``).
_NOW = """
SELECT m.id, m.state, m.listener, m.client, d.backend, d.state AS stands, d.attempt_id, (
        SELECT max(CASE r.state WHEN 'queued' THEN 2 WHEN 'held' THEN 1 ELSE 0 END) FROM recipient r
        WHERE r.message_id = d.message_id AND r.backend = d.backend) AS to_do, (
        SELECT max(CASE r.state WHEN 'queued' THEN 3 WHEN 'held' THEN 2 WHEN 'failed' THEN 1 ELSE 0 END)
        FROM recipient r WHERE r.message_id = m.id) AS becomes
FROM message m LEFT JOIN delivery d ON d.message_id = m.id WHERE m.id @in(:ids)"""
# A delivery is queued while a recipient waits for its backend, else held if one is held for it, else done.
_TO_DO = ("done", "held", "queued")
# A message is queued while a recipient is, else held, else failed if one failed, else done. Corrupt stays while held.
_BECOMES = ("done", "failed", "held", "queued")
_ENDED = ("done", "failed")
_STANDS = "UPDATE delivery SET state = :state WHERE (message_id, backend) @pairs(:keys)"
_CLOSE = """
WITH v(message_id, backend, attempt_id, state, due, uncount, doubt) AS (VALUES (?, ?, ?, ?, ?, ?, ?))
UPDATE delivery SET next_attempt_at = v.due, attempts = attempts - v.uncount, sticky = sticky OR v.doubt,
    in_doubt = CASE WHEN v.doubt THEN in_doubt + 1 ELSE 0 END, state = coalesce(v.state, delivery.state),
    attempt_id = NULL
FROM v WHERE delivery.message_id = v.message_id AND delivery.backend = v.backend
    AND delivery.attempt_id = v.attempt_id"""
_MESSAGE = """
UPDATE message SET state = :state, finished_at = :ended,
    sealed = CASE WHEN CAST(:ended AS BIGINT) IS NULL THEN sealed END,
    has_body = has_body AND NOT :dropped WHERE id @in(:ids)"""
_OVER = "message_id IN (SELECT id FROM message WHERE id @in(:ids) AND NOT has_body)"
_LOCK = "SELECT id FROM message WHERE id @in(:ids) ORDER BY id @lock"
# Whether the attempt is under way.
_OPEN = """
SELECT 1 FROM delivery WHERE message_id = :message_id AND backend = :backend AND attempt_id = :attempt_id"""

AttemptId = tuple[str, str, int]  # of one that is under way: its message, its backend and its number


class Transaction:
    """``later`` gathers rows by statement, in the order of first use; any other statement is preceded by a ``flush``.

    ``now`` is the spool's time, ``wall`` what the machine's clock shows (steady). What others learn after the commit:
    ``counts`` is by how much deliveries grew by (backend, state), ``woken`` the backends with new work, ``damaged``
    what was found corrupt. ``tally`` is what the counts of the hour grow by.
    """

    def __init__(
        self, connection: Connection, engine: Engine, now: int, wall: int, *, vault: Vault, drop_sent: bool
    ) -> None:
        self.now = now
        self.wall = wall
        self.vault = vault
        self.engine = engine
        self.attempt_ids = engine.attempt_ids(connection)
        self.counts: Counter[tuple[str, str]] = Counter()
        self.tally = counting.Counting()
        self.woken: set[str] = set()
        self.damaged: list[str] = []
        self._connection = connection
        self._drop_sent = drop_sent
        self._later: dict[str, list[Any]] = {}
        self._named: dict[str, set[tuple[Any, ...]]] = {}
        self._mine: dict[str, bool] = {}
        self._closing: dict[AttemptId, tuple[int, int, bool]] = {}

    def may_claim(self, backend: str) -> bool:
        """Whether this instance works it ("": any), and will until the commit."""
        if (known := self._mine.get(backend)) is None:
            known = self._mine[backend] = self.engine.may_claim(self._connection, backend)
        return known

    def later(self, statement: str, row: Mapping[str, Any] | tuple[Any, ...]) -> None:
        self._later.setdefault(statement, []).append(row)

    def once(self, statement: str, row: tuple[Any, ...], key: tuple[Any, ...]) -> None:
        """The same for ``UPDATE ... FROM``, which changes a row once however often it is named: ``key`` names it."""
        named = self._named.setdefault(statement, set())
        if key in named:
            self.flush()
            named = self._named.setdefault(statement, set())
        named.add(key)
        self.later(statement, row)

    def in_order(self, *statements: str) -> None:
        """Of those that wait together these come in this order, whichever is used first."""
        for statement in statements:
            self._later.setdefault(statement, [])

    def close(self, attempt: AttemptId, due: int, uncount: int, doubt: bool) -> None:
        """The attempt is over, and what is left to do is due then: written with the state that follows, at the end of
        ``changing``. ``uncount`` is 1 where it does not count."""
        self._closing[attempt] = (due, uncount, doubt)

    def close_now(self, attempt: AttemptId, due: int, uncount: int, doubt: bool) -> None:
        """The same for what goes on from here by another backend."""
        self.once(_CLOSE, (*attempt, None, due, uncount, doubt), attempt)

    def is_open(self, delivery: DeliveryId, attempt_id: int) -> bool:
        """Whether this attempt is under way."""
        message_id, backend = delivery
        if (message_id, backend, attempt_id) in self._closing:
            return False
        return bool(self.all(_OPEN, message_id=message_id, backend=backend, attempt_id=attempt_id))

    def flush(self) -> None:
        waiting, self._later = self._later, {}
        self._named.clear()
        for statement, rows in waiting.items():
            if rows:
                self._connection.many(self.engine.render(statement), rows)

    def finish(self) -> None:
        """The last step before the commit."""
        for row in self.tally.rows(self.wall):
            self.later(counting.ADD, row)
        self.flush()

    def all(self, statement: str, **values: Any) -> Sequence[Row]:
        """Run it now. A list among the values is for ``@in``."""
        self.flush()
        engine = self.engine
        given = {name: engine.listed(value) if isinstance(value, list) else value for name, value in values.items()}
        return self._connection.all(engine.render(statement), given)

    def drop_bodies(self, which: str, ids: list[str]) -> None:
        """``which`` of these messages: what the bytes take is free with the commit."""
        self.engine.drop(self.all(f"DELETE FROM body WHERE {which} RETURNING {EXTENT}", ids=ids))  # noqa: S608

    def probe(self) -> None:
        """Change something, and nothing that counts."""
        self.engine.probe(self._connection)

    @contextmanager
    def changing(self, ids: list[str], *, anew: bool = False) -> Iterator[None]:
        """Around changes to recipients: states of their deliveries and messages, and counts, are brought in line.

        ``anew``: also messages themselves are changed by it, or go.
        """
        if ids and self.engine.shared:  # else each sees the other's change to a message too late to derive its state
            self.all(_LOCK, ids=sorted(ids))
        before = self.all(_NOW, ids=ids) if ids and anew else None
        yield
        if ids:
            rows = self.all(_NOW, ids=ids)
            self._count(rows if before is None else before, -1)
            self._derive(rows)
            now = [{**row, "stands": _stands(row), "state": _state(row)} for row in rows]
            self._count(now, 1)
            known = {row["id"]: row for row in (rows if before is None else before)}
            self.tally.changed(known, {row["id"]: row for row in now})

    def _derive(self, rows: Sequence[Row]) -> None:
        messages: dict[str, dict[str, None]] = {}
        deliveries: dict[str, list[DeliveryId]] = {}
        for row in rows:
            if (state := _state(row)) != row["state"]:
                messages.setdefault(state, {})[row["id"]] = None
            if row["backend"] is None:
                continue
            attempt, stands = (row["id"], row["backend"], row["attempt_id"]), _stands(row)
            if closing := self._closing.pop(attempt, None):
                self.later(_CLOSE, (*attempt, stands, *closing))
            elif stands != row["stands"]:
                deliveries.setdefault(stands, []).append(attempt[:2])
        for stands, keys in deliveries.items():
            self.all(_STANDS, keys=keys, state=stands)
        for state, ids in messages.items():
            ended, dropped = self.now if state in _ENDED else None, self._drop_sent and state == "done"
            self.all(_MESSAGE, ids=list(ids), state=state, ended=ended, dropped=dropped)
            if dropped:
                self.drop_bodies(_OVER, list(ids))

    def _count(self, rows: Sequence[Row], by: int) -> None:
        for row in rows:
            if row["backend"] is not None and row["stands"] != "done":
                self.counts[row["backend"], row["stands"]] += by


def _stands(row: Row) -> str:
    return _TO_DO[row["to_do"] or 0]


def _state(row: Row) -> str:
    becomes = row["state"] if row["becomes"] is None else _BECOMES[row["becomes"]]
    return "corrupt" if (row["state"], becomes) == ("corrupt", "held") else becomes
