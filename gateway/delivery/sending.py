"""One call of a backend, of which something comes for every recipient, whatever the backend does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime

from gateway.events import Events
from gateway.model import Backend, Outcome, Progress, SpooledMessage, SpoolTrouble, Verdict, same_for_all
from gateway.spool import Claim, Settlement, Spool

SEND_LIMIT = 25 * 60.0  # seconds; less than a claim lasts


async def answers(
    backend: Backend, message: SpooledMessage, raw: bytes, progress: Progress, events: Events
) -> dict[str, Outcome]:
    """An outcome for each of them; what is made up here has no code.

    A bug in the backend is reported and costs nobody his mail.
    """
    try:
        async with asyncio.timeout(SEND_LIMIT):
            found = dict(await backend.send(message, raw, progress))
    except TimeoutError:
        return same_for_all(message, Outcome(Verdict.IN_DOUBT, detail="no answer within the time limit"))
    except Exception as error:
        events.bug(f"backend.{backend.name}", error)
        detail = "internal error in the backend, see the log"
        return same_for_all(message, Outcome(Verdict.DEFERRED, enhanced="4.3.0", detail=detail))
    for recipient in message.envelope.recipients:
        if recipient.address not in found:
            events.bug(f"backend.{backend.name}", LookupError("no outcome for a recipient"))
            found[recipient.address] = Outcome(Verdict.IN_DOUBT, detail="the backend gave no outcome")
    return found


async def write_down(
    spool: Spool,
    claim: Claim,
    written: dict[str, Outcome],
    sent: Mapping[str, Outcome],
    *,
    now: datetime,
    poll_at: datetime | None,
) -> bool:
    """That these of an attempt that goes on were ``sent``, beside those ``written`` already, to which they are added.

    False where it cannot be done. ``now`` is what the machine's clock shows, ``poll_at`` is of the spool's time.
    """
    left = tuple(
        one.address
        for one in claim.message.envelope.recipients
        if one.address not in written and one.address not in sent
    )
    if not left:
        return True  # the attempt is at its end, and settled as a whole
    states = dict.fromkeys(sent, "sent")
    try:
        await spool.settle(Settlement(claim, now, sent, states, None, "", poll_at=poll_at, under_way=left))
    except SpoolTrouble:
        return False
    written.update(sent)
    return True
