"""Backend ``justemails``: POST /send of JustEmails. One recipient a call, each of whom sees only himself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import ClassVar, Literal

from gateway.backends.json.parts import Parts, filled, request
from gateway.backends.json.tracked import KeySettings, TrackedBackend, key_rows
from gateway.backends.shared.base import Context, Url
from gateway.backends.shared.calls import Call
from gateway.backends.shared.table import Row
from gateway.message import Field, Undecodable
from gateway.message.charset import exactly
from gateway.message.content import is_ordinary
from gateway.model import CannotCarry, Scope, SpooledMessage, Verdict

_DOMAIN = "verify the domain of From at JustEmails, or set senders of backends.{name} so that others are refused"


class JustemailsSettings(KeySettings):
    """``headers``: pass the message's own header fields on; the API documents only those that begin with X-."""

    label: ClassVar[str] = "JustEmails"
    type: Literal["justemails"] = "justemails"
    base_url: Url = "https://justemails.app/api/v1"
    headers: bool = False


class Justemails(TrackedBackend):
    """Nothing protects from duplicates: a lost answer is in doubt."""

    path = "/send"
    status_path = "/send/"
    otherwise = "headers: true to try and send them"
    unknown = "msg_000000000000"
    states: ClassVar = {name: name for name in ("delivered", "bounced", "failed")}
    rows = (
        Row((400,), Verdict.REJECTED, "5.1.3", text=r"'to'|recipient", scope=Scope.RECIPIENT),
        *key_rows(", with the permission to send"),
        Row((422,), Verdict.MISCONFIGURED, "4.7.0", scope=Scope.MESSAGE, fix=_DOMAIN),
    )

    def __init__(self, name: str, settings: JustemailsSettings, context: Context) -> None:
        carries = ("reply_to", *(("headers", "threading") if settings.headers else ()))
        super().__init__(name, settings, context, carries=carries)

    def calls(self, message: SpooledMessage, parts: Parts) -> Iterable[Call]:
        own = _own_fields(parts, self._charset) if "headers" in self._carries else {}
        more = filled({"replyTo": parts.reply_to, "headers": own})
        same = {"from": parts.author, "subject": parts.subject, **more}
        for recipient in message.envelope.recipients:
            fields = {**same, "to": recipient.address}
            yield Call((recipient.address,), partial(request, fields, parts.bodies))


def _own_fields(parts: Parts, charset: str) -> dict[str, str]:
    """Message-ID and all that is not made anew for every mail. Raises CannotCarry where a name occurs twice."""
    fields = [field for field in parts.header.fields if field.name == "message-id" or not is_ordinary(field.name)]
    fields = [field for field in fields if field.name != "resent-bcc"]  # discloses blind recipients
    name, count = next(iter(Counter(field.name for field in fields).most_common(1)), ("", 0))
    if count > 1:
        raise CannotCarry("feature", "5.6.3", f"more than one {name} field cannot be sent through this API")
    return {field.spelled: _as_text(field, charset) for field in fields}


def _as_text(field: Field, charset: str) -> str:
    """Encoded words stay what they are: it becomes a header field again."""
    try:
        return " ".join(exactly(field.value, "", charset).split())
    except Undecodable as error:
        raise CannotCarry("feature", "5.6.3", f"the field {field.spelled} {error}") from None
