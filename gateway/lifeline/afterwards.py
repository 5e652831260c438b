"""What happened beside the tries: who was told, what providers said later, what operators did, the clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta

from gateway.config.models import Settings
from gateway.health.words import lasting, number
from gateway.lifeline.entry import Entry
from gateway.spool import MessageDetail

_OF = {"failed": "the failure", "delayed": "the delay", "relayed": "the hand-over"}
_VERBS: Mapping[str, str] = {
    "hold": "held it",
    "release": "released it",
    "retry": "asked for another try",
    "bounce": "returned it to the sender",
    "delete": "deleted it",
    "resend": "sent it again",
    "reroute": "gave it to another backend",
    "send-test": "sent it as a test",
}


def told(detail: MessageDetail, settings: Settings) -> Iterator[Entry]:
    for row in detail.bounces:
        of = _OF.get(row.kind, row.kind)
        if row.bounce_id:
            title = f"The sender is told of {of}"
            yield Entry(at=row.made_at, kind="told", title=title, note=f"by {row.bounce_id}", link=row.bounce_id)
            continue
        if row.reason == "digest":
            note = "It comes with the sender's next digest (bounces.mode)."
            yield Entry(at=row.made_at, kind="told", title=f"The sender will be told of {of}", note=note)
            continue
        why, fix = _why(row.reason, settings)
        yield Entry(at=row.made_at, kind="untold", title=f"Nobody was told of {of}", note=why, fix=fix)


def _why(reason: str, settings: Settings) -> tuple[str, str]:
    """Why there is no bounce, and the line that makes the next one possible."""
    own, host = settings.bounces.sender, settings.hostname
    if reason == "no_backend" and own is None:
        why = "No backend here can send with the null sender <>, and bounces.from is not set."
        return why, f"set it, and senders are told from then on: bounces: {{from: postmaster@{host}}}"
    return {
        "off": ("bounces.mode is off.", "to tell senders from now on: bounces: {mode: auto}"),
        "null_sender": ("It came with the null sender <>: nobody waits for an answer (RFC 5321 6.1).", ""),
        "no_backend": (
            f"No backend can carry a bounce to the sender, neither as <> nor from {own}.",
            "name one that can: bounces: {backend: NAME}",
        ),
        "provider": ("The report came to the sender's own mailbox.", ""),
        "later": (
            "It came back later, and bounces.later is false.",
            "to tell senders of that: bounces: {later: true}",
        ),
        "over": ("It was so no longer when the digest was written.", ""),
        "relay_denied": ("Whoever dropped it may not send here: a bounce could go to anybody.", ""),
        "sender_denied": ("Whoever dropped it may not send as this sender: a bounce could go to anybody.", ""),
    }.get(reason, (reason, ""))


_RESTS: Mapping[str, str] = {
    "operator": "{backend} was paused",
    "throttled": "{backend} was asked to slow down",
    "unreachable": "{backend} could not be reached",
    "misconfigured": "{backend} was not accepted",
}


def rests(detail: MessageDetail) -> Iterator[Entry]:
    """Backends that it waited for and that did not work meanwhile."""
    for row in detail.rests:
        title = _RESTS.get(row.by, "{backend} did not work").format(backend=row.backend)
        by = f" by {row.who}" if row.who else ""
        if row.ended_at:
            lasts = (
                f"From {row.since_at:%Y-%m-%d %H:%M:%SZ} for {lasting(row.ended_at - row.since_at)}: its mail waited."
            )
        else:
            lasts = f"Since {row.since_at:%Y-%m-%d %H:%M:%SZ}, and its mail waits."
        yield Entry(
            at=max(row.since_at, detail.message.received_at), kind="rest", title=f"{title}{by}", said=row.detail,
            note=lasts, fix=" ".join(row.fix.split()) if row.ended_at is None else "", backend=row.backend,
        )  # fmt: skip


def untold(detail: MessageDetail) -> Iterator[Entry]:
    """A failure of which no bounce was decided: the sender wanted none, or an older version has not kept it."""
    failed = [row for row in detail.recipients if row.state == "failed"]
    known = [row for row in detail.bounces if row.kind == "failed"]
    if not failed or known:
        return
    wanted = [row for row in failed if "FAILURE" in (row.notify or "FAILURE").upper()]  # RFC 3461 4.1
    at = max(row.updated_at for row in failed)
    if wanted:
        yield Entry(at=at, kind="untold", title="Whether the sender was told is not known",
                    note="An older version of gateway gave it up, and did not keep that.")  # fmt: skip
    else:
        copies = {row.became for row in detail.asked if row.why == "copy"}
        ours = copies.issuperset(row.address for row in failed)
        note = (
            "It was a copy that the settings made (copy_to)." if ours else "The sender asked not to be told (NOTIFY)."
        )
        yield Entry(at=at, kind="untold", title="Nobody was told of the failure", note=note)


_SOURCES: Mapping[str, str] = {
    "poll": "It said so asked.",
    "webhook": "It said so by itself.",
    "report": "A report of it came back to the mailbox.",
    "trace": "The provider's message trace says so.",
}


def events(detail: MessageDetail) -> Iterator[Entry]:
    for row in detail.events:
        whom = f", {row.address}" if row.address and len(detail.recipients) > 1 else ""
        yield Entry(
            at=row.reported_at, kind="event", title=f"{row.backend} reports: {row.state}{whom}", said=row.detail,
            note=_SOURCES.get(row.source, ""), backend=row.backend, remote_id=row.remote_id,
        )  # fmt: skip


def acts(detail: MessageDetail) -> Iterator[Entry]:
    copies = list(detail.copies)
    for row in detail.acts:
        done = _VERBS.get(row.verb, row.verb)
        what = f"With {number(row.count - 1, 'other message')}" if row.count > 1 else ""
        link = copies.pop(0) if copies and row.verb == "resend" else ""
        note = ". ".join(filter(None, (f"as {link}" if link else "", what, row.what)))
        title = f"{row.name or 'Somebody'} {done}"
        yield Entry(at=row.made_at, kind="act", title=title, note=note, link=link)


def clock(detail: MessageDetail) -> Iterator[Entry]:
    for row in detail.clock_steps:
        by = row.now_at - row.was_at
        way = "forward" if by.total_seconds() > 0 else "back"
        title = f"This machine's clock was set {way} by {lasting(timedelta(seconds=round(abs(by).total_seconds())))}"
        was = f"It had shown {row.was_at:%Y-%m-%d %H:%M:%SZ}. No mail expires or waits because of it."
        yield Entry(at=row.now_at, kind="clock", title=title, note=was)
