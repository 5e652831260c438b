"""What the backend tests stand on: real servers on loopback that follow a script, and messages to send to them."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import functools
import json
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email import message_from_bytes
from email.utils import getaddresses
from pathlib import Path
from typing import Any, ClassVar

import pytest
import trustme

from gateway.backends import Context
from gateway.clock import Clock
from gateway.fetch import Fetch
from gateway.model import Envelope, Outcome, Recipient, Scope, SpooledMessage, Verdict
from gateway.trust import Trust
from tests.fakes import START, FakeClock

RAW = b"From: a@corp.example\r\nTo: b@x.example\r\nSubject: hello\r\n\r\nline\r\n.dot\r\n..\r\n.\r\nlast\r\n"


def spooled(
    *recipients: str | Recipient,
    sender: str = "a@corp.example",
    queue_id: str = "Q1",
    attempt: int = 1,
    **envelope: Any,
) -> SpooledMessage:
    everyone = tuple(r if isinstance(r, Recipient) else Recipient(r) for r in recipients or ("b@x.example",))
    return SpooledMessage(
        id=queue_id,
        envelope=Envelope(sender, everyone, **envelope),
        size=100,
        received_at=START,
        queued_at=START,
        expires_at=START,
        client="localhost",
        attempt=attempt,
    )


trust = functools.cache(Trust)  # reading the system's certificates takes 30 ms each time


@contextlib.asynccontextmanager
async def context(state_dir: Path, clock: Clock | None = None) -> AsyncIterator[Context]:
    fetch = Fetch(trust=trust())
    try:
        yield Context("relay.example", state_dir, clock or FakeClock(), fetch, random.Random(1))
    finally:
        await fetch.aclose()


class Server:
    """A TCP server on loopback; ``connected`` runs for each connection. Leaves nothing open behind."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self.connections = 0
        self.closed = asyncio.Event()  # set when any connection has ended
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Any:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls, limit=1 << 26)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
                await self.connected(reader, writer)
        finally:
            writer.close()
            writer.transport.abort()  # a failed handshake leaves wait_closed waiting for ever
            self.closed.set()
            self._tasks.discard(task)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError


def reset(writer: asyncio.StreamWriter) -> None:
    """End the connection by RST."""
    writer.transport.abort()


# -- HTTP ------------------------------------------------------------------------------------------------------------


@dataclass
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    writer: asyncio.StreamWriter
    reader: asyncio.StreamReader


def http(status: int, body: bytes | str | dict[str, Any] = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """A whole HTTP answer."""
    content = json.dumps(body) if isinstance(body, dict) else body
    content = content.encode() if isinstance(content, str) else content
    lines = [f"HTTP/1.1 {status} Reason", f"Content-Length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


Handler = Callable[[Request], bytes | Awaitable[bytes | None]]


class Web(Server):
    """An HTTP server whose handler writes raw bytes: it may misbehave as it likes. None closes the connection."""

    def __init__(self, handler: Handler, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls)
        self.handler = handler
        self.requests: list[Request] = []

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, path, _ = head[0].split(" ")
            headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in head[1:] if line)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            assert "transfer-encoding" not in headers
            request = Request(method, path, headers, body, writer, reader)
            self.requests.append(request)
            answer = self.handler(request)
            content = answer if isinstance(answer, bytes) else await answer
            if content is None:
                return
            writer.write(content)
            await writer.drain()


async def hang(request: Request) -> None:
    """Never answers; ends when the client gives up."""
    await request.reader.read()


async def reset_at_once(request: Request) -> None:
    reset(request.writer)


async def reset_in_body(request: Request) -> None:
    request.writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"request_id"')
    await request.writer.drain()
    request.writer.close()


async def end_in_header(request: Request) -> None:
    request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Le")
    await request.writer.drain()
    request.writer.close()


async def garbage(request: Request) -> None:
    request.writer.write(b"\x16\x03\x01 220 this is not HTTP\r\n\r\n")
    await request.writer.drain()
    await request.reader.read()


async def endless_headers(request: Request) -> None:
    request.writer.write(b"HTTP/1.1 200 OK\r\n")
    with contextlib.suppress(OSError):
        while True:
            request.writer.write(b"X-More: " + b"x" * 4000 + b"\r\n")
            await request.writer.drain()


async def gigabyte(request: Request) -> None:
    request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n{")
    with contextlib.suppress(OSError):
        for _ in range(1000):
            request.writer.write(b" " * 1_000_000)
            await request.writer.drain()


# How an answer can get lost, and what is said of it when the deadline is 0.2 s.
LOST: list[tuple[Handler, str]] = [
    (reset_at_once, "connection lost before the answer"),
    (end_in_header, "connection lost before the answer"),
    (reset_in_body, "the answer broke off"),
    (garbage, "unintelligible answer"),
    (endless_headers, "unintelligible answer"),
    (hang, "no answer within 0.2 s"),
]


def kept(outcomes: Mapping[str, Outcome]) -> dict[str, Outcome]:
    """The outcomes, all of which keep what every outcome of every backend must (model.Outcome)."""
    for outcome in outcomes.values():
        assert_kept(outcome)
    return dict(outcomes)


def assert_kept(outcome: Outcome) -> None:
    """A code was received, scope and enhanced code fit the verdict, and what to do does not stand in the words."""
    assert (outcome.code is None) or outcome.said_by in ("smtp", "http"), outcome
    if outcome.verdict in (Verdict.THROTTLED, Verdict.MISCONFIGURED):
        assert outcome.scope is not Scope.RECIPIENT, outcome
    elif outcome.verdict is not Verdict.DEFERRED:
        assert outcome.scope is not Scope.BACKEND, outcome
    if outcome.said_by == "smtp" and outcome.enhanced != "4.5.0":  # an SMTP server's own
        assert outcome.enhanced[0] == str(outcome.code)[0], outcome
    else:
        classes = {Verdict.SENT: "2", Verdict.REJECTED: "5"}
        assert outcome.enhanced[0] == classes.get(outcome.verdict, "4"), outcome
    assert "to do" not in outcome.detail, outcome
    assert "{" not in outcome.fix, outcome


KEY = "api-0123456789ABCDEF0123456789ABCDEF"


@dataclass
class Smtp2goFake:
    """SMTP2GO as its OpenAPI description has it: strict about the request, and it knows who would get what.

    ``answers`` are given first, one for each call of /email/mime; after them every valid request succeeds.
    """

    kind: ClassVar = "smtp2go"
    root: ClassVar = "/v3"
    answers: list[bytes | Handler] = field(default_factory=list)
    permissions: list[str] = field(default_factory=lambda: ["/email/send", "/email/mime"])
    domains: dict[str, Any] = field(default_factory=lambda: {"domains": []})
    single: dict[str, Any] = field(default_factory=lambda: {"senders": []})
    delivered: list[tuple[list[str], bytes]] = field(default_factory=list)

    def __call__(self, request: Request) -> bytes | Awaitable[bytes | None]:
        if request.headers.get("x-smtp2go-api-key") != KEY:
            return self._error(401, "INVALID_API_KEY", "the API key is missing or not valid")
        if request.method != "POST" or "application/json" not in request.headers.get("content-type", ""):
            return self._error(400, "NON_VALIDATING_IN_PAYLOAD", "POST application/json")
        body = json.loads(request.body)
        if request.path == "/v3/api_keys/permissions":
            return http(200, {"request_id": "r-0", "data": self.permissions})
        if found := {"/v3/domain/view": self.domains, "/v3/single_sender_emails/view": self.single}.get(request.path):
            if request.path.removeprefix("/v3") not in self.permissions:
                return self._error(400, "ENDPOINT_PERMISSION_DENIED", "You do not have permission to access this")
            return http(200, {"request_id": "r-1", "data": found})
        if request.path != "/v3/email/mime":
            return http(404, "not found")
        if self.answers:
            answer = self.answers.pop(0)
            return answer if isinstance(answer, bytes) else answer(request)
        if fault := self._fault(body):
            return self._error(400, "NON_VALIDATING_IN_PAYLOAD", fault)
        raw = base64.b64decode(body["mime_email"], validate=True)
        parsed = message_from_bytes(raw)
        fields = [str(value) for name in ("to", "cc", "bcc") for value in parsed.get_all(name, [])]
        people = [address for _, address in getaddresses(fields) if address]
        if not people or not parsed["from"]:
            return self._error(400, "API_EXCEPTION", "no recipients or no sender")
        self.delivered.append((people, raw))
        number = len(self.delivered)
        data = {"succeeded": 1, "failed": 0, "failures": [], "email_id": f"e-{number}"}
        return http(200, {"request_id": f"r-{number}", "data": data})

    def settings(self) -> dict[str, Any]:
        return {"api_key": KEY}

    @staticmethod
    def _fault(body: Any) -> str:
        known = {"mime_email": str, "schedule": str, "fastaccept": bool}
        for name, value in body.items():
            if name not in known or type(value) is not known[name]:
                return f"the field '{name}' is unknown or of the wrong type"
        try:
            binascii.a2b_base64(body["mime_email"].encode(), strict_mode=True)
        except (KeyError, ValueError) as error:
            return f"mime_email: {error}"
        return ""

    @staticmethod
    def _error(status: int, code: str, text: str) -> bytes:
        error = {"error_code": f"E_ApiResponseCodes.{code}", "error": text}
        return http(status, {"request_id": "r-e", "data": error})


# -- SMTP ------------------------------------------------------------------------------------------------------------

DROP = "drop"  # instead of a reply: RST
HANG = "hang"  # instead of a reply: silence
ALL = ("SIZE 50000000", "8BITMIME", "SMTPUTF8", "DSN", "PIPELINING", "ENHANCEDSTATUSCODES")


@dataclass
class Transaction:
    mail: str
    rcpt: list[str] = field(default_factory=list)
    wire: bytes = b""

    @property
    def body(self) -> bytes:
        """The message as a server stores it."""
        body = self.wire.removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n.")
        return body[1:] if body.startswith(b"..") else body


class SmtpFake(Server):
    """An SMTP server that follows a script: ``replies`` maps a command to its reply, or to one reply after another.

    Keys: "connect", a verb, a verb with arguments ("RCPT TO:<b@x.example>"), "." for the end of data.
    """

    def __init__(
        self,
        replies: Mapping[str, str | list[str]] | None = None,
        offers: tuple[str, ...] = ALL,
        starttls: ssl.SSLContext | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(tls)
        self.replies = {
            key: [value] if isinstance(value, str) else list(value) for key, value in (replies or {}).items()
        }
        self.offers = offers
        self.starttls = starttls
        self.commands: list[str] = []
        self.done: list[Transaction] = []
        self.encrypted: list[bool] = []  # for each command

    def scripted(self, command: str) -> str:
        verb = command.partition(" ")[0]
        for key in (command.partition("> ")[0].removesuffix(">") + ">", command, verb):
            if script := self.replies.get(key):
                return script.pop(0) if len(script) > 1 else script[0]
        defaults = {
            "DATA": "354 go",
            "QUIT": "221 2.0.0 bye",
            ".": "250 2.0.0 Ok: queued as ABC123",
            "AUTH": "235 2.7.0 in",
        }
        return defaults.get(verb, "250 2.0.0 Ok")

    async def say(self, writer: asyncio.StreamWriter, reader: asyncio.StreamReader, reply: str) -> None:
        if reply == HANG:
            await reader.read()
            raise EOFError
        if reply == DROP:
            reset(writer)
            raise EOFError
        writer.write(reply.encode("utf-8", "surrogateescape") + b"\r\n")
        await writer.drain()
        if reply.startswith("421"):
            raise EOFError

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.say(writer, reader, self.replies.get("connect", ["220 fake ESMTP"])[0])
        transaction = Transaction("")
        secure = self.tls is not None
        while True:
            line = (await reader.readuntil(b"\r\n")).removesuffix(b"\r\n").decode("utf-8", "surrogateescape")
            self.commands.append(line)
            self.encrypted.append(secure)
            verb = line.partition(" ")[0]
            if verb == "EHLO" and "EHLO" not in self.replies:
                await self.say(writer, reader, self._ehlo(secure))
                continue
            if verb == "STARTTLS" and self.starttls and not secure:
                await self.say(writer, reader, self.replies.get("STARTTLS", ["220 go"])[0])
                await writer.start_tls(self.starttls)
                secure = True
                continue
            reply = self.scripted(line)
            if verb == "DATA" and not transaction.rcpt and "DATA" not in self.replies:
                reply = "554 5.5.1 Error: no valid recipients"
            if verb == "AUTH" and line.split()[1:2] == ["LOGIN"] and "AUTH" not in self.replies:
                for prompt in ("VXNlcm5hbWU6", "UGFzc3dvcmQ6"):
                    await self.say(writer, reader, f"334 {prompt}")
                    self.commands.append((await reader.readuntil(b"\r\n")).decode().strip())
            await self.say(writer, reader, reply)
            if verb == "MAIL" and reply.startswith("2"):
                transaction = Transaction(line)
            elif verb == "RCPT" and reply.startswith("2"):
                transaction.rcpt.append(line)
            elif verb == "RSET":
                transaction = Transaction("")
            elif verb == "DATA" and reply.startswith("354"):
                await self._data(reader, writer, transaction)
            elif verb == "QUIT":
                return

    def _ehlo(self, secure: bool) -> str:
        offers = [*self.offers, *(["STARTTLS"] if self.starttls and not secure else [])]
        return "\r\n".join(f"250-{offer}" for offer in ["fake", *offers]) + "\r\n250 HELP"

    async def _data(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, transaction: Transaction) -> None:
        for early in self.replies.get("early", ()):
            await reader.readexactly(100_000)
            if early == DROP:
                reset(writer)
                raise EOFError
            writer.write(early.encode() + b"\r\n")
            while await reader.read(1 << 20):
                pass
            raise EOFError
        wire = bytearray()
        while wire != b".\r\n" and not wire.endswith(b"\r\n.\r\n"):
            wire += await reader.readuntil(b"\r\n")
        transaction.wire = bytes(wire)
        reply = self.scripted(".")
        if reply.startswith("2"):
            self.done.append(transaction)
        await self.say(writer, reader, reply)


# -- certificates ----------------------------------------------------------------------------------------------------


@dataclass
class Certificates:
    """A private authority and what it signs."""

    ca: trustme.CA
    ca_file: Path

    @property
    def trust(self) -> Trust:
        return trust(self.ca_file)

    def server(self, *names: str, **options: Any) -> ssl.SSLContext:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*(names or ("127.0.0.1", "localhost")), **options).configure_cert(tls)
        return tls


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    ca = trustme.CA()
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return Certificates(ca, path)
