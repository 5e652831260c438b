"""What the spool's tests share: messages, settlements, an open spool with a clock and a log to look at."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from gateway.clock import Clock
from gateway.config.models import RetentionSettings
from gateway.events import Events
from gateway.model import Envelope, NewMessage, Outcome, Recipient, Verdict
from gateway.spool import Claim, Filter, Settlement, Spool
from tests.fakes import START, FakeClock

RAW = b"From: s@example.com\r\nSubject: test\r\n\r\nhello\r\n"
LEASE = timedelta(minutes=5)
SENT = Outcome(Verdict.SENT, code=250, enhanced="2.0.0", detail="ok", remote_id="r1", said_by="smtp")
DEFERRED = Outcome(Verdict.DEFERRED, code=451, enhanced="4.7.1", detail="greylisted", said_by="smtp")
REJECTED = Outcome(Verdict.REJECTED, code=550, enhanced="5.1.1", detail="no such user", said_by="smtp")
IN_DOUBT = Outcome(Verdict.IN_DOUBT, detail="lost after the dot")
STATE = {Verdict.SENT: "sent", Verdict.REJECTED: "failed"}
_numbers = itertools.count(1)


def message(*addresses: str, lane: str = "b", ident: str = "", **more: Any) -> NewMessage:
    """A message of one lane (or ``deliveries``); each has an id of its own."""
    addresses = addresses or ("a@example.org",)
    sender = more.pop("sender", "s@example.com")
    given = {
        "id": ident or f"M{next(_numbers):012d}",
        "envelope": Envelope(sender, tuple(Recipient(address) for address in addresses)),
        "raw": RAW,
        "deliveries": {lane: addresses},
        "received_at": START,
        "expires_at": START + timedelta(days=5),
        "client": "c",
    }
    return NewMessage(**{**given, **more})


def of(*ids: str) -> Filter:
    return Filter(ids=ids)


def settlement(claim: Claim, outcome: Outcome | Mapping[str, Outcome] = SENT, **more: Any) -> Settlement:
    addresses = [recipient.address for recipient in claim.message.envelope.recipients]
    outcomes = dict.fromkeys(addresses, outcome) if isinstance(outcome, Outcome) else dict(outcome)
    given = {
        "claim": claim,
        "ended_at": START + timedelta(seconds=1),
        "outcomes": outcomes,
        "states": {address: STATE.get(answer.verdict, "queued") for address, answer in outcomes.items()},
        "next_attempt_at": START + timedelta(minutes=1),
        "backend": claim.backend,
    }
    return Settlement(**{**given, **more})


class At:
    """An open spool, its clock, the lanes woken and the log."""

    def __init__(self, clock: Clock, log: io.StringIO) -> None:
        self.spool: Spool
        self.clock = clock
        self.log = log
        self.events: Events
        self.woken: list[str] = []

    def logged(self, event: str) -> list[dict[str, Any]]:
        self.events.flush()
        return [line for line in map(json.loads, self.log.getvalue().splitlines()) if line["event"] == event]

    async def put(self, *addresses: str, **more: Any) -> str:
        one = message(*addresses, **more)
        await self.spool.put(one)
        return one.id

    async def claim(self, lane: str = "b", *, now: datetime = START, limit: int = 100) -> list[Claim]:
        return await self.spool.claim(lane, now=now, lease=LEASE, limit=limit)

    async def states(self, ident: str) -> tuple[str, dict[str, str], dict[str, str]]:
        """State of the message, of its recipients by address, of its deliveries by backend."""
        detail = await self.spool.show(ident)
        assert detail is not None
        recipients = {row.address: row.state for row in detail.recipients}
        return detail.state, recipients, {row.backend: row.state for row in detail.deliveries}


@asynccontextmanager
async def opened(
    directory: Path, *, clock: Clock | None = None, reserve: float = 0.0, retention: RetentionSettings | None = None
) -> AsyncIterator[At]:
    log = io.StringIO()
    at = At(clock or FakeClock(), log)
    at.events = Events(CollectorRegistry(), format="json", level="info", clock=at.clock, stream=log)
    at.spool = await Spool.open(
        directory, at.clock, events=at.events, wake=at.woken.append, reserve=reserve, retention=retention
    )
    try:
        yield at
    finally:
        await at.spool.aclose()
        at.events.close()
