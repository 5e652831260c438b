"""One call of a backend: an outcome for every recipient within a deadline, whatever the backend does."""

from __future__ import annotations

import asyncio

from gateway.events import Events
from gateway.model import Backend, Outcome, SpooledMessage, Verdict, same_for_all

SEND_LIMIT = 25 * 60.0  # seconds; less than a claim lasts


async def send(backend: Backend, message: SpooledMessage, raw: bytes, events: Events) -> dict[str, Outcome]:
    """Never raises; what it makes up itself has no code. A bug in the backend is reported and costs nobody his mail."""
    try:
        async with asyncio.timeout(SEND_LIMIT):
            answers = dict(await backend.send(message, raw))
    except TimeoutError:
        return same_for_all(message, Outcome(Verdict.IN_DOUBT, detail="no answer within the time limit"))
    except Exception as error:
        events.bug(f"backend.{backend.name}", error)
        detail = "internal error in the backend, see the log"
        return same_for_all(message, Outcome(Verdict.DEFERRED, enhanced="4.3.0", detail=detail))
    for recipient in message.envelope.recipients:
        if recipient.address not in answers:
            events.bug(f"backend.{backend.name}", LookupError("no outcome for a recipient"))
            answers[recipient.address] = Outcome(Verdict.IN_DOUBT, detail="the backend gave no outcome")
    return answers
