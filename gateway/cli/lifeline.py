"""The whole life of a message in plain words: `gateway trace`, `queue show`, `send-test` and `demo` print it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.cli.plain import moment, now, relative, size, span, stamp

Json = Mapping[str, Any]
_SHOWN = 3  # addresses named before "and N more"
_VERDICTS = {
    "sent": "sent",
    "rejected": "refused for good",
    "deferred": "not yet",
    "throttled": "not yet, the provider asks to slow down",
    "misconfigured": "not yet, the provider does not accept us (credentials or settings)",
    "in_doubt": "in doubt, it went out and no usable answer came back",
    "interrupted": "interrupted by a restart, may have been sent",
    "corrupt": "not tried, the content is damaged on disk",
}


_UNTOLD = {
    "off": "bounces.mode is off",
    "null_sender": "it came with the null sender",
    "no_backend": "no backend can carry a bounce to him",
}


def addresses(found: Sequence[str], count: int = 0) -> str:
    """a@x, b@x, c@x and 7 more"""
    more = max(count, len(found)) - _SHOWN
    return ", ".join(found[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def answer(row: Json) -> str:
    """The other side's own words, with the codes it gave in front unless the text begins with them.

    An enhanced code comes by SMTP only (RFC 3463); beside any other answer it is one of ours, for a bounce.
    """
    said_by = row.get("said_by", "")  # "" in rows that an older version wrote
    code = "" if said_by == "gateway" else str(row["code"] or "")
    enhanced = "" if said_by in ("gateway", "http") else row["enhanced"]
    words = row["detail"]
    words = words.removeprefix(f"HTTP {code}").removeprefix(code).lstrip(" -") if code else words
    words = words.removeprefix(enhanced).lstrip() if enhanced else words
    return " ".join(filter(None, (code, enhanced, *words.split())))


def to_do(row: Json) -> str:
    """What a person has to do about an answer or about a backend that rests, "" for nothing."""
    return f"to do: {' '.join(row['fix'].split())}" if row.get("fix") else ""


def lines(detail: Json, backends: Mapping[str, Json]) -> Iterator[str]:
    """Who to whom, accepted, each attempt, what providers said later, what happens next.

    ``backends`` as the API gives them: which rest, and why.
    """
    names = [row["address"] for row in detail["recipients"]]
    yield f"{detail['id']}  from {detail['sender'] or '<>'} to {addresses(names)}"
    if detail.get("original"):
        yield f"  the sender was {detail['original']} and was rewritten"
    if detail["message_id"]:
        yield f"  Message-ID {detail['message_id']}"
    known = {"from": "peer", "on listener": "listener", "client": "client", "login": "login"}
    source = ", ".join(f"{word} {detail[key]}" for word, key in known.items() if detail[key])
    yield f"  {stamp(moment(detail['received_at']))}  accepted {source} ({size(detail['size'])})"
    steps = detail.get("clock_steps", ())
    for number, attempt in enumerate(detail["attempts"]):
        yield from (f"  {step(each)}" for each in steps if each["after"] == number)
        yield from _with_fix(f"  {_attempt(attempt, len(names))}", attempt)
    yield from (f"  {step(each)}" for each in steps if each["after"] >= len(detail["attempts"]))
    yield from (_event(row, len(names)) for row in detail["events"])
    yield from map(_told, detail.get("bounces", ()))
    for line, row in _next(detail, backends):
        yield from _with_fix(f"  => {line}", row)


def step(row: Json) -> str:
    """The machine's clock was set."""
    was, is_now = moment(row["was_at"]), moment(row["now_at"])
    if was is None or is_now is None:
        return ""
    seconds = (is_now - was).total_seconds()
    direction = "forward" if seconds > 0 else "back"
    return f"{stamp(is_now)}  this machine's clock was set {direction} by {span(abs(seconds))}, from {stamp(was)}"


def _with_fix(line: str, row: Json) -> Iterator[str]:
    yield line
    if fix := to_do(row):
        yield f"     {fix}"


def _attempt(row: Json, recipients: int) -> str:
    started, ended = moment(row["started_at"]), moment(row["ended_at"])
    whom = f" for {addresses(row['recipients'])}" if len(row["recipients"]) < recipients else ""
    words = _VERDICTS.get(row["verdict"], "under way")
    if answer(row):
        words += f": {answer(row)}"
    if row["remote_id"]:
        words += f", as {row['remote_id']}"
    if started and ended:
        words += f" ({(ended - started).total_seconds():.1f} s)"
    return f"{stamp(started)}  {row['backend']}{whom}: {words}"


def _told(row: Json) -> str:
    what = {"failed": "the failure", "delayed": "the delay", "relayed": "the hand-over"}.get(row["kind"], row["kind"])
    words = (
        f"told of {what} by {row['bounce_id']}" if row["bounce_id"] else f"not told of {what}: {_why(row['reason'])}"
    )
    return f"  {stamp(moment(row['made_at']))}  the sender was {words}"


def _why(reason: str) -> str:
    return _UNTOLD.get(reason, reason)


def _event(row: Json, recipients: int) -> str:
    whom = f" for {row['address']}" if row["address"] and recipients > 1 else ""
    words = f"{row['state']} according to {row['backend']}{whom}"
    return f"  {stamp(moment(row['reported_at']))}  " + ": ".join(filter(None, (words, row["detail"])))


def _next(detail: Json, backends: Mapping[str, Json]) -> Iterator[tuple[str, Json]]:
    """Lines, each with the row that may say what is to be done about it."""
    state, failed = detail["state"], [row for row in detail["recipients"] if row["state"] == "failed"]
    for row in failed:
        asked = "" if _wants_to_know(row) else "; the sender asked not to be told (NOTIFY)"
        yield f"{row['address']} will not get it: {answer(row)}{asked}", row
    if state == "corrupt":
        yield "its content is damaged on disk: it will not be sent, and stays for you to look at", {}
    elif state == "held":
        yield f"held: nothing happens until you run: gateway queue release {detail['id']}", {}
    elif state == "done" and not failed:
        yield _sent(detail["events"], len(detail["recipients"])), {}
    elif state == "queued":
        busy = {row["backend"] for row in detail["attempts"] if not row["ended_at"]}  # when it goes on is not known yet
        for delivery in detail["deliveries"]:
            if delivery["state"] == "queued" and delivery["backend"] not in busy:
                backend = backends.get(delivery["backend"])
                yield _due(delivery, backend), backend or {}
        if expires := moment(detail["expires_at"]):
            yield f"returned to the sender if it cannot be sent within {span((expires - now()).total_seconds())}", {}


def _sent(events: Sequence[Json], recipients: int) -> str:
    """What the provider said last of each counts: it may take mail and send it back later."""
    last = {row["address"]: row["state"] for row in events}
    back = [address for address, state in last.items() if state in ("bounced", "failed")]
    if not back:
        return "sent to everybody"
    whom = addresses(back) if all(back) and recipients > 1 else ""
    return "sent, and taken by the provider, but it did not arrive" + (f": {whom}" if whom else "")


def _wants_to_know(row: Json) -> bool:
    """Absent, NOTIFY means failures (RFC 3461 4.1)."""
    return "FAILURE" in (row.get("notify") or "FAILURE").upper()


def _due(delivery: Json, backend: Json | None) -> str:
    waits = f"waits for backend {delivery['backend']}"
    if backend is None:
        return f"{waits}, which is not configured: put it back, or add a route that matches, then gateway reload"
    if "paused_by" not in backend:
        return f"{waits}; nothing is sent until a service runs: gateway serve"
    if backend["paused_by"]:
        return ": ".join(filter(None, (f"{waits}, which is {rest(backend)}", reason(backend))))
    due = moment(delivery["next_attempt_at"])
    return f"next attempt by {delivery['backend']} at {stamp(due)} ({relative(due)})"


def reason(backend: Json) -> str:
    """What the backend said; an operator gives no reason."""
    return "" if backend.get("paused_by") == "operator" else backend.get("reason", "")


def rest(backend: Json) -> str:
    """Why a backend does not work, and when it goes on."""
    until = moment(backend["paused_until"])
    if backend["paused_by"] == "operator":
        ends = f"{stamp(until)} ({relative(until)})" if until else "it is resumed or the service is restarted"
        return f"paused by the operator until {ends}"
    return f"{backend['paused_by']}, next try " + (f"{stamp(until)} ({relative(until)})" if until else "now")
