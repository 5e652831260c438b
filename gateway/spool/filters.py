"""A Filter as a condition of SQL."""

# ruff: noqa: S608 - statements are put together from constants of ours; values are always bound

from __future__ import annotations

from typing import Any

from gateway.address import comparable
from gateway.spool.records import Filter, micros

_OF_RECIPIENT = "SELECT message_id FROM recipient WHERE key = :{0}"
# As sent, or as rewritten.
_OF_SENDER = """SELECT id FROM message WHERE sender_key = :{0}
    UNION SELECT id FROM message WHERE original_key = :{0} AND original_key <> ''"""
_CONDITIONS = {
    "ids": "id @in(:ids)",
    "state": "state = :state",
    "backend": """EXISTS (SELECT 1 FROM delivery d WHERE d.message_id = message.id AND d.backend = :backend
        AND (:state NOT IN ('queued', 'held') OR d.state = :state))""",
    "sender": f"id IN ({_OF_SENDER.format('sender')})",
    "recipient": f"id IN ({_OF_RECIPIENT.format('recipient')})",
    "address": f"id IN ({_OF_SENDER.format('address')} UNION {_OF_RECIPIENT.format('address')})",
    "message_id": "message_id IN (:message_id, '<' || :message_id || '>')",
    "remote_id": "id IN (SELECT message_id FROM attempt WHERE remote_id = :remote_id AND remote_id <> '')",
    "older_than": "received_at < :older_than",
    "untold": "(bounce OR sender = '') = :untold",
}
_CHANGING = ("state", "backend")  # all else is true of a message for good


def condition(which: Filter) -> tuple[str, dict[str, Any]]:
    """On rows of message, with its values. What is given counts even if nothing is left of it: a slip never widens.

    Addresses may stand in angle brackets, as on the wire; ``<>`` is the sender of a bounce.
    """
    named = [name for name in _CONDITIONS if getattr(which, name) not in ("", None)]
    keys = {name: comparable(getattr(which, name).strip("<>")) for name in ("sender", "recipient", "address")}
    values = {
        "ids": list(which.ids or ()),
        "message_id": which.message_id.strip().strip("<>"),
        "older_than": micros(which.older_than) if which.older_than else None,
        **{name: getattr(which, name) for name in ("state", "backend", "remote_id", "untold")},
    }
    return " AND ".join(_CONDITIONS[name] for name in named) or "TRUE", values | keys


def still(which: Filter) -> tuple[str, dict[str, Any]]:
    """The part of the condition that may have become untrue since it was read."""
    return condition(Filter(**{name: getattr(which, name) for name in _CHANGING}))


def still_of_delivery(which: Filter) -> tuple[str, dict[str, Any]]:
    """The same on rows of delivery."""
    meets, values = still(which)
    return f"EXISTS (SELECT 1 FROM message WHERE message.id = delivery.message_id AND {meets})", values
