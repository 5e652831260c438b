"""Words for states, verdicts and codes that commands and pages share, in one place."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.spool.listing import MessageRow
from gateway.spool.records import MessageDetail, RecipientRow, Said
from gateway.telling import spoken

_PLAIN = {"queued": "waiting", "held": "held", "done": "sent", "sent": "sent", "failed": "failed", "corrupt": "damaged"}


def shown_row(row: MessageRow | RecipientRow) -> str:
    """The key in telling.STATES for a line of a list, by what that line knows."""
    doubted = row.in_doubt if isinstance(row, MessageRow) else row.verdict == "in_doubt"
    if row.state == "held" and doubted:
        return "in_doubt"
    if row.state == "failed" and isinstance(row, MessageRow) and row.sent_count:
        return "partly_failed"
    return _PLAIN.get(row.state, row.state)


def shown(detail: MessageDetail) -> str:
    """The key in telling.STATES for a message of which all is known."""
    states = [row.state for row in detail.recipients]
    if detail.state == "held":
        held = [row for row in detail.recipients if row.state == "held"]
        return "in_doubt" if held and all(row.verdict == "in_doubt" for row in held) else "held"
    if detail.state == "failed":
        return "failed" if set(states) == {"failed"} else "partly_failed"
    if detail.state == "done":
        return "delivered" if _all_delivered(detail) else "sent"
    return _PLAIN.get(detail.state, detail.state)


def _all_delivered(detail: MessageDetail) -> bool:
    """What the provider said last counts: it may take mail, and send it back later."""
    return bool(detail.events) and all(last_event(detail, row.address) == "delivered" for row in detail.recipients)


def last_event(detail: MessageDetail, address: str) -> str:
    """What the provider said last of this recipient: queued, delivered, bounced, failed, or "" for nothing."""
    said = [event.state for event in detail.events if event.address in ("", address)]
    return said[-1] if said else ""


def answer(row: Said) -> tuple[str, str]:
    """The codes that the other side really gave, and its own words without them."""
    return spoken(row.code, row.enhanced, row.detail, row.said_by)


def why_held(rows: Sequence[RecipientRow]) -> str:
    """What the door held it for; "" where somebody did by hand."""
    return next((row.detail for row in rows if row.state == "held" and not row.verdict and row.detail), "")


# What is behind an enhanced code (RFC 3463 3; 7.2x are of RFC 7372, 1.10 and 7.27 of RFC 7505), whatever its class.
_SUBJECTS: Mapping[str, str] = {
    "1.1": "There is no such address there.",
    "1.2": "There is no such domain, or it takes no mail.",
    "1.3": "The address is written in a way that they do not understand.",
    "1.6": "The mailbox has moved, and nobody says where to.",
    "1.8": "They do not believe the sender's domain.",
    "1.10": "The domain says of itself that it takes no mail.",
    "2.0": "The mailbox cannot take it.",
    "2.1": "The mailbox is switched off.",
    "2.2": "The mailbox is full.",
    "2.3": "The message is larger than this mailbox takes.",
    "3.1": "Their disk is full.",
    "3.2": "Their server takes no mail at the moment.",
    "3.4": "The message is larger than their server takes.",
    "4.1": "Their server is not reached.",
    "4.4": "Nobody knows the way to their server.",
    "4.6": "The mail goes round in a circle.",
    "4.7": "It could not be handed over within the time that mail is kept.",
    "5.3": "It has more recipients than they take at once.",
    "6.0": "They do not take what is in the message.",
    "6.1": "They do not take what is in the message.",
    "6.3": "The message would have to be changed to get there, and may not be.",
    "6.7": "They take no addresses with such characters.",
    "7.0": "They do not take this mail, for a reason of their own.",
    "7.1": "They do not allow this mail from here.",
    "7.5": "Their server is not reached in a safe way.",
    "7.8": "They do not accept the user name or password.",
    "7.9": "They do not accept this way to log in.",
    "7.20": "The message has no DKIM signature that holds.",
    "7.21": "The message has no DKIM signature that they accept.",
    "7.22": "The DKIM signature is not of the author's domain.",
    "7.23": "SPF of the sender's domain does not allow this server.",
    "7.24": "SPF of the sender's domain cannot be read.",
    "7.25": "The address of this server has no name (reverse DNS).",
    "7.26": "The sender's domain is not shown to be genuine (SPF, DKIM, DMARC).",
    "7.27": "The sender's domain says of itself that it takes no mail.",
    "7.28": "They have got too much mail from here.",
}
# What a verdict means whatever code came with it: 403 for a spent limit, 7.0 for a log-in that failed.
_VERDICTS: Mapping[tuple[str, str], str] = {
    ("throttled", "backend"): "They ask us to slow down.",
    ("throttled", "message"): "They ask us to slow down.",
    ("misconfigured", "message"): "They would take it, but for how it is set up, here or there.",
}
_OF_MAIL = ("7.0", "7.1", "3.5")  # subjects that speak of this mail, and say nothing where nobody is taken
_HTTP: Mapping[int, str] = {
    401: "They do not accept our sign-in.",
    402: "The account has to be paid for.",
    403: "The account is not allowed to do this.",
    404: "They do not know the mailbox, or the address of the service is wrong.",
    413: "The message is larger than they take.",
    429: "They ask us to slow down.",
}


def meaning(row: Said) -> str:
    """What an answer means, in plain words; "" where the words themselves are all there is to say."""
    subject = ".".join(row.enhanced.split(".")[1:])
    if row.verdict in ("", "sent", "interrupted", "corrupt"):
        return ""
    if found := _VERDICTS.get((row.verdict, row.scope), ""):
        return found
    code = (row.code or 0) if row.said_by == "http" else 0
    if code in _HTTP:
        return _HTTP[code]
    if row.verdict == "misconfigured" and subject in _OF_MAIL:
        return "They do not accept us as things are set up."
    return _SUBJECTS.get(subject, "They have trouble of their own." if code >= 500 else "")


# What follows from a verdict, for this message and for other mail.
CONSEQUENCES: Mapping[tuple[str, str], str] = {
    ("deferred", "backend"): "All mail for {backend} waits, not only this. It goes out by itself.",
    ("deferred", "message"): "It is tried again by itself. Other mail goes on.",
    ("deferred", "recipient"): "It is tried again by itself. Other mail goes on.",
    ("throttled", "message"): "It is tried again by itself. Other mail goes on.",
    ("throttled", ""): "{backend} waits as long as it was asked to. This costs the message no try.",
    ("misconfigured", "message"): "It waits, is tried again by itself, and is not lost. Other mail goes on.",
    ("misconfigured", ""): "All mail for {backend} waits until this is put right. Nothing is lost.",
    ("in_doubt", ""): "It may or may not have arrived: all of it went out, and no usable answer came.",
    ("interrupted", ""): "The service ended in the middle of it. It may have been sent.",
    ("corrupt", ""): "What lies on the disk is not what was accepted. It is not sent, and stays for you to look at.",
}


def consequence(row: Said) -> str:
    found = CONSEQUENCES.get((row.verdict, row.scope)) or CONSEQUENCES.get((row.verdict, ""), "")
    return found.format(backend=row.backend or "the backend")


def how_of(detail: MessageDetail) -> Mapping[str, Any]:
    """What gateway.how noted; {} of mail that an older version accepted, or where a byte of it flipped."""
    try:
        found = json.loads(detail.how)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and _places(found.get("blind", [])) and _ways(found) else {}


def _places(found: object) -> bool:
    return isinstance(found, list) and all(type(place) is int and place >= 0 for place in found)


def _ways(found: Mapping[str, Any]) -> bool:
    """Another version, or a tool, may have written other things there: a page must not break of it."""
    ways = found.get("routes", [])
    return isinstance(ways, list) and all(
        isinstance(way, list)
        and len(way) in (4, 5)
        and type(way[0]) is int
        and all(isinstance(text, str) for text in way[1:4])
        and (len(way) == 4 or _places(way[4]))
        for way in ways
    )


def decided_ways(detail: MessageDetail) -> list[list[Any]]:
    """Number of the line of routes, its words, the backend, why not the first there, and whose places, if few."""
    found: list[list[Any]] = how_of(detail).get("routes", [])
    return found
