"""Backend ``mailpass``: POST /api/v1/mail/send of MailPass, which sends at once through the account's SMTP provider."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar, Literal

from gateway.address import comparable
from gateway.backends.json.parts import PER_CALL, Group, Parts, filled, groups, request
from gateway.backends.json.tracked import ACCEPTED, KeySettings, TrackedBackend, key_rows
from gateway.backends.shared.base import Context, Url, safe
from gateway.backends.shared.calls import Call
from gateway.backends.shared.table import Row
from gateway.fetch import Answer
from gateway.model import Outcome, Scope, SpooledMessage, Verdict
from gateway.strangers import lenient_json

_BATCH = "batch"
_TOGETHER = 3  # attempts of a call for several; then each is tried alone, for one of them may be the reason
_FAILED = ("failed", "error", "bounced", "rejected")
_ANY = range(200, 600)
_ADDRESS = r"['\"](to|cc|bcc)\b|recipient|^(?!.*(from|sender|reply)).*address"
_PROVIDER = "add an SMTP provider to the MailPass account, and make it the default"
_LIMIT = "raise the limit of the SMTP provider at MailPass, or set rate on backends.{name}"


class MailpassSettings(KeySettings):
    """``batch``: mail to several people who do not see each other goes as one call, and later."""

    label: ClassVar[str] = "MailPass"
    type: Literal["mailpass"] = "mailpass"
    base_url: Url = "https://dev.mailpass.im"
    batch: bool = False


class Mailpass(TrackedBackend):
    """One ``to``; other visible recipients are in cc, blind ones in bcc. Nothing protects from duplicates."""

    path = "/api/v1/mail/send"
    status_path = "/api/v1/mail/status/"
    unknown = "<unknown@gateway.invalid>"
    states: ClassVar = {
        **dict.fromkeys(("delivered", "open", "opened", "click", "clicked"), "delivered"),
        **dict.fromkeys(("failed", "error", "rejected"), "failed"),
        **dict.fromkeys(("bounce", "bounced"), "bounced"),
    }
    rows = (
        Row(_ANY, Verdict.REJECTED, "5.1.3", code="VALIDATION_ERROR", text=_ADDRESS, scope=Scope.RECIPIENT),
        Row(_ANY, Verdict.REJECTED, "5.6.0", code="VALIDATION_ERROR"),
        Row(_ANY, Verdict.MISCONFIGURED, "4.7.0", code="NO_SMTP_PROVIDER", fix=_PROVIDER),
        Row(_ANY, Verdict.THROTTLED, "4.4.5", code="SEND_LIMIT_EXCEEDED", pause=timedelta(minutes=15), fix=_LIMIT),
        Row(_ANY, Verdict.DEFERRED, "4.0.0", code="SEND_FAILED", scope=Scope.RECIPIENT),  # cause unknown
        *key_rows(", with the permission mail"),
    )

    def __init__(self, name: str, settings: MailpassSettings, context: Context) -> None:
        super().__init__(name, settings, context, carries=("reply_to",))
        self._batch = settings.batch

    def calls(self, message: SpooledMessage, parts: Parts) -> Iterable[Call]:
        people = list(groups(message, parts.header))
        sender = filled({"from_email": parts.author, "from_name": parts.name, "reply_to": parts.reply_to})
        if self._batch and not parts.reply_to and len(people) > 1 and all(len(one.addresses) == 1 for one in people):
            for start in range(0, len(people), PER_CALL):
                chunk = tuple(group.to[0] for group in people[start : start + PER_CALL])
                yield Call(chunk, partial(_batch_request, chunk, parts, sender), _BATCH)
            return
        same = {**sender, "subject": parts.subject, "metadata": {"spool_id": message.id}}

        def call(group: Group) -> Call:
            fields = {**same, **filled({"to": group.to[0], "cc": group.to[1:] + group.cc, "bcc": group.bcc})}
            content = partial(request, fields, parts.bodies)
            return Call(group.addresses, content, part=lambda some: map(call, group.part(some)))

        # It may have sent to some before it failed, and nobody knows at whom: each gets it once more at the most.
        alone = message.attempt > _TOGETHER
        parted = (one for group in people for each in group.addresses for one in group.part((each,)))
        yield from map(call, parted if alone else people)

    def taken(self, answer: Answer, body: Mapping[str, Any]) -> str | None:
        data = _part(body, "data")
        good = body.get("success") is True and str(data.get("status")).lower() not in _FAILED
        remote_id = data.get("message_id")
        return remote_id if answer.status in ACCEPTED and good and isinstance(remote_id, str) else None

    def said(self, body: Mapping[str, Any]) -> tuple[str, str]:
        """The shape of errors is not documented: an object, or a code beside its message."""
        error, data = body.get("error"), _part(body, "data")
        inner = error if isinstance(error, dict) else body
        code = inner.get("code") or ("" if isinstance(error, dict) else error) or body.get("error_code") or ""
        failed = body.get("success") is False or str(data.get("status")).lower() in _FAILED
        words = inner.get("message") or data.get("error_message") or data.get("error") or ""
        return str(code or ("SEND_FAILED" if failed else "")), str(words)

    def state(self, body: Mapping[str, Any]) -> tuple[str, str]:
        found = _part(_part(body, "data"), "message")
        return str(found.get("status") or ""), str(found.get("error_message") or "")

    async def _call(self, message: SpooledMessage, call: Call) -> dict[str, Outcome]:
        if call.key != _BATCH:
            return await super()._call(message, call)
        answer = await self._request("POST", "/api/v1/mail/send-batch", call.content())
        results = _part(lenient_json(answer.body), "data").get("messages")
        if answer.status not in ACCEPTED or not isinstance(results, list):
            return dict.fromkeys(call.addresses, self._refused(answer, self.rows))
        found = dict(enumerate(results))
        return {address: self._result(answer, address, found.get(at)) for at, address in enumerate(call.addresses)}

    def _result(self, answer: Answer, address: str, result: object) -> Outcome:
        """One of a batch: it must stand in the same place and name the same address."""
        if not isinstance(result, dict) or comparable(str(result.get("to"))) != comparable(address):
            detail = "the answer does not say what became of this one"
            return Outcome(Verdict.IN_DOUBT, answer.status, "4.4.2", detail, said_by="http", scope=Scope.RECIPIENT)
        status, remote_id = str(result.get("status")), safe(str(result.get("queue_id") or ""), *self._secrets)
        detail = safe(f"HTTP {answer.status} {status} {remote_id} {result.get('error') or ''}", *self._secrets)
        if status.lower() in _FAILED:
            return Outcome(Verdict.DEFERRED, answer.status, "4.0.0", detail, said_by="http", scope=Scope.RECIPIENT)
        return Outcome(Verdict.SENT, answer.status, "2.0.0", detail, remote_id, said_by="http")


def _batch_request(people: tuple[str, ...], parts: Parts, sender: Mapping[str, object]) -> bytes:
    messages = (request({"to": address, "subject": parts.subject}, parts.bodies) for address in people)
    return request(sender, {"messages": b"[" + b",".join(messages) + b"]"})


def _part(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = body.get(name)
    return value if isinstance(value, dict) else {}
