"""The verbs: what each command does, in which order they may come, and how much patience there is."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from math import inf
from typing import TYPE_CHECKING

from gateway.address import parse_path
from gateway.intake import Arrival, prepare
from gateway.model import Client, Refusal
from gateway.smtp import replies
from gateway.smtp.data import LINE, LONG_LINE, DataReader
from gateway.smtp.incoming import Incoming
from gateway.smtp.login import BEARER_REFUSED, MECHANISMS, Ask, decode, encode
from gateway.smtp.params import mail_parameters, rcpt_parameters
from gateway.smtp.transaction import Transaction
from gateway.smtp.wire import LONGEST, Wire

if TYPE_CHECKING:
    from gateway.smtp.door import Door

_COMMAND = 2048  # octets of a command line, AUTH excepted
_PATIENCE = 100.0  # used up by what brings no mail (_price); an accepted message restores it
_LOGINS = 3  # failed ones in a connection
_TURN = 100  # commands before other connections get their turn
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_STRANGE_HELO = re.compile(rb"[^A-Za-z0-9.:_\[\]-]")
_HTTP = frozenset(b"GET POST PUT HEAD OPTIONS CONNECT DELETE PATCH TRACE PRI".split())
_STAGES = {b"MAIL": "mail", b"RCPT": "rcpt", b"DATA": "data", b"AUTH": "auth"}


class Session(Wire):
    """One client, from the greeting to the end."""

    def __init__(self, door: Door, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(door.clock, loop)
        self._door = door
        self._rules = door.rules
        self._client: Client | None = None
        self._logged_in = self._extended = False
        self._helo = ""
        self._patience = _PATIENCE
        self._failures = 0
        self._transaction: Transaction | None = None
        self._recipient = ""
        self._stage = "command"
        self._action: Awaitable[None] | None = None  # what the task is to do next

    def admitted(self) -> bool:
        return self._door.admit(self)

    def gone(self) -> None:
        self._door.gone(self)

    def check(self, now: float) -> None:
        """The door calls this when ``deadline`` has passed."""
        if self.closing:
            self.abort()
        elif self.incoming is None:
            self.hang_up(replies.IDLE)
        elif self.incoming.too_slow(now):
            self.hang_up(replies.TOO_SLOW)
        else:
            self.deadline = now + self.incoming.window

    def hang_up(self, terms: replies.Terms) -> None:
        self._stage = "data" if self.incoming else "command"
        self._refuse(self.last(terms))
        self.close()

    # -- the verb loop -----------------------------------------------------------------------------------------------

    async def _handle_client(self) -> None:
        """The session's task, started by aiosmtpd. It does what has to wait; all else happens in ``progress``."""
        try:
            if self._door.listener.tls != "implicit" or await self._secure():
                self._client = self._door.by_network(self.peer)
                self.reply(f"220 {self._rules.hostname} ESMTP\r\n".encode())
                await self._converse()
        except EOFError:
            pass
        except Exception as error:
            self._door.events.bug("smtp", error)
        finally:
            if self.incoming is not None:
                self.incoming.release()
            self.close()

    async def _converse(self) -> None:
        while not self.closing:
            if not self.progress():
                self.parked = True
                await self.more()
                self.parked = False
            if self._action is None:
                await self.clock.sleep(0)  # others get their turn
                continue
            action, self._action, self.deadline = self._action, None, inf
            try:
                await action
            except Refusal as refusal:
                self._refuse(refusal)
            except EOFError:
                raise
            except Exception as error:
                self._failed(error)

    def progress(self) -> bool:
        """Obey the commands that need no waiting; True when there is something for the task."""
        turns = 0
        while turns < _TURN and not self.closing and self._action is None:
            self._stage = "command"
            try:
                if self.incoming is not None:
                    if not self.incoming.ended:
                        return False
                    self._action = self._finish(self.incoming)
                    break
                if self._door.draining:
                    raise self.last(replies.STOPPING)
                line = self._take_line()
                if line is None:
                    if turns or self.deadline == inf:
                        self._expect()
                    self.flush()
                    return False
                turns += 1
                self._action = self._obey(line)
            except Refusal as refusal:
                self._refuse(refusal)
            except Exception as error:
                self._failed(error)
        return True

    def _take_line(self, verb: bytes = b"") -> bytes | None:
        return self.take_line(bare_lf="bare_newlines" in self._door.listener.tolerate, verb=verb)

    def _expect(self) -> None:
        """One deadline for the whole of the next line, however slowly it trickles in."""
        self.deadline = self.clock.monotonic() + self._rules.limits.idle.total_seconds()

    def _failed(self, error: Exception) -> None:
        self._door.events.bug("smtp", error)
        self._refuse(Refusal(*replies.INTERNAL))

    def _obey(self, line: bytes) -> Awaitable[None] | None:
        verb = line.partition(b" ")[0].upper()
        if len(line) > (LONGEST if verb == b"AUTH" else _COMMAND):
            raise Refusal(*replies.too_long(verb))
        if verb in _HTTP or verb.endswith(b":") or not (verb[:1].isalpha() or verb == b""):
            raise self.last(replies.NOT_SMTP)
        if found := _CONTROL.search(line):
            raise self.last(replies.CONTROL) if found[0] == b"\0" else Refusal(*replies.CONTROL)
        action = _VERBS.get(verb)
        if action is None:
            raise Refusal(*replies.UNKNOWN)
        self._recipient = ""
        self._stage = _STAGES.get(verb, "command")
        return action(self, line[len(verb) :].strip())

    def _refuse(self, refusal: Refusal) -> None:
        client, transaction = self._client, self._transaction
        self._door.events.rejected(
            self._door.name,
            self._stage,
            refusal,
            self.peer,
            client=client.name if client else "",
            sender=transaction.sender if transaction else "",
            recipient=self._recipient,
        )
        if self._stage == "data":
            self._transaction = None
        self._patience -= _price(refusal)
        if self._patience <= 0 and not self.closing:
            refusal = self.last(replies.ENOUGH)
        self.reply(replies.line(refusal))

    def _idly(self, line: bytes) -> None:
        """The reply to a command that brings no mail nearer."""
        self._patience -= 1
        if self._patience <= 0:
            raise self.last(replies.ENOUGH)
        self.reply(line)

    # -- small commands ----------------------------------------------------------------------------------------------

    def _do_helo(self, argument: bytes) -> None:
        self._greet(argument, extended=False)
        self._idly(f"250 {self._rules.hostname}\r\n".encode())

    def _do_ehlo(self, argument: bytes) -> None:
        self._greet(argument, extended=True)
        lines = self._door.extensions(self._client, self.peer, tls=bool(self.tls))
        self._idly("".join(f"250-{line}\r\n" for line in lines[:-1]).encode() + f"250 {lines[-1]}\r\n".encode())

    def _greet(self, argument: bytes, *, extended: bool) -> None:
        if not argument:
            raise replies.syntax("EHLO hostname")
        self._helo = _STRANGE_HELO.sub(b"?", argument[:255]).decode("ascii")
        self._extended = extended
        self._transaction = None

    def _do_noop(self, argument: bytes) -> None:
        self._idly(replies.OK)

    def _do_rset(self, argument: bytes) -> None:
        if argument:
            raise replies.syntax("RSET")
        self._transaction = None
        self._idly(replies.OK)

    def _do_vrfy(self, argument: bytes) -> None:
        if not argument:
            raise replies.syntax("VRFY address")
        self._idly(replies.CANNOT_VERIFY)

    def _do_help(self, argument: bytes) -> None:
        self._idly(replies.HELP)

    def _do_expn(self, argument: bytes) -> None:
        raise Refusal(*replies.NOT_IMPLEMENTED)

    def _do_bdat(self, argument: bytes) -> None:
        raise self.last(replies.NO_CHUNKING)  # its payload would be read as commands

    def _do_quit(self, argument: bytes) -> None:
        self.reply(replies.BYE)
        self.closing = True

    # -- STARTTLS and AUTH -------------------------------------------------------------------------------------------

    async def _do_starttls(self, argument: bytes) -> None:
        if argument:
            raise replies.syntax("STARTTLS")
        if self.tls:
            raise replies.sequence("TLS is already active")
        if self._door.certificate is None:
            raise Refusal(*replies.NOT_IMPLEMENTED)
        self.reply(replies.READY_FOR_TLS)
        if await self._secure():  # RFC 3207 4.2: nothing said before counts
            self._helo, self._extended, self._transaction = "", False, None

    async def _secure(self) -> bool:
        assert self._door.certificate is not None
        if await self.start_tls(self._door.certificate.context):
            return True
        self._door.events.connection_refused(self._door.name, "tls_failed", self.peer)
        return False

    async def _do_auth(self, argument: bytes) -> None:
        door = self._door
        if not self._helo or self._logged_in or self._transaction:
            raise replies.sequence("AUTH comes once, after EHLO and before MAIL")
        if door.listener.auth == "off":
            raise Refusal(*replies.NOT_IMPLEMENTED)
        if not door.offers_login(self.peer, tls=bool(self.tls)):
            raise Refusal(538, "5.7.11", "Encryption required for authentication", "tls_required")
        name, _, initial = argument.partition(b" ")
        mechanism = name.decode("ascii", "replace").upper()
        if mechanism not in MECHANISMS:
            raise Refusal(504, "5.5.4", "Unrecognized authentication mechanism", "bad_syntax")
        if not door.shared.may_log_in(self.peer, self.clock.monotonic()):
            raise self.last(replies.TOO_MANY_LOGINS)
        user, password = await MECHANISMS[mechanism](decode(initial) if initial else None, self._ask)
        try:
            client = await door.auth.login(user, password, self.peer)
        except Refusal as refusal:
            await self._login_failed(mechanism, refusal)
            return
        self._client, self._logged_in, self._rules = client, True, door.rules
        door.events.auth(door.name, mechanism, "ok", self.peer, client=client.name)
        self.reply(replies.LOGGED_IN)

    async def _ask(self, challenge: bytes) -> bytes:
        self.reply(encode(challenge))
        self._expect()
        while (line := self._take_line(b"AUTH")) is None:
            await self.more()
        self.deadline = inf
        if len(line) > LONGEST:
            raise Refusal(*replies.too_long(b"AUTH"))
        return decode(line)

    async def _login_failed(self, mechanism: str, refusal: Refusal) -> None:
        door, wrong = self._door, refusal.code == 535
        result = "failed" if wrong else "unavailable"
        door.events.auth(door.name, mechanism, result, self.peer, reason=refusal.reason)
        if wrong:
            door.shared.login_failed(self.peer, self.clock.monotonic())
            self._failures += 1
            await _bearer_refused(mechanism, self._ask)
        self.reply(replies.line(refusal))
        if self._failures >= _LOGINS:
            raise self.last(replies.TOO_MANY_LOGINS)

    # -- the mail transaction ----------------------------------------------------------------------------------------

    def _do_mail(self, argument: bytes) -> None:
        if not self._helo:
            raise replies.sequence("Send EHLO first")
        if self._transaction:
            raise replies.sequence("Sender already given")
        if argument[:5].upper() != b"FROM:":
            raise replies.syntax("MAIL FROM:<address>")
        try:
            sender, rest = parse_path(argument[5:], utf8=True)
        except Refusal as refusal:
            enhanced = "5.1.7" if refusal.enhanced == "5.1.3" else refusal.enhanced  # RFC 3463: a sender's syntax
            raise Refusal(refusal.code, enhanced, refusal.text, refusal.reason) from None
        parameters = mail_parameters(rest)
        if not sender.isascii() and not parameters.smtputf8:
            raise Refusal(553, "5.6.7", "Non-ASCII addresses need SMTPUTF8", "utf8_address")
        client = self._known_client()
        transaction = Transaction(client, sender, parameters, self._rules)
        if client.rate and not self._door.shared.rates.allow(client.name, client.rate, self.clock.monotonic()):
            text = f'Client "{client.name}" sends faster than clients.{client.name}.rate allows, try again later'
            raise Refusal(450, "4.7.1", text, "rate_limited")
        self._transaction = transaction
        self.reply(replies.SENDER_OK)

    def _known_client(self) -> Client:
        """Who is sending, as of now: settings may have been reloaded, a token revoked. Raises Refusal."""
        door = self._door
        if self._rules is not door.rules:
            self._rules = door.rules
            if not self._logged_in:
                self._client = door.by_network(self.peer)
        if self._client is None:
            raise door.stranger(self.peer, tls=bool(self.tls))
        if not door.auth.still_valid(self._client):
            self._client, self._logged_in = door.by_network(self.peer), False
            raise Refusal(530, "5.7.0", "Your login is no longer valid, log in again", "token_expired")
        return self._client

    def _do_rcpt(self, argument: bytes) -> None:
        transaction = self._transaction
        if transaction is None:
            raise replies.sequence("Send MAIL first")
        if argument[:3].upper() != b"TO:":
            raise replies.syntax("RCPT TO:<address>")
        utf8 = transaction.parameters.smtputf8
        self._recipient, rest = parse_path(argument[3:], utf8=utf8)
        if not self._recipient:
            raise Refusal(501, "5.1.3", "A recipient is needed", "bad_address")
        if not transaction.add(self._recipient, *rcpt_parameters(rest, utf8=utf8)):
            self._patience -= 0.1
        self.reply(replies.RECIPIENT_OK)

    def _do_data(self, argument: bytes) -> None:
        transaction, limits, tolerate = self._transaction, self._rules.limits, self._door.listener.tolerate
        if argument:
            raise replies.syntax("DATA")
        if transaction is None:
            raise replies.sequence("Send MAIL first")
        if not transaction.recipients:
            raise Refusal(554, "5.5.1", "No valid recipients", "bad_sequence")
        max_line = LONG_LINE if "long_lines" in tolerate else LINE
        reader = DataReader(transaction.limit, max_line=max_line, bare_newlines="bare_newlines" in tolerate)
        declared = min(transaction.parameters.size, transaction.limit)
        incoming = Incoming(reader, self._door.shared, limits, declared=declared, now=self.clock.monotonic())
        self.reply(replies.SEND_DATA)
        self.flush()
        self.receive(incoming)

    async def _finish(self, incoming: Incoming) -> None:
        """The end of DATA was seen."""
        self._stage = "data"
        self.incoming = None
        self.closing |= not incoming.complete
        try:
            await self._accept(incoming.take())
        finally:
            incoming.release()

    async def _accept(self, raw: bytes) -> None:
        door, transaction, started = self._door, self._transaction, self.clock.monotonic()
        assert transaction is not None
        arrival = Arrival(
            id=door.ids(),
            received_at=self.clock.now(),
            listener=door.name,
            peer=self.peer,
            helo=self._helo,
            protocol=self._protocol(),
            tls=self.tls,
        )
        headerless = "missing_headers" in door.listener.tolerate
        envelope = transaction.envelope()
        message = prepare(raw, envelope, transaction.client, arrival, self._rules, headerless=headerless)
        del raw
        await door.put(message)  # nobody cancels this task: whatever the client does, the commit runs to its end
        door.events.accepted(message, self.clock.monotonic() - started)
        self._transaction = None
        self._patience = _PATIENCE
        self.reply(f"250 2.0.0 Ok: queued as {message.id}\r\n".encode())

    def _protocol(self) -> str:
        """RFC 3848."""
        plain = not (self._extended or self.tls or self._logged_in)
        return "SMTP" if plain else "ESMTP" + "S" * bool(self.tls) + "A" * self._logged_in


async def _bearer_refused(mechanism: str, ask: Ask) -> None:
    """RFC 7628 3.2.3: the server says why, the client answers something, and only then comes the 535."""
    if mechanism in ("XOAUTH2", "OAUTHBEARER"):
        try:
            await ask(BEARER_REFUSED)
        except Refusal:
            return


def _price(refusal: Refusal) -> float:
    """Of 100: ten unknown commands, twenty errors, or a thousand recipients too many."""
    special = {"unknown_command": 10.0, "too_many_recipients": 0.1}
    return special.get(refusal.reason, 5.0 if refusal.code >= 500 else 1.0)


_VERBS: dict[bytes, Callable[[Session, bytes], Awaitable[None] | None]] = {
    b"HELO": Session._do_helo,
    b"EHLO": Session._do_ehlo,
    b"MAIL": Session._do_mail,
    b"RCPT": Session._do_rcpt,
    b"DATA": Session._do_data,
    b"NOOP": Session._do_noop,
    b"RSET": Session._do_rset,
    b"QUIT": Session._do_quit,
    b"VRFY": Session._do_vrfy,
    b"EXPN": Session._do_expn,
    b"HELP": Session._do_help,
    b"BDAT": Session._do_bdat,
    b"AUTH": Session._do_auth,
    b"STARTTLS": Session._do_starttls,
}
