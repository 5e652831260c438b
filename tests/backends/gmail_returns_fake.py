"""The Gmail API as far as looking for mail that came back goes: profile, history, lists and messages, by scope."""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable
from dataclasses import dataclass, field
from email import message_from_bytes
from typing import Any
from urllib.parse import parse_qs, urlsplit

from gateway.backends.google.returns import METADATA, READONLY
from tests.backends.gmail_fake import SCOPE, GoogleFake, error
from tests.backends.kit import Request, http

ME = "/gmail/v1/users/me"
_PAGE = 20


@dataclass
class Arrived:
    raw: bytes
    labels: tuple[str, ...] = ("INBOX", "UNREAD")
    thread: str = ""
    gone: bool = False


@dataclass
class ReturnsFake(GoogleFake):
    """``mail`` in the order in which it came: the history number of each is 1000 + its place."""

    mail: list[Arrived] = field(default_factory=list)
    oldest: int = 0  # what history still reaches back to
    scopes: tuple[str, ...] = (METADATA, READONLY)  # delegated, besides that for sending
    got: list[str] = field(default_factory=list)

    def delegated(self) -> set[str]:
        return {SCOPE, *self.scopes}

    def __call__(self, request: Request) -> bytes | Awaitable[bytes | None]:
        if not request.path.startswith(f"{ME}/") or request.path.startswith(f"{ME}/settings"):
            return super().__call__(request)
        if request.method != "GET":
            return error(405, "methodNotAllowed", "this fake is only looked at")
        if not self._known(request):
            return error(401, "authError", "Invalid Credentials", status="UNAUTHENTICATED")
        scopes = self._scopes()
        if not scopes & {METADATA, READONLY}:
            words = "Request had insufficient authentication scopes."
            return error(403, "insufficientPermissions", words, status="PERMISSION_DENIED")
        if self.answers:
            answer = self.answers.pop(0)
            return answer if isinstance(answer, bytes) else answer(request)
        url = urlsplit(request.path)
        query = parse_qs(url.query)
        return self._looked(url.path.removeprefix(ME), query, narrow=METADATA in scopes)

    def _scopes(self) -> set[str]:
        """Of the last token: a service account's is for what it asked for, a person's for all that was granted."""
        last = self.token_requests[-1]
        if "assertion" not in last:
            return set(self.granted.split())
        payload = last["assertion"].split(".")[1]
        claims = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)).decode()
        return set(re.findall(r"https://www\.googleapis\.com/auth/[\w.]+", claims))

    def _looked(self, path: str, query: dict[str, list[str]], *, narrow: bool) -> bytes:
        if "q" in query and narrow:
            return error(403, "forbidden", "Metadata scope does not support 'q' parameter", status="PERMISSION_DENIED")
        if path == "/profile":
            return http(200, {"emailAddress": "a@corp.example", "historyId": str(1000 + len(self.mail))})
        if path == "/history":
            return self._history(query)
        if path == "/messages":
            return self._list(query)
        found = re.fullmatch(r"/messages/m(\d+)", path)
        if not found or int(found[1]) >= len(self.mail) or self.mail[int(found[1])].gone:
            return error(404, "notFound", "Requested entity was not found.")
        return self._message(int(found[1]), query, narrow=narrow)

    def _history(self, query: dict[str, list[str]]) -> bytes:
        since = int(query["startHistoryId"][0])
        if query.get("historyTypes") != ["messageAdded"] or set(query) - {
            "startHistoryId", "historyTypes", "maxResults", "pageToken", "labelId",
        }:  # fmt: skip
            return error(400, "invalidArgument", "history")
        if since < 1000 + self.oldest:
            return error(404, "notFound", "Requested entity was not found.")
        start = int(query.get("pageToken", ["0"])[0]) or since - 1000
        page = list(enumerate(self.mail))[start : start + _PAGE]
        records = [
            {"id": str(1001 + n), "messagesAdded": [{"message": {**self._named(n), "labelIds": list(one.labels)}}]}
            for n, one in page
        ]
        more = {"nextPageToken": str(start + _PAGE)} if start + _PAGE < len(self.mail) else {}
        listed = {"history": records} if records else {}
        return http(200, {**listed, **more, "historyId": str(1000 + len(self.mail))})

    def _list(self, query: dict[str, list[str]]) -> bytes:
        most, label = int(query.get("maxResults", ["100"])[0]), query["labelIds"][0]
        fits = [n for n, one in reversed(list(enumerate(self.mail))) if label in one.labels]
        return http(200, {"messages": [self._named(n) for n in fits[:most]], "resultSizeEstimate": len(fits)})

    def _named(self, number: int) -> dict[str, Any]:
        return {"id": f"m{number}", "threadId": self.mail[number].thread or f"m{number}"}

    def _message(self, number: int, query: dict[str, list[str]], *, narrow: bool) -> bytes:
        kind, one = query.get("format", ["full"])[0], self.mail[number]
        self.got.append(f"m{number} {kind}")
        if narrow and kind in ("full", "raw"):
            words = f"Metadata scope doesn't allow format {kind.upper()}"
            return error(403, "forbidden", words, status="PERMISSION_DENIED")
        found = {**self._named(number), "labelIds": list(one.labels), "sizeEstimate": len(one.raw)}
        if kind == "raw":
            return http(200, {**found, "raw": base64.urlsafe_b64encode(one.raw).decode().rstrip("=")})
        wanted = {name.lower() for name in query.get("metadataHeaders", [])}
        headers = [
            {"name": name, "value": str(value)}
            for name, value in message_from_bytes(one.raw).items()
            if name.lower() in wanted
        ]
        return http(200, {**found, "payload": {"mimeType": "multipart/report", "headers": headers}})
