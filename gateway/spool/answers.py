"""What was said to a recipient, as values of its columns; and those who were refused on the way in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.model import NewMessage, Outcome
from gateway.spool.records import Told
from gateway.spool.sql import NO_ANSWER, clean, insert_into
from gateway.spool.tables import Bounce
from gateway.spool.transaction import Transaction

_TELL = insert_into(Bounce, "message_id kind bounce_id reason made_at", id=None)
_REFUSE = f"""
UPDATE recipient SET state = 'failed', {", ".join(f"{name} = ?" for name in NO_ANSWER)}
WHERE message_id = ? AND address = ?"""  # noqa: S608 - of constants of ours
_HOLD = "UPDATE recipient SET state = 'held', detail = :why WHERE message_id = :id AND state = 'queued'"
Answer = tuple[Any, ...]  # in the order of NO_ANSWER
NOTHING: Answer = (None,) * len(NO_ANSWER)


def answer(outcome: Outcome) -> Answer:
    said = (outcome.verdict.value, outcome.code, outcome.enhanced, clean(outcome.detail), clean(outcome.remote_id))
    return (*said, outcome.scope.value, outcome.said_by, clean(outcome.fix))


def tell(tx: Transaction, message_id: str, told: Iterable[Told]) -> None:
    """That its sender is told of it, or why not."""
    for each in told:
        tx.later(_TELL, (message_id, each.kind, each.bounce_id, each.reason, tx.wall))


def refuse(tx: Transaction, message: NewMessage) -> None:
    """Of a message that was just put: no backend ever gets it for these. A step after all others of the message."""
    with tx.changing([message.id]):
        for address, outcome in message.refused.items():
            tx.later(_REFUSE, (*answer(outcome), message.id, address))


def hold(tx: Transaction, message: NewMessage) -> None:
    """Of a message that was just put: nobody gets it until it is released. A step after all others of the message."""
    with tx.changing([message.id]):
        tx.all(_HOLD, id=message.id, why=clean(message.held))
