"""How it came, and what was decided of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.health.words import octets
from gateway.lifeline import words
from gateway.lifeline.entry import Entry
from gateway.spool import MessageDetail, MessageRow
from gateway.spool.records import AskedRow
from gateway.telling import people

_KNOWN_BY: Mapping[str, str] = {
    "network": "by its network",
    "token": "by its token",
    "password": "by its password",
    "provider": "by a token of its provider",
    "file": "by who owns the file",
    "inside": "from inside",
}
_FIELDS = {
    "bcc": "Bcc", "resent-bcc": "Resent-Bcc", "return-path": "Return-Path", "sender": "Sender", "date": "Date",
    "from": "From", "message-id": "Message-ID",
}  # fmt: skip
_REPAIRS: Mapping[str, str] = {
    "line_ends": "line ends that were no CRLF",
    "default_domain": "addresses without a domain got the client's",
    "dropped_date": "Date is that of the file",
}
_BOUNCES = {
    "failed": "It tells the sender of {of} that his mail failed.",
    "delayed": "It tells the sender of {of} that his mail is late.",
    "relayed": "It tells the sender of {of} that his mail was handed over.",
}


def accepted(detail: MessageDetail) -> Entry:
    """The reply was given once it was on disk."""
    message, how = detail.message, words.how_of(detail)
    if message.bounce:
        of = str(how.get("of", ""))
        note = _BOUNCES.get(str(how.get("kind", "")), "It is a report of ours.").format(of=of)
        return Entry(at=message.received_at, kind="made", title="Made here", note=note, link=of)
    if of := message.resend_of:
        note = f"It is another copy of {of}, which stays as it was."
        return Entry(at=message.received_at, kind="made", title="Sent again by order", note=note, link=of)
    login = "" if message.login == message.client else message.login
    facts = {
        "Client": ", ".join(filter(None, (message.client, _KNOWN_BY.get(str(how.get("by", "")), ""), _key(how)))),
        "Login": login,
        "Address": ", ".join(filter(None, (message.peer, _helo(how)))),
        **_door(message, how),
        "Size": octets(message.size),
        "Message-ID": message.message_id,
        "Asked for": _asked(detail),
    }
    told = f"It was told 250 2.0.0 Ok: queued as {message.id}." if message.peer else ""
    known = tuple((name, text) for name, text in facts.items() if text)
    return Entry(at=message.received_at, kind="accepted", title="Accepted", facts=known, note=told)


def _door(message: MessageRow, how: Mapping[str, Any]) -> Mapping[str, str]:
    """What came as a file, or was made here by order, no listener took."""
    if how.get("with") == "local":
        return {"Handed in": f"as a file, in {message.listener}" if message.listener else "here, by no listener"}
    secured = str(how.get("tls", "")) or ("no TLS" if message.peer and how else "")
    return {"Listener": ", ".join(filter(None, (message.listener, str(how.get("with", "")), secured)))}


def _helo(how: Mapping[str, Any]) -> str:
    return f"calls itself {how['helo']}" if how.get("helo") else ""


def _key(how: Mapping[str, Any]) -> str:
    return f"key {how['key']}" if how.get("key") else ""


def _asked(detail: MessageDetail) -> str:
    """What the sender asked for in parameters (RFC 3461, 6531)."""
    message = detail.message
    copies = {row.became for row in detail.asked if row.why == "copy"}  # for whom the settings asked
    notify = sorted({row.notify.upper() for row in detail.recipients if row.notify and row.address not in copies})
    asked = [f"notify {one}" for one in notify] + ([f"envelope id {message.envid}"] if message.envid else [])
    return ", ".join(asked)


def decided(detail: MessageDetail) -> Iterator[Entry]:
    """Nothing where nothing is known: a bounce, or mail that an older version accepted."""
    how = words.how_of(detail)
    facts = [("Sender", sender) for sender in _sender(detail, how)]
    facts += [("Recipient", change) for change in _recipients(detail)]
    facts += [("Copy", copy) for copy in _copies(detail)]
    facts += [("Way", way) for way in _ways(detail)]
    facts += [("Demands", f"the client may use {detail.message.pin} only")] if detail.message.pin else []
    facts += [("Hidden", hidden) for hidden in _hidden(detail, how)]
    if stripped := how.get("stripped"):
        facts.append(("Taken out", ", ".join(_FIELDS.get(name, name) for name in stripped)))
    if added := how.get("added"):
        facts.append(("Added", ", ".join(_FIELDS.get(name, name) for name in added)))
    if repairs := how.get("repairs"):
        facts.append(("Mended", ", ".join(_REPAIRS.get(name, name) for name in repairs)))
    if facts:
        yield Entry(at=detail.message.received_at, kind="decided", title="Decided", facts=tuple(facts))


def _sender(detail: MessageDetail, how: Mapping[str, Any]) -> Iterator[str]:
    message, was = detail.message, detail.message.original
    why = {
        "always": f"because clients.{message.client}.rewrite_sender says always",
        "not_allowed": f"because client {message.client} may not send as it",
    }.get(str(how.get("rewrite", "")), "")
    if was and was != how.get("from"):
        yield ", ".join(filter(None, (f"{was} became {message.sender or '<>'}", why)))
    if "from" in how:
        came = how["from"] or "nobody"
        change = f"{came if came == was else f'From of {came}'} became {message.header_from}"
        back = f". Answers go to {how['answers']}" if how.get("answers") else ""
        yield ", ".join(filter(None, (change, why))) + back


def _recipients(detail: MessageDetail) -> Iterator[str]:
    """What those became that were asked for, together where one setting makes one of many."""
    asked: dict[str, list[AskedRow]] = {}
    for row in detail.asked:
        if row.address:
            asked.setdefault(row.address, []).append(row)
    ends: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for address, rows in asked.items():
        ends.setdefault((tuple(row.became for row in rows), rows[0].rule), []).append(address)
    for (became, rule), addresses in ends.items():
        yield f"{people(addresses)} became {people(became)}, because {rule} says so"


def _copies(detail: MessageDetail) -> Iterator[str]:
    for row in detail.asked:
        if row.why == "copy":
            yield f"{row.became} gets one, because {row.rule} says so. The others do not see that, nor does the sender"


def _ways(detail: MessageDetail) -> Iterator[str]:
    names = [row.address for row in detail.recipients]
    for number, line, backend, passed, *places in words.decided_ways(detail):
        whom = people([names[n] for n in places[0] if n < len(names)]) + " by " if places else "by "
        by = f"line {number} of routes ({line})" if number else "the client demands it"
        yield f"{whom}{backend}: {by}" + (f"; not by the first one there: {passed}" if passed else "")


def _hidden(detail: MessageDetail, how: Mapping[str, Any]) -> Iterator[str]:
    names = [row.address for row in detail.recipients]
    if blind := [names[n] for n in how.get("blind", ()) if n < len(names)]:
        yield f"{people(blind)}: in no To or Cc, and stays undisclosed"
    if how.get("crowded"):
        yield "not looked for: To and Cc are too long to be compared with the envelope on the way in"
    if unsent := how.get("unsent"):
        yield f"{unsent} who stand in To or Cc are not mailed again: the envelope does not name them"
