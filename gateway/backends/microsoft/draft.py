"""Mail that is too large for MIME: a draft made of JSON fields, and its files uploaded one after the other.

Graph has no MIME above 4 MB (providers.md 2.6). What the fields cannot say is refused, not lost.
"""

from __future__ import annotations

import asyncio
import binascii
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from gateway.backends.microsoft.api import Api, error_of, is_known, unsent
from gateway.backends.shared.http import read_json
from gateway.clock import Clock
from gateway.fetch import Answer
from gateway.message import Content, Header, Leaf, leaf_pieces, leaf_text, scan, walk
from gateway.message.text import decode
from gateway.model import CannotCarry, Outcome, Verdict

LACKS = frozenset(("signed", "encrypted", "calendar", "report", "malformed"))
_SMALL = 3_000_000  # bytes; larger files need an upload session, and smaller ones get none
_RANGE = 12 * 320 * 1024  # bytes; a multiple of 320 KiB below 4 MB
_BODY = 3_500_000  # bytes of JSON
_LOSSES = 5  # answers that may be lost during one upload
_AGAIN = 2.0  # seconds before asking how far it came
_HEADERS = 5  # Graph takes no more fields of a sender's own


@dataclass(frozen=True, slots=True)
class File:
    """An attachment. ``pieces`` gives its content from the start, each time it is called."""

    facts: dict[str, Any]
    size: int
    pieces: Callable[[], Iterator[bytes]]


@dataclass(frozen=True, slots=True)
class Draft:
    """``fields`` is the JSON to create it; ``note`` tells what will not arrive."""

    fields: bytes
    files: tuple[File, ...]
    note: str


def draft_of(raw: bytes) -> Draft:
    """The fields and files of a message that is addressed to whoever stands in To, Cc and Bcc.

    Takes its time: for a thread. Raises CannotCarry, BadMessage.
    """
    content, header = walk(raw), scan(raw)
    if lacking := sorted(LACKS & content.features.keys()):
        where = f"{lacking[0]}: {content.features[lacking[0]]}"
        raise CannotCarry(
            "feature", "5.6.3", f"Graph takes mail above 3 MB only in fields, which cannot hold this ({where})"
        )
    own = [field for field in header.fields if field.name.startswith("x-")]
    own.sort(key=lambda field: field.name != "x-auto-response-suppress")
    fields = {
        **_fields(raw, content, header),
        "internetMessageHeaders": [{"name": field.spelled, "value": decode(field.value)} for field in own[:_HEADERS]],
    }
    if len(fields["body"]["content"]) > _BODY or len(encoded := _encoded(fields)) > _BODY:
        raise CannotCarry("too_big", "5.3.4", "the text alone is larger than Graph takes, send it as an attachment")
    files = tuple(_file(raw, leaf, inline=leaf in content.inline) for leaf in (*content.inline, *content.attachments))
    lost = [field.name for field in own[_HEADERS:]]
    return Draft(
        encoded, files, f"; sent in fields, without {len(lost)} more X- fields" if lost else "; sent in fields"
    )


def _encoded(fields: Mapping[str, Any]) -> bytes:
    return json.dumps({name: value for name, value in fields.items() if value}).encode()


def _fields(raw: bytes, content: Content, header: Header) -> dict[str, Any]:
    body = content.html or content.text
    threading = {"String 0x1042": header.first("in-reply-to"), "String 0x1039": header.first("references")}
    return {
        "subject": content.subject,
        "body": {"contentType": "html" if content.html else "text", "content": leaf_text(raw, body) if body else ""},
        "from": next(iter(_people(header, "from")), None),
        "sender": next(iter(_people(header, "sender")), None),
        "toRecipients": _people(header, "to"),
        "ccRecipients": _people(header, "cc"),
        "bccRecipients": _people(header, "bcc"),
        "replyTo": _people(header, "reply-to"),
        "internetMessageId": header.first("message-id"),
        "importance": _importance(header),
        "isReadReceiptRequested": bool(header.count("disposition-notification-to")),
        # PidTagInReplyToId and PidTagInternetReferences (MS-OXOMSG 2.2.1.15, 2.2.1.26): there are no fields for them.
        "singleValueExtendedProperties": [{"id": name, "value": value} for name, value in threading.items() if value],
    }


def _people(header: Header, name: str) -> list[dict[str, Any]]:
    found = []
    for box in header.mailboxes(name):
        shown = decode(box.phrase).strip('"').replace('\\"', '"')
        named = {"name": shown} if shown else {}
        found += [{"emailAddress": {"address": address, **named}} for address in box.addresses]
    return found


def _importance(header: Header) -> str:
    said = header.first("importance").lower() or header.first("x-priority")[:1]
    return {"high": "high", "low": "low", "1": "high", "2": "high", "4": "low", "5": "low"}.get(said, "")


def _file(raw: bytes, leaf: Leaf, *, inline: bool) -> File:
    pieces = partial(leaf_pieces, raw, leaf)
    name = leaf.filename or ("message.eml" if leaf.content_type.startswith("message/") else f"part-{leaf.number}")
    facts = {"name": name, "contentType": leaf.content_type, "isInline": inline}
    return File(facts | ({"contentId": leaf.content_id} if leaf.content_id else {}), sum(map(len, pieces())), pieces)


async def attach_all(api: Api, clock: Clock, files: Sequence[File], draft: str) -> Outcome | None:
    """Add the files to the draft (its path in the API). None: all are there."""
    for file in files:
        if failed := await _attach(api, clock, draft, file):
            return failed
    return None


async def _attach(api: Api, clock: Clock, draft: str, file: File) -> Outcome | None:
    if file.size < _SMALL:
        content = await asyncio.to_thread(_attachment, file)
        answer = await api.call("POST", f"{draft}/attachments", content=content)
        return None if _is(answer, 201) else _failed(api, answer)
    item = {"attachmentType": "file", "size": file.size, **file.facts}
    content = json.dumps({"AttachmentItem": item}).encode()
    answer = await api.call("POST", f"{draft}/attachments/createUploadSession", content=content)
    url = read_json(answer.body).get("uploadUrl") if isinstance(answer, Answer) else None
    return await _upload(api, clock, url, file) if _is(answer, 201) and isinstance(url, str) else _failed(api, answer)


def _attachment(file: File) -> bytes:
    encoded = binascii.b2a_base64(b"".join(file.pieces()), newline=False)
    start = json.dumps({"@odata.type": "#microsoft.graph.fileAttachment", **file.facts})[:-1].encode()
    return b"".join((start, b',"contentBytes":"', encoded, b'"}'))


async def _upload(api: Api, clock: Clock, url: str, file: File) -> Outcome | None:
    """The ranges of a file in order; after a lost answer from where the provider says it is."""
    reader, at, losses = _Reader(file.pieces), 0, 0
    while True:
        piece = await asyncio.to_thread(reader.read, at, min(_RANGE, file.size - at))
        span = f"bytes {at}-{at + len(piece) - 1}/{file.size}"
        headers = {"content-type": "application/octet-stream", "content-range": span}
        answer = await api.upload("PUT", url, piece, headers)
        if isinstance(answer, Outcome) or answer.status == 416 or answer.status >= 500:
            await clock.sleep(_AGAIN)
            answer = await api.upload("GET", url)
        if _is(answer, 201):
            return None
        following = _expected(answer)
        losses += following < at + len(piece)  # also where it takes ever smaller bites
        if not 0 <= following < file.size or losses > _LOSSES:
            return _failed(api, answer, session=True)
        at = following


def _expected(answer: Answer | Outcome) -> int:
    """Where the provider wants the upload to go on; -1 if it does not say so."""
    if isinstance(answer, Outcome) or answer.status != 200:
        return -1
    ranges = read_json(answer.body).get("nextExpectedRanges") or read_json(answer.body).get("NextExpectedRanges")
    start = str(ranges[0]).partition("-")[0] if isinstance(ranges, list) and ranges else ""
    return int(start) if start.isascii() and start.isdigit() and len(start) < 16 else -1


def _is(answer: Answer | Outcome, status: int) -> bool:
    return isinstance(answer, Answer) and answer.status == status


def _failed(api: Api, answer: Answer | Outcome, *, session: bool = False) -> Outcome:
    """Nothing was sent, and only what Exchange says of the file itself is final.

    An upload ``session`` needs no token of ours: where it is refused otherwise it has ended, which is nobody's fault.
    """
    outcome = answer if isinstance(answer, Outcome) else api.judge(answer)
    final = outcome.code == 413 or (isinstance(answer, Answer) and is_known(error_of(answer)[0]))
    ended = session and (
        outcome.verdict is Verdict.MISCONFIGURED or (outcome.verdict is Verdict.REJECTED and not final)
    )
    if ended or (outcome.verdict is Verdict.MISCONFIGURED and outcome.code == 404):
        outcome = replace(outcome, verdict=Verdict.DEFERRED, enhanced="4.3.0")
    return unsent(outcome, "attachment")


class _Reader:
    """Any range of a file that can only be read from its start; ranges in order cost nothing extra. For a thread."""

    def __init__(self, pieces: Callable[[], Iterator[bytes]]) -> None:
        self._pieces = pieces
        self._rest = pieces()
        self._start = 0
        self._held = bytearray()

    def read(self, start: int, size: int) -> bytes:
        if start < self._start:
            self._rest, self._start, self._held = self._pieces(), 0, bytearray()
        while self._start + len(self._held) < start + size:
            skipped = min(len(self._held), start - self._start)
            del self._held[:skipped]
            self._start += skipped
            piece = next(self._rest, b"")
            if not piece:
                break
            self._held += piece
        return bytes(self._held[start - self._start : start - self._start + size])
