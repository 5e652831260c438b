"""A browser without a screen: keeps the cookie, sends what a browser sends, reads forms and texts of a page."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

import httpx

from gateway.http.access import Access
from gateway.http.pages.routes import build
from gateway.http.signins import LINK_LASTS, hashed
from tests.http.kit import Service

HOST = "127.0.0.1:8026"


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.h1, self.forms, self.links = "", [{"action": "", "fields": []}], []  # type: ignore[var-annotated]
        self._in: list[str] = []

    def handle_starttag(self, tag: str, attributes: Sequence[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        if tag == "form":
            self.forms.append({"action": given.get("action", ""), "method": given.get("method", "get"), "fields": []})
        if tag in ("input", "button", "select") and "name" in given:
            self.forms[-1]["fields"].append((given["name"], given.get("value", ""), given))
        if tag == "a":
            self.links.append(given.get("href", ""))
        if tag in ("h1", "script", "style"):
            self._in.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._in and self._in[-1] == tag:
            self._in.pop()

    def handle_data(self, data: str) -> None:
        if "h1" in self._in:
            self.h1 += data
        self.words.append(data)


@dataclass(frozen=True)
class Seen:
    """An answer, as a person sees it."""

    status: int
    headers: Mapping[str, str]
    html: str
    reader: _Reader = field(repr=False)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.reader.words).split())

    @property
    def h1(self) -> str:
        return " ".join(self.reader.h1.split())

    @property
    def token(self) -> str:
        found = re.search(r'name="form_token" value="(\w+)"', self.html)
        return found[1] if found else ""

    @property
    def buttons(self) -> list[str]:
        """What posts something, beside the foot of the page."""
        main = self.html.partition("<main")[2].partition("</main>")[0]
        return re.findall(r"<form[^>]*method=\"post\"", main)


@dataclass
class Browser:
    service: Service
    access: Access = Access.LOOPBACK
    host: str = HOST
    peer: str = "127.0.0.1"
    scheme: str = "http"
    more: dict[str, str] = field(default_factory=dict)
    cookie: str = ""
    app: Any = None

    def __post_init__(self) -> None:
        self.app = self.app or build(self.service, self.access)  # type: ignore[arg-type]

    async def ask(self, method: str, path: str, content: bytes = b"", **headers: str) -> Seen:
        transport = httpx.ASGITransport(self.app, client=(self.peer, 5555), raise_app_exceptions=False)
        given = {"host": self.host, **self.more, **{name.replace("_", "-"): value for name, value in headers.items()}}
        if self.cookie:
            given["cookie"] = f"gateway_ui={self.cookie}"
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}") as client:
            reply = await client.request(method, path, content=content, headers=given)
        if (found := re.match(r"gateway_ui=([\w-]*)", reply.headers.get("set-cookie", ""))) is not None:
            self.cookie = found[1]
        reader = _Reader()
        reader.feed(reply.text)
        return Seen(reply.status_code, reply.headers, reply.text, reader)

    async def get(self, path: str, **headers: str) -> Seen:
        return await self.ask("GET", path, **headers)

    async def post(self, path: str, fields: Any = (), **headers: str) -> Seen:
        """As a form of our own page sends it, without a token."""
        ours = {"origin": f"{self.scheme}://{self.host}", "sec-fetch-site": "same-origin"}
        kind = "application/x-www-form-urlencoded"
        return await self.ask(
            "POST", path, urlencode(fields, doseq=True).encode(), content_type=kind, **(ours | headers)
        )

    async def press(self, path: str, fields: Mapping[str, Any] | None = None, on: str = "/ui/") -> Seen:
        """Load a page and send a form of it."""
        token = (await self.get(on)).token
        return await self.post(path, {"form_token": token, **(fields or {})})

    async def sign_in(self, role: str = "admin", name: str = "root") -> Browser:
        key = secrets.token_urlsafe(32)
        await self.service.spool.add_link(hashed(key), name, role, LINK_LASTS)
        seen = await self.post("/ui/login", {"k": key})
        assert seen.status == 303, seen.text
        return self
