"""One write transaction: statements of many operations gathered into few, and states derived from the recipients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from gateway.spool import counting
from gateway.spool.engine import Connection, Engine, Row
from gateway.spool.vault import Vault

T = TypeVar("T")
# A delivery is queued while a recipient waits for its backend, else held if one is held for it, else done.
_DERIVE_DELIVERIES = """
UPDATE delivery SET state = now.state FROM (
    SELECT d.id, CASE max(CASE r.state WHEN 'queued' THEN 2 WHEN 'held' THEN 1 ELSE 0 END)
        WHEN 2 THEN 'queued' WHEN 1 THEN 'held' ELSE 'done' END AS state
    FROM delivery d LEFT JOIN recipient r ON r.message_id = d.message_id AND r.backend = d.backend
    WHERE d.message_id @in(:ids) GROUP BY d.id) AS now
WHERE delivery.id = now.id AND delivery.state <> now.state"""
# A message is queued while a recipient is, else held, else failed if one failed, else done. Corrupt stays while held.
_DERIVE_MESSAGES = """
UPDATE message SET state = now.state, finished_at = CASE WHEN now.state IN ('done', 'failed') THEN :now END,
    sealed = CASE WHEN now.state NOT IN ('done', 'failed') THEN sealed END,
    has_body = has_body AND NOT (:drop_sent AND now.state = 'done')
FROM (
    SELECT message_id, CASE max(CASE state WHEN 'queued' THEN 3 WHEN 'held' THEN 2 WHEN 'failed' THEN 1 ELSE 0 END)
        WHEN 3 THEN 'queued' WHEN 2 THEN 'held' WHEN 1 THEN 'failed' ELSE 'done' END AS state
    FROM recipient WHERE message_id @in(:ids) GROUP BY message_id) AS now
WHERE message.id = now.message_id AND message.state <> now.state
    AND NOT (message.state = 'corrupt' AND now.state = 'held')"""
_DROP_BODIES = """
DELETE FROM body WHERE message_id IN (
    SELECT id FROM message WHERE id @in(:ids) AND NOT has_body)"""
# Messages as they are, and what each still has to do.
_NOW = """
SELECT m.id, m.state, m.listener, m.client, d.backend, d.state AS to_do
FROM message m LEFT JOIN delivery d ON d.message_id = m.id AND d.state <> 'done' WHERE m.id @in(:ids)"""


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
        self._steps: dict[Callable[[Transaction, list[Any]], None], list[Any]] = {}

    def once(self, step: Callable[[Transaction, list[T]], None], item: T) -> None:
        """``step`` comes once, after all else, with what everybody had for it."""
        self._steps.setdefault(step, []).append(item)

    def later(self, statement: str, row: Mapping[str, Any] | tuple[Any, ...]) -> None:
        self._later.setdefault(statement, []).append(row)

    def flush(self) -> None:
        waiting, self._later = self._later, {}
        for statement, rows in waiting.items():
            self._connection.many(self.engine.render(statement), rows)

    def finish(self) -> None:
        """The last step before the commit."""
        for step, items in self._steps.items():
            step(self, items)
        for row in self.tally.rows(self.wall):
            self.later(counting.ADD, row)
        self.flush()

    def all(self, statement: str, **values: Any) -> Sequence[Row]:
        """Run it now. A list among the values is for ``@in``."""
        self.flush()
        engine = self.engine
        given = {name: engine.listed(value) if isinstance(value, list) else value for name, value in values.items()}
        return self._connection.all(engine.render(statement), given)

    def returned(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> Sequence[Row]:
        """Run it now for each of these rows; what it returns, in any order."""
        self.flush()
        return self._connection.returned(self.engine.render(statement), rows)

    def probe(self) -> None:
        """Change something, and nothing that counts."""
        self.engine.probe(self._connection)

    @contextmanager
    def changing(self, ids: list[str]) -> Iterator[None]:
        """Around changes to recipients: states of their deliveries and messages, and counts, are brought in line."""
        before = self._now(ids) if ids else ()
        yield
        if ids:
            self.all(_DERIVE_DELIVERIES, ids=ids)
            self.all(_DERIVE_MESSAGES, ids=ids, now=self.now, drop_sent=self._drop_sent)
            if self._drop_sent:
                self.all(_DROP_BODIES, ids=ids)
            after = self._now(ids)
            self.counts.update(_to_do(after))
            self.counts.subtract(_to_do(before))
            self.tally.changed({row["id"]: row for row in before}, {row["id"]: row for row in after})

    def _now(self, ids: list[str]) -> Sequence[Row]:
        return self.all(_NOW, ids=ids)


def _to_do(rows: Sequence[Row]) -> Counter[tuple[str, str]]:
    return Counter((row["backend"], row["to_do"]) for row in rows if row["to_do"])
