"""A session: the verb loop, its refusals and its patience, and the acceptance of a message."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from gateway.intake import Arrival, prepare
from gateway.model import Client, Fault, Refusal
from gateway.pools import look_through_mail
from gateway.smtp import replies
from gateway.smtp.incoming import Incoming
from gateway.smtp.transaction import Transaction
from gateway.smtp.verbs import VERBS
from gateway.smtp.wire import LONGEST, Wire

if TYPE_CHECKING:
    from gateway.smtp.listener import Listener

_LARGE = 16_000  # octets of a message that is looked through off the loop
_COMMAND = 2048  # octets of a command line, AUTH excepted
_PATIENCE = 100.0  # used up by what brings no mail, restored by an accepted message
_PRICES = {"unknown_command": 10.0, "too_many_recipients": 0.01}  # else 5 for a 5xx, 1 for a 4xx or an idle command
_TURN = 100  # commands before other connections get their turn
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_HTTP = frozenset(b"GET POST PUT HEAD OPTIONS CONNECT DELETE PATCH TRACE PRI".split())
_STAGES = {b"MAIL": "mail", b"RCPT": "rcpt", b"DATA": "data", b"AUTH": "auth"}


class Session(Wire):
    """One client, from the greeting to the end."""

    def __init__(self, door: Listener, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(door.clock, loop, implicit_tls=door.implicit_tls)
        self.door = door
        self.rules = door.rules
        self.client: Client | None = None
        self.logged_in = self.extended = False
        self.helo = ""
        self.failed_logins = 0
        self.transaction: Transaction | None = None
        self.recipient = ""  # of the present command, for the log
        self._stage = "command"
        self._patience = _PATIENCE
        self._action: Awaitable[None] | None = None  # what the task is to do next

    # -- life --------------------------------------------------------------------------------------------------------

    def admitted(self) -> bool:
        return self.door.admit(self)

    def started(self, task: asyncio.Task[None]) -> None:
        self.door.tasks.add(task)
        task.add_done_callback(self.door.tasks.discard)

    def gone(self) -> None:
        self.door.gone(self)

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

    async def _handle_client(self) -> None:
        """The session's task, started by aiosmtpd. It does what has to wait; all else happens in ``progress``."""
        try:
            if not self.implicit_tls or await self.secure():
                self.client = self.door.by_network(self.peer)
                self.reply(f"220 {self.rules.hostname} ESMTP\r\n".encode())
                await self._converse()
        except EOFError:
            pass
        except Exception as error:
            self.door.events.bug("smtp", error)
        finally:
            if self.incoming is not None:
                self.incoming.release()
            self.close()

    async def secure(self) -> bool:
        """TLS from here on. RFC 3207 4.2: nothing said before counts."""
        assert self.door.certificate is not None
        if not await self.start_tls(self.door.certificate.context):
            self.door.events.connection_refused(self.door.name, "tls_failed", self.peer)
            return False
        self.helo, self.extended, self.transaction = "", False, None
        self.client, self.logged_in = self.door.by_network(self.peer), False
        return True

    # -- the verb loop -----------------------------------------------------------------------------------------------

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
            except Fault as fault:
                self._refuse(replies.refusal_of(fault))
            except EOFError:
                raise
            except Exception as error:
                self._failed(error)

    def progress(self) -> bool:
        turns = 0
        while turns < _TURN and not self.closing and self._action is None:
            self._stage, self.recipient = "command", ""
            try:
                if self.incoming is not None:
                    if not self.incoming.ended:
                        return False
                    self._action = self._finish(self.incoming)
                    break
                if self.door.draining:
                    raise self.last(replies.STOPPING)
                line = self.next_line()
                if line is None:
                    if turns or self.deadline == inf:
                        self.expect_line()
                    self.flush()
                    return False
                turns += 1
                self._action = self._obey(line)
            except Refusal as refusal:
                self._refuse(refusal)
            except Fault as fault:
                self._refuse(replies.refusal_of(fault))
            except Exception as error:
                self._failed(error)
        return True

    def next_line(self, verb: bytes = b"") -> bytes | None:
        return self.take_line(bare_lf="bare_newlines" in self.door.listener.tolerate, verb=verb)

    def expect_line(self) -> None:
        """One deadline for the whole of the next line, however slowly it trickles in."""
        self.deadline = self.clock.monotonic() + self.rules.limits.idle.total_seconds()

    def _obey(self, line: bytes) -> Awaitable[None] | None:
        verb = line.partition(b" ")[0].upper()
        if len(line) > (LONGEST if verb == b"AUTH" else _COMMAND):
            raise Refusal(*replies.too_long(verb))
        if verb in _HTTP or verb.endswith(b":") or not (verb[:1].isalpha() or verb == b""):
            raise self.last(replies.NOT_SMTP)
        if found := _CONTROL.search(line):
            raise self.last(replies.CONTROL) if found[0] == b"\0" else Refusal(*replies.CONTROL)
        action = VERBS.get(verb)
        if action is None:
            raise Refusal(*replies.UNKNOWN)
        self._stage = _STAGES.get(verb, "command")
        return action(self, line[len(verb) :].strip())

    def _failed(self, error: Exception) -> None:
        self.door.events.bug("smtp", error)
        self._refuse(Refusal(*replies.INTERNAL))

    def _refuse(self, refusal: Refusal) -> None:
        self.door.events.rejected(
            self.door.name,
            self._stage,
            refusal,
            self.peer,
            client=self.client.name if self.client else "",
            sender=self.transaction.sender if self.transaction else "",
            recipient=self.recipient,
        )
        if self._stage == "data":
            self.transaction = None
        self.spend(_PRICES.get(refusal.reason, 5.0 if refusal.code >= 500 else 1.0))
        if self._patience <= 0 and not self.closing:
            refusal = self.last(replies.ENOUGH)
        self.reply(replies.line(refusal))

    def spend(self, price: float) -> None:
        self._patience -= price

    def idly(self, line: bytes) -> None:
        """The reply to a command that brings no mail nearer."""
        self.spend(1)
        if self._patience <= 0:
            raise self.last(replies.ENOUGH)
        self.reply(line)

    # -- the end of DATA ---------------------------------------------------------------------------------------------

    async def _finish(self, incoming: Incoming) -> None:
        self._stage = "data"
        self.incoming = None
        self.closing |= not incoming.complete
        try:
            await self._accept(incoming.take())
        finally:
            incoming.release()

    async def _accept(self, raw: bytes) -> None:
        door, transaction, started = self.door, self.transaction, self.clock.monotonic()
        assert transaction is not None
        arrival = Arrival(
            id=door.ids(),
            received_at=self.clock.now(),
            listener=door.name,
            peer=self.peer,
            helo=self.helo,
            protocol=self._protocol(),
            tls=self.tls,
        )
        headerless = "missing_headers" in door.listener.tolerate
        envelope = transaction.envelope()
        ready = partial(prepare, raw, envelope, transaction.client, arrival, self.rules, headerless=headerless)
        # Looking through a large message takes longer than anybody else should wait.
        slow = len(raw) > _LARGE and self.rules.routing.particular
        message = await look_through_mail(ready) if slow else ready()
        del raw, ready
        await door.put(message)  # nobody cancels this task: whatever the client does, the commit runs to its end
        door.events.accepted(message, self.clock.monotonic() - started)
        self.transaction = None
        self._patience = _PATIENCE
        self.reply(f"250 2.0.0 Ok: queued as {message.id}\r\n".encode())

    def _protocol(self) -> str:
        """RFC 3848."""
        if not (self.extended or self.tls or self.logged_in):
            return "SMTP"
        return "ESMTP" + "S" * bool(self.tls) + "A" * self.logged_in
