"""Graph as far as looking for mail that came back goes: delta queries, MIME of one message, the message trace."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from tests.backends.graph_fake import GraphFake, error
from tests.backends.kit import Request, http

_PAGE = 50
_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
_TRACES = "/v1.0/admin/exchange/tracing/messageTraces"
TRACE = "ExchangeMessageTrace.Read.All"


@dataclass
class Letter:
    """Mail in a folder. ``sender`` None: it names none."""

    raw: bytes
    sender: str | None = "postmaster@contoso.example"
    name: str = ""
    folder: str = "inbox"
    gone: bool = False


@dataclass
class ReturnsFake(GraphFake):
    """``letters`` by number; ``traces`` are rows, ``details`` what is told of each by (id, recipient)."""

    letters: list[Letter] = field(default_factory=list)
    forgotten: bool = False  # the state of every delta query that was begun
    traces: list[dict[str, Any]] = field(default_factory=list)
    details: dict[tuple[str, str], list[dict[str, str]]] = field(default_factory=dict)
    principal: bool = True
    junk: bool = True
    asked: list[str] = field(default_factory=list)

    def _route(self, request: Request) -> tuple[str, Callable[[], bytes]]:
        if request.path.startswith(_TRACES):
            return "trace", lambda: self._bearer(request) or self._trace(request)
        return super()._route(request)

    def _bearer(self, request: Request) -> bytes | None:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.tokens.get(token, -1.0) <= self.clock.monotonic():
            return error(401, "InvalidAuthenticationToken", "Lifetime validation failed, the token is expired.")
        return None

    def _place(
        self, request: Request, mailbox: str, path: str, query: dict[str, str]
    ) -> tuple[str, Callable[[], bytes]]:
        if request.method != "GET" and path.startswith(("/mailFolders", "/messages")):
            return "changes", lambda: error(405, "MethodNotAllowed", "this fake is only looked at")
        if found := re.fullmatch(r"/mailFolders/(inbox|junkemail)/messages/delta", path):
            return f"delta {found[1]}", lambda: self._readable() or self._delta(request, mailbox, found[1], query)
        if re.fullmatch(r"/mailFolders/[^/]+/messages/[^/]+/\$value", path):
            return "value", lambda: error(405, "ErrorInvalidRequest", "The OData request is not supported.")
        if found := re.fullmatch(r"/messages/([^/]+)/\$value", path):
            return "value", lambda: self._value(request, unquote(found[1]))
        return super()._place(request, mailbox, path, query)

    # -- delta -------------------------------------------------------------------------------------------------------

    def _delta(self, request: Request, mailbox: str, folder: str, query: dict[str, str]) -> bytes:
        """Nothing but this may be asked (learn.microsoft.com/graph/api/message-delta)."""
        if folder == "junkemail" and not self.junk:
            return error(404, "ErrorFolderNotFound", "The specified folder could not be found in the store.")
        prefer = request.headers.get("prefer", "")
        if not re.search(r"odata\.maxpagesize=\d+", prefer) or 'IdType="ImmutableId"' not in prefer:
            return error(400, "BadRequest", "this fake wants pages and immutable ids")
        token = query.get("$deltatoken") or query.get("$skiptoken") or ""
        if token:
            if set(query) - {"$deltatoken", "$skiptoken"}:
                return error(400, "ErrorInvalidUrlQuery", "a token has all of the first query in it")
            found = re.fullmatch(rf"{folder}-(\d+)", token)
            if self.forgotten or not found:
                self.forgotten = False
                return error(410, "SyncStateNotFound", "The sync state generation is not found.")
            start = int(found[1])
        else:
            if set(query) - {"changeType", "$select", "$filter"} or query.get("changeType") != "created":
                return error(400, "ErrorInvalidUrlQuery", f"not with delta: {sorted(query)}")
            if not re.fullmatch(rf"receivedDateTime g[et] {_TIME}", query.get("$filter", "")):
                return error(400, "ErrorInvalidUrlQueryFilter", "The query filter contains one or more invalid nodes.")
            start = 0
        entries = [self._entry(n, one) for n, one in enumerate(self.letters) if one.folder == folder and n >= start]
        page, rest = entries[:_PAGE], entries[_PAGE:]
        after = int(page[-1]["id"].partition("=")[0][2:]) + 1 if page else max(start, 0)
        base = f"https://graph.microsoft.com/v1.0/users/{mailbox}/mailFolders/{folder}/messages/delta"
        kind, token = ("nextLink", "$skiptoken") if rest else ("deltaLink", "$deltatoken")
        last = {f"@odata.{kind}": f"{base}?{token}={folder}-{after}"}
        return http(200, {"value": page, **last})

    @staticmethod
    def _entry(number: int, one: Letter) -> dict[str, Any]:
        found: dict[str, Any] = {"@odata.etag": 'W/"x"', "id": f"AA{number}=/+"}
        if one.sender is not None:
            found["from"] = {"emailAddress": {"name": one.name, "address": one.sender}}
        return found

    def _value(self, request: Request, name: str) -> bytes:
        """Mail.ReadBasic withholds the body, and so this."""
        self.asked.append(name)
        if not any(one.removesuffix(".Shared") in ("Mail.Read", "Mail.ReadWrite") for one in self.permissions.split()):
            return error(403, "ErrorAccessDenied", "Access is denied. Check credentials and try again.")
        letter = self.letters[int(name.partition("=")[0][2:])]
        if letter.gone or 'IdType="ImmutableId"' not in request.headers.get("prefer", ""):
            return error(404, "ErrorItemNotFound", "The specified object was not found in the store.")
        return http(200, letter.raw, {"Content-Type": "text/plain"})

    # -- trace -------------------------------------------------------------------------------------------------------

    def _trace(self, request: Request) -> bytes:
        if not self.principal:
            return error(401, "UnknownError", "Service principal-less Authentication failed")
        if not self._may(TRACE):
            return error(403, "UnknownError", "Forbidden")
        url = urlsplit(request.path)
        path = url.path.removeprefix(_TRACES)
        if found := re.fullmatch(r"/([^/]+)/getDetailsByRecipient\(recipientAddress='((?:[^']|'')+)'\)", unquote(path)):
            rows = self.details.get((found[1], found[2].replace("''", "'")))
            self.asked.append(found[2])
            return http(200, {"value": rows}) if rows is not None else error(404, "NotFound")
        query = dict(part.split("=", 1) for part in unquote(url.query).split("&"))
        return self._listed(query)

    def _listed(self, query: dict[str, str]) -> bytes:
        parts = query.pop("$filter", "").split(" and ")
        top, skip = int(query.pop("$top", 1000)), int(query.pop("$skiptoken", 0))
        times = dict(re.findall(rf"receivedDateTime (ge|le) ({_TIME})", " and ".join(parts)))
        rest = [part for part in parts if not part.startswith("receivedDateTime")]
        wanted = dict(re.fullmatch(r"(status|senderAddress) eq '(.*)'", part).groups() for part in rest)  # type: ignore[union-attr]
        if query or set(times) != {"ge", "le"} or not 1 <= top <= 5000:
            return error(400, "BadRequest", "Invalid filter")
        begin, end = (datetime.fromisoformat(times[name]) for name in ("ge", "le"))
        if end - begin > timedelta(days=10) or end > self.clock.now() + timedelta(seconds=1):
            return error(400, "BadRequest", "The date range is more than 10 days")
        fits = [row for row in self.traces if all(row[name] == value for name, value in wanted.items())]
        page, more = fits[skip : skip + top], len(fits) > skip + top
        asked = f"$filter={quote(' and '.join(parts))}&$top={top}&$skiptoken={skip + top}"
        link = f"https://graph.microsoft.com{_TRACES}?{asked}"
        return http(200, {"value": page, **({"@odata.nextLink": link} if more else {})})


def trace(ident: str, message_id: str, whom: str = "b@x.example", status: str = "failed") -> dict[str, Any]:
    return {
        "id": ident, "messageId": message_id, "recipientAddress": whom, "status": status, "subject": "Invoice 12",
        "senderAddress": "a@corp.example", "receivedDateTime": "2026-11-20T12:00:00Z", "size": 100,
    }  # fmt: skip
