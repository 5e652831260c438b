"""Who asks, and what he may: the UNIX socket is trusted by its file mode, loopback may read, all else needs a token."""

from __future__ import annotations

import asyncio
import pwd
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.actor import Actor, Role, is_name
from gateway.http.problem import problem
from gateway.http.service import Service
from gateway.model import Refusal
from gateway.pools import read_files
from gateway.url import is_loopback

_HEADERS = {"x-content-type-options": "nosniff", "cache-control": "no-store"}
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


def marking(send: Send, headers: Mapping[str, str]) -> Send:
    """What sends an answer with these headers, where it does not say otherwise itself."""

    async def marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            found = MutableHeaders(scope=message)
            for name, value in headers.items():
                found.setdefault(name, value)
        await send(message)

    return marked


class Guard:
    """The outermost layer: refuses what comes by way of a web page and marks every answer as private."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope["method"], scope["path"], Headers(scope=scope))
        app = self._app if refusal is None else problem(*refusal)
        await app(scope, receive, marking(send, _HEADERS))

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


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks, and why he is nobody where he may not: what he would have to show."""

    actor: Actor
    why: str = 'needs the admin socket, or a bearer token whose "aud" is gateway-admin'


# What each way gives by itself, without anything shown: never less strict than the socket it is.
_ROLE = {Access.NETWORK: Role.NOBODY, Access.LOOPBACK: Role.READ, Access.SOCKET: Role.ADMIN}
ON_BEHALF = "gateway-operator"  # header: whom sudo made root, as the commands know; for root at the socket only


async def identify(service: Service, request: Request, access: Access) -> Asked:
    """Who asks by this way: the user at the admin socket, whose bearer token it is, or nobody by name."""
    if access is Access.SOCKET:
        uid = getattr(request.state, "uid", None)  # set by the server, never by a client
        behalf = request.headers.get(ON_BEHALF, "") if uid == 0 else ""
        return Asked(Actor(behalf if is_name(behalf) else await user_of(uid), "socket", Role.ADMIN))
    nobody = Asked(Actor("", "open", _ROLE[access]))
    for way in _WAYS:
        try:
            if (found := await way(service, request)) and found.role >= _ROLE[access]:
                return Asked(found)
        except Refusal as refusal:  # what was shown is no good: he is who shows nothing
            nobody = replace(nobody, why=refusal.text)
    return nobody


async def _by_token(service: Service, request: Request) -> Actor | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or service.authenticator is None:
        return None
    return service.authenticator.admin_token(token.strip(), peer_of(request))


def peer_of(request: Request) -> str:
    """The address at the other end of the connection, "" at the socket; never what a header says."""
    return request.client.host if request.client else ""


# How somebody off the socket shows who he is, in this order. Each returns None where nothing of its kind is shown, and
# raises Refusal for what is no good.
_WAYS: tuple[Callable[[Service, Request], Awaitable[Actor | None]], ...] = (_by_token,)


def require(asked: Asked, role: Role) -> Actor:
    """Raises HTTPException unless he may: 401 where he has not said who he is, 403 where that is not enough."""
    actor = asked.actor
    if actor.role >= role:
        return actor
    if actor.way == "open":
        raise HTTPException(401, asked.why)
    raise HTTPException(403, f"{actor.name} has the role {actor.role.word}; this needs {role.word}")


def actor_of(request: Request) -> Actor:
    """Who asks, in a handler."""
    actor: Actor = request.state.actor
    return actor


_names: dict[int, str] = {}  # of users: asking for one may wait for a directory server
_PATIENCE = 1.0  # seconds


async def user_of(uid: int | None) -> str:
    """The name of a user of this machine, or its number where nobody tells it in time."""
    if uid is None:
        return "unknown"  # a system that does not tell who is at a socket
    if uid not in _names:
        try:
            _names[uid] = await asyncio.wait_for(read_files(lambda: pwd.getpwuid(uid).pw_name), _PATIENCE)
        except (KeyError, TimeoutError):
            return f"user id {uid}"
    return _names[uid]
