"""Bounces: reports to senders in the form of RFC 3464, plain words first, then fields, then the original."""

from __future__ import annotations

import re
from base64 import encodebytes
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from textwrap import wrap

from gateway.address import comparable
from gateway.message import scan
from gateway.message.text import date, fold, harmless
from gateway.model import BadMessage, Outcome, Recipient, SpooledMessage

ORIGINAL_LIMIT = 50_000  # bytes: the most of the original that a bounce brings back, but for a longer header
_LINE_LIMIT = 998  # RFC 5322 2.1.1
_ACTIONS = {
    "failed": ("Undelivered mail", "could not be delivered to", ("4", "5"), "5.0.0"),
    "delayed": ("Delayed mail", "has not been delivered yet to", ("4",), "4.0.0"),
    "relayed": ("Mail passed on", "was passed on, to a system that sends no confirmations, for", ("2",), "2.0.0"),
}
# What to do, by the longest beginning of the status code that fits (RFC 3463).
_ADVICE = {
    "5.1.": "Check the address for typing errors, and ask the recipient for the right one.",
    "5.1.7": "Your sender address was refused. Check the address that your program sends from.",
    "5.1.8": "Your sender address was refused. Check the address that your program sends from.",
    "5.2.": "The recipient's mailbox takes no mail. Reach the recipient in another way.",
    "5.2.2": "The recipient's mailbox is full. Try again later, or reach the recipient in another way.",
    "5.3.4": "The message is too big. Send it with smaller attachments, or as a link.",
    "5.4.6": "The message went round in a loop. Tell your administrator.",
    "5.4.7": "The other system could not be reached in time. Send the message again, or tell your administrator.",
    "5.6.": "The other system could not take the message in this form. Send it in a simpler one.",
    "5.7.": "The other system does not permit this message. Tell your administrator.",
    "4.": "The gateway gave up after trying for a long time. Send the message again, or tell your administrator.",
    "": "Send the message again if it matters, or tell your administrator.",
}


_indented = partial(wrap, width=76, initial_indent="    ", subsequent_indent="      ")


@dataclass(frozen=True, slots=True)
class Failure:
    """What to report of one recipient. ``action`` is failed, delayed or relayed (RFC 3464 2.3.3).

    ``backend`` is "" where it was refused on its way in. ``tried_at``: the last attempt, None where that is not known.
    """

    recipient: Recipient
    outcome: Outcome
    backend: str
    action: str
    tried_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A multipart/report to the message's sender. All ``failures`` share one action.

    ``sender`` stands in From. ``boundary`` must not occur in ``original``. ``plain`` is for a report that leaves under
    an ordinary sender address: it says that answers reach a person.
    """

    hostname: str
    sender: str
    message: SpooledMessage
    original: bytes
    failures: Sequence[Failure]
    now: datetime
    message_id: str
    boundary: str
    retry_until: datetime | None = None
    plain: bool = False

    def build(self) -> bytes:
        """CRLF lines of at most 998 bytes.

        The original comes whole if asked for (RET) and small, else its beginning, or its header where that is asked
        for or the body has lines no report may carry.
        """
        message, failures = self.message, self.failures
        title, *_ = _ACTIONS[failures[0].action]
        utf8 = not all(text.isascii() for text in (message.envelope.sender, *(f.recipient.address for f in failures)))
        try:
            original = scan(self.original)
            end, subject = original.end, harmless(original.first("subject"), utf8=True, limit=200)
        except BadMessage:
            end, subject = 0, ""
        kind, content, encoding, note = self._returned(end, utf8=utf8)
        text, status = self._words(subject, note), self._status(utf8=utf8)
        parts = (
            ("text/plain; charset=utf-8", "Notification", _transfer(text), text),
            (f"message/{'global-' if utf8 else ''}delivery-status", "Delivery report", _transfer(status), status),
            (kind, "Original message", encoding, content),
        )
        answers = [message.message_id] if re.fullmatch(r"<[!-~]{1,900}>", message.message_id) else []
        header = [
            fold("From", ["Mail", "Delivery", "System", f"<{harmless(self.sender, utf8=utf8, limit=900)}>"]),
            fold("To", [f"<{harmless(message.envelope.sender, utf8=utf8, limit=900)}>"]),
            fold("Subject", [f"{title}:", *(f"{harmless(asked_for(f.recipient), utf8=utf8)}" for f in failures[:1])]),
            fold("Date", [date(self.now)]),
            fold("Message-ID", [self.message_id]),
            *(fold(name, answers) for name in ("In-Reply-To", "References") if answers),
            b"Auto-Submitted: auto-replied\r\nX-Auto-Response-Suppress: All\r\nMIME-Version: 1.0\r\n",
            fold("Content-Type", ["multipart/report;", "report-type=delivery-status;", f'boundary="{self.boundary}"']),
        ]
        if any(encoding == "8bit" for _, _, encoding, _ in parts):
            header.append(b"Content-Transfer-Encoding: 8bit\r\n")
        body = [b"\r\nThis is a delivery report in MIME format (RFC 3464).\r\n"]
        for kind, name, encoding, content in parts:
            head = f"Content-Type: {kind}\r\nContent-Description: {name}\r\nContent-Transfer-Encoding: {encoding}\r\n"
            body.append(b"\r\n--%b\r\n%b\r\n%b" % (self.boundary.encode(), head.encode(), content))
        return b"".join([*header, *body, b"\r\n--%b--\r\n" % self.boundary.encode()])

    def _words(self, subject: str, note: str) -> bytes:
        """What a person needs: which message, who did not get it, what the other side said, what to do."""
        _, verb, *_ = _ACTIONS[self.failures[0].action]
        received = date(self.message.received_at)
        lines = [f"This is the mail gateway at {self.hostname}.", "", f"Your message of {received}"]
        lines += [f'with the subject "{subject}"'] if subject else []
        lines += [f"{verb}:", ""]
        for failure in self.failures:
            status = _code(failure)
            asked, address = asked_for(failure.recipient), failure.recipient.address
            lines.append(f"  <{harmless(asked, utf8=True, limit=900)}>")
            if asked != address:
                lines += _indented(f"(whose mail goes to <{harmless(address, utf8=True, limit=900)}>)")
            if failure.action != "relayed":
                reason = _said(failure.outcome) or "none was given"
                said_by = f" (from backend {failure.backend})" if failure.backend else ""
                lines += _indented(f"Reason: {reason}{said_by}")
                if fix := harmless(" ".join(failure.outcome.fix.split()), utf8=True, limit=500):
                    lines += _indented(f"For your administrator: {fix}")
            if failure.action == "failed":
                advice = max((key for key in _ADVICE if status.startswith(key)), key=len)
                lines += _indented(f"What to do: {_ADVICE[advice]}")
        if self.retry_until:
            lines += [
                "",
                f"The gateway keeps trying until {date(self.retry_until)}.",
                "There is nothing you need to do now.",
            ]
        lines += ["", f"Queue id: {self.message.id}", *([note] if note else [])]
        lines += [] if self.plain else ["", "This is an automatic message, answers to it are not read."]
        return "".join(line + "\r\n" for line in lines).encode()

    def _status(self, *, utf8: bool) -> bytes:
        """The machine's part: one group of fields for the message and one for each recipient (RFC 3464 2.1)."""
        message = self.message
        fields = [fold("Reporting-MTA", ["dns;", self.hostname]), fold("Arrival-Date", [date(message.received_at)])]
        if message.envelope.envid:
            fields.insert(0, fold("Original-Envelope-Id", _unxtext(message.envelope.envid).split()))
        for failure in self.failures:
            recipient, outcome = failure.recipient, failure.outcome
            fields.append(b"\r\n")
            kind, _, address = recipient.orcpt.partition(";")
            if re.fullmatch(r"[A-Za-z0-9-]{1,40}", kind) and address:
                fields.append(
                    fold("Original-Recipient", [f"{kind};", harmless(_unxtext(address), utf8=utf8, limit=900)])
                )
            scheme = "rfc822;" if recipient.address.isascii() else "utf-8;"  # RFC 6533 3
            fields.append(fold("Final-Recipient", [scheme, harmless(recipient.address, utf8=utf8, limit=900)]))
            fields += [fold("Action", [failure.action]), fold("Status", [_code(failure)])]
            if said := _said(outcome):
                kind = {"smtp": "smtp;", "http": "x-http;", "gateway": "x-gateway;"}[outcome.said_by]
                shown = said.removeprefix("HTTP ") if outcome.said_by == "http" else said
                fields.append(fold("Diagnostic-Code", [kind, *harmless(shown, limit=500).split()]))
            if failure.tried_at:
                fields.append(fold("Last-Attempt-Date", [date(failure.tried_at)]))
            if self.retry_until and failure.action == "delayed":
                fields.append(fold("Will-Retry-Until", [date(self.retry_until)]))
        return b"".join(fields)

    def _returned(self, end: int, *, utf8: bool) -> tuple[str, bytes, str, str]:
        """Content type, content, transfer encoding of the part with the original, and a note on what is missing.

        ``end`` is where its header ends.
        """
        original = self.original
        whole = original[:ORIGINAL_LIMIT]
        if len(original) > ORIGINAL_LIMIT:
            whole = original[: max(end, original.rfind(b"\n", 0, ORIGINAL_LIMIT) + 1)]
        # RFC 3461 4.3: the content comes back only with a failure.
        headers_only = self.message.envelope.ret.upper() == "HDRS" or self.failures[0].action != "failed"
        if not headers_only and _carriable(whole):
            note = "" if len(whole) == len(original) else "Only the beginning of your message is attached."
            return f"message/{'global' if utf8 else 'rfc822'}", whole, _transfer(whole), note
        header, note = original[:end], "Only the header of your message is attached."
        kind = "message/global-headers" if utf8 else "text/rfc822-headers"
        if _carriable(header):
            return kind, header, _transfer(header), note
        return kind, encodebytes(header).replace(b"\n", b"\r\n"), "base64", note


def asked_for(recipient: Recipient) -> str:
    """The address that the sender knows: ORCPT says it where the mail goes to another (RFC 3461 4.2)."""
    kind, _, address = recipient.orcpt.partition(";")
    named = _unxtext(address) if kind.lower() == "rfc822" else ""
    return named if "@" in named and comparable(named) != comparable(recipient.address) else recipient.address


def _transfer(content: bytes) -> str:
    return "7bit" if content.isascii() else "8bit"


def _said(outcome: Outcome) -> str:
    """The other side's words on one line, its codes in front unless the words begin with them. Ours have none."""
    words = " ".join(outcome.detail.split())
    code = outcome.code if outcome.said_by != "gateway" else None
    if code is not None and not words.startswith((str(code), f"HTTP {code}")):
        words = " ".join(part for part in (str(code), outcome.enhanced, words) if part)
    return harmless(words, utf8=True, limit=500)


def _code(failure: Failure) -> str:
    """A status that fits the action (RFC 3464 2.3.4)."""
    *_, classes, default = _ACTIONS[failure.action]
    code = failure.outcome.enhanced
    return code if re.fullmatch(r"[245]\.\d{1,3}\.\d{1,3}", code, re.ASCII) and code[0] in classes else default


def _unxtext(text: str) -> str:
    """RFC 3461 4; what decodes to control characters is for ``harmless`` to replace."""
    return harmless(re.sub(r"\+([0-9A-F]{2})", lambda m: chr(int(m[1], 16)), text))


def _carriable(content: bytes) -> bool:
    """Fit for 7bit or 8bit (RFC 2045 2.7, 2.8): no NUL, no bare CR or LF, no overlong line."""
    pairs = content.count(b"\r\n")
    if b"\0" in content or content.count(b"\n") != pairs or content.count(b"\r") != pairs:
        return False
    return all(len(line) <= _LINE_LIMIT for line in content.split(b"\r\n"))
