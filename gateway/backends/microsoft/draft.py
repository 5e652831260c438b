"""Mail that is too large for MIME: a draft made of JSON fields, and its files uploaded one after the other.

Graph has no MIME above 4 MB (https://learn.microsoft.com/graph/outlook-large-attachments). What the fields cannot say
is refused, not lost.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from gateway.backends.microsoft.api import KNOWN, Api, error_of, unsent
from gateway.backends.microsoft.fields import SENSITIVITY, fields_of, listed
from gateway.backends.shared.base import NoAnswer
from gateway.fetch import Answer
from gateway.message import Leaf, Undecodable, leaf_pieces, leaf_text, scan, walk
from gateway.model import CannotCarry, Scope, Verdict
from gateway.pools import look_through_mail
from gateway.strangers import lenient_json

LACKS = frozenset(("signed", "encrypted", "calendar", "report", "malformed", "charset", "no_charset"))
_SMALL = 3_000_000  # bytes; larger files need an upload session, and smaller ones get none
RANGE = 12 * 320 * 1024  # bytes; a multiple of 320 KiB below 4 MB
_BODY = 3_500_000  # bytes of JSON
_LOSSES = 5  # answers that may be lost during one upload
_AGAIN = 2.0  # seconds before asking how far it came


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


def draft_of(raw: bytes, charset: str = "") -> Draft:
    """The fields and files of a message that is addressed to whoever stands in To, Cc and Bcc.

    ``charset`` is that of text which names none. Takes its time: for a thread. Raises CannotCarry, BadMessage.
    """
    content, header = walk(raw), scan(raw)
    if lacking := sorted(lacks(charset) & content.features.keys()):
        what = f"{lacking[0]}: {content.features[lacking[0]]}"
        text = f"Graph takes mail above 3 MB only in fields, which cannot hold this ({what})"
        raise CannotCarry("feature", "5.6.3", text)
    body = content.html or content.text
    try:
        text = leaf_text(raw, body, charset) if body else ""
        fields, lost = fields_of(header, charset)
    except Undecodable as error:  # charset was given, and is not what it is in
        raise CannotCarry("feature", "5.6.3", f"the text {error}") from None
    fields["body"] = {"contentType": "html" if content.html else "text", "content": text}
    encoded = (
        json.dumps({name: value for name, value in fields.items() if value}).encode() if len(text) <= _BODY else b""
    )
    if not encoded or len(encoded) > _BODY:
        raise CannotCarry("too_big", "5.3.4", "the text alone is larger than Graph takes, send it as an attachment")
    files = [_file(raw, leaf, lost, inline=True) for leaf in content.inline]
    files += [_file(raw, leaf, lost, inline=False) for leaf in content.attachments]
    sent = {body, *content.inline, *content.attachments}
    lost += [str(leaf) for leaf in content.leaves if leaf not in sent]
    kept = {one["id"] for one in fields["singleValueExtendedProperties"]}
    changed = ", Sensitivity as a property" if SENSITIVITY in kept else ""
    return Draft(encoded, tuple(files), f"; sent in fields{changed}" + (f", without {listed(lost)}" if lost else ""))


def lacks(charset: str) -> frozenset[str]:
    """What the fields cannot hold, where ``charset`` is that of text which names none."""
    return LACKS - {"no_charset"} if charset else LACKS


def _file(raw: bytes, leaf: Leaf, lost: list[str], *, inline: bool) -> File:
    pieces = partial(leaf_pieces, raw, leaf)
    name = leaf.filename or ("message.eml" if leaf.content_type.startswith("message/") else f"part-{leaf.number}")
    if "\ufffd" in name or "=?" in name:  # what could not be decoded
        lost.append(f"the file name of part {leaf.number}, whose character set cannot be made out")
        name = f"part-{leaf.number}" if "=?" in name else name.replace("\ufffd", "_")
    facts = {"name": name, "contentType": leaf.content_type, "isInline": inline}
    return File(facts | ({"contentId": leaf.content_id} if leaf.content_id else {}), sum(map(len, pieces())), pieces)


async def attach_all(api: Api, files: Sequence[File], draft: str) -> None:
    """Add the files to the draft (its path in the API). Raises NoAnswer where one of them cannot be added."""
    with unsent("attachment"):
        for file in files:
            await _attach(api, draft, file)


async def _attach(api: Api, draft: str, file: File) -> None:
    if file.size < _SMALL:
        content = await look_through_mail(partial(_attachment, file))
        answer = await api.call("POST", f"{draft}/attachments", content=content)
        if answer.status != 201:
            raise _failure(api, answer)
        return
    item = {"attachmentType": "file", "size": file.size, **file.facts}
    content = json.dumps({"AttachmentItem": item}).encode()
    answer = await api.call("POST", f"{draft}/attachments/createUploadSession", content=content)
    url = lenient_json(answer.body).get("uploadUrl")
    if answer.status != 201 or not isinstance(url, str):
        raise _failure(api, answer)
    await _upload(api, url, file)


def _attachment(file: File) -> bytes:
    encoded = binascii.b2a_base64(b"".join(file.pieces()), newline=False)
    start = json.dumps({"@odata.type": "#microsoft.graph.fileAttachment", **file.facts})[:-1].encode()
    return b"".join((start, b',"contentBytes":"', encoded, b'"}'))


async def _upload(api: Api, url: str, file: File) -> None:
    """The ranges of a file in order; after a lost answer from where the provider says it is."""
    reader, at, losses = Reader(file.pieces), 0, 0
    while True:
        piece = await look_through_mail(partial(reader.read, at, min(RANGE, file.size - at)))
        answer = await _put(api, url, piece, f"bytes {at}-{at + len(piece) - 1}/{file.size}")
        if answer is None:
            await api.context.clock.sleep(_AGAIN)
            answer = await api.upload("GET", url)
        if answer.status == 201:
            return
        following = _expected(answer)
        losses += following < at + len(piece)  # also where it takes ever smaller bites
        if not 0 <= following < file.size or losses > _LOSSES:
            raise _failure(api, answer, session=True)
        at = following


async def _put(api: Api, url: str, piece: bytes, span: str) -> Answer | None:
    """None where the provider has to be asked how far it came."""
    headers = {"content-type": "application/octet-stream", "content-range": span}
    try:
        answer = await api.upload("PUT", url, piece, headers)
    except NoAnswer:
        return None
    return None if answer.status == 416 or answer.status >= 500 else answer


def _expected(answer: Answer) -> int:
    """Where the provider wants the upload to go on; -1 if it does not say so."""
    if answer.status != 200:
        return -1
    ranges = lenient_json(answer.body).get("nextExpectedRanges") or lenient_json(answer.body).get("NextExpectedRanges")
    start = str(ranges[0]).partition("-")[0] if isinstance(ranges, list) and ranges else ""
    return int(start) if start.isascii() and start.isdigit() and len(start) < 16 else -1


def _failure(api: Api, answer: Answer, *, session: bool = False) -> NoAnswer:
    """Only what Exchange says of the file itself is final.

    An upload ``session`` needs no token of ours: where it is refused otherwise it has ended, which is nobody's fault.
    """
    outcome = api.judge(answer)
    ours = outcome.verdict is Verdict.MISCONFIGURED
    final = answer.status == 413 or error_of(answer)[0] in KNOWN
    ended = session and (ours or (outcome.verdict is Verdict.REJECTED and not final))
    if ended or (ours and answer.status == 404):
        outcome = replace(outcome, verdict=Verdict.DEFERRED, enhanced="4.3.0", scope=Scope.MESSAGE, fix="")
    return NoAnswer(outcome)


class Reader:
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
