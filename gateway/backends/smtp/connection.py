"""One conversation with an upstream SMTP server: what is said, and what its replies mean for whom.

MAIL, RCPT and DATA are written here, because aiosmtplib's own methods rewrite odd addresses and pass twice over every
body.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import cast

import aiosmtplib

from gateway.address import with_a_labels
from gateway.backends.shared.base import NoAnswer, safe
from gateway.backends.smtp.dialogue import Dialogue
from gateway.backends.smtp.replies import parameters, path, refusal, too_many, wire
from gateway.message.header import scan_part
from gateway.model import Envelope, Outcome, Recipient, Scope, Verdict

END_OF_DATA = 600.0  # RFC 5321, 4.5.3.2.6: the reply to the final dot may take ten minutes
_QUEUED_AS = re.compile(r"(?:queued as|\bid=)\s*<?([\w.@-]{1,200})", re.IGNORECASE)
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_MAILBOX = re.compile(r"4\.[12]\.")  # an address or a mailbox (RFC 3463, 3.2 and 3.3), which is no other recipient's
BROKEN = (aiosmtplib.SMTPException, OSError)  # lost, timed out, unintelligible
Command = tuple[bytes, ...]  # its words


class Connection:
    """One connection, in step with its server: every command has had its reply, or the connection is closed."""

    def __init__(self, known: Mapping[str, str], client: aiosmtplib.SMTP, seconds: float) -> None:
        if client.transport is None:
            raise aiosmtplib.SMTPServerDisconnected("Connection lost")
        self.known = known  # the backend's name and mailbox, for what is to be done about a refusal
        self.client = client
        self.offers = frozenset(client.esmtp_extensions).__contains__
        self.clean = True  # no transaction is open
        self._seconds = seconds
        self._dialogue = Dialogue(cast(asyncio.Transport, client.transport))  # in kind: uvloop's has no such base
        self._ahead: deque[Command] = deque()  # written, their replies not yet read
        self._named = False  # it has taken a recipient, who would get what follows DATA

    @property
    def alive(self) -> bool:
        return self.client.is_connected

    @property
    def ahead(self) -> bool:
        """Something is written whose reply is not read."""
        return bool(self._ahead)

    def write_ahead(self, commands: Sequence[Command]) -> None:
        """All at once, to be said in this order, where the server takes that (RFC 2920); else nothing."""
        if self.alive and self.offers("pipelining") and not self._ahead:
            self._dialogue.write(b"".join(map(_line, commands)), len(commands))
            self._ahead.extend(commands)

    async def say(self, *words: bytes) -> aiosmtplib.SMTPResponse:
        """A command, unless it is written already, and its reply.

        Raises NoAnswer, and closes the connection: no usable reply, one to something else, or 421.
        """
        try:
            if not self._ahead:
                self._dialogue.write(_line(words), 1)
            elif self._ahead.popleft() != words:
                raise aiosmtplib.SMTPException("out of step")
            reply = await self._dialogue.reply(self._seconds)
        except BaseException as error:
            self._give_up()
            if isinstance(error, BROKEN):
                raise _lost(f"no usable reply to {words[0].decode()}: {error}") from error
            raise
        hoped = reply.code == 354 if words[0] == b"DATA" else 200 <= reply.code < 300
        if reply.code == 421 or not (hoped or reply.code >= 400):  # it goes, or has lost its place in the dialogue
            self.client.close()
            about = of_message if words[0] in (b"RCPT", b"DATA") else replace
            raise NoAnswer(about(refusal(self.known, *reply)))
        self._named |= hoped and words[0] == b"RCPT"
        return reply

    async def begin_anew(self) -> None:
        """Whatever transaction is open is none any more. Raises NoAnswer, and closes the connection."""
        reply = await self.say(b"RSET")
        if reply.code >= 400:  # RFC 5321 4.1.1.5 knows of no refusal: who is named next would join those of before
            self.client.close()
            raise NoAnswer(refusal(self.known, *reply))
        self._named = False

    async def catch_up(self) -> None:
        """Read the replies to what was written ahead and has no meaning any more; where one fails, close."""
        with suppress(NoAnswer):
            while self._ahead and self.alive:
                reply = await self.say(*self._ahead[0])
                if reply.code == 354 and self._named:  # RFC 5321 4.1.1.10: who is cut off delivers nothing
                    self._give_up()
                elif reply.code == 354:  # RFC 2920 3.1: with nobody to get it, an empty message
                    self._dialogue.write(b".\r\n", 1)
                    self._ahead.append((b".",))
        self._ahead.clear()

    async def transfer(self, raw: bytes) -> aiosmtplib.SMTPResponse:
        """The body and the reply to its final dot. Raises NoAnswer: in doubt only once the dot has been written."""
        dialogue, written = self._dialogue, False
        try:
            dialogue.write(b"", 1)  # from the first byte on: a server may refuse half-way, and hang up
            for piece, last in wire(raw):
                try:
                    dialogue.write(piece)
                    written = last
                    await dialogue.drained(self._seconds)
                except BROKEN:
                    if not dialogue.heard:
                        raise
                if dialogue.heard:
                    break
            reply = await dialogue.reply(max(END_OF_DATA, self._seconds))
            if not written and reply.code < 400:
                raise aiosmtplib.SMTPException(f"{reply.code} came too early")
        except BaseException as error:
            self._give_up()
            if isinstance(error, BROKEN):
                where = "after" if written else "before"
                detail = f"no usable reply {where} the end of the message: {error}"
                raise _lost(detail, in_doubt=written) from error
            raise
        if not written or reply.code == 421:
            self.client.close()
        self.clean = 200 <= reply.code < 300
        self._named &= not self.clean
        return reply

    def _give_up(self) -> None:
        """Close, and write nothing more: what is not read would be kept for ever, and half of it may yet be taken."""
        self._dialogue.abort()
        self.client.close()

    def bid_farewell(self) -> None:
        """Says QUIT without waiting for the reply, and closes."""
        with suppress(aiosmtplib.SMTPException):
            self._dialogue.write(b"QUIT\r\n", 1)
        self.client.close()


def _line(words: Command) -> bytes:
    line = b" ".join(words)
    if _CONTROL.search(line):  # would be another command
        raise ValueError("control character in a command")
    return line + b"\r\n"


Named = list[tuple[str, Command | Outcome]]  # by address: how it is named, or why it cannot be


async def open_transaction(connection: Connection, envelope: Envelope, raw: bytes) -> Named:
    """Opens the transaction for a message as ``fitted``; returns who is to be named.

    Raises NoAnswer: it cannot go, or the sender is refused.
    """
    mail = _mail(connection, envelope, raw)
    named: Named = [(one.address, _rcpt(connection, one)) for one in envelope.recipients]
    first: list[Command] = [] if connection.clean else [(b"RSET",)]
    if recipients := [words for _, words in named if not isinstance(words, Outcome)]:
        connection.write_ahead([*first, mail, *recipients, (b"DATA",)])
    if first:
        await connection.begin_anew()
    connection.clean = False
    reply = await connection.say(*mail)
    if not 200 <= reply.code < 300:
        raise NoAnswer(refusal(connection.known, *reply))
    return named


def _mail(connection: Connection, envelope: Envelope, raw: bytes) -> Command:
    """Raises NoAnswer: the server cannot be told."""
    sender = path(envelope.sender)
    if sender is None:
        raise NoAnswer(_never("5.1.7", "the sender address cannot be written to the server as it is"))
    eightbit = not raw.isascii()
    utf8 = envelope.smtputf8 and eightbit and not raw[: scan_part(raw).end].isascii()
    if (utf8 or not sender.isascii()) and not connection.offers("smtputf8"):
        raise NoAnswer(_never("5.6.7", "the server takes no non-ASCII sender or headers (no SMTPUTF8)"))
    everyone = (envelope.sender, *(one.address for one in envelope.recipients))
    utf8 = utf8 or not all(with_a_labels(one).isascii() for one in everyone)
    words = [b"SIZE=%d" % len(raw)] if connection.offers("size") else []
    words += [b"BODY=8BITMIME"] if eightbit else []
    words += [b"SMTPUTF8"] if utf8 and connection.offers("smtputf8") else []
    words += parameters(RET=envelope.ret, ENVID=envelope.envid) if connection.offers("dsn") else []
    return b"MAIL", b"FROM:" + sender, *words


def _rcpt(connection: Connection, recipient: Recipient) -> Command | Outcome:
    to = path(recipient.address)
    if to is None:
        return _of_one(_never("5.1.3", "the address cannot be written to the server as it is"))
    if not to.isascii() and not connection.offers("smtputf8"):
        return _of_one(_never("5.6.7", "the server takes no non-ASCII addresses (no SMTPUTF8)"))
    words = parameters(NOTIFY=recipient.notify, ORCPT=recipient.orcpt) if connection.offers("dsn") else []
    return b"RCPT", b"TO:" + to, *words


async def name_recipients(
    connection: Connection, named: Named, outcomes: dict[str, Outcome], most: Callable[[int], None]
) -> list[str]:
    """Names them until it takes no more. Returns the accepted ones; the refused get their outcome, the rest get none.

    Too many for one transaction is told by 452 or 552, and means the next one (RFC 5321, 4.5.3.1.10). Where that is
    said in so many words, ``most`` learns how many it takes.
    """
    accepted: list[str] = []
    full = False
    for address, words in named:
        if isinstance(words, Outcome):
            outcomes[address] = words
            continue
        if full and not connection.ahead:
            break
        reply = await connection.say(*words)
        if 200 <= reply.code < 300:
            accepted.append(address)
        elif accepted and (are := too_many(*reply)) is not False:
            if are and not full:
                most(len(accepted))
            full = True
        else:
            outcomes[address] = _of_one(refusal(connection.known, *reply))
    for address, outcome in outcomes.items():
        rests = outcome.verdict is Verdict.THROTTLED or outcome.scope is Scope.BACKEND
        if accepted and rests:  # it takes others: this recipient alone has to wait
            outcomes[address] = replace(outcome, verdict=Verdict.DEFERRED, scope=Scope.RECIPIENT)
        elif not accepted and outcome.verdict is Verdict.DEFERRED and not _MAILBOX.match(outcome.enhanced):
            outcomes[address] = replace(outcome, scope=Scope.MESSAGE)
    return accepted


async def send_message(connection: Connection, raw: bytes, note: str = "") -> Outcome:
    """``note`` is what has to be told where it was taken."""
    reply = await connection.say(b"DATA")
    if reply.code != 354:
        return of_message(refusal(connection.known, *reply))
    code, text = await connection.transfer(raw)
    if not 200 <= code < 300:
        return of_message(refusal(connection.known, code, text))
    queued, dsn = _QUEUED_AS.search(text), connection.offers("dsn")
    remote_id = queued[1] if queued else ""
    return Outcome(Verdict.SENT, code, "2.0.0", safe(f"{code} {text}") + note, remote_id, dsn=dsn, said_by="smtp")


def _lost(detail: str, *, in_doubt: bool = False) -> NoAnswer:
    """No reply: the message's trouble, since the server itself was reached."""
    verdict = Verdict.IN_DOUBT if in_doubt else Verdict.DEFERRED
    return NoAnswer(Outcome(verdict, enhanced="4.4.2", detail=safe(detail)))


def _never(enhanced: str, detail: str) -> Outcome:
    return Outcome(Verdict.REJECTED, enhanced=enhanced, detail=detail)


def _of_one(outcome: Outcome) -> Outcome:
    """After RCPT a reply is about that recipient.

    Words of an account that is blocked or has used up its limit may mean his or ours: more messages tell whose.
    """
    if outcome.scope is Scope.BACKEND and (outcome.code or 0) >= 550:
        return replace(outcome, verdict=Verdict.THROTTLED, scope=Scope.MESSAGE)
    ours = outcome.scope is Scope.BACKEND or outcome.verdict is Verdict.MISCONFIGURED
    return outcome if ours else replace(outcome, scope=Scope.RECIPIENT)


def of_message(outcome: Outcome) -> Outcome:
    """421 once there are recipients: what hangs up on one message would take the next, for all we know."""
    return replace(outcome, scope=Scope.MESSAGE) if outcome.code == 421 else outcome
