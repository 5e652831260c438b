"""One call of a backend, of which something comes for every recipient, whatever the backend does."""

from __future__ import annotations

import asyncio

from gateway.events import Events
from gateway.model import Backend, Outcome, Progress, SpooledMessage, Verdict, same_for_all

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
