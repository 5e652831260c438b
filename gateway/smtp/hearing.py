"""Learn mode at the door: mail that is refused in any case, heard to its end for what can be learnt of it."""

from __future__ import annotations

import re
from binascii import Error, a2b_base64
from dataclasses import dataclass, field, replace

from gateway.address import parse_address, parse_path
from gateway.config.models import LimitSettings
from gateway.learn.ear import Ear
from gateway.model import BadAddress, Refusal
from gateway.refusals import Refused
from gateway.smtp.replies import LEARNING, LastRefusal, syntax

# What a reader of a log would not be shown: so that nobody's password ends there who typed it into the wrong field.
_MAILBOX = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
# What one would not be heard for, and is then: a stranger, or somebody who may not send as this.
REASONS = frozenset(("relay_denied", "auth_required", "tls_required", "sender_denied", "bad_address"))
_NAMED = 20  # recipients of one mail that a log line names
_MOST = 1000  # recipients of one mail


@dataclass(slots=True)
class Heard:
    """From MAIL, which was to be refused as ``why`` says, to the end of DATA, when it is refused.

    ``limit`` is the size that it is read up to.
    """

    why: Refused
    limit: int
    recipients: list[str] = field(default_factory=list)
    count: int = 0

    @property
    def size(self) -> int:
        """Octets announced."""
        return self.why.size

    def too_big(self) -> Refusal:
        return Refusal(552, "5.3.4", f"Message is larger than the {self.limit} octets allowed here", "too_big")

    def add(self, argument: bytes) -> str:
        """The recipient of an RCPT, whatever it says. Raises Refusal for what is none at all, and for too many."""
        if argument[:3].upper() != b"TO:":
            raise syntax("RCPT TO:<address>")
        try:
            address, _ = parse_path(argument[3:], utf8=True, domain=None)
        except BadAddress as error:
            raise Refusal(501, "5.1.3", error.text, "bad_address") from None
        if self.count >= _MOST:
            raise Refusal(452, "4.5.3", f"At most {_MOST} recipients in one message", "too_many_recipients")
        self.count += 1
        if len(self.recipients) < _NAMED:
            self.recipients.append(address)
        return address

    def told(self, refusal: Refusal, refused: Refused) -> Refused:
        """The refusal of its end, with what is known by then."""
        why = self.why
        return replace(
            refused, code=refusal.code, enhanced=refusal.enhanced, text=refusal.text, reason=refusal.reason,
            sender=why.sender, recipients=tuple(self.recipients),
            detail=f"heard out for learn mode; without it: {why.code} {why.enhanced} {why.text}",
        )  # fmt: skip


def heard(ear: Ear | None, refused: Refused, limits: LimitSettings) -> Heard | None:
    """The transaction that goes on though it was to be refused; None: it is refused now."""
    if ear is None or refused.stage != "mail" or refused.reason not in REASONS or not ear.hears_out(refused.peer):
        return None
    ear.heard(refused)
    return Heard(refused, limits.max_size)


def softened(heard: Heard | None, ear: Ear | None, refusal: Refusal, refused: Refused) -> tuple[Refusal, Refused]:
    """Whatever is wrong with a message that is heard out is no reason to give it up: it may come again afterwards."""
    if heard is None or refused.stage != "data" or isinstance(refusal, LastRefusal):
        return refusal, refused
    if ear is not None and refusal.reason != LEARNING.reason:
        ear.fault(refused)
    refusal = LEARNING()
    return refusal, heard.told(refusal, refused)


def user_in(argument: bytes) -> str:
    """The user name that an AUTH brings along, as far as a log may say it; "" for none. Never anything else of it."""
    mechanism, _, initial = argument.partition(b" ")
    try:
        said = a2b_base64(initial + b"=" * (-len(initial) % 4))
    except Error:
        return ""
    name = said.split(b"\0")[1:2] if mechanism.upper() == b"PLAIN" else [said]
    if mechanism.upper() not in (b"PLAIN", b"LOGIN") or not name or not name[0]:
        return ""
    text = name[0].decode("utf-8", "replace")
    try:
        return parse_address(text) if _MAILBOX.fullmatch(text) else f"unknown, {len(text)} characters"
    except BadAddress:
        return f"unknown, {len(text)} characters"
