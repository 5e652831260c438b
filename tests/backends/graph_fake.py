"""Microsoft Graph and Entra ID as far as sending goes: strict about every request, and it knows who would get what."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from email import message_from_bytes, policy
from email.utils import getaddresses
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from gateway.backends import Context
from gateway.backends.microsoft.graph import Graph, GraphSettings
from gateway.model import Outcome
from tests.backends import kit
from tests.backends.gmail_fake import Recorder
from tests.backends.kit import RAW, Handler, Request, Web, http, kept, reset, spooled
from tests.fakes import FakeClock

TENANT = "contoso.example"
CLIENT = "11111111-2222-3333-4444-555555555555"
SECRET = "q1w~8Q.hunter2-hunter2-hunter2-secret"
MAILBOX = "a@corp.example"
RESOURCE = "https://graph.microsoft.com"
LIFE = 3599
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
MIB = 1024 * 1024
KEPT = {
    "from", "sender", "to", "cc", "subject", "date", "message-id", "reply-to", "mime-version", "in-reply-to",
    "references", "importance",
}  # fmt: skip
DRAFT_FIELDS = {
    "subject", "body", "from", "sender", "toRecipients", "ccRecipients", "bccRecipients", "replyTo", "importance",
    "internetMessageId", "internetMessageHeaders", "singleValueExtendedProperties",
    "isReadReceiptRequested",
}  # fmt: skip


def part(claims: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()


def error(status: int, code: str, message: str = "", inner: str = "", **headers: str) -> bytes:
    body: dict[str, Any] = {"code": code, "message": message or f"about {code}"}
    if inner:
        body["innerError"] = {"code": inner, "date": "2026-11-20T12:00:00"}
    return http(status, {"error": body}, {name.replace("_", "-"): value for name, value in headers.items()})


def refusal(status: int, name: str, code: int = 0, words: str = "") -> bytes:
    """An answer of the token endpoint."""
    text = f"AADSTS{code}: {words or 'so it is.'}\r\nTrace ID: 0\r\nCorrelation ID: 1"
    return http(status, {"error": name, "error_description": text, "error_codes": [code], "correlation_id": "1"})


@dataclass
class Item:
    """A draft or a sent message of a mailbox."""

    mailbox: str
    people: dict[str, list[str]]
    raw: bytes = b""
    fields: dict[str, Any] = field(default_factory=dict)
    files: list[dict[str, Any]] = field(default_factory=list)
    is_draft: bool = True
    message_id: str = ""


@dataclass
class Session:
    draft: str
    facts: dict[str, Any]
    data: bytearray = field(default_factory=bytearray)
    done: bool = False


@dataclass
class GraphFake:
    """``answers`` maps a place to what it answers first; ``lose``: places whose work is done, and the answer lost."""

    clock: FakeClock = field(default_factory=FakeClock)
    answers: dict[str, list[bytes | Handler]] = field(default_factory=dict)
    lose: list[str] = field(default_factory=list)
    mailboxes: set[str] = field(default_factory=lambda: {MAILBOX})
    send_as: set[str] = field(default_factory=set)  # besides the mailbox itself
    permissions: str = "Mail.Send"
    rbac: bool = False  # permissions stand in Exchange and not in the token
    certificate: x509.Certificate | None = None
    once: bool = False  # a refresh token is good for one refresh
    federated: str = ""  # the one token of another issuer that is known here
    resource: str = RESOURCE  # whom its tokens are for
    delegated: str = f"{RESOURCE}/Mail.Send"  # what a person is asked for

    def __post_init__(self) -> None:
        self.url = ""
        self.delivered: list[tuple[list[str], bytes]] = []
        self.inbox: list[list[str]] = []  # for each delivery the header fields that get through
        self.items: dict[str, Item] = {}
        self.sessions: dict[str, Session] = {}
        self.tokens: dict[str, float] = {}
        self.forms: list[dict[str, str]] = []
        self.calls: list[str] = []
        self.signed_in = False  # whether the person has entered the device code
        self.refresh_tokens: set[str] = set()  # those that are good
        self.issued = 0
        self.request_ids: list[str] = []

    def __call__(self, request: Request) -> bytes | Awaitable[bytes | None]:
        host = f"http://{request.headers['host']}"
        self.url = self.url or host
        place, work = self._route(request)
        self.calls.append(place)
        if scripted := self.answers.get(place):
            answer = scripted.pop(0)
            return answer if isinstance(answer, bytes) else answer(request)
        done = work()
        if place in self.lose:
            self.lose.remove(place)
            return self._lost(request)
        return done

    @staticmethod
    async def _lost(request: Request) -> None:
        reset(request.writer)

    def _route(self, request: Request) -> tuple[str, Callable[[], bytes]]:
        url = urlsplit(request.path)
        path, query = url.path, {name: values[0] for name, values in parse_qs(url.query).items()}
        login = re.fullmatch(
            r"/([\w.-]+)/(v2\.0/\.well-known/openid-configuration|oauth2/v2\.0/(token|devicecode))", path
        )
        if login and login[3]:
            return login[3], lambda: self._login(request, login[1], login[3])
        if login:
            return "discovery", lambda: self._discovery(request, login[1])
        if path == "/metadata/identity/oauth2/token":
            return "metadata", lambda: self._metadata(request, query)
        if path.startswith("/upload/"):
            return ("range" if request.method == "PUT" else "ranges"), lambda: self._upload(request, path[8:], query)
        if path == "/v1.0/users" and request.method == "GET":
            return "profile", lambda: self._allowed(request, MAILBOX) or error(403, "Authorization_RequestDenied")
        api = re.fullmatch(r"/v1\.0(?:/me|/users/([^/]+))(/.*)?", path)
        if not api:
            return "unknown", lambda: error(404, "ResourceNotFound", "Resource not found for the segment")
        mailbox = unquote(api[1]) if api[1] else "me"
        place, work = self._place(request, mailbox, api[2] or "", query)
        return place, lambda: self._allowed(request, mailbox) or work()

    def _place(
        self, request: Request, mailbox: str, path: str, query: dict[str, str]
    ) -> tuple[str, Callable[[], bytes]]:
        found = re.fullmatch(r"/messages/([^/]+)(/send|/attachments|/attachments/createUploadSession)?", path)
        match request.method, path:
            case "POST", "/sendMail":
                return "sendMail", lambda: self._send_mail(request, mailbox)
            case "POST", "/messages":
                return "draft", lambda: self._create(request, mailbox)
            case "GET", "/mailFolders/sentitems/messages":
                return "filter", lambda: self._filter(mailbox, query, drafts=False)
            case "GET", "/mailFolders/drafts/messages":
                return "filter drafts", lambda: self._filter(mailbox, query, drafts=True)
            case "GET", "":
                return "profile", lambda: error(403, "Authorization_RequestDenied", "Insufficient privileges")
        if not found:
            return "unknown", lambda: error(404, "ResourceNotFound")
        name, item = unquote(found[1]), self.items.get(unquote(found[1]))
        if not item or item.mailbox != mailbox:
            return f"{request.method.lower()} nothing", lambda: error(404, "ErrorItemNotFound")
        match request.method, found[2]:
            case "GET", None:
                return "get", lambda: self._readable() or http(200, self._shown(name, query))
            case "DELETE", None:
                return "delete", lambda: self._writable() or self._delete(name)
            case "POST", "/send":
                return "send", lambda: self._send(request, item)
            case "POST", "/attachments":
                return "attachment", lambda: self._attach(request, item)
            case "POST", "/attachments/createUploadSession":
                return "session", lambda: self._session(request, name)
        return "unknown", lambda: error(405, "MethodNotAllowed")

    # -- who may ---------------------------------------------------------------------------------------------------

    def _allowed(self, request: Request, mailbox: str) -> bytes | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or self.tokens.get(token, -1.0) <= self.clock.monotonic():
            return error(401, "InvalidAuthenticationToken", "Lifetime validation failed, the token is expired.")
        if len(request.body) > 4 * MIB:
            return error(400, "BadRequest", "The maximum request length supported is 4MB.")
        if mailbox not in self.mailboxes:
            return error(404, "ErrorInvalidUser", f"The requested user '{mailbox}' is invalid.")
        return None

    def _may(self, *permissions: str) -> bool:
        return any(name.startswith(permission) for name in self.permissions.split() for permission in permissions)

    def _readable(self) -> bytes | None:
        return None if self._may("Mail.Read") else error(403, "ErrorAccessDenied", "Access is denied.")

    def _writable(self) -> bytes | None:
        return None if self._may("Mail.ReadWrite") else error(403, "ErrorAccessDenied", "Access is denied.")

    # -- Entra ID ----------------------------------------------------------------------------------------------------

    def _discovery(self, request: Request, tenant: str) -> bytes:
        if request.method != "GET" or tenant not in (TENANT, "consumers"):
            return refusal(400, "invalid_tenant", 90002, f"Tenant '{tenant}' not found.")
        base = f"{self.url}/{tenant}/oauth2/v2.0"  # the truth, on loopback without TLS
        names = {"authorization_endpoint": "authorize", "token_endpoint": "token"}
        names["device_authorization_endpoint"] = "devicecode"
        return http(200, {**{name: f"{base}/{end}" for name, end in names.items()}, "issuer": base})

    def _login(self, request: Request, tenant: str, what: str) -> bytes:
        if request.method != "POST" or request.headers.get("content-type") != "application/x-www-form-urlencoded":
            return refusal(400, "invalid_request", 900144)
        form = {name: values[0] for name, values in parse_qs(request.body.decode(), strict_parsing=True).items()}
        self.forms.append(form)
        if form.get("client_id") != CLIENT:
            return refusal(400, "unauthorized_client", 700016, "Application not found in the directory.")
        if what == "devicecode":
            return self._device_code(form)
        if form.get("grant_type") == "client_credentials":
            return self._client(form, tenant)
        if form.get("grant_type") == DEVICE:
            return self._device(form)
        if form.get("grant_type") == "refresh_token" and form.get("refresh_token") in self.refresh_tokens:
            if self.once:
                self.refresh_tokens.remove(form["refresh_token"])
            return self._delegated(form["scope"])
        return refusal(400, "invalid_grant", 700082, "The refresh token has expired due to inactivity.")

    def _client(self, form: dict[str, str], tenant: str) -> bytes:
        known = {"client_id", "client_info", "grant_type", "scope"}
        if form["scope"] != f"{self.resource}/.default":
            return refusal(400, "invalid_scope", 70011)
        if "client_secret" in form:
            if set(form) != {*known, "client_secret"} or form["client_secret"] != SECRET:
                return refusal(401, "invalid_client", 7000215, f"Invalid client secret: {form['client_secret']}")
        elif self.federated:
            if form.get("client_assertion") != self.federated:
                return refusal(401, "invalid_client", 700213, "No matching federated identity record found")
        elif set(form) != {*known, "client_assertion", "client_assertion_type"} or not self._asserted(form, tenant):
            return refusal(401, "invalid_client", 700027, "The certificate is not registered.")
        return self._token({} if self.rbac else {"roles": self.permissions.split()})

    def _asserted(self, form: dict[str, str], tenant: str) -> bool:
        """RFC 7523 3 and Microsoft's form of it."""
        assert self.certificate
        token, head = form["client_assertion"], jwt.get_unverified_header(form["client_assertion"])
        print_ = base64.urlsafe_b64encode(self.certificate.fingerprint(hashes.SHA256())).decode()
        audience = f"{self.url.replace('http:', 'https:')}/{tenant}/oauth2/v2.0/token"
        try:
            claims = jwt.decode(
                token, self.certificate.public_key(), algorithms=["PS256"], audience=audience, issuer=CLIENT,
                options={"require": ["exp", "iat", "iss", "sub", "jti", "aud"]},
            )  # fmt: skip
        except jwt.PyJWTError:
            return False
        fresh = claims["exp"] - claims["iat"] <= 600
        named = head.get("x5t#S256", "").rstrip("=") == print_.rstrip("=") and "x5t" not in head
        return fresh and named and claims["sub"] == CLIENT and form["client_assertion_type"] == ASSERTION

    def _device_code(self, form: dict[str, str]) -> bytes:
        if set(form) != {"client_id", "scope"} or "offline_access" not in form["scope"]:
            return refusal(400, "invalid_request", 900144)
        message = "To sign in, open https://microsoft.com/devicelogin and enter the code ABCD-1234."
        codes = {
            "device_code": "dc-1",
            "user_code": "ABCD-1234",
            "verification_uri": "https://microsoft.com/devicelogin",
        }
        return http(200, {**codes, "expires_in": 900, "interval": 0, "message": message})

    def _device(self, form: dict[str, str]) -> bytes:
        if form.get("device_code") != "dc-1":
            return refusal(400, "bad_verification_code", 70000)
        if not self.signed_in:
            return refusal(400, "authorization_pending", 70016)
        return self._delegated(self.delegated)

    def _delegated(self, scope: str) -> bytes:
        fresh = self.next_refresh_token()
        info = part({"uid": "u-1", "utid": "t-1"})
        who = {"preferred_username": MAILBOX, "sub": "s", "aud": CLIENT, "iss": "i", "exp": 4_000_000_000, "iat": 1}
        more = {"refresh_token": fresh, "client_info": info, "id_token": f"{part({'alg': 'none'})}.{part(who)}.x"}
        granted = " ".join(word for word in scope.split() if word.startswith(self.delegated.rpartition("/")[0]))
        return self._token({"scp": self.permissions}, scope=granted, **more)

    def next_refresh_token(self) -> str:
        self.issued += 1
        self.refresh_tokens.add(fresh := f"rt-{self.issued}")
        return fresh

    def _metadata(self, request: Request, query: dict[str, str]) -> bytes:
        if request.headers.get("metadata") != "true" or query.get("resource") != self.resource:
            words = "Required metadata header not specified"
            return http(400, {"error": "invalid_request", "error_description": words})
        if query.get("client_id") not in (None, CLIENT):
            return http(400, {"error": "invalid_request", "error_description": "Identity not found"})
        return self._token({"roles": self.permissions.split()}, expires_in=str(LIFE))

    def _token(self, claims: dict[str, Any], **more: Any) -> bytes:
        value = f"{part({'alg': 'RS256', 'typ': 'JWT'})}.{part({**claims, 'n': len(self.tokens)})}.c2lnbmF0dXJl"
        self.tokens[value] = self.clock.monotonic() + LIFE
        return http(200, {"token_type": "Bearer", "expires_in": LIFE, "access_token": value, **more})

    def expire(self) -> None:
        """All tokens are refused from now on."""
        self.tokens = dict.fromkeys(self.tokens, -1.0)

    # -- Mail --------------------------------------------------------------------------------------------------------

    def _mime(self, request: Request, mailbox: str) -> bytes | Item:
        if request.headers.get("content-type") != "text/plain":
            return error(415, "RequestBodyRead", "Unsupported content type")
        try:
            compact = request.body.translate(None, b"\r\n")
            raw = binascii.a2b_base64(compact, strict_mode=True)
        except ValueError:
            return error(400, "ErrorMimeContentInvalidBase64String", "Invalid base64 string for MIME content.")
        if not raw or re.search(rb"(?<!\r)\n|\r(?!\n)", raw):
            return error(400, "ErrorMimeContentInvalid", "bare line ends")
        parsed = message_from_bytes(raw, policy=policy.compat32)
        people: dict[str, list[str]] = {}
        for name in ("to", "cc", "bcc"):
            values = [str(value) for value in parsed.get_all(name, [])]
            people[name] = [address for _, address in getaddresses(values) if address]
            if values and not people[name]:
                return error(400, "ErrorInvalidRecipients", "At least one recipient isn't valid.")
        if not any(people.values()):
            return error(400, "ErrorInvalidRecipients", "This message contains no recipients.")
        for name in ("from", "sender"):
            for shown, address in getaddresses([str(value) for value in parsed.get_all(name, [])]):
                if "@" in shown or (address and address.lower() not in {mailbox, *self.send_as, *self._own(mailbox)}):
                    return error(
                        403, "ErrorSendAsDenied", "The user account does not have the right to send mail on behalf"
                    )
        if not raw.partition(b"\r\n\r\n")[2]:
            return error(400, "ErrorMimeContentInvalid", "Invalid content for mail")
        return Item(mailbox, people, raw, message_id=str(parsed.get("message-id") or ""))

    def _own(self, mailbox: str) -> set[str]:
        return {MAILBOX} if mailbox == "me" else set()

    def _send_mail(self, request: Request, mailbox: str) -> bytes:
        if not self.rbac and not self._may("Mail.Send"):
            return error(403, "ErrorAccessDenied", "Access is denied. Check credentials and try again.")
        item = self._mime(request, mailbox)
        if isinstance(item, bytes):
            return item
        self.request_ids.append(request.headers.get("client-request-id", ""))
        self.deliver(item)
        self.items[f"AAMk{len(self.items)}="] = item
        return http(202)

    def deliver(self, item: Item) -> None:
        item.is_draft = False
        names = [name.lower() for name in message_from_bytes(item.raw).keys()]  # noqa: SIM118
        self.inbox.append([name for name in names if name in KEPT or name.startswith(("x-", "content-"))])
        self.delivered.append(([person for people in item.people.values() for person in people], item.raw))

    def _create(self, request: Request, mailbox: str) -> bytes:
        if refused := self._writable():
            return refused
        read = self._from_fields if request.headers.get("content-type") == "application/json" else self._mime
        item = read(request, mailbox)
        if isinstance(item, bytes):
            return item
        if request.headers.get("prefer") != 'IdType="ImmutableId"':
            return error(400, "BadRequest", "this fake wants immutable ids")
        name = f"AAkA/{len(self.items)}+="
        self.items[name] = item
        return http(201, {"id": name, "isDraft": True})

    def _from_fields(self, request: Request, mailbox: str) -> bytes | Item:
        fields = json.loads(request.body)
        own = fields.get("internetMessageHeaders", [])
        if unknown := set(fields) - DRAFT_FIELDS:
            return error(400, "RequestBodyRead", f"The property '{min(unknown)}' does not exist")
        if len(own) > 5 or any(one.keys() != {"name", "value"} or one["name"][:2].lower() != "x-" for one in own):
            return error(400, "InvalidInternetMessageHeader", "should start with 'x-' or 'X-'")
        if set(fields["body"]) != {"contentType", "content"} or fields["body"]["contentType"] not in ("text", "html"):
            return error(400, "RequestBodyRead", "body")
        people: dict[str, list[str]] = {}
        for name in ("to", "cc", "bcc"):
            listed = [one["emailAddress"] for one in fields.get(f"{name}Recipients", [])]
            if any(set(one) - {"name", "address"} or not re.fullmatch(r"\S+@\S+", one["address"]) for one in listed):
                return error(400, "ErrorInvalidRecipients")
            people[name] = [one["address"] for one in listed]
        author = fields.get("from", {}).get("emailAddress", {}).get("address", mailbox)
        if author.lower() not in {mailbox, *self.send_as}:
            return error(403, "ErrorSendAsDenied")
        return Item(mailbox, people, fields=fields, message_id=fields.get("internetMessageId", ""))

    def _send(self, request: Request, item: Item) -> bytes:
        kind = request.headers.get("content-type", "application/json")
        if request.headers.get("content-length") != "0" or kind != "application/json":
            return error(411, "LengthRequired")
        if not item.is_draft:
            return error(404, "ErrorItemNotFound")
        if not any(item.people.values()):
            return error(400, "ErrorInvalidRecipients")
        self.deliver(item)
        return http(202)

    def _delete(self, name: str) -> bytes:
        del self.items[name]
        return http(204)

    def _shown(self, name: str, query: dict[str, str]) -> dict[str, Any]:
        item = self.items[name]
        lists = {
            f"{kind}Recipients": [{"emailAddress": {"address": one}} for one in item.people[kind]]
            for kind in item.people
        }
        whole = {"id": name, "isDraft": item.is_draft, **lists}
        return {"id": name, **{wanted: whole[wanted] for wanted in query["$select"].split(",")}}

    def _filter(self, mailbox: str, query: dict[str, str], *, drafts: bool) -> bytes:
        if refused := self._readable():
            return refused
        wanted = re.fullmatch(r"internetMessageId eq '((?:[^']|'')*)'", query["$filter"])
        if not wanted:
            return error(400, "ErrorInvalidUrlQueryFilter")
        found = [
            self._shown(name, query)
            for name, item in self.items.items()
            if item.mailbox == mailbox and item.is_draft is drafts and item.message_id == wanted[1].replace("''", "'")
        ]
        return http(200, {"value": found[: int(query.get("$top", 10))]})

    # -- Attachments -------------------------------------------------------------------------------------------------

    def _attach(self, request: Request, item: Item) -> bytes:
        facts = json.loads(request.body)
        known = {"@odata.type", "name", "contentType", "contentBytes", "isInline", "contentId"}
        if set(facts) - known or facts.get("@odata.type") != "#microsoft.graph.fileAttachment":
            return error(400, "RequestBodyRead")
        data = binascii.a2b_base64(facts.pop("contentBytes").encode(), strict_mode=True)
        if len(data) >= 3_000_000:
            return error(413, "RequestEntityTooLarge")
        item.files.append({**facts, "data": data})
        return http(201, {"id": "att"})

    def _session(self, request: Request, draft: str) -> bytes:
        facts = json.loads(request.body)["AttachmentItem"]
        known = {"attachmentType", "name", "size", "contentType", "isInline", "contentId"}
        if set(facts) - known or facts["attachmentType"] != "file":
            return error(400, "RequestBodyRead")
        if facts["size"] < 3_000_000:
            return error(400, "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize")
        name = f"s{len(self.sessions)}"
        self.sessions[name] = Session(draft, facts)
        url = f"{self.url}/upload/{name}?authtoken=eyJhbGciOi"
        return http(201, {"uploadUrl": url, "nextExpectedRanges": ["0-"], "expirationDateTime": "2026-11-21T12:00:00Z"})

    def _upload(self, request: Request, name: str, query: dict[str, str]) -> bytes:
        session = self.sessions.get(name)
        if "authorization" in request.headers or query.get("authtoken") != "eyJhbGciOi":
            return error(401, "InvalidAudience", "no Authorization header here")
        if not session or session.done or session.draft not in self.items:
            return error(404, "ErrorItemNotFound")
        size = session.facts["size"]
        if request.method == "PUT":
            span = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", request.headers.get("content-range", ""))
            first, last, whole = (int(number) for number in span.groups()) if span else (0, 0, 0)
            last_one = last == size - 1
            if whole != size or last - first + 1 != len(request.body) or len(request.body) >= 4_000_000:
                return error(400, "InvalidContentRange")
            if not last_one and len(request.body) % (320 * 1024):
                return error(400, "InvalidContentRange", "not a multiple of 320 KiB")
            if first != len(session.data):
                return error(416, "InvalidRange")
            session.data += request.body
            if len(session.data) == size:
                session.done = True
                facts = {name: value for name, value in session.facts.items() if name not in ("attachmentType", "size")}
                self.items[session.draft].files.append({**facts, "data": bytes(session.data)})
                return http(201, b"", {"Location": f"{self.url}/v1.0/att"})
        return http(200, {"nextExpectedRanges": [f"{len(session.data)}-{size - 1}"]})


class QuickClock(FakeClock):
    """Who sleeps wakes at once, and so much later."""

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)
        await asyncio.sleep(0)


@dataclass
class Way:
    """The backend in front of its fake."""

    backend: Graph
    settings: GraphSettings
    context: Context
    fake: GraphFake
    web: Web
    clock: FakeClock
    signals: Recorder

    async def send(self, *recipients: str, raw: bytes = RAW, **options: Any) -> dict[str, Outcome]:
        message = replace(spooled(*recipients), **options)
        return kept(await self.backend.send(message, raw))

    async def one(self, place: str = "", *answers: Any, raw: bytes = RAW, **options: Any) -> Outcome:
        """The outcome for b@x.example, after these answers at that place."""
        if place:
            self.fake.answers[place] = list(answers)
        return (await self.send("b@x.example", raw=raw, **options))["b@x.example"]


@contextlib.asynccontextmanager
async def open_way(path: Path, fake: GraphFake | None = None, **settings: Any) -> AsyncIterator[Way]:
    """Settings that are None are left out."""
    fake, signals = fake or GraphFake(QuickClock()), Recorder()
    async with Web(fake) as web, kit.context(path, fake.clock) as silent:
        fake.url = web.url
        values = {
            "tenant": TENANT,
            "client_id": CLIENT,
            "client_secret": SECRET,
            "mailbox": MAILBOX,
            "mailbox_rate": "1000/minute",
            "api_base": web.url,
            "authority": web.url,
            "timeout": "5s",
        } | settings
        given = GraphSettings.model_validate({name: value for name, value in values.items() if value is not None})
        context = replace(silent, signals=signals)
        backend = Graph("office", given, context)
        yield Way(backend, given, context, fake, web, fake.clock, signals)
        await backend.aclose()
    assert signals.warnings == []
