"""The end of a life line: what happens next, or that nothing more does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from gateway.config.models import Settings
from gateway.delivery import BackendStatus
from gateway.health.words import lasting
from gateway.lifeline import words
from gateway.lifeline.entry import Entry
from gateway.spool import MessageDetail
from gateway.spool.records import DeliveryRow
from gateway.telling import people


def _now(title: str, note: str = "", **more: str) -> Entry:
    return Entry(at=None, kind="now", title=title, note=note, **more)  # type: ignore[arg-type]


def end(
    detail: MessageDetail, state: str, now: datetime, kept: datetime | None, settings: Settings,
    backends: Mapping[str, BackendStatus] | None,
) -> Iterator[Entry]:  # fmt: skip
    """At least one entry."""
    ident = detail.message.id
    yield from _failures(detail)
    if state == "damaged":
        yield _now("It is not sent, and stays for you to look at", "What lies on the disk is not what was accepted.",
                   fix=f"look at it: gateway queue cat {ident}; then: gateway queue delete {ident}")  # fmt: skip
    elif state in ("held", "in_doubt"):
        why = words.why_held(detail.recipients)
        over = f"It came over quota: {why}. " if why else ""
        doubt = "Ask a recipient whether it arrived. " if state == "in_doubt" else ""
        yield _now("Held: nothing happens until somebody decides", f"{doubt}{over}Nobody is told meanwhile.",
                   fix=f"gateway queue release {ident}, or: gateway queue delete {ident}")  # fmt: skip
    elif detail.state == "queued":
        yield from _waits(detail, now, settings, backends)
    else:
        yield _now(_ended(detail, state), _kept(detail, kept, settings))


def _failures(detail: MessageDetail) -> Iterator[Entry]:
    """Each answer that ended it, once for all who got it."""
    groups: dict[tuple[str, str, str, str], list[str]] = {}
    for row in detail.recipients:
        if row.state == "failed":
            groups.setdefault((*words.answer(row), row.said_by, row.fix), []).append(row.address)
    for (code, said, said_by, fix), whom in groups.items():
        yield _now(f"{people(whom)} will not get it", code=code, said=said, said_by=said_by, fix=" ".join(fix.split()))


def _ended(detail: MessageDetail, state: str) -> str:
    back = [row.address for row in detail.recipients if words.last_event(detail, row.address) in ("bounced", "failed")]
    if back and state != "failed":
        whom = f" to {people(back)}" if len(detail.recipients) > len(back) else ""
        return f"Taken by the provider, but it did not arrive{whom}. Nothing more happens by itself"
    if state == "delivered":
        return "Delivered to everybody"
    return "Sent to everybody" if state == "sent" else "Nothing more happens by itself"


def _kept(detail: MessageDetail, kept: datetime | None, settings: Settings) -> str:
    if kept is not None:
        return f"The text is kept until {kept:%Y-%m-%d %H:%MZ}. Until then you can send it again."
    history = lasting(settings.retention.history)
    return f"The text is gone. What is said here is kept for {history}."


def _waits(
    detail: MessageDetail, now: datetime, settings: Settings, backends: Mapping[str, BackendStatus] | None
) -> Iterator[Entry]:
    busy = {row.backend for row in detail.attempts if row.ended_at is None}
    waiting = [row for row in detail.deliveries if row.state == "queued"]
    for delivery in waiting:
        if delivery.backend in busy:
            yield _now(f"{delivery.backend} is at it", backend=delivery.backend)
        else:
            yield _due(delivery, now, settings, backends)
    left = detail.message.expires_at - now
    if waiting:
        ends = f"If it cannot be sent within {lasting(left)}, it goes back to the sender."
        yield _now("It waits" if len(waiting) > 1 else "It is kept", ends)


def _due(
    delivery: DeliveryRow, now: datetime, settings: Settings, backends: Mapping[str, BackendStatus] | None
) -> Entry:
    name = delivery.backend
    if name not in settings.backends:
        fix = "put it back, or add a route that matches; then: gateway reload"
        return _now(f"It waits for {name}, which is not configured", fix=fix, backend=name)
    if backends is None or name not in backends:
        return _now(f"It waits for {name}", "No service runs, so nothing is sent.", fix="gateway serve", backend=name)
    rests = backends[name]
    if rests.paused_by:
        paused = rests.paused_by == "operator"
        fix = f"to send it now: gateway backend resume {name}" if paused else " ".join(rests.fix.split())
        return _now(f"It waits until {name} works again", rest_words(rests, now), said="" if paused else rests.reason,
                    fix=fix, backend=name)  # fmt: skip
    due = delivery.next_attempt_at
    when = f"in {lasting(due - now)}" if due > now else "as soon as others before it are done"
    return _now(f"Next try by {name} at {due:%H:%M:%SZ}", f"{when[0].upper()}{when[1:]}.", backend=name)


def rest_words(rests: BackendStatus, now: datetime) -> str:
    """Why a backend does not work, and when it goes on."""
    until = rests.paused_until
    ends = f"{until:%Y-%m-%d %H:%M:%SZ} (in {lasting(until - now)})" if until else ""
    if rests.paused_by == "operator":
        by = f" by {rests.who}" if rests.who else ""
        return f"{rests.name} is paused{by} until {ends or 'it is resumed or the service is restarted'}."
    since = f" since {rests.since:%Y-%m-%d %H:%M:%SZ}" if rests.since else ""
    return f"{rests.name} is {rests.paused_by}{since}." + (f" It tries again at {ends}." if ends else "")
