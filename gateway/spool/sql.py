"""Pieces of SQL that several steps share, in the spelling of gateway.spool.engine."""

# ruff: noqa: S608 - statements are put together from constants of ours; values are always bound

from __future__ import annotations

from sqlmodel import SQLModel

from gateway.spool.tables import Message

IN_IDS = "@in(:ids)"
UNDER_WAY = "EXISTS (SELECT 1 FROM attempt a WHERE a.delivery_id = delivery.id AND a.ended_at IS NULL)"
STILL_OPEN = "EXISTS (SELECT 1 FROM attempt WHERE id = :attempt_id AND ended_at IS NULL)"
# Deliveries to be claimed.
DUE = """backend = :backend AND state = 'queued' AND next_attempt_at <= :now
    AND NOT id @in(:busy) ORDER BY next_attempt_at LIMIT :limit"""
IDLE = f"id {IN_IDS} AND state = 'queued' AND NOT {UNDER_WAY}"
IDLE_OF = f"message_id {IN_IDS} AND state <> 'done' AND NOT {UNDER_WAY}"
# Of an attempt or a recipient that nobody has answered yet.
NO_ANSWER = {
    "verdict": "''", "code": "NULL", "enhanced": "''", "detail": "''", "remote_id": "''",
    "scope": "''", "said_by": "''", "fix": "''",
}  # fmt: skip
# All but what only people want to know: it would come with each recipient.
_OF_MESSAGE = ", ".join(f"m.{name}" for name in Message.model_fields if name != "how")
FIRST = "SELECT min({}) AS at FROM delivery WHERE backend = :backend AND state = 'queued'"
LOAD_DELIVERIES = f"""
SELECT d.id AS delivery_id, d.backend, d.attempts, d.sticky, d.in_doubt, d.received_at AS queued_at,
    r.address, r.notify, r.orcpt, r.verdict AS said, {_OF_MESSAGE},
    CASE WHEN d.sticky THEN r.remote_id ELSE '' END AS doubt_id,
    CASE WHEN d.sticky THEN (SELECT a.addresses FROM attempt a WHERE a.message_id = d.message_id
        AND a.delivery_id = d.id AND a.verdict = 'interrupted' ORDER BY a.id LIMIT 1) END AS interrupted,
    r.backend = d.backend AND r.state IN ('queued', d.state) AS pending
FROM delivery d JOIN message m ON m.id = d.message_id JOIN recipient r ON r.message_id = d.message_id
WHERE d.id {IN_IDS} ORDER BY d.id, r.n"""


def insert_into(table: type[SQLModel], columns: str, **fixed: str) -> str:
    """Text with a place for each of ``columns``; ``fixed`` are literals. ValueError unless that is every column.

    As text with plain tuples it runs in two thirds of the time of SQLAlchemy's insert().
    """
    values = dict.fromkeys(columns.split(), "?") | fixed
    name = str(table.__tablename__)
    if values.keys() != set(SQLModel.metadata.tables[name].columns.keys()):
        raise ValueError(f"these are not the columns of {name}")
    places = ", ".join(f'"{column}"' for column in values)
    return f"INSERT INTO {name} ({places}) VALUES ({', '.join(values.values())})"


def clean(text: str) -> str:
    """Text from the wire may hold what UTF-8 cannot (surrogates)."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
