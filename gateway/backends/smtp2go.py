"""Backend ``smtp2go``: POST /email/mime of SMTP2GO. Header-driven: its only recipients are those in To and Cc."""

from __future__ import annotations

import binascii
import hmac
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar, Literal
from urllib.parse import parse_qsl

from pydantic import SecretStr

from gateway.backends.shared.base import (
    LARGE,
    Context,
    NoAnswer,
    Url,
    aside,
    base64_of,
    canonical,
    effort,
    limited,
    safe,
    unrecorded,
)
from gateway.backends.shared.calls import Call, carry_out, names, plan
from gateway.backends.shared.http import exchange, judge, start_of
from gateway.backends.shared.over_http import OverHttpSettings
from gateway.backends.shared.table import ANY, TOO_BIG, Row
from gateway.backends.smtp2go_probes import Smtp2goProbes
from gateway.checks import Check, good, reached, unreached, untried, wrong
from gateway.config.values import ApiKey
from gateway.fetch import Answer
from gateway.model import (
    Capabilities,
    DeliveryEvent,
    HookRefused,
    Outcome,
    Progress,
    Scope,
    SpooledMessage,
    Verdict,
)
from gateway.strangers import lenient_json

_HOSTS = {"global": "api", "us": "us-api", "eu": "eu-api", "au": "au-api"}
_UNTRIED = untried("Whether your senders are verified there, and what is left of the plan")
_PER_CALL = 100  # recipients in one To or Cc
_MINUTE = timedelta(minutes=1)  # 429 comes without Retry-After and lasts at least so long

_ADDRESS = r"suppress|invalid|not (a )?valid|malformed|does not exist|unknown|no such|recipient.*(block|bounce)"
_BUSY = r"\brate|\blimit|quota|too many"
_SIZE = r"(body|request|payload|message|email).{0,40}(too large|too big|exceed)"
_KEY = "put a valid key into api_key of backends.{name}: Sending > API Keys"
_PLAN = "the plan is used up or the account is closed: app.smtp2go.com > Reports, and Billing"
_ALLOW = "let the key use /email/mime: Sending > API Keys > Permissions"
_VERIFY = "verify the sender's domain or address: Sending > Verified Senders"
_UNVERIFIED = r"sender.*verif|verif.*sender|not verified|unverified"

# https://developers.smtp2go.com/docs/error-codes; the code is the end of error_code.
ROWS = (
    Row(ANY, Verdict.MISCONFIGURED, "4.7.0", code="ENDPOINT_PERMISSION_DENIED", fix=_ALLOW),  # comes as 400
    Row((200, 400), Verdict.REJECTED, "5.6.0", code="NON_VALIDATING_IN_PAYLOAD"),
    Row(
        (200, 400),
        Verdict.MISCONFIGURED,
        "4.7.0",
        code="API_EXCEPTION",
        text=_UNVERIFIED,
        scope=Scope.MESSAGE,
        fix=_VERIFY,
    ),
    Row((200, 400), Verdict.REJECTED, "5.3.4", text=_SIZE, fix=TOO_BIG),
    Row((200, 400), Verdict.THROTTLED, "4.4.5", code="API_EXCEPTION", text=_BUSY, pause=_MINUTE, scope=Scope.MESSAGE),
    Row((200,), Verdict.REJECTED, "5.6.0", code="API_EXCEPTION"),
    Row((401,), Verdict.MISCONFIGURED, "4.7.0", fix=_KEY),
    Row((402,), Verdict.MISCONFIGURED, "4.7.0", fix=_PLAN),
    Row((403,), Verdict.MISCONFIGURED, "4.7.0"),
    Row((429,), Verdict.THROTTLED, "4.4.5", pause=_MINUTE),
)
# The texts of failures inside a 200 answer, which speak of one recipient where they do not speak of the account.
FAILURES = (
    Row((200,), Verdict.MISCONFIGURED, "4.7.0", text=_UNVERIFIED, scope=Scope.MESSAGE, fix=_VERIFY),
    Row((200,), Verdict.REJECTED, "5.1.1", text=_ADDRESS, scope=Scope.RECIPIENT),
    Row((200,), Verdict.THROTTLED, "4.4.5", text=_BUSY, pause=_MINUTE, scope=Scope.MESSAGE),
    Row((200,), Verdict.DEFERRED, "4.3.0", scope=Scope.RECIPIENT),
)
# What its webhooks report; a bounce is "bounce hard" or "bounce soft". Opens, clicks and the like are not ours.
EVENTS = {"processed": "queued", "delivered": "delivered", "reject": "failed"}
EVENTS |= {"bounce hard": "bounced", "bounce soft": "queued"}


class Smtp2goSettings(OverHttpSettings):
    """``base_url`` replaces the address that ``region`` stands for.

    ``header_only``: people in To or Cc who are not to get this message are stripped there, or the message is rejected.
    ``webhook_secret``: what the provider's webhook sends as its Authorization; without it none is listened to.
    """

    label: ClassVar[str] = "SMTP2GO"
    type: Literal["smtp2go"] = "smtp2go"
    api_key: ApiKey
    region: Literal["global", "us", "eu", "au"] = "global"
    base_url: Url | None = None
    header_only: Literal["strip", "reject"] = "strip"
    webhook_secret: SecretStr | None = None

    @property
    def known_as(self) -> Mapping[str, str]:
        return {"url": self.base_url} if self.base_url else {"region": self.region}


class Smtp2go:
    """One call for the visible recipients (100 at a time), and one for each blind one, who then sees only himself."""

    def __init__(self, name: str, settings: Smtp2goSettings, context: Context) -> None:
        self.name = name
        # A request may have 50 MB and base64 takes 4/3. Mail goes out as the From address: no null sender.
        self.capabilities = limited(Capabilities(37_000_000, null_sender=False), settings)
        self._settings = settings
        self._fetch = context.fetch
        self._clock = context.clock
        self._url = settings.base_url or f"https://{_HOSTS[settings.region]}.smtp2go.com/v3"
        self._key = settings.api_key.get_secret_value()
        self._hook = settings.webhook_secret.get_secret_value().encode() if settings.webhook_secret else b""
        self.hook = bool(self._hook)

    async def send(self, message: SpooledMessage, raw: bytes, progress: Progress = unrecorded) -> dict[str, Outcome]:
        only = self._settings.header_only
        planned = partial(plan, message, raw, per_call=_PER_CALL, header_only=only, hides_bcc=False)
        size = effort(raw)
        return await carry_out(message, planned, partial(self._call, size), self._clock, progress, slow=size >= LARGE)

    async def check(self) -> Check:
        """Asks which endpoints the key may use: the one call that every key is allowed, and that sends nothing."""
        facts, there, key = {"url": self._url}, reached(self._url), good("The key is accepted.")
        try:
            answer = await self._post("/api_keys/permissions", b"{}")
        except NoAnswer as error:
            detail, fix = error.outcome.detail, "check region or base_url, and the way there"
            return Check(False, detail, fix, facts, (unreached(self._url, detail), _UNTRIED))
        body = lenient_json(answer.body)
        if answer.status != 200 or not isinstance(body.get("data"), list):
            outcome, fix = self._judge(answer, body), "check api_key: Sending > API Keys"
            detail, fix = outcome.detail, fix if 400 <= answer.status < 500 else outcome.fix or fix
            return Check(False, detail, fix, facts, (there, wrong("The key is not accepted.", detail), _UNTRIED))
        if not any("/email/mime" in str(entry) for entry in body["data"]):
            step = wrong("The key may not send: it lacks /email/mime.")
            return Check(False, "the key may not use /email/mime", _ALLOW, facts, (there, key, step, _UNTRIED))
        steps = (there, key, good("The key may use /email/mime."), _UNTRIED)
        return Check(True, "the key is valid and may send", facts=facts, steps=steps)

    def probes(self) -> Smtp2goProbes:
        return Smtp2goProbes(urls=(self._url,), post=self._post)

    async def aclose(self) -> None:
        pass

    def called_back(self, headers: Mapping[str, str], body: bytes) -> list[DeliveryEvent]:
        """Webhooks are not signed; a secret set with them comes as bearer token, or as the password of basic."""
        if not self._hook or not hmac.compare_digest(_password(headers.get("authorization", "")), self._hook):
            raise HookRefused("not the Authorization that webhook_secret asks for", "unsigned")
        told = lenient_json(body) if "json" in headers.get("content-type", "") else _form(body)
        if not (event := str(told.get("event") or "")):
            raise HookRefused("no event of a webhook", "unintelligible")
        rcpt, ident, time = (str(told.get(name) or "") for name in ("rcpt", "email_id", "time"))
        kind = str(told.get("bounce") or "hard") if event == "bounce" else ""
        state = EVENTS.get(f"{event} {kind}".strip())
        if not state or not ident:
            return []
        words = safe(str(told.get("message") or told.get("context") or ""))
        return [DeliveryEvent(safe(ident), state, words, safe(rcpt), " ".join((ident, event, rcpt, time)))]

    async def _call(self, size: int, call: Call) -> dict[str, Outcome]:
        answer = await self._post("/email/mime", await aside(size, partial(_request, call.content)))
        body = lenient_json(answer.body)
        if answer.status == 200 and body.get("data") and isinstance(body["data"], dict) and not _error(body)[0]:
            return self._results(answer, body, call.addresses)
        return dict.fromkeys(call.addresses, self._judge(answer, body))

    async def _post(self, path: str, content: bytes) -> Answer:
        headers, timeout = {"x-smtp2go-api-key": self._key}, self._settings.timeout
        return await exchange(self._fetch, self._url + path, headers=headers, content=content, timeout=timeout)

    def _judge(self, answer: Answer, body: Mapping[str, Any]) -> Outcome:
        (code, words), now = _error(body), self._clock.now()
        words = words or start_of(answer)
        return judge(answer, ROWS, name=self.name, code=code, words=words, now=now, secrets=[self._key])

    def _results(self, answer: Answer, body: Mapping[str, Any], addresses: tuple[str, ...]) -> dict[str, Outcome]:
        """A 200 may still report failures: texts, which may name a recipient. One call counts as one mail there."""
        data, request_id = body["data"], str(body.get("request_id") or "")
        remote_id = safe(str(data.get("email_id") or request_id))
        detail = safe(f"request {request_id}")
        sent = Outcome(Verdict.SENT, 200, "2.0.0", detail, remote_id, said_by="http")
        failures = data.get("failures") or []
        texts = [str(text) for text in failures] if isinstance(failures, list) else [str(failures)]
        if not data.get("failed") and not texts and data.get("succeeded", 1):
            return dict.fromkeys(addresses, sent)
        judged = partial(judge, answer, name=self.name, code="", now=self._clock.now(), secrets=[self._key])
        named = {address: [text for text in texts if names(text, address)] for address in addresses}
        if not any(named.values()):
            rows = () if data.get("succeeded") else FAILURES  # some sent, but who? in doubt
            return dict.fromkeys(addresses, judged(rows, words="; ".join(texts)))
        refused = {address: judged(FAILURES, words="; ".join(own)) for address, own in named.items() if own}
        # Where nothing was sent the others have no outcome yet, and are in the next call.
        return {**(dict.fromkeys(addresses, sent) if data.get("succeeded") else {}), **refused}


def _request(content: Callable[[], bytes]) -> bytes:
    """The JSON body, put together as bytes: base64 needs no escaping."""
    return base64_of(canonical(content()), b'{"mime_email":"', b'","fastaccept":false}')


def _password(authorization: str) -> bytes:
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() != "basic":
        # A header arrives as Latin-1, whatever its bytes were meant to be.
        return given.strip().encode("latin-1", "replace") if scheme.lower() == "bearer" else b""
    try:
        return binascii.a2b_base64(given).partition(b":")[2]
    except ValueError:
        return b""


def _form(body: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(body.decode(), max_num_fields=200))
    except ValueError:
        return {}


def _error(body: Mapping[str, Any]) -> tuple[str, str]:
    """Code and words from either of the two published shapes: inside ``data``, or at the top."""
    data = body.get("data")
    for place in (data if isinstance(data, dict) else {}, body):
        if place.get("error_code") or place.get("error"):
            fields = place.get("field_validation_errors")
            more = fields.get("message") if isinstance(fields, dict) else ""
            return str(place.get("error_code") or "ERROR"), f"{place.get('error') or ''} {more or ''}".strip()
    return "", ""
