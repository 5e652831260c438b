"""uvicorn inside our own loop, on the admin socket and on the TCP address."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import struct
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from gateway.config.files import LONGEST_SOCKET, group_id
from gateway.config.models import HttpSettings
from gateway.config.values import parse_bind
from gateway.http.access import Access
from gateway.http.pages import routes
from gateway.http.routes import build
from gateway.http.service import Service
from gateway.networks import neighbour
from gateway.ports import BindError, listen
from gateway.url import is_loopback

_GRACE = 5  # seconds an answer may still take at shutdown
CONNECTIONS = 100  # open at once; also the backlog
AT_LEAST = 1.0  # seconds for a request to come, while there are less than twice as many
PATIENCE = 10.0  # seconds for a whole request, from the connection or from the answer before it
_CHOWN = "in the unit, SystemCallFilter=@chown allows it; the service's own group needs nothing"
_AHEAD = 65536  # octets of an answer in the system's hands: what is read of it shows in steps of about that size


class _Connection(H11Protocol):
    """uvicorn's, with limits to how many there are and how long each may sit without a whole request, or without
    reading what it asked for."""

    _deadline: asyncio.TimerHandle | None = None
    _unread = 0  # octets of answers when the deadline was set
    _since = 0.0
    _answers = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        super().connection_made(transport)
        if self._by_tcp and not self._has_room():
            transport.abort()
        elif not self._by_tcp:
            self.app_state = {**self.app_state, "uid": _uid_at(transport.get_extra_info("socket"))}
        self._wait()

    @property
    def _by_tcp(self) -> bool:
        """Not by the admin socket, which stays open to us however many come."""
        return self.server is None or self.server[1] is not None

    def _has_room(self) -> bool:
        """Who came to ask nothing must not keep out who asks: the one that waits longest has to go, of those with the
        most connections. Where all have asked, those that go on asking end with the answer that they wait for."""
        known = [one for one in self.connections if isinstance(one, _Connection) and one._by_tcp]
        others = [one for one in known if one is not self and not one.transport.is_closing()]
        if len(others) < CONNECTIONS:
            return True
        held = Counter(one._neighbour() for one in others)
        waiting = [one for one in others if one._idle()]
        if len(others) < 2 * CONNECTIONS:
            waiting = [one for one in waiting if self.loop.time() - one._since >= AT_LEAST]
        if waiting:
            max(waiting, key=lambda one: one._rank(held)).transport.abort()
            return True
        if busy := [one for one in others if not one._idle()]:
            max(busy, key=lambda one: one._answers).cycle.keep_alive = False
        return len(others) < 2 * CONNECTIONS

    def _rank(self, held: Counter[str]) -> tuple[bool, int, float]:
        """The greater, the sooner it has to go; last of all who is reading an answer."""
        return not self.transport.get_write_buffer_size(), held[self._neighbour()], -self._since

    def _neighbour(self) -> str:
        return neighbour(self.client[0]) if self.client else ""

    def _idle(self) -> bool:
        """No whole request is being answered."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def on_response_complete(self) -> None:
        self._answers += 1
        self._wait()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._since = self.loop.time()
        self._unread = self.transport.get_write_buffer_size()
        self._deadline = self.loop.call_later(PATIENCE, self._expire)

    def _expire(self) -> None:
        idle = self._idle()
        if unread := self.transport.get_write_buffer_size():  # uvicorn calls an answer complete when it is here
            idle = unread >= self._unread
        if idle:
            self.transport.abort()
        else:
            self._wait()


class HttpServer:
    """``http.bind`` ("" for none) and ``http.socket``, a file for our own user and for those of ``socket_group``."""

    def __init__(self, service: Service, settings: HttpSettings) -> None:
        self.settings = settings
        self.tcp: list[socket.socket] = []
        self._path = service.settings.state_dir / settings.socket
        self._unix: socket.socket | None = None
        self._owns_path = False  # whoever does unlinks it at the end
        self._ticks: asyncio.Task[None] | None = None
        self.port = 0
        local = not settings.bind or is_loopback(parse_bind(settings.bind)[0])
        way = Access.LOOPBACK if local else Access.NETWORK
        by_socket, by_tcp, to_pages = build(service, Access.SOCKET), build(service, way), routes.build(service, way)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            # uvicorn takes this from getsockname(): a UNIX socket has no port, whatever the client may say
            by_file = scope["server"][1] is None
            by_net = to_pages if routes.is_page(scope["path"]) else by_tcp
            await (by_socket if by_file else by_net)(scope, receive, send)

        # proxy_headers off: nothing a client sends may change where its request seems to come from
        self._server = uvicorn.Server(
            uvicorn.Config(
                app, http=_Connection, backlog=CONNECTIONS, ws="none", lifespan="off", log_config=None,
                log_level="error", access_log=False, proxy_headers=False, server_header=False,
                timeout_graceful_shutdown=_GRACE,
            )
        )  # fmt: skip

    async def start(self) -> None:
        """Raises BindError; ``stop`` closes what is open, also after an error."""
        await self.open()
        await self.serve()

    async def open(self, before: HttpServer | None = None, held: Collection[socket.socket] = ()) -> None:
        """Have the addresses; who connects waits for ``serve``. Raises BindError.

        The socket file of ``before`` stays in its place where it is the same one; ``held`` as in gateway.ports.listen.
        """
        group = _group(self.settings)
        if before is not None and before._unix is not None and before._path == self._path:
            self._unix = before._unix.dup()
        else:
            self._unix = _unix_socket(self._path, group)
            self._owns_path = True
        if bind := self.settings.bind:
            self.tcp = await listen("http.bind", bind, parse_bind(bind), CONNECTIONS, held)
            for sock in self.tcp:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _AHEAD)  # connections inherit it
            self.port = self.tcp[0].getsockname()[1]

    async def serve(self, before: HttpServer | None = None) -> None:
        """Answer. The file of ``before`` is ours from now on, where it is the same one."""
        assert self._unix is not None
        if before is not None and before._path == self._path:
            before._owns_path, self._owns_path = False, True
            _let_in(self._path, _group(self.settings))
        # The parts of Server.serve(), without its signal handlers: signals are the app's business.
        self._server.config.load()
        self._server.lifespan = self._server.config.lifespan_class(self._server.config)
        await self._server.startup([self._unix, *self.tcp])
        self._ticks = asyncio.create_task(self._server.main_loop(), name="http")

    async def stop(self) -> None:
        """Answers under way get 5 s. The socket file goes first, so that a new process may make its own."""
        if self._owns_path:
            self._path.unlink(missing_ok=True)
        sockets = [*([self._unix] if self._unix else []), *self.tcp]
        if self._ticks is not None:
            self._server.should_exit = True
            await self._ticks
            await self._server.shutdown(sockets)
        for sock in sockets:
            sock.close()
        self._unix, self.tcp, self._ticks, self._owns_path = None, [], None, False


def _uid_at(sock: socket.socket | None) -> int | None:
    """Whose process is at the other end of a UNIX socket (unix(7), SO_PEERCRED); None where the system does not say."""
    if sock is None or not hasattr(socket, "SO_PEERCRED"):
        return None
    _pid, uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(uid)


def _group(settings: HttpSettings) -> int:
    """The id of ``socket_group``, -1 for none. Raises BindError."""
    if settings.socket_group is None:
        return -1
    try:
        return group_id(settings.socket_group)
    except ValueError as error:
        raise BindError(f"http.socket_group {error}") from None


def _let_in(path: Path, group: int) -> None:
    if group >= 0 and path.stat().st_gid != group:  # the unit forbids chown(2), and its own group needs none
        os.chown(path, -1, group)
    path.chmod(0o600 if group < 0 else 0o660)


def _unix_socket(path: Path, group: int) -> socket.socket:
    if len(bytes(path)) > LONGEST_SOCKET:
        raise BindError(f"http.socket {path} is longer than the {LONGEST_SOCKET} bytes of a socket's path")
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if probe.connect_ex(str(path)) == 0:
                raise BindError(f"another gateway is running: it answers on {path}")
        path.unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(path))
    except OSError as error:
        sock.close()
        raise BindError(f"cannot make the admin socket http.socket {path}: {error.strerror}") from None
    try:
        _let_in(path, group)  # nobody can connect before listen()
        sock.listen(CONNECTIONS)
    except OSError as error:
        sock.close()
        path.unlink()
        raise BindError(f"http.socket_group: cannot give {path} to that group: {error.strerror}; {_CHOWN}") from None
    return sock
