"""A listener on a real socket with the real policy, message and auth rooms; only the spool is a list."""

from __future__ import annotations

import asyncio
import io
import json
import random
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Self, cast

from prometheus_client import CollectorRegistry

from gateway.auth import Authenticator, Revocations, hash_password, mint
from gateway.clock import QueueIds
from gateway.config.models import BackendSettings, Settings
from gateway.events import Events
from gateway.fetch import Fetch
from gateway.intake import Rules
from gateway.model import Capabilities, NewMessage, SpoolFull
from gateway.routing import Routing
from gateway.smtp import Listener, Shared, Site
from tests.fakes import FakeClock

MESSAGE = b"From: a@example.com\r\nSubject: x\r\n\r\nhello\r\n"
PASSWORD = "correct-horse-battery"
CLIENTS: Mapping[str, Any] = {
    "localhost": {"networks": ["127.0.0.1/32"]},
    "tokens": {"token": "*"},
    "copier": {"password_hash": hash_password(PASSWORD, b"0123456789abcdef")},
}
_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3} ")
_LINE = re.compile(rb"\d{3}[ -][ -~]*\r\n")


class Peer:
    """A client that checks the shape of every reply (RFC 5321 4.2, RFC 2034)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.greeting = ""

    def send(self, data: bytes | str) -> None:
        self.writer.write(data if isinstance(data, bytes) else data.encode() + b"\r\n")

    async def reply(self, *, plain: bool = False) -> str:
        """One reply, its lines joined; "" when the connection was closed. ``plain``: no enhanced code is due."""
        lines: list[str] = []
        while not lines or lines[-1][3:4] == "-":
            line = await self.reader.readline()
            if not line:
                assert not lines, "a reply was cut off"
                return ""
            assert len(line) <= 512
            assert _LINE.fullmatch(line), line
            lines.append(line.decode("ascii").rstrip("\r\n"))
        if not plain and lines[0][:3] not in ("220", "354", "334") and len(lines) == 1:
            assert _ENHANCED.match(lines[0][4:]), lines[0]
            assert lines[0][4] == lines[0][0]
        return "\n".join(lines)

    async def say(self, command: bytes | str) -> str:
        self.send(command)
        text = command if isinstance(command, str) else command.decode("latin-1")
        return await self.reply(plain=text.upper().startswith(("HELO", "EHLO")))

    async def talk(self, *steps: tuple[bytes | str, str]) -> None:
        """Commands and how their replies must begin."""
        for command, expected in steps:
            got = await self.say(command)
            assert got.startswith(expected), (command[:100], expected, got)

    async def ehlo(self) -> str:
        return await self.say("EHLO client.example")

    async def envelope(self, sender: str = "<a@example.com>", *recipients: str) -> None:
        """Up to and including 354."""
        steps = [(f"RCPT TO:{recipient}", "250") for recipient in recipients or ("<b@example.org>",)]
        await self.talk(("EHLO c", "250"), (f"MAIL FROM:{sender}", "250"), *steps, ("DATA", "354"))

    async def deliver(self, message: bytes = MESSAGE, sender: str = "<a@example.com>", *recipients: str) -> str:
        await self.envelope(sender, *recipients)
        return await self.say(message + b".\r\n")

    async def rest(self) -> bytes:
        """Everything until the connection is closed."""
        return await self.reader.read()

    async def start_tls(self, context: ssl.SSLContext) -> None:
        assert (await self.say("STARTTLS")).startswith("220")
        await self.writer.start_tls(context, server_hostname="relay.example.com")

    async def close(self) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


class Room:
    """What the spool says of its room: of so many octets all those count that are on their way in."""

    def __init__(self) -> None:
        self.octets = 2**40
        self.held = 0

    def admit(self, octets: int) -> None:
        if self.held + octets > self.octets:
            raise SpoolFull("not enough space in the spool, try again later")

    def hold(self, octets: int) -> None:
        if octets >= 0:
            self.admit(octets)
        self.held += octets


class Rig:
    """A listener, what it stored and what it logged."""

    def __init__(self, settings: Settings, capabilities: Mapping[str, Capabilities]) -> None:
        self.settings = settings
        self.clock = FakeClock()
        self.log = io.StringIO()
        self.registry = CollectorRegistry()
        self.events = Events(self.registry, "json", "debug", clock=self.clock, stream=self.log)
        self.events.declare(listeners=settings.listeners, clients=settings.clients, backends=settings.backends)
        self.revocations = Revocations()
        no_fetch = cast(Fetch, None)  # nothing is fetched for a shared secret, and a real one reads all CA certificates
        self.auth = Authenticator(settings, self.clock, no_fetch, self.events, self.revocations)
        self.messages: list[NewMessage] = []
        self.put: Callable[[NewMessage], Awaitable[None]] = self.store
        self.room = Room()
        self.shared = Shared()
        self.rules = Rules.of(settings, Routing(settings.routes, capabilities))
        self.listener = self.new_listener()
        self._peers: list[Peer] = []

    def new_listener(self) -> Listener:
        site = Site(
            name="local",
            settings=self.settings.listeners["local"],
            rules=self.rules,
            auth=self.auth,
            put=self._put,
            room=self.room,
            events=self.events,
            clock=self.clock,
            ids=QueueIds(self.clock, random.Random(1)),
            shared=self.shared,
        )
        return Listener(site)

    async def _put(self, message: NewMessage) -> None:
        await self.put(message)

    def reload(self, other: Rig) -> None:
        """Take over what the other one was made of, as the app does at a reload."""
        self.listener.update(other.settings.listeners["local"], other.rules, other.auth)

    async def store(self, message: NewMessage) -> None:
        self.messages.append(message)

    def fail(self, error: Exception) -> None:
        """From now on nothing is stored, for this reason."""

        async def put(_message: NewMessage) -> None:
            raise error

        self.put = put

    async def connect(
        self, *, tls: ssl.SSLContext | None = None, address: str = "127.0.0.1", port: int = 0, greet: bool = True,
        header: bytes = b"",
    ) -> Peer:  # fmt: skip
        """``header`` comes first, in the clear."""
        name, port = "relay.example.com" if tls else None, port or self.listener.port
        at_once = None if header else tls
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, local_addr=(address, 0), ssl=at_once, server_hostname=at_once and name, limit=1 << 20
        )
        peer = Peer(reader, writer)
        self._peers.append(peer)
        writer.write(header)
        if header and tls is not None:
            await writer.start_tls(tls, server_hostname=name)
        if greet:
            peer.greeting = await peer.reply()
        return peer

    async def connect_through(self, sock: socket.socket, **options: Any) -> tuple[Peer, Any]:
        """By a socket of the test's own before the same sessions; with the wire to the client."""
        served: list[Any] = []

        def new_connection() -> asyncio.Protocol:
            served.append(self.listener.new_connection())
            return cast(asyncio.Protocol, served[0])

        server = await asyncio.get_running_loop().create_server(new_connection, sock=sock)
        peer = await self.connect(port=sock.getsockname()[1], **options)
        server.close()
        return peer, served[0]

    def token(self, subject: str = "app", **claims: Any) -> str:
        expires = claims.pop("expires_in", timedelta(hours=1))
        return mint(
            self.settings,
            "app",
            subject=subject,
            expires_in=expires,
            now=self.clock.now(),
            jti=claims.pop("jti", "j1"),
            claims=claims,
        )

    def logged(self) -> list[dict[str, Any]]:
        self.events.flush()
        return [json.loads(line) for line in self.log.getvalue().splitlines()]

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"gateway_{name}", {"listener": "local", **labels}) or 0.0

    async def __aenter__(self) -> Self:
        await self.listener.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for peer in self._peers:
            peer.writer.transport.abort()
            await peer.close()
        await self.listener.drain(5)
        await self.auth.aclose()
        self.events.close()


@asynccontextmanager
async def rig(
    *,
    listener: Mapping[str, Any] | None = None,
    clients: Mapping[str, Any] = CLIENTS,
    limits: Mapping[str, Any] | None = None,
    capabilities: Mapping[str, Capabilities] | None = None,
    routes: list[dict[str, Any]] | None = None,
    **more: Any,
) -> AsyncIterator[Rig]:
    capabilities = capabilities or {"box": Capabilities(max_bytes=35_000_000)}
    settings = Settings.model_validate(
        {
            "hostname": "relay.example.com",
            "state_dir": Path("/nonexistent"),
            "listeners": {"local": {"bind": "127.0.0.1:0", **(listener or {})}},
            "auth": {"keys": {"app": {"algorithm": "HS256", "secret": "0123456789abcdef0123456789abcdef"}}},
            "clients": clients,
            "backends": {name: BackendSettings(type="capture") for name in capabilities},
            "routes": routes or [{"backend": ["box"]}],
            "limits": limits or {},
            **more,
        }
    )
    async with Rig(settings, capabilities) as made:
        yield made


def reset(peer: Peer) -> None:
    """Drop the connection with RST instead of FIN."""
    sock: socket.socket = peer.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.writer.transport.abort()
