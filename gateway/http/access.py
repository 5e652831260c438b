"""Who may ask what: the UNIX socket is trusted by its file mode, loopback may read, everybody else needs a token."""

from __future__ import annotations

from enum import Enum
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.config.values import is_loopback
from gateway.http.problem import problem
from gateway.http.service import Service
from gateway.model import Refusal

_OPEN = frozenset({"/metrics", "/healthz", "/readyz"})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Access(Enum):
    """How a request reached us; decided by the listening socket and never by anything the client says."""

    SOCKET = "socket"
    LOOPBACK = "loopback"
    NETWORK = "network"


def _host_of(authority: str) -> str:
    try:
        return (urlsplit(f"//{authority}").hostname or "").rstrip(".")
    except ValueError:
        return ""


class Guard:
    """The outermost layer: refuses what ``access`` does not allow and marks every answer as private."""

    def __init__(self, app: ASGIApp, service: Service, access: Access) -> None:
        self._app = app
        self._service = service
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-content-type-options"] = "nosniff"
                headers["cache-control"] = "no-store"
            await send(message)

        refusal = await self._refusal(scope["method"], scope["path"], Headers(scope=scope))
        app = self._app if refusal is None else problem(*refusal)
        await app(scope, receive, marked)

    async def _refusal(self, method: str, path: str, headers: Headers) -> tuple[int, str] | None:
        if self._access is Access.LOOPBACK and not is_loopback(_host_of(headers.get("host", ""))):
            # a web page may point its own name at 127.0.0.1 (DNS rebinding); its Host header gives it away
            return 421, "this address answers to localhost only"
        if method not in _SAFE and self._foreign(headers):
            return 403, "a web page of another site asked for this"
        if self._access is Access.SOCKET or path in _OPEN:
            return None
        reads = method in _SAFE and not path.endswith("/raw")
        if self._access is Access.LOOPBACK and reads:
            return None
        return await self._token_refusal(headers.get("authorization", ""))

    @staticmethod
    def _foreign(headers: Headers) -> bool:
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site", "none")
        same = origin is None or origin.partition("://")[2] == headers.get("host")
        return not same or site not in ("none", "same-origin")

    async def _token_refusal(self, authorization: str) -> tuple[int, str] | None:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or self._service.authenticator is None:
            return 401, 'needs the admin socket, or a bearer token whose "aud" is gateway-admin'
        try:
            await self._service.authenticator.admin_token(token.strip())
        except Refusal as refusal:
            return (503 if refusal.code < 500 else 401), refusal.text
        return None
