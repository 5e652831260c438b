"""Backend ``temp_mail``: a self-hosted cloudflare_temp_email, which sends as the address that its token belongs to."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import ClassVar, Literal

from pydantic import SecretStr

from gateway.address import comparable
from gateway.backends.json.parts import UNTRIED, WHERE, Parts, PartsBackend, PartsSettings, display_names, request
from gateway.backends.shared.base import Context, NoAnswer, safe
from gateway.backends.shared.calls import Call
from gateway.backends.shared.flight import SingleFlight
from gateway.backends.shared.http import BUSY_403
from gateway.backends.shared.recent import Recent
from gateway.backends.shared.table import Row
from gateway.checks import Check, good, reached, wrong
from gateway.config.values import ApiKey
from gateway.fetch import Answer
from gateway.model import CannotCarry, CannotTell, Outcome, Scope, SpooledMessage, Verdict
from gateway.strangers import lenient_json

_CLIENT = "client"
_LOOKUPS = 8  # tokens asked about at one time
_WAITING = 200  # log-ins that wait for that
_TRIES = 5  # for a text that nobody knows
_KEPT = 1000  # tokens whose answer is remembered
_REMEMBERED = {True: 300.0, False: 30.0}  # seconds, for good tokens and for others
_TOKEN = r"\bjwt|\btoken ?\(|invalid address credential|address not found"  # noqa: S105 - Hono's words, and the Worker's
_DAY, _MONTH = r"server daily send quota", r"server monthly send quota"
_FIX_PASSWORD = "put the site's password into site_password"  # noqa: S105
_FIX_BALANCE = "ask for mail to send (/api/request_send_mail_access); an administrator of the site grants it"
_FIX_WORKER = "give the Worker a way to send: RESEND_TOKEN, SMTP_CONFIG or SEND_MAIL"
_FIX_KEY = "put the spool.key it was sealed with back, or send it again"
_FIX_TOKEN = "the token is not good, or not any more: take the address's present credential"  # noqa: S105

PRIVATE = Row((401,), Verdict.MISCONFIGURED, "4.7.0", text=r"private site password", fix=_FIX_PASSWORD)
# All but a few failures come as 400 with a text, to be found in worker/src of github.com/dreamhunter2333/
# cloudflare_temp_email. The first row that fits decides.
ROWS = (
    Row((400,), Verdict.DEFERRED, "4.0.0", text=r"resend error", scope=Scope.RECIPIENT),
    Row((400,), Verdict.IN_DOUBT, "4.4.2", text=r"\bD1_|sqlite"),  # its bookkeeping comes after the sending
    Row((400,), Verdict.THROTTLED, "4.4.5", text=f"{_DAY}|{_MONTH}"),
    Row((400,), Verdict.REJECTED, "5.7.1", text=r"address is blocked"),
    Row((400,), Verdict.REJECTED, "5.1.1", text=r"invalid recipient address", scope=Scope.RECIPIENT),
    Row((400,), Verdict.REJECTED, "5.6.0", text=r"(subject|content) is empty"),
    Row((400,), Verdict.MISCONFIGURED, "4.3.5", text=r"please enable", fix=_FIX_WORKER),
    Row((400,), Verdict.MISCONFIGURED, "4.3.5", text=r"contact the administrator"),
    PRIVATE,
    BUSY_403,
    Row((403,), Verdict.MISCONFIGURED, "4.7.0", fix="the site blocks this machine: see its access control"),
    Row((404,), Verdict.MISCONFIGURED, "4.3.5", fix=WHERE),
)
# What the token is to blame for: the message's own, or that of the settings.
OF_CLIENT: tuple[Row, ...] = (
    Row((400, 401), Verdict.REJECTED, "5.7.8", text=_TOKEN, fix=_FIX_TOKEN),
    Row((400,), Verdict.REJECTED, "5.7.1", text=r"invalid domain"),
    Row((400,), Verdict.REJECTED, "5.7.1", text=r"no balance", fix=_FIX_BALANCE),
)
ANY_401 = Row((401,), Verdict.REJECTED, "5.7.8")  # of /api, which looks at the token first; /external does not
OF_SETTINGS: tuple[Row, ...] = (
    Row((400, 401), Verdict.MISCONFIGURED, "4.7.0", text=_TOKEN, fix=_FIX_TOKEN),
    Row((400, 401), Verdict.MISCONFIGURED, "4.7.0", text=r"invalid domain"),
    Row((400,), Verdict.MISCONFIGURED, "4.7.0", text=r"no balance", fix=_FIX_BALANCE),
)
OURS = (PRIVATE, Row((400, 401), Verdict.MISCONFIGURED, "4.3.5", text=r"contact the administrator"))  # no token's fault
UNKNOWN = (Row((400,), Verdict.DEFERRED, "4.0.0", scope=Scope.RECIPIENT),)


class TempMailSettings(PartsSettings):
    """``token: client`` sends each message with the token of the client that logged in with it; else an address JWT.

    ``site_password`` opens a private site. ``empty_subject: fill`` writes "(no subject)": the API refuses none.
    """

    open_words: ClassVar[frozenset[str]] = PartsSettings.open_words | {_CLIENT}
    label: ClassVar[str] = "Cloudflare temp mail"
    type: Literal["temp_mail"] = "temp_mail"
    token: ApiKey
    endpoint: Literal["external", "api"] = "external"
    site_password: SecretStr | None = None
    empty_subject: Literal["reject", "fill"] = "reject"

    @property
    def verifies(self) -> bool:
        return self.token.get_secret_value() == _CLIENT


class TempMail(PartsBackend):
    """One recipient a call, one body: HTML where there is one. Nothing protects from duplicates."""

    def __init__(self, name: str, settings: TempMailSettings, context: Context) -> None:
        password = settings.site_password.get_secret_value() if settings.site_password else ""
        self._token = "" if settings.verifies else settings.token.get_secret_value()
        private = {"x-custom-auth": password} if password else {}
        super().__init__(
            name,
            settings,
            context,
            headers={"x-lang": "en", **private},
            secrets=(password, self._token),
            carries=("no_subject",) if settings.empty_subject == "fill" else (),
            drops=("both_bodies",),
        )
        self.capabilities = replace(self.capabilities, own_token=settings.verifies)
        self._external = settings.endpoint == "external"
        of_client = OF_CLIENT if self._external else (*OF_CLIENT, ANY_401)
        self._rows = (*ROWS, *(OF_SETTINGS if self._token else of_client), *UNKNOWN)
        self._known: Recent[bytes, tuple[float, str]] = Recent(_KEPT)  # until when (monotonic), and the address or ""
        self._looks: SingleFlight[bytes, str] = SingleFlight()
        self._places = asyncio.Semaphore(_LOOKUPS)

    def calls(self, message: SpooledMessage, parts: Parts) -> Iterable[Call]:
        if not (self._token or message.secret):
            detail = "the client's token cannot be read"
            raise NoAnswer(Outcome(Verdict.DEFERRED, enhanced="4.7.0", detail=detail, fix=_FIX_KEY))
        kind, body = ("html", parts.bodies["html"]) if "html" in parts.bodies else ("text", parts.bodies["text"])
        subject = parts.subject or "(no subject)"  # those that have none come here only with empty_subject: fill
        if body == b'""':
            raise CannotCarry("feature", "5.6.0", "mail without a text cannot be sent through this API")
        names = display_names(parts.header, "to", "cc")
        same = {"from_name": parts.name, "subject": subject, "is_html": kind == "html"}
        own = {"token": self._token or message.secret} if self._external else {}
        for recipient in message.envelope.recipients:
            to = {"to_mail": recipient.address, "to_name": names.get(comparable(recipient.address), "")}
            yield Call((recipient.address,), partial(request, {**same, **own, **to}, {"content": body}))

    async def _call(self, message: SpooledMessage, call: Call) -> dict[str, Outcome]:
        token = self._token or message.secret
        path = "/external/api/send_mail" if self._external else "/api/send_mail"
        answer = await self._request("POST", path, call.content(), {} if self._external else _bearer(token))
        return dict.fromkeys(call.addresses, self._outcome(answer, token, message.attempt))

    def _outcome(self, answer: Answer, token: str, attempt: int) -> Outcome:
        if answer.status == 200 and lenient_json(answer.body).get("status") == "ok":
            return Outcome(Verdict.SENT, 200, "2.0.0", "HTTP 200 ok", said_by="http")
        outcome = self._refused(answer, self._rows, token)
        if outcome.verdict is Verdict.THROTTLED and answer.status == 400:
            return replace(outcome, retry_after=_until_more(answer.body, self._context.clock.now()))
        # Nobody knows the cause: it may be this recipient, and then it stays.
        if outcome.verdict is Verdict.DEFERRED and outcome.scope is Scope.RECIPIENT and attempt >= _TRIES:
            return replace(outcome, verdict=Verdict.REJECTED, enhanced="5.0.0")
        return outcome

    # -- log-ins -----------------------------------------------------------------------------------------------------

    async def verify(self, token: str) -> str:
        """Log-ins with the same token ask once; what the site said is remembered by the token's hash."""
        key = hashlib.sha256(token.encode()).digest()
        until, address = self._known.get(key) or (0.0, "")
        if self._context.clock.monotonic() < until:
            return address
        if key not in self._looks and len(self._looks) >= _WAITING:
            raise CannotTell("too many tokens are being asked about")
        try:
            return await self._looks.get(key, partial(self._look, key, token))
        except NoAnswer as error:
            raise CannotTell(error.outcome.detail) from None

    async def _look(self, key: bytes, token: str) -> str:
        """The address, "" for a token that is not good. Raises CannotTell where the site did not say."""
        address: object = None
        try:
            async with self._places:  # a flood of forged tokens must not take the connections that mail needs
                answer = await self._request("GET", "/api/settings", headers=_bearer(token))
            detail, words = self._refused(answer, ROWS, token).detail, self._words(answer)
            if answer.status == 200:
                address = lenient_json(answer.body).get("address") or None
            elif answer.status in (400, 401) and not any(row.fits(answer.status, *words) for row in OURS):
                address = ""
        except NoAnswer as error:
            detail = error.outcome.detail
        if not isinstance(address, str):
            self._context.signals.warning("token_not_verified", backend=self.name, detail=detail)
            raise CannotTell("the site does not say whose the token is")
        self._known.put(key, (self._context.clock.monotonic() + _REMEMBERED[bool(address)], address))
        return address

    async def check(self) -> Check:
        """Asks whose the token is; without one, whether the site is there and lets us in."""
        facts = {"url": self._url}
        try:
            answer = await self._request("GET", "/api/settings", headers=_bearer(self._token) if self._token else {})
        except NoAnswer as error:
            return self._unreachable(error)
        address = lenient_json(answer.body).get("address")
        if answer.status == 200 and isinstance(address, str) and self._token:
            steps = (reached(self._url), good(f"The token is good: it belongs to {safe(address)}."), UNTRIED)
            return Check(True, "the token is good", facts={**facts, "address": address}, steps=steps)
        if not self._token and answer.status == 401 and not PRIVATE.fits(401, *self._words(answer)):
            steps = (reached(self._url), good("The site lets us in. Clients bring their own tokens."), UNTRIED)
            return Check(True, "the site answers; clients bring their own tokens", facts=facts, steps=steps)
        outcome = self._refused(answer, (*ROWS, *OF_SETTINGS))
        fix = outcome.fix or f"check base_url and token of backends.{self.name}"
        steps = (reached(self._url), wrong("It does not let us in.", outcome.detail), UNTRIED)
        return Check(False, outcome.detail, fix, facts, steps)

    async def aclose(self) -> None:
        await self._looks.aclose()


def _bearer(token: str) -> Mapping[str, str]:
    return {"authorization": f"Bearer {token}"}


def _until_more(body: bytes, now: datetime) -> timedelta:
    """Until the UTC day or month ends."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    monthly = re.search(_MONTH.encode(), body, re.IGNORECASE)
    following = (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
    return (following if monthly else midnight + timedelta(days=1)) - now
