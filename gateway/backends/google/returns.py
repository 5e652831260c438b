"""Mail that came back to a Gmail mailbox: what is new by its history, then headers alone, or the whole report.

https://developers.google.com/workspace/gmail/api/guides/sync. With the scope gmail.metadata there is no search (q) and
no body: Gmail's own reports name in X-Failed-Recipients who failed, and not why. It changes nothing there.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, ClassVar
from urllib.parse import urlencode

from gateway.backends.google.answers import error_of
from gateway.backends.shared.base import NoAnswer
from gateway.backends.shared.http import exchange
from gateway.backends.shared.oauth import TokenCache, authorized
from gateway.fetch import Answer, Fetch
from gateway.model import Outcome, Verdict
from gateway.pools import look_through_mail
from gateway.reports import of_headers, read
from gateway.returned import Look, Returned, Wanted
from gateway.strangers import lenient_json

METADATA = "https://www.googleapis.com/auth/gmail.metadata"
READONLY = "https://www.googleapis.com/auth/gmail.readonly"
LOOKING = 20  # quota units of looking at one message, the dearest of what is asked here
READ_SCOPE = (
    "later_bounces needs the scope {scope} besides gmail.send: add it to the domain-wide delegation, or sign in again "
    "with gateway auth google --backend {name} (docs/gmail.md, Mail that comes back)"
)
_PAGES = 5  # of the history, in one look
_READ = 50  # messages whose header is looked at in one look
_LISTED = 200  # of the newest, where the history does not reach back
_WAITING = 2000  # ids that are kept for the next looks; what is more is not looked at
_HEADERS = ("From", "Subject", "Content-Type", "X-Failed-Recipients", "In-Reply-To", "References")
_OF_REPORTS = re.compile(r"multipart/report", re.IGNORECASE)
_NOT_HERE = {"SENT", "DRAFT", "TRASH"}
_RAW = re.compile(rb'"raw"\s*:\s*"([A-Za-z0-9_-]*)')  # also of an answer that was cut off for its length
_IDENTIFIER = re.compile(r"[0-9A-Za-z_-]{1,64}")


def scope_of(later_bounces: str) -> str:
    """What is needed besides the scope for sending, or ""."""
    return {"metadata": METADATA, "full": READONLY}.get(later_bounces, "")


@dataclass(frozen=True, slots=True)
class Asking:
    """Questions below ``root``. ``turn`` is that of the mailbox, ``judge`` says what an answer that is no success
    means, and ``fix`` what to do where the scope is missing."""

    root: str
    tokens: TokenCache
    fetch: Fetch
    timeout: timedelta
    turn: Callable[[], AbstractAsyncContextManager[None]]
    judge: Callable[[Answer], Outcome]
    fix: str

    async def get(self, path: str) -> Answer:
        """Raises NoAnswer."""

        async def request(token: str) -> Answer:
            headers = {"authorization": f"Bearer {token}"}
            return await exchange(self.fetch, self.root + path, headers=headers, timeout=self.timeout, method="GET")

        async with self.turn():
            return (await authorized(self.tokens, request))[0]

    def refused(self, answer: Answer) -> NoAnswer:
        code, words = error_of(lenient_json(answer.body))
        outcome = self.judge(answer)
        # A token that has gmail.metadata beside a wider scope is refused as if it had that alone.
        scope = answer.status == 403 and re.search(r"insufficient|metadata scope", f"{code} {words}", re.IGNORECASE)
        return NoAnswer(replace(outcome, fix=self.fix) if scope else outcome)


@dataclass(frozen=True, slots=True)
class Inbox:
    """``full``: reports are read, and not their headers alone."""

    source: ClassVar[str] = "report"
    whose: str
    full: bool
    api: Asking

    async def look(self, place: str, wanted: Wanted) -> Look:
        """Raises NoAnswer."""
        kept = lenient_json(place.encode())
        kept = kept if kept.get("of") == self.whose else {}
        history = str(kept.get("history") or "")
        before = kept.get("waiting")
        waiting = [one for one in map(str, before) if _IDENTIFIER.fullmatch(one)] if isinstance(before, list) else []
        new, history, ended = await self._news(history)
        waiting = list(dict.fromkeys((*waiting, *new)))[:_WAITING]
        found: list[Returned] = []
        others = 0
        for ident in waiting[:_READ]:
            if (one := await self._read(ident)) is None:
                others += 1
            else:
                found.append(one)
        waiting = waiting[_READ:]
        place = json.dumps({"of": self.whose, "history": history, "waiting": waiting})
        return Look(tuple(found), place, bool(waiting) or not ended, others)

    async def _news(self, since: str) -> tuple[list[str], str, bool]:
        """What came since then, up to where, and whether that is all; where nobody knows any more, the newest."""
        if not since:
            return await self._afresh()
        found: list[str] = []
        page = ""
        for _ in range(_PAGES):
            asked = {"startHistoryId": since, "historyTypes": "messageAdded", "maxResults": "500"}
            answer = await self.api.get(f"/history?{urlencode(asked | ({'pageToken': page} if page else {}))}")
            if answer.status == 404:  # older than the history reaches, about a week
                return await self._afresh()
            body = self._body(answer)
            records = [one for one in body.get("history") or () if isinstance(one, dict)]
            found += [ident for one in records for ident in _added(one)]
            page = str(body.get("nextPageToken") or "")
            if not page:
                return found, str(body.get("historyId") or since), True
            since_here = max((str(one.get("id") or "") for one in records), key=_number, default=since)
        return found, since_here, False

    async def _afresh(self) -> tuple[list[str], str, bool]:
        """First from where the history goes on, then what is there: so nothing falls between."""
        history = str(self._body(await self.api.get("/profile")).get("historyId") or "")
        found: list[str] = []
        for label in ("INBOX", "SPAM"):  # no q: that is not allowed with gmail.metadata
            asked = urlencode({"labelIds": label, "maxResults": _LISTED, "includeSpamTrash": "true"})
            listed = self._body(await self.api.get(f"/messages?{asked}")).get("messages")
            found += [str(one.get("id")) for one in listed or () if isinstance(one, dict)]
        if not history:
            raise NoAnswer(Outcome(Verdict.DEFERRED, 200, "4.3.0", "a profile without historyId", said_by="http"))
        return [one for one in found if _IDENTIFIER.fullmatch(one)], history, True

    async def _read(self, ident: str) -> Returned | None:
        asked = urlencode({"format": "metadata", "metadataHeaders": _HEADERS}, doseq=True)
        answer = await self.api.get(f"/messages/{ident}?{asked}")
        if answer.status == 404:  # deleted meanwhile
            return None
        body = self._body(answer)
        payload, labels = body.get("payload"), body.get("labelIds")
        listed = payload.get("headers") if isinstance(payload, dict) else None
        headers = {str(one.get("name")).lower(): str(one.get("value")) for one in listed or () if isinstance(one, dict)}
        if isinstance(labels, list) and _NOT_HERE & set(map(str, labels)):
            return None
        one = of_headers(headers)
        if self.full and (one is not None or _OF_REPORTS.search(headers.get("content-type", ""))):
            one = await self._whole(ident)
        if one is None:
            return None
        # A message of ours that begins a thread gives it its own id.
        return Returned(one.named, one.failed, str(body.get("threadId") or ""), self.whose, one.subject)

    async def _whole(self, ident: str) -> Returned | None:
        answer = await self.api.get(f"/messages/{ident}?format=raw")
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise self.api.refused(answer)
        found = _RAW.search(answer.body)
        text = found[1] if found else b""
        text = text[: len(text) - (len(text) % 4 == 1)]  # a single letter stands for less than a byte
        raw = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
        return await look_through_mail(lambda: read(raw))

    def _body(self, answer: Answer) -> Mapping[str, Any]:
        if answer.status != 200:
            raise self.api.refused(answer)
        return lenient_json(answer.body)


def _added(record: Mapping[str, Any]) -> list[str]:
    """What came, and is not what we sent."""
    found = []
    for one in record.get("messagesAdded") or ():
        message = one.get("message") if isinstance(one, dict) else None
        if isinstance(message, dict) and not _NOT_HERE & set(map(str, message.get("labelIds") or ())):
            found.append(str(message.get("id") or ""))
    return [one for one in found if _IDENTIFIER.fullmatch(one)]


def _number(history: str) -> int:
    return int(history) if history.isascii() and history.isdigit() and len(history) < 30 else 0
