"""Pieces of SQL that several steps share, in the spelling of gateway.spool.engine."""

# ruff: noqa: S608 - statements are put together from constants of ours; values are always bound

from __future__ import annotations

from sqlmodel import SQLModel

from gateway.spool.tables import Message

IN_IDS = "@in(:ids)"
THESE = "(message_id, backend) @pairs(:keys)"  # deliveries
# Messages of a state, as an index has them by id.
QUEUED = "message m @by(message_open) WHERE m.finished_at IS NULL AND m.state = 'queued'"
IN_STATE = "message m WHERE m.state = '{}' AND m.state <> 'queued'"
UNDER_WAY = "(delivery.attempt_id IS NOT NULL)"
EXTENT = "segment, start, length"
BODY = f"@raw(raw), {EXTENT}, message_id AS body_of"  # what Engine.body needs
# Deliveries to be claimed.
DUE = """backend = :backend AND state = 'queued' AND next_attempt_at <= :now
    AND NOT message_id @in(:busy) ORDER BY next_attempt_at LIMIT :limit"""
IDLE = f"{THESE} AND state = 'queued' AND NOT {UNDER_WAY}"
IDLE_OF = f"message_id {IN_IDS} AND state <> 'done' AND NOT {UNDER_WAY}"
# Of an attempt or a recipient that nobody has answered yet.
NO_ANSWER = {
    "verdict": "''", "code": "NULL", "enhanced": "''", "detail": "''", "remote_id": "''",
    "scope": "''", "said_by": "''", "fix": "''",
}  # fmt: skip
# All but what only people want to know: it would come with each recipient.
_OF_MESSAGE = ", ".join(f"m.{name}" for name in Message.model_fields if name != "how")
FIRST = "SELECT min({}) AS at FROM delivery WHERE backend = :backend AND state = 'queued'"
# Each with its message, and with all recipients of that.
_LOAD = f"""
SELECT d.backend, d.attempts, d.attempt_id, d.sticky, d.in_doubt, d.received_at AS queued_at,
    r.address, r.notify, r.orcpt, r.verdict AS said, {_OF_MESSAGE},
    CASE WHEN d.sticky THEN r.remote_id ELSE '' END AS doubt_id,
    CASE WHEN d.sticky THEN (SELECT a.addresses FROM attempt a WHERE a.message_id = d.message_id
        AND a.backend = d.backend AND a.verdict = 'interrupted' ORDER BY a.id LIMIT 1) END AS interrupted,
    r.backend = d.backend AND r.state IN ('queued', d.state) AS pending
FROM (SELECT * FROM delivery WHERE {{}}) AS d CROSS JOIN message m CROSS JOIN recipient r -- in this order
WHERE m.id = d.message_id AND r.message_id = d.message_id ORDER BY d.message_id, d.backend, r.n"""


def load(which: str) -> str:
    return _LOAD.format(which)


def load_to_claim(which: str) -> str:
    """What another instance is claiming just now is not among them."""
    return _LOAD.format(f"{which} @skip")


LOAD_DELIVERIES = load(THESE)


def insert_into(table: type[SQLModel], columns: str, **fixed: str | None) -> str:
    """Text with a place for each of ``columns``; ``fixed`` are literals, None what the database gives it. ValueError
    unless that is every column.

    As text with plain tuples it runs in two thirds of the time of SQLAlchemy's insert().
    """
    all_ = dict.fromkeys(columns.split(), "?") | fixed
    name = str(table.__tablename__)
    if all_.keys() != set(SQLModel.metadata.tables[name].columns.keys()):
        raise ValueError(f"these are not the columns of {name}")
    values = {column: value for column, value in all_.items() if value is not None}
    places = ", ".join(f'"{column}"' for column in values)
    return f"INSERT INTO {name} ({places}) VALUES ({', '.join(values.values())})"


def clean(text: str) -> str:
    """Text from the wire may hold what UTF-8 cannot (surrogates)."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
