"""The service's HTTP interface as its commands use it: by the admin socket, or by calling the application itself.

Standard library only, and small: every command pays for what is imported here.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode

_DEADLINE = 60.0  # seconds in which the service must say or take something
Runner = Callable[[Coroutine[Any, Any, Any]], Any]
Application = Callable[[Any, Any, Any], Awaitable[None]]  # ASGI 3


class NotSent(Exception):
    """No service listens there, so it did nothing. The text may be shown."""


class Lost(Exception):
    """The service may have done what was asked, but no usable answer came. The text may be shown."""


class Unsaid(KeyError):
    """The service knows nothing of what this version of its commands asks."""


class Said(dict[str, Any]):
    """An object of an answer. Raises Unsaid for a field that is not there: another version gave it."""

    def __missing__(self, field: str) -> Any:
        raise Unsaid(field)


def _headers() -> dict[str, str]:
    """With whom sudo (or doas) made root: the service believes that of root only (gateway.http.access)."""
    user = next(filter(None, map(os.environ.get, ("SUDO_USER", "DOAS_USER"))), "")
    known = {"gateway-operator": user} if user.isascii() and user.isprintable() and user else {}
    return {"content-type": "application/json", **known}


class SocketWay:
    """To a running service, by its UNIX socket; a connection for each request."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def request(self, method: str, target: str, content: bytes) -> tuple[int, bytes]:
        """Status and body of the answer to a request for a path with its query. Raises NotSent and Lost."""
        with closing(HTTPConnection("localhost")) as connection:
            connection.sock = sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(_DEADLINE)
            try:
                sock.connect(bytes(self._path))
            except OSError as error:
                raise NotSent(f"no service answers at {self._path}: {error}") from error
            try:
                connection.request(method, target, content or None, _headers())
                answer = connection.getresponse()
                return answer.status, answer.read()
            except (OSError, HTTPException) as error:
                raise Lost(f"the service at {self._path} gave no answer: {error}") from error


class DirectWay:
    """To an application in this process, while no service runs.

    ``run`` runs one coroutine to its end; an application whose spool is open needs the runner that opened it.
    """

    def __init__(self, app: Application, run: Runner) -> None:
        self._app = app
        self._run = run

    def request(self, method: str, target: str, content: bytes) -> tuple[int, bytes]:
        """As by the socket."""
        answer: tuple[int, bytes] = self._run(self._inside(method, target, content))
        return answer

    async def _inside(self, method: str, target: str, content: bytes) -> tuple[int, bytes]:
        path, _, query = target.partition("?")
        headers = {"host": "localhost", "content-length": str(len(content)), **_headers()}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": unquote(path),
            "query_string": query.encode(),
            "state": {"uid": os.geteuid()},
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
        status, body = 0, bytearray()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: Mapping[str, Any]) -> None:
            nonlocal status
            status = message.get("status", status)
            body.extend(message.get("body", b""))

        await self._app(scope, receive, send)
        return status, bytes(body)


class AdminClient:
    """Requests in JSON. Raises NotSent and Lost as the way it goes by does."""

    def __init__(self, way: SocketWay | DirectWay) -> None:
        self._way = way

    def call(
        self, method: str, path: str, body: object | None = None, query: Mapping[str, Any] | None = None
    ) -> tuple[int, Any]:
        """Status and decoded JSON (None without a body). Raises Lost for an answer that is no JSON."""
        target = _quoted(path) + (f"?{urlencode(query, errors='surrogateescape')}" if query else "")
        status, content = self._way.request(method, target, b"" if body is None else json.dumps(body).encode())
        try:
            return status, json.loads(content, object_hook=Said) if content else None
        except ValueError as error:
            raise Lost("the service gave an unintelligible answer") from error

    def raw(self, path: str) -> tuple[int, bytes]:
        """Status and body as bytes, by GET."""
        return self._way.request("GET", _quoted(path), b"")


def _quoted(path: str) -> str:
    """What an operator typed stays one path, whatever is in it, also what is no UTF-8."""
    return quote(path, errors="surrogateescape")
