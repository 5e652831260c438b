"""Who may ask what: the UNIX socket is trusted by its file mode, loopback may read, everybody else needs a token."""

from __future__ import annotations

from enum import IntEnum
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.http.problem import problem
from gateway.http.service import Service
from gateway.model import Refusal
from gateway.url import is_loopback

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Access(IntEnum):
    """How a request reached us, the more trusted the higher; decided by the listening socket, never by the client."""

    NETWORK = 0
    LOOPBACK = 1
    SOCKET = 2


def _host_of(authority: str) -> str:
    try:
        return (urlsplit(f"//{authority}").hostname or "").rstrip(".")
    except ValueError:
        return ""


class Guard:
    """The outermost layer: refuses what comes by way of a web page and marks every answer as private."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-content-type-options"] = "nosniff"
                headers["cache-control"] = "no-store"
            await send(message)

        refusal = self._refusal(scope["method"], scope["path"], Headers(scope=scope))
        app = self._app if refusal is None else problem(*refusal)
        await app(scope, receive, marked)

    def _refusal(self, method: str, path: str, headers: Headers) -> tuple[int, str] | None:
        if not path.isprintable():  # "$" in the router's patterns also matches before a newline
            return 404, "no such path"
        called_back = path.startswith("/hooks/")  # through a proxy, by the name that the provider knows
        if self._access is Access.LOOPBACK and not called_back and not is_loopback(_host_of(headers.get("host", ""))):
            # a web page may point its own name at 127.0.0.1 (DNS rebinding); its Host header gives it away
            return 421, "this address answers to localhost only"
        if method not in _SAFE and self._foreign(headers):
            return 403, "a web page of another site asked for this"
        return None

    @staticmethod
    def _foreign(headers: Headers) -> bool:
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site", "none")
        same = origin is None or origin.partition("://")[2] == headers.get("host")
        return not same or site not in ("none", "same-origin")


def check_token(service: Service, authorization: str) -> None:
    """Raises HTTPException unless the header holds a token of an administrator."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or service.authenticator is None:
        raise HTTPException(401, 'needs the admin socket, or a bearer token whose "aud" is gateway-admin')
    try:
        service.authenticator.admin_token(token.strip())
    except Refusal as refusal:
        raise HTTPException(401, refusal.text) from None
