"""What was said to a recipient, as values of its columns; and those who were refused on the way in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.model import NewMessage, Outcome
from gateway.spool.records import Told
from gateway.spool.sql import NO_ANSWER, clean, insert_into
from gateway.spool.tables import Bounce
from gateway.spool.transaction import Transaction

_TELL = insert_into(Bounce, "message_id kind bounce_id reason made_at", id="NULL")
_REFUSE = """
UPDATE recipient SET state = 'failed', verdict = :verdict, code = :code, enhanced = :enhanced, detail = :detail,
    scope = :scope, said_by = :said_by, fix = :fix WHERE message_id = :message_id AND address = :address"""


def answer(outcome: Outcome | None) -> dict[str, Any]:
    if outcome is None:
        return dict.fromkeys(NO_ANSWER)
    given = {"verdict": outcome.verdict.value, "code": outcome.code, "enhanced": outcome.enhanced}
    said = {"scope": outcome.scope.value, "said_by": outcome.said_by, "fix": clean(outcome.fix)}
    return given | said | {"detail": clean(outcome.detail), "remote_id": clean(outcome.remote_id)}


def tell(tx: Transaction, message_id: str, told: Iterable[Told]) -> None:
    """That its sender is told of it, or why not."""
    for each in told:
        tx.later(_TELL, (message_id, each.kind, each.bounce_id, each.reason, tx.wall))


def refuse(tx: Transaction, message: NewMessage) -> None:
    """Of a message that was just put: no backend ever gets it for these. A step after all others of the message."""
    with tx.changing([message.id]):
        for address, outcome in message.refused.items():
            tx.later(_REFUSE, {"message_id": message.id, "address": address, **answer(outcome)})
