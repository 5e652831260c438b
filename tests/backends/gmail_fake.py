"""Google as far as sending goes: its token endpoint and users.messages.send. Strict, and it knows who gets what."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from email import message_from_bytes
from email.utils import getaddresses
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives import serialization

from gateway.backends import Context
from gateway.backends.google.gmail import Gmail, GmailSettings
from gateway.clock import Clock
from gateway.model import Outcome
from tests.backends import kit
from tests.backends.kit import RAW, Handler, Request, Web, http, kept, spooled
from tests.fakes import FakeClock
from tests.rsa_keys import rsa_key

SCOPE = "https://www.googleapis.com/auth/gmail.send"
AUDIENCE = "https://oauth2.googleapis.com/token"
REFRESH = "1//0refresh-hunter2-hunter2"
CLIENT_SECRET = "GOCSPX-hunter2-hunter2"
MAILBOX = "a@corp.example"
SEND = "/upload/gmail/v1/users/me/messages/send?uploadType=media"
HEX_ID = "19a3f0c2d4e5b6"


def service_account_info(**changes: Any) -> dict[str, Any]:
    pem = rsa_key().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {
        "type": "service_account",
        "project_id": "proj",
        "private_key_id": "kid-1",
        "private_key": pem.decode(),
        "client_email": "sa@proj.iam.gserviceaccount.com",
        "client_id": "112233445566778899001",
        "token_uri": AUDIENCE,
    } | changes


def authorized_user_info(**changes: Any) -> dict[str, Any]:
    return {
        "type": "authorized_user",
        "client_id": "client-1.apps.googleusercontent.com",
        "client_secret": CLIENT_SECRET,
        "refresh_token": REFRESH,
        "account": MAILBOX,
    } | changes


def stored(folder: Path, info: dict[str, Any], name: str = "google.json") -> Path:
    path = folder / name
    path.write_text(json.dumps({name: value for name, value in info.items() if value is not None}))
    path.chmod(0o600)
    return path


@dataclass
class Delivery:
    """One accepted call: who gets it, and the message as they see it."""

    mailbox: str
    people: list[str]
    seen: bytes
    raw: bytes


@dataclass
class GoogleFake:
    """``answers`` come first, one for each send, and ``token_answers`` for each request of a token."""

    clock: Clock
    users: set[str] = field(default_factory=lambda: {MAILBOX, "c@corp.example"})
    refresh_token: str = REFRESH
    life: int | str = 3599
    granted: str = SCOPE
    asked: str = SCOPE  # the scope of the delegation
    aliases: list[dict[str, str]] = field(default_factory=list)
    answers: list[bytes | Handler] = field(default_factory=list)
    token_answers: list[bytes | Handler] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)  # put into answers with a token
    tokens: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    token_requests: list[dict[str, str]] = field(default_factory=list)
    delivered: list[Delivery] = field(default_factory=list)

    def __call__(self, request: Request) -> bytes | Awaitable[bytes | None]:
        if request.path == "/token":
            return self._token(request)
        if request.path == "/tokeninfo":
            return self._token_info(request)
        if request.path == "/gmail/v1/users/me/settings/sendAs":
            return self._aliases(request)
        if request.path != SEND:
            return error(404, "notFound", "Not Found")
        return self._send(request)

    # -- what is looked at without sending

    def _known(self, request: Request) -> bool:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        return self.tokens.get(token, ("", self.clock.now()))[1] > self.clock.now()

    def _token_info(self, request: Request) -> bytes:
        """As Google's own libraries ask: a form without fields, the token in the header and in no URL."""
        form = request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
        if request.method != "POST" or not form or request.body or not self._known(request):
            return http(400, {"error": "invalid_token", "error_description": "Invalid Value"})
        return http(200, {"azp": "client", "scope": self.granted, "expires_in": "3590", "access_type": "offline"})

    def _aliases(self, request: Request) -> bytes:
        if request.method != "GET" or not self._known(request):
            return error(401, "authError", "Invalid Credentials")
        if self.granted == SCOPE:
            return error(403, "insufficientPermissions", "Request had insufficient authentication scopes.")
        own = {"sendAsEmail": MAILBOX, "isPrimary": True}
        return http(200, {"sendAs": [own, *self.aliases]})

    # -- tokens

    def _token(self, request: Request) -> bytes | Awaitable[bytes | None]:
        if request.method != "POST" or request.headers.get("content-type") != "application/x-www-form-urlencoded":
            return http(400, {"error": "invalid_request", "error_description": "POST a form"})
        fields = parse_qs(request.body.decode("ascii"), strict_parsing=True, keep_blank_values=True)
        if any(len(values) != 1 for values in fields.values()):
            return http(400, {"error": "invalid_request", "error_description": "a parameter came twice"})
        form = {name: values[0] for name, values in fields.items()}
        self.token_requests.append(form)
        if self.token_answers:
            answer = self.token_answers.pop(0)
            return answer if isinstance(answer, bytes) else answer(request)
        grants: dict[str, Callable[[dict[str, str]], str]] = {
            "urn:ietf:params:oauth:grant-type:jwt-bearer": self._assertion,
            "refresh_token": self._refresh,
        }
        try:
            mailbox = grants[form.get("grant_type", "")](form)
        except KeyError:
            return http(400, {"error": "unsupported_grant_type"})
        except Refused as refused:
            return http(refused.status, {"error": refused.error, "error_description": refused.text})
        return http(200, self.issue(mailbox))

    def issue(self, mailbox: str) -> dict[str, Any]:
        token = f"ya29.token-{len(self.tokens) + 1}-hunter2"
        self.tokens[token] = (mailbox, self.clock.now() + timedelta(seconds=int(self.life)))
        return {
            "access_token": token,
            "expires_in": self.life,
            "token_type": "Bearer",
            "scope": self.granted,
            **self.more,
        }

    def _refresh(self, form: dict[str, str]) -> str:
        if set(form) != {"grant_type", "client_id", "client_secret", "refresh_token"}:
            raise Refused(400, "invalid_request", f"fields {sorted(form)}")
        if (form["client_id"], form["client_secret"]) != ("client-1.apps.googleusercontent.com", CLIENT_SECRET):
            raise Refused(401, "invalid_client", "The OAuth client was not found.")
        if form["refresh_token"] != self.refresh_token:
            raise Refused(400, "invalid_grant", "Token has been expired or revoked.")
        return MAILBOX

    def _assertion(self, form: dict[str, str]) -> str:
        if set(form) != {"grant_type", "assertion"}:
            raise Refused(400, "invalid_request", f"fields {sorted(form)}")
        try:
            options: Any = {"require": ["iss", "aud", "exp", "iat", "scope"], "verify_exp": False, "verify_iat": False}
            claims = jwt.decode(
                form["assertion"], rsa_key().public_key(), algorithms=["RS256"], audience=AUDIENCE, options=options
            )
        except jwt.PyJWTError as problem:
            raise Refused(400, "invalid_grant", f"Invalid JWT Signature. {problem}") from None
        if set(claims) - {"iss", "sub", "scope", "aud", "iat", "exp"} or claims["exp"] - claims["iat"] > 3600:
            raise Refused(400, "invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes)")
        if claims["iss"] != "sa@proj.iam.gserviceaccount.com" or claims["scope"] not in self.delegated():
            raise Refused(401, "unauthorized_client", "Client is unauthorized to retrieve access tokens")
        if claims.get("sub", MAILBOX) not in self.users:
            raise Refused(400, "invalid_grant", "Invalid email or User ID")
        return str(claims.get("sub", ""))

    def delegated(self) -> set[str]:
        return {self.asked}

    # -- mail

    def _send(self, request: Request) -> bytes | Awaitable[bytes | None]:
        if request.method != "POST":
            return error(405, "methodNotAllowed", "Method Not Allowed")
        mailbox, ends = self.tokens.get(
            request.headers.get("authorization", "").removeprefix("Bearer "), ("", self.clock.now())
        )
        if ends <= self.clock.now():
            return error(401, "authError", "Invalid Credentials", status="UNAUTHENTICATED")
        if (
            request.headers.get("content-type") != "message/rfc822"
            or request.headers.get("accept") != "application/json"
        ):
            return error(400, "badContent", "Media type is not supported. Valid media types: [message/*]")
        if self.answers:
            answer = self.answers.pop(0)
            return answer if isinstance(answer, bytes) else answer(request)
        return self._take(mailbox, request.body)

    def _take(self, mailbox: str, raw: bytes) -> bytes:
        if not mailbox:
            return error(400, "failedPrecondition", "Precondition check failed.", status="FAILED_PRECONDITION")
        if len(raw) > 36_700_160:
            return error(413, "uploadTooLarge", "Request is too large.")
        if raw.count(b"\n") != raw.count(b"\r\n") or raw.count(b"\r") != raw.count(b"\r\n"):
            return error(400, "invalidArgument", "bare CR or LF")
        people = [address for _, address in getaddresses(_addressing(raw)) if address]
        if not people:
            return error(400, "invalidArgument", "Recipient address required")
        if len(people) > 100 or not all(re.fullmatch(r'[^@\s]+@[^@\s"]+', one) for one in people):
            return error(400, "invalidArgument", "Invalid To header")
        head, empty, body = raw.partition(b"\r\n\r\n")
        seen = re.sub(rb"(?im)^bcc:[^\n]*\n(?:[ \t][^\n]*\n)*", b"", head + b"\r\n") + empty[2:] + body
        self.delivered.append(Delivery(mailbox, people, seen, raw))
        number = f"{HEX_ID}{len(self.delivered):02x}"
        return http(200, {"id": number, "threadId": number, "labelIds": ["SENT"]})


def _addressing(raw: bytes) -> list[str]:
    """The values of To, Cc and Bcc; Gmail is said to overlook those behind the MIME fields."""
    values = []
    for name, value in message_from_bytes(raw).items():
        if name.lower() == "mime-version" or name.lower().startswith("content-"):
            break
        if name.lower() in ("to", "cc", "bcc"):
            values.append(str(value))
    return values


class Refused(Exception):
    def __init__(self, status: int, error: str, text: str) -> None:
        self.status, self.error, self.text = status, error, text


def error(code: int, reason: str, message: str, *, status: str = "INVALID_ARGUMENT", retry: str = "") -> bytes:
    """An error of the Gmail API as its guide shows it."""
    entry = {"message": message, "domain": "global", "reason": reason}
    body = {"code": code, "message": message, "errors": [entry] if reason else [], "status": status}
    return http(code, {"error": body}, {"Retry-After": retry} if retry else None)


@dataclass
class Recorder:
    """What a backend tells the operator."""

    refreshes: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    credential: list[float] = field(default_factory=list)

    def warning(self, event: str, **fields: object) -> None:
        self.warnings.append((event, fields))

    def token_refreshed(self, backend: str, result: str, ends: float = 0.0, detail: str = "") -> None:
        self.refreshes.append((result, detail))

    def credential_ends(self, backend: str, timestamp: float) -> None:
        self.credential.append(timestamp)


@dataclass
class Way:
    """The backend in front of its fake."""

    backend: Gmail
    settings: GmailSettings
    context: Context
    fake: GoogleFake
    web: Web
    clock: FakeClock
    signals: Recorder

    async def send(self, *recipients: str, raw: bytes = RAW, author: str = "", **options: Any) -> dict[str, Outcome]:
        return kept(await self.backend.send(replace(spooled(*recipients, **options), header_from=author), raw))

    async def one(self, *answers: Any, **options: Any) -> Outcome:
        self.fake.answers = list(answers)
        return (await self.send("b@x.example", **options))["b@x.example"]

    @property
    def sends(self) -> list[Request]:
        return [request for request in self.web.requests if request.path == SEND]


@contextlib.asynccontextmanager
async def open_way(
    folder: Path, info: dict[str, Any] | None = None, kind: type[GoogleFake] = GoogleFake, **settings: Any
) -> AsyncIterator[Way]:
    """By default a service account that sends as one mailbox."""
    clock, signals = FakeClock(), Recorder()
    fake = kind(clock)
    info = info or service_account_info()
    file = "authorized_user_file" if info["type"] == "authorized_user" else "service_account_file"
    async with Web(fake) as web, kit.context(folder, clock) as silent:
        values = {
            "mailbox": MAILBOX,
            file: stored(folder, info),
            "api_base": web.url,
            "token_url": web.url + "/token",
            "timeout": "5s",
        } | settings
        given, context = GmailSettings.model_validate(values), replace(silent, signals=signals)
        backend = Gmail("gm", given, context)
        yield Way(backend, given, context, fake, web, clock, signals)
        await backend.aclose()
