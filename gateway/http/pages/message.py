"""One message: the verdict, what to do, its life, its recipients; header and source as text, its bytes as a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from gateway.http.message import content_of, life_of
from gateway.http.pages.text import Whole, count
from gateway.http.pages.visit import View, Visit
from gateway.lifeline import Entry, Life, answer, meaning, shown_row
from gateway.lifeline.words import why_held
from gateway.message import scan
from gateway.model import BadMessage
from gateway.spool import MessageDetail
from gateway.spool.records import RecipientRow
from gateway.telling import STATES, people

_SHOWN = 262_144  # octets of a source that are shown; the rest by download
_MANY, _EDGE = 20, 10  # of more recipients than these the first and last ten are shown
ICONS = {
    "accepted": "in", "made": "in", "decided": "right", "sent": "tick", "rejected": "octagon", "deferred": "clock",
    "throttled": "clock", "misconfigured": "octagon", "in_doubt": "question", "interrupted": "question",
    "corrupt": "octagon", "under_way": "right", "more": "menu", "moved": "right", "told": "mail", "untold": "mail",
    "event": "tick", "act": "person", "clock": "clock", "now": "clock",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cause:
    """Why it is where it is: a block above the life line. ``act`` is the one button, as verb and label."""

    tone: str
    heading: str
    words: str
    fix: str
    act: tuple[str, str]
    code: str = ""


async def _detail(visit: Visit) -> MessageDetail:
    ident = visit.request.path_params["id"]
    detail = await visit.service.spool.show(ident)
    if detail is None:
        done = [act for act in await visit.service.spool.acts(message=ident, limit=5) if act.verb == "delete"]
        gone = f"{done[0].name or 'Somebody'} deleted it at {visit.times.text(done[0].made_at)}." if done else ""
        kept = visit.service.settings.retention.history.days
        raise HTTPException(404, f"No message has the id {ident}. {gone} What has ended is kept for {kept} days.")
    return detail


async def page(visit: Visit) -> View:
    detail = await _detail(visit)
    whole = visit.request.query_params.get("all", "") not in ("", "0")
    life = life_of(visit.service, detail, whole=whole)
    may_read = visit.may("operate") and detail.message.has_body and not visit.asked_part
    content = await content_of(visit.service, visit.request, detail.message.id) if may_read else None
    waits = life.state in ("waiting", "held", "in_doubt")
    told = [one for one in life.entries if one.at is not None or not one.said]  # who failed stands below
    values = {
        "section": "messages", "message": detail.message, "detail": detail, "state": STATES[life.state],
        "verdict": verdict(detail, life), "sub": list(_sub(detail, visit)), "cause": _cause(detail, life),
        "days": list(_days(told, visit)), "icons": ICONS, "waits": waits, "life": life, "whole": whole,
        "recipients": _recipients(detail, visit, whole=whole), "count_all": len(detail.recipients),
        "content": content, "acts": list(_acts(detail, life)), "facts": dict(life.entries[0].facts),
    }  # fmt: skip
    return View(template="message.html", values=values)


def verdict(detail: MessageDetail, life: Life) -> str:
    """One sentence that says what became of it."""
    failed = tuple(row.address for row in detail.recipients if row.state == "failed")
    whom = people(tuple(row.address for row in detail.recipients), most=1)
    now = [entry.title for entry in life.entries if entry.kind == "now"]
    return {
        "failed": f"Not sent to {people(failed, most=1)}",
        "partly_failed": f"Not sent to {people(failed, most=1)}",
        "sent": f"Sent to {whom}",
        "delivered": f"Delivered to {whom}",
        "held": f"Held, not sent to {whom}",
        "in_doubt": "It may or may not have arrived",
        "damaged": "Damaged on the disk, and not sent",
    }.get(life.state, f"Waiting. {now[0]}" if now else "Waiting")


def _sub(detail: MessageDetail, visit: Visit) -> Iterator[object]:
    message, times = detail.message, visit.times
    failed = sum(row.state == "failed" for row in detail.recipients)
    all_of = len(detail.recipients)
    part = f"{failed} of {count(all_of, 'recipient')} of a" if failed and all_of > 1 else "A"
    yield f"{part} message from {message.client or 'the gateway itself'}, accepted "
    yield "today at " if times.today(message.received_at) else ""
    yield times.hour(message.received_at)
    sent = tuple(row.address for row in detail.recipients if row.state == "sent")
    yield f". {people(sent)} {'has' if len(sent) == 1 else 'have'} it." if sent and failed else "."


def _cause(detail: MessageDetail, life: Life) -> Cause | None:
    """The last answer to whoever has not got it: what it means, what to do, and the button that helps then."""
    state = {"failed": "failed", "partly_failed": "failed", "waiting": "queued", "held": "held", "in_doubt": "held"}
    rows = [row for row in detail.recipients if row.state == state.get(life.state, "")]
    last = max(rows, key=lambda row: row.updated_at, default=None)
    if last is None or (life.state == "waiting" and not last.verdict):
        return None
    code, words = answer(last)
    heading = (meaning(last) or words or code).rstrip(".")
    if life.state == "in_doubt":
        doubt = (
            f"{last.backend} gave no usable answer after it had the whole message. It is held: nobody gets it twice."
        )
        fix = "Ask a recipient whether it arrived. Then release it, or delete it."
        return Cause("warn", "Nobody knows whether it arrived", doubt, fix, ("release", "Release"), words)
    if life.state == "held":
        why, until = why_held(rows), "Nothing happens to it until somebody decides."
        title = "Held, for it came over the client's quota" if why else "Somebody held it"
        return Cause("warn", title, f"{why}. {until}" if why else until, "", ("release", "Release"))
    if life.state == "waiting":
        return Cause("warn", heading, _others(rows), last.fix, ("retry", "Try now"), f"{code} {words}".strip())
    act = ("again", "Send again") if detail.message.has_body else ("", "")
    return Cause("bad", heading, _others(rows), last.fix, act, f"{code} {words}".strip())


def _others(rows: Sequence[RecipientRow]) -> str:
    answers = {(row.code, row.detail) for row in rows}
    return (
        f"{len(answers)} different answers came, this is the last; see the recipients below."
        if len(answers) > 1
        else ""
    )


def _acts(detail: MessageDetail, life: Life) -> Iterator[tuple[str, str, str]]:
    """Verb, label, and how the button looks; those that can do something now."""
    kept = detail.message.has_body
    if life.state == "waiting":
        yield "retry", "Try now", ""
        yield "hold", "Hold", ""
    if life.state in ("held", "in_doubt"):
        yield "release", "Release", ""
    if life.state in ("failed", "partly_failed", "sent", "delivered") and kept:
        yield "again", "Send again", ""
    if life.state in ("waiting", "held", "in_doubt") or (life.state in ("failed", "partly_failed") and kept):
        yield "reroute", "Send by another backend", ""
    if life.state in ("waiting", "held", "in_doubt"):
        yield "bounce", "Return to the sender", ""
    yield "delete", "Delete", "danger"


def _days(entries: Sequence[Entry], visit: Visit) -> Iterator[tuple[str, list[Entry]]]:
    """What happened, by days."""
    day, those = "", list[Entry]()
    for entry in entries:
        own = visit.times.day_text(entry.at) if isinstance(entry.at, datetime) else day
        if own != day and those:
            yield day, those
            those = []
        day = own
        those.append(entry)
    if those:
        yield day, those


def _recipients(detail: MessageDetail, visit: Visit, *, whole: bool) -> list[dict[str, Any] | None]:
    """None stands for those that are left out."""
    found: list[dict[str, Any] | None] = []
    rows = detail.recipients
    left = range(_EDGE, len(rows) - _EDGE) if len(rows) > _MANY and not whole else range(0)
    reported = {event.address: event for event in detail.events}
    for number, row in enumerate(rows):
        if number in left:
            found += [None] if number == left.start else []
            continue
        event = reported.get(row.address) or reported.get("")
        arrived = row.state == "sent" and event is not None and event.state == "delivered"
        code, words = answer(row)
        state = STATES["delivered" if arrived else shown_row(row)]
        last = f"Reported by the provider {visit.times.text(event.reported_at)}" if arrived and event else ""
        said = last or meaning(row) or words or ("Not tried yet" if row.state == "queued" else "")
        found.append({"row": row, "state": state, "said": said, "code": "" if arrived else code})
    return found


async def _bytes(visit: Visit) -> bytes:
    ident = visit.request.path_params["id"]
    body = await visit.service.spool.raw(ident)
    if body is None:
        raise HTTPException(
            404, f"The text of {ident} is not here: there is no such message, or it went after sending."
        )
    return body


async def header(visit: Visit) -> View:
    """Only the header, as it came."""
    body = await _bytes(visit)
    try:
        end = scan(body[:_SHOWN]).end
    except BadMessage:
        end = len(body)
    return _text(visit, "Header", body[:end])


async def source(visit: Visit) -> View:
    return _text(visit, "Source", await _bytes(visit))


def _text(visit: Visit, what: str, body: bytes) -> View:
    """Text in a <pre>, whatever it is; octets that are no UTF-8 are shown as \\xNN."""
    shown = body[:_SHOWN].replace(b"\r\n", b"\n").decode("utf-8", "backslashreplace")
    ident = visit.request.path_params["id"]
    values = {
        "section": "messages",
        "what": what,
        "id": ident,
        "text": Whole(shown),
        "left": max(0, len(body) - _SHOWN),
    }
    return View(template="source.html", values=values)


async def download(visit: Visit) -> Response:
    """A file for a mail program. No browser shows it, and none runs what is in it."""
    body = await _bytes(visit)
    headers = {
        "content-disposition": f'attachment; filename="{visit.request.path_params["id"]}.eml"',
        "content-security-policy": "sandbox; default-src 'none'",
    }
    return Response(body, headers=headers, media_type="application/octet-stream")
