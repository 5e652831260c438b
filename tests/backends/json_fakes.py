"""Strict stand-ins for the four APIs that take fields: what the real ones refuse or do not document is refused."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

import pytest

from gateway.backends import Context, build, settings_types
from gateway.backends.shared.base import Silent
from gateway.model import Outcome, SpooledMessage
from tests.backends import kit
from tests.backends.kit import RAW, Request, Smtp2goFake, Web, http, kept, spooled
from tests.fakes import FakeClock

Answer = bytes | Awaitable[bytes | None]
Handler = Callable[[Request], Answer]
SECRET = "0123456789abcdef0123456789abcdef"
_ADDRESS = re.compile(r"[!-~]+@[a-z0-9.-]+", re.IGNORECASE)


def is_address(value: object) -> bool:
    return isinstance(value, str) and _ADDRESS.fullmatch(value) is not None


def is_text(value: object) -> bool:
    return isinstance(value, str)


def is_list(value: object) -> bool:
    return isinstance(value, list) and 0 < len(value) <= 100 and all(map(is_address, value))


def is_map(value: object) -> bool:
    return isinstance(value, dict) and all(is_text(name) and is_text(text) for name, text in value.items())


@dataclass
class JsonFake:
    """``answers`` come first, one for each call that sends; a callable may look at the request, or lose its answer."""

    kind: ClassVar[str]
    root: ClassVar[str] = ""
    sends: ClassVar[tuple[str, ...]]
    required: ClassVar[tuple[str, ...]]
    fields: ClassVar[Mapping[str, Callable[[object], bool]]]

    answers: list[bytes | Handler] = field(default_factory=list)
    taken: list[dict[str, Any]] = field(default_factory=list)
    states: dict[str, bytes | dict[str, Any]] = field(default_factory=dict)

    def __call__(self, request: Request) -> Answer:
        if (refusal := self.authorise(request)) is not None:
            return refusal
        if request.method == "GET":
            return self.get(request)
        if request.method != "POST" or request.path not in self.sends:
            return self.error(404, "NOT_FOUND", "no such endpoint")
        if request.headers.get("content-type") != "application/json":
            return self.error(400, "VALIDATION_ERROR", "Content-Type must be application/json")
        if self.answers:
            answer = self.answers.pop(0)
            return answer if isinstance(answer, bytes) else answer(request)
        return self.take(request)

    def take(self, request: Request) -> bytes:
        try:
            body = json.loads(request.body.decode("utf-8", "strict"))
        except ValueError as error:
            return self.error(400, "VALIDATION_ERROR", f"not JSON in UTF-8: {error}")
        if fault := self.fault(body, self.fields, self.required):
            return self.error(400, "VALIDATION_ERROR", fault)
        return self.accept(request, body)

    def fault(self, body: Any, fields: Mapping[str, Callable[[object], bool]], required: tuple[str, ...]) -> str:
        if not isinstance(body, dict):
            return "not an object"
        for name, value in body.items():
            if name not in fields or not fields[name](value):
                return f"The field '{name}' is unknown or not valid."
        missing = [name for name in required if name not in body]
        return f"The '{missing[0]}' field is required." if missing else ""

    def taken_and_lost(self, request: Request) -> Answer:
        """Takes the mail, and the answer never arrives."""
        assert b" 20" in self.take(request)[:13]
        return kit.reset_at_once(request)

    def people(self) -> list[str]:
        """Everybody who was mailed, once for each mail."""
        found: list[str] = []
        for body in self.taken:
            for name in ("to", "cc", "bcc", "to_mail"):
                value = body.get(name, [])
                found += [value] if isinstance(value, str) else value
        return found

    def texts(self) -> list[tuple[str, str]]:
        """Subject and plain text of what was taken."""
        return [(body["subject"], body.get("text", body.get("content", ""))) for body in self.taken]

    def authorise(self, request: Request) -> bytes | None:
        good = request.headers.get("authorization") == f"Bearer {SECRET}" and "x-api-key" not in request.headers
        return None if good else self.error(401, "UNAUTHORIZED", "API key is missing or not valid")

    def error(self, status: int, code: str, text: str) -> bytes:
        return http(status, {"error": code, "message": text})

    def get(self, request: Request) -> bytes:
        raise NotImplementedError

    def accept(self, request: Request, body: dict[str, Any]) -> bytes:
        raise NotImplementedError

    def answer_state(self, remote_id: str) -> bytes:
        found = self.states.get(remote_id)
        if found is None:
            return self.error(404, "NOT_FOUND", "no such message")
        return found if isinstance(found, bytes) else http(200, found)

    def settings(self) -> dict[str, Any]:
        return {"api_key": SECRET}


@dataclass
class Js2mailFake(JsonFake):
    """A repeated key gets the first answer again, or 409: the documentation says both. It is compared with the body."""

    kind = "js2mail"
    sends = ("/v1/mail/send",)
    required = ("to", "subject")
    fields = {  # noqa: RUF012
        **dict.fromkeys(("to", "cc", "bcc"), is_list),
        "from": is_address,
        **dict.fromkeys(("subject", "text", "html", "fromAccountId"), is_text),
        "idempotencyKey": lambda value: is_text(value) and 0 < len(str(value)) <= 64,
    }
    conflict: bool = False
    by_key: dict[str, bytes] = field(default_factory=dict)

    def authorise(self, request: Request) -> bytes | None:
        good = request.headers.get("x-api-key") == SECRET and "authorization" not in request.headers
        return None if good else http(401, {"error": "Unauthorized"})

    def get(self, request: Request) -> bytes:
        return self.answer_state(request.path.removeprefix("/v1/mail/send/"))

    def accept(self, request: Request, body: dict[str, Any]) -> bytes:
        if not {"text", "html"} & body.keys():
            return self.error(400, "VALIDATION_ERROR", "text or html")
        key = body["idempotencyKey"]
        if key in self.by_key:
            return http(409, {"message": "Duplicate idempotency key"}) if self.conflict else self.by_key[key]
        self.taken.append(body)
        self.by_key[key] = http(202, {"id": f"id-{len(self.taken)}", "status": "Queued"})
        return self.by_key[key]


@dataclass
class JustemailsFake(JsonFake):
    kind = "justemails"
    root = "/api/v1"
    sends = ("/api/v1/send",)
    required = ("from", "to", "subject")
    fields = {  # noqa: RUF012
        **dict.fromkeys(("from", "to", "replyTo"), is_address),
        **dict.fromkeys(("subject", "text", "html"), is_text),
        "headers": is_map,
    }
    status: int = 200

    def get(self, request: Request) -> bytes:
        return self.answer_state(request.path.removeprefix("/api/v1/send/"))

    def accept(self, request: Request, body: dict[str, Any]) -> bytes:
        self.taken.append(body)
        return http(self.status, {"id": f"msg_{len(self.taken)}", "status": "queued", "to": body["to"]})


@dataclass
class MailpassFake(JsonFake):
    kind = "mailpass"
    sends = ("/api/v1/mail/send", "/api/v1/mail/send-batch")
    required = ("to", "subject")
    fields = {  # noqa: RUF012
        **dict.fromkeys(("to", "from_email", "reply_to"), is_address),
        **dict.fromkeys(("subject", "text", "html", "from_name"), is_text),
        **dict.fromkeys(("cc", "bcc"), is_list),
        "metadata": is_map,
    }
    verdicts: dict[str, str] = field(default_factory=dict)  # of a batch, by address

    def get(self, request: Request) -> bytes:
        name = request.path.removeprefix("/api/v1/mail/status/")
        assert "<" not in name
        return self.answer_state(unquote(name))

    def error(self, status: int, code: str, text: str) -> bytes:
        return http(status, {"success": False, "error": {"code": code, "message": text}})

    def take(self, request: Request) -> bytes:
        return self._batch(json.loads(request.body)) if request.path.endswith("batch") else super().take(request)

    def accept(self, request: Request, body: dict[str, Any]) -> bytes:
        if not {"text", "html"} & body.keys():
            return self.error(400, "VALIDATION_ERROR", "html or text is required")
        self.taken.append(body)
        data = {"message_id": f"<m{len(self.taken)}@mailpass.im>", "status": "sent", "to": body["to"]}
        return http(200, {"success": True, "data": data})

    def _batch(self, body: Any) -> bytes:
        each = {name: self.fields[name] for name in ("to", "subject", "text", "html")}
        outer = {"messages": lambda value: isinstance(value, list) and 0 < len(value) <= 100}
        outer |= {name: self.fields[name] for name in ("from_email", "from_name")}
        faults = [self.fault(body, outer, ("messages",))]
        faults += [self.fault(one, each, ("to", "subject")) for one in body.get("messages", [])]
        if fault := next(filter(None, faults), ""):
            return self.error(400, "VALIDATION_ERROR", fault)
        messages = []
        for number, one in enumerate(body["messages"]):
            status = self.verdicts.get(one["to"], "queued")
            messages.append({"to": one["to"], "status": status, "queue_id": f"q{number}"})
            self.taken += [one] if status == "queued" else []
        failed = sum(one["status"] != "queued" for one in messages)
        data = {"total": len(messages), "queued": len(messages) - failed, "failed": failed, "messages": messages}
        return http(200, {"success": True, "data": data})


TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJhZGRyZXNzIjoiYUBjb3JwLmV4YW1wbGUifQ.c2lnbmF0dXJl"


@dataclass
class TempMailFake(JsonFake):
    """The Worker as its source has it: checks in its order, and 400 with a text for nearly everything."""

    kind = "temp_mail"
    sends = ("/external/api/send_mail", "/api/send_mail")
    required = ("to_mail", "subject", "content", "is_html", "from_name", "to_name")
    fields = {  # noqa: RUF012
        **dict.fromkeys(("from_name", "to_name", "subject", "content", "token"), is_text),
        "to_mail": is_address,
        "is_html": lambda value: isinstance(value, bool),
    }
    tokens: dict[str, str] = field(default_factory=lambda: {TOKEN: "a@corp.example"})
    password: str = ""
    looked: int = 0

    def authorise(self, request: Request) -> bytes | None:
        if request.headers.get("x-lang") != "en":
            return http(400, "没有余额")
        if self.password and request.headers.get("x-custom-auth") != self.password:
            return http(401, "You have enabled the private site password, please provide the password")
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if request.path.startswith("/api/") and bearer not in self.tokens:
            return http(401, "Invalid address credential")
        return None

    def get(self, request: Request) -> bytes:
        assert request.path == "/api/settings"
        self.looked += 1
        address = self.tokens[request.headers["authorization"].removeprefix("Bearer ")]
        return http(200, {"address": address, "send_balance": 5}) if address else http(400, "Invalid address")

    def error(self, status: int, code: str, text: str) -> bytes:
        return http(status, f"Failed to send mail {text}")

    def accept(self, request: Request, body: dict[str, Any]) -> bytes:
        external = request.path.startswith("/external")
        if ("token" in body) != external or ("authorization" in request.headers) == external:
            return self.error(400, "", "token in the wrong place")
        if external and body["token"] not in self.tokens:
            return self.error(400, "", f"token({body['token']}) signature mismatched")
        if not body["subject"] or not body["content"]:
            return self.error(400, "", "Subject is empty" if not body["subject"] else "Content is empty")
        self.taken.append(body)
        return http(200, {"status": "ok"})

    def settings(self) -> dict[str, Any]:
        return {"token": TOKEN, **({"site_password": self.password} if self.password else {})}


class Log(Silent):
    """The warnings of a backend."""

    def __init__(self) -> None:
        self.lines: list[dict[str, object]] = []

    def warning(self, event: str, **fields: object) -> None:
        self.lines.append({"event": event, **fields})


@dataclass
class Way:
    """A backend in front of its fake."""

    backend: Any
    fake: Any
    web: Web
    clock: FakeClock
    log: Log
    context: Context

    async def send(self, *recipients: str, raw: bytes = RAW, **options: Any) -> dict[str, Outcome]:
        return kept(await self.backend.send(spooled(*recipients, **options), raw))

    async def deliver(self, message: SpooledMessage, raw: bytes) -> dict[str, Outcome]:
        return kept(await self.backend.send(message, raw))

    async def one(self, *answers: bytes | Handler, **options: Any) -> Outcome:
        self.fake.answers = list(answers)
        return (await self.send("b@x.example", **options))["b@x.example"]


@contextlib.asynccontextmanager
async def open_way(path: Path, fake: JsonFake | Smtp2goFake, **settings: Any) -> AsyncIterator[Way]:
    clock, log = FakeClock(), Log()
    async with Web(fake) as web, kit.context(path, clock) as plain:
        context = Context(plain.hostname, plain.state_dir, clock, plain.fetch, plain.rng, log)
        given = {"type": fake.kind, "base_url": web.url + fake.root, "timeout": "5s", **fake.settings(), **settings}
        backend = build("way", settings_types()[fake.kind].model_validate(given), context)
        yield Way(backend, fake, web, clock, log, context)
        await backend.aclose()


def way_to(make: type[JsonFake | Smtp2goFake], **settings: Any) -> Any:
    """A fixture: the backend in front of a new fake."""

    @pytest.fixture
    async def way(tmp_path: Path) -> AsyncIterator[Way]:
        async with open_way(tmp_path, make(), **settings) as value:
            yield value

    return way


def mail(*fields: str, body: str = "body\r\n", subject: str = "s") -> bytes:
    text = "\r\n".join(["From: a@corp.example", *fields, f"Subject: {subject}", "", body])
    return text.encode("utf-8", "surrogateescape")
