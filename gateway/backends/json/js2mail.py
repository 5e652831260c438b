"""Backend ``js2mail``: POST /v1/mail/send of JS2Mail, which knows repeated calls by a key: nothing is sent twice."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar, Literal

from pydantic import SecretStr

from gateway.backends.json.parts import Group, Parts, filled, groups, request
from gateway.backends.json.tracked import KeySettings, TrackedBackend, key_rows
from gateway.backends.shared.base import Context, NoAnswer, Url, safe
from gateway.backends.shared.calls import Call
from gateway.backends.shared.table import Row
from gateway.fetch import Answer
from gateway.model import DeliveryEvent, HookRefused, Outcome, Scope, SpooledMessage, Verdict
from gateway.strangers import lenient_json

_ADDRESS = r"recipient|['\"](to|cc|bcc)\b"  # its words for a 4xx are not documented
_PLAN = "the month's quota is used up: a larger plan, or another backend until the month ends"
_QUOTA = Row((429,), Verdict.THROTTLED, "4.4.5", text=r"quota|month", fix=_PLAN)
_PAUSES = timedelta(minutes=15), timedelta(hours=4)  # the first and the longest while the month's mail is used up
_KEY_END = re.compile(r"(\d+)-([0-9a-f]+)")  # number and mask of a group
_TOLERANCE = 300  # seconds by which a webhook's time may differ from ours


class Js2mailSettings(KeySettings):
    """``from_account_id`` chooses one of the account's mailboxes. ``webhook_secret`` lets JS2Mail report failures."""

    label: ClassVar[str] = "JS2Mail"
    type: Literal["js2mail"] = "js2mail"
    base_url: Url = "https://js2mail.dev"
    from_account_id: str = ""
    webhook_secret: SecretStr | None = None


class Js2mail(TrackedBackend):
    """Up to 100 recipients in one call: to, cc and bcc."""

    path = "/v1/mail/send"
    key_field = ("x-api-key", "")
    status_path = "/v1/mail/send/"
    unknown = "00000000-0000-4000-8000-000000000000"
    states: ClassVar = {"sent": "delivered", "failed": "failed"}
    rows = (Row((400, 422), Verdict.REJECTED, "5.1.3", text=_ADDRESS, scope=Scope.RECIPIENT), *key_rows(), _QUOTA)

    def __init__(self, name: str, settings: Js2mailSettings, context: Context) -> None:
        self._hook = settings.webhook_secret.get_secret_value() if settings.webhook_secret else ""
        self.hook = bool(self._hook)
        super().__init__(name, settings, context, secrets=(self._hook,))
        self._account = settings.from_account_id
        self._pause = _PAUSES[0] / 2
        self._pause_until = 0.0

    def calls(self, message: SpooledMessage, parts: Parts) -> Iterable[Call]:
        """The key names the message and who is in the call, so it is the same for a repetition and for that only.

        A call in doubt gave its key away as ``doubt_id``, and after a crash it is known whom an attempt was for: such a
        call is repeated for those who were in it, and nobody else.
        """
        prefix = f"gw-{message.id}-"
        own = message.doubt_id.startswith(prefix)
        known = _KEY_END.fullmatch(message.doubt_id, len(prefix)) if own else None

        def call(group: Group) -> Call:
            key = f"{prefix}{group.number}-{group.mask:x}"
            people = filled({"to": group.to, "cc": group.cc, "bcc": group.bcc, "fromAccountId": self._account})
            fields = {"from": parts.author, **people, "subject": parts.subject, "idempotencyKey": key}
            content = partial(request, fields, parts.bodies)
            return Call(group.addresses, content, key, lambda some: map(call, group.part(some)))

        return map(call, groups(message, parts.header, (int(known[1]), int(known[2], 16)) if known else None))

    def taken(self, answer: Answer, body: Mapping[str, Any]) -> str | None:
        if answer.status == 409:  # "Duplicate idempotency key": it has had this call before
            return remote_id if isinstance(remote_id := body.get("id"), str) else ""
        return super().taken(answer, body)

    async def _call(self, message: SpooledMessage, call: Call) -> dict[str, Outcome]:
        try:
            outcomes = await super()._call(message, call)
        except NoAnswer as error:
            outcomes = dict.fromkeys(call.addresses, error.outcome)
        doubt = Verdict.IN_DOUBT  # by its key a call can be repeated
        return {who: replace(one, remote_id=call.key) if one.verdict is doubt else one for who, one in outcomes.items()}

    def _judged(self, answer: Answer) -> Outcome:
        outcome = super()._judged(answer)
        if outcome.verdict is Verdict.SENT:
            self._pause = _PAUSES[0] / 2
        if not _QUOTA.fits(answer.status, *self._words(answer)):
            return outcome
        now = self._context.clock.monotonic()
        if now >= self._pause_until:  # of answers that come at once only the first makes the pause longer
            self._pause = min(self._pause * 2, _PAUSES[1])
            self._pause_until = now + self._pause.total_seconds()
        return replace(outcome, retry_after=max(self._pause, outcome.retry_after or self._pause))

    def called_back(self, headers: Mapping[str, str], body: bytes) -> Sequence[DeliveryEvent]:
        """``X-JS2Mail-Signature: t=<seconds>,v1=<HMAC-SHA256 of "t.body">`` as JS2Mail's page on webhooks says.

        Its X-JS2Mail-Delivery-Id is not signed, so it does not make a report a new one: what it says does.
        """
        given = dict(part.strip().partition("=")[::2] for part in headers.get("x-js2mail-signature", "").split(","))
        moment, now = given.get("t", ""), self._context.clock.now().timestamp()
        digest = hmac.new(self._hook.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
        signed = hmac.compare_digest(digest.encode(), given.get("v1", "").encode())
        if not self._hook or not signed or not re.fullmatch("[0-9]{1,12}", moment):
            raise HookRefused("not signed by JS2Mail with webhook_secret", "unsigned")
        if abs(off := now - int(moment)) > _TOLERANCE:
            words = (
                f"signed {abs(off):.0f} s {'ago' if off > 0 else 'from now'}: sent again by a stranger, or the clock of"
            )
            raise HookRefused(f"{words} this machine is wrong (timedatectl shows it)", "unsigned")
        event = lenient_json(body)
        kind, inner = event.get("event") or event.get("type"), event.get("data")
        data = inner if isinstance(inner, dict) else event
        if not isinstance(kind, str) or not isinstance(data.get("id"), str):
            raise HookRefused("no event with the id of a mail", "unintelligible")
        if kind != "mail.failed":
            return ()
        detail = safe(str(data.get("error") or kind), *self._secrets)
        return (DeliveryEvent(safe(data["id"]), "failed", detail),)
