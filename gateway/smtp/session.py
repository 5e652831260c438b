"""A session: the verb loop, its refusals and its patience, and the acceptance of a message."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from math import inf

from gateway.intake import prepare
from gateway.learn.ear import HEAD
from gateway.message import Arrival
from gateway.model import Client, NewMessage, Refusal
from gateway.networks import NOBODY
from gateway.pools import SMALL_MAIL, look_through_mail
from gateway.refusals import Refused
from gateway.smtp import hearing, replies
from gateway.smtp.commands import Commands, StrayLogin
from gateway.smtp.handshake import SILENT, cause, gone
from gateway.smtp.incoming import Incoming
from gateway.smtp.refused import refused
from gateway.smtp.site import Site
from gateway.smtp.waits import Wait
from gateway.smtp.wire import Wire
from gateway.transaction import Transaction

_PATIENCE = 100.0  # lost by what brings no mail, restored by an accepted message
_LOST = {"unknown_command": 10.0, "too_many_recipients": 0.01}  # by reason; else 5 for a 5xx, 1 for a 4xx
_TURN = 100  # commands before other connections get their turn


Verb = Callable[["Session", bytes], Awaitable[None] | None]


class Session:
    """One client, from the greeting to the end, and the ``wire`` to it.

    It obeys ``commands``: a verb gets the session and its argument, returns an awaitable if it has to wait, and raises
    the Refusal or Fault that is its reply. While it has a connection it stands among ``sessions``, its task in
    ``tasks``.
    """

    def __init__(
        self,
        site: Site,
        commands: Commands[Verb],
        loop: asyncio.AbstractEventLoop,
        sessions: set[Session],
        tasks: set[asyncio.Task[None]],
    ) -> None:
        self.site = site
        self.wire = Wire(self, site.clock, loop, implicit_tls=site.implicit_tls)
        self.rules = site.rules
        self.client: Client | None = None
        self.logged_in = self.extended = False
        self.helo = ""
        self.wrong_logins: set[bytes] = set()
        self.transaction: Transaction | None = None
        self.heard: hearing.Heard | None = None  # instead of one, for learn mode
        self.recipient, self.said = "", b""  # of the present command, for what is kept of refusals
        self.user = ""  # as given at the last login that failed, as far as a log may say it
        self.spoilt = False  # MAIL or RCPT was refused: what the client does now without them is no other mistake
        self.patience = _PATIENCE  # who uses it all up hears 421
        self.counted: str | None = ""  # the client whose connection it is, where these are counted; None: it is gone
        self._commands = commands
        self._sessions = sessions
        self._tasks = tasks
        self._stage = "command"
        self._came = 0  # octets of a message
        self._cut_off = False  # by us, for its time was over
        self._action: Awaitable[None] | None = None  # what the task is to do next

    # -- life --------------------------------------------------------------------------------------------------------

    def opened(self) -> bool:
        """Whether the connection is admitted; if not, it has heard why."""
        if refusal := self.site.admit(self.wire.peer):
            if not self.wire.implicit_tls:
                self.write(refusal)
            self.wire.close()
            return False
        self._sessions.add(self)
        return True

    def started(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def gone(self) -> None:
        if self in self._sessions:
            self._sessions.remove(self)
            self.site.gone(self.wire.peer)
            if self.counted:
                self.site.shared.quotas.connections.add(self.counted, -1)
            self.counted = None

    def check(self, now: float) -> None:
        """Hang up on who has kept us waiting for too long at ``now`` (monotonic seconds)."""
        wire, incoming, limits = self.wire, self.wire.incoming, self.rules.limits
        if wire.began == inf:
            return
        wait, crowded = self._awaited(), self.site.shared.crowded(limits)
        idle = limits.idle.total_seconds()
        if wait.is_over(now - wire.heard, now - wire.began, idle, crowded=crowded):
            if wait in (Wait.HANDSHAKE, Wait.LAST_REPLY):
                self._cut_off = True
                wire.abort()
            elif incoming is not None:  # no end may come of bare newlines
                false_end = wait is Wait.FALSE_END
                self._hang_up(incoming.reader.refusal or (replies.FALSE_END if false_end else replies.IDLE)())
            else:
                self._hang_up((replies.BARE_CR if wire.cr_only else replies.IDLE)())
        elif incoming is not None and not incoming.ended and incoming.too_slow(now, crowded=crowded):
            self._hang_up(incoming.reader.refusal or replies.TOO_SLOW())

    def _awaited(self) -> Wait:
        if self.wire.closing:
            return Wait.LAST_REPLY
        if self.wire.securing:
            return Wait.HANDSHAKE
        return Wait.LINE if self.wire.incoming is None else self.wire.incoming.wait

    def stop(self) -> None:
        """The service stops. Who is in the middle of something hears of it afterwards."""
        if self.wire.idle:
            self._hang_up(replies.STOPPING())

    def _hang_up(self, refusal: Refusal) -> None:
        self._stage = "data" if self.wire.incoming else "command"
        self.recipient, self.said, self._came = "", b"", self.wire.incoming.reader.received if self.wire.incoming else 0
        self._answer(refusal)
        self.wire.close()

    async def converse(self) -> None:
        """The session's task. It does what has to wait; all else happens in ``progress``."""
        try:
            if self.wire.implicit_tls:
                await self.secure()
            self.client = self.site.by_network(self.wire.origin)
            self.wire.reply(f"220 {self.rules.hostname} ESMTP\r\n".encode())
            await self._obey_all()
        except EOFError:
            pass
        except Exception as error:
            self.site.events.bug("smtp", error)
        finally:
            if self.wire.incoming is not None:
                self.wire.incoming.release()
                self.wire.incoming = None
            self.wire.close()

    async def secure(self) -> None:
        """TLS from here on. RFC 3207 4.2: nothing said before counts. Raises EOFError: the connection is gone."""
        site, wire = self.site, self.wire
        assert site.certificate is not None
        try:
            await wire.start_tls(site.certificate.context)
        except OSError as error:
            detail = SILENT if self._cut_off else cause(error)
            failed = Refused(
                listener=site.name, stage="connect", reason="tls_failed", peer=wire.peer, helo=self.helo, detail=detail
            )
            if wire.origin != NOBODY or self._cut_off or not gone(error):  # else a balancer looks whether we are here
                site.rejected(failed)
            raise EOFError from None
        self.helo, self.user, self.extended = "", "", False
        self.transaction = self.heard = None
        self.client, self.logged_in = site.by_network(wire.origin), False

    # -- the verb loop -----------------------------------------------------------------------------------------------

    async def _obey_all(self) -> None:
        wire = self.wire
        while not wire.closing:
            if not self.progress():
                wire.parked = True
                await wire.more()
                wire.parked = False
            if self._action is None:
                await self.site.clock.sleep(0)  # others get their turn
                continue
            action, self._action, wire.began = self._action, None, inf
            try:
                await action
            except EOFError:
                raise
            except Exception as error:
                self._answer(error)

    def progress(self) -> bool:
        """Do at once what can be done with the input; False when there is nothing left to do but wait for more."""
        turns, wire = 0, self.wire
        while turns < _TURN and not wire.closing and self._action is None:
            self._stage, self.recipient, self.said, self._came = "command", "", b"", 0
            try:
                if wire.incoming is not None:
                    if not wire.incoming.ended:
                        return False
                    self._action = self._finish(wire.incoming)
                    break
                if self.site.draining:
                    raise replies.STOPPING()
                if not wire.ahead or (line := self._next_line()) is None:
                    began = wire.began
                    wire.wait()
                    if not turns:  # more of a line that has begun
                        wire.began = min(began, wire.began)
                    wire.flush()
                    return False
                turns += 1
                self._action = self._obey(line)
            except Exception as error:
                self._answer(error)
        return True

    def _next_line(self, verb: bytes = b"") -> bytes | None:
        return self.wire.take_line(bare_lf="bare_newlines" in self.site.settings.tolerate, verb=verb)

    async def exchange(self, reply: bytes, verb: bytes) -> bytes:
        """Inside ``verb``: send a reply, wait for the client's next line. Raises Refusal, EOFError when it leaves."""
        self.wire.reply(reply)
        self.wire.wait()
        while (line := self._next_line(verb)) is None:
            await self.wire.more()
            self.wire.heard = self.site.clock.monotonic()
        self.wire.began = inf
        return line

    def _obey(self, line: bytes) -> Awaitable[None] | None:
        try:
            verb, argument, self._stage = self._commands(line)
        except StrayLogin as stray:  # a client out of step
            self._stage = stray.stage
            raise replies.STRAY_LOGIN() from None
        return verb(self, argument)

    # -- refusals ----------------------------------------------------------------------------------------------------

    def _answer(self, error: Exception) -> None:
        refusal = replies.refusal_of(error)
        if refusal.reason == replies.INTERNAL.reason:
            self.site.events.bug("smtp", error)
        record = self._refused(refusal)
        if self.site.learning is not None or self.heard is not None:
            if self.heard is None and (heard := hearing.heard(self.site.learning, record, self.rules.limits)):
                self.heard = heard
                self.wire.reply(replies.SENDER_OK)
                return
            refusal, record = hearing.softened(self.heard, self.site.learning, refusal, record)
        self.site.rejected(record)
        if self._stage == "data":
            self.transaction = self.heard = None
        self.spoilt |= self._stage in ("mail", "rcpt")
        self.refuse(refusal)

    def _refused(self, refusal: Refusal) -> Refused:
        stage, client = self._stage, self.client
        return refused(
            refusal,
            listener=self.site.name,
            stage=stage,
            peer=self.wire.peer,
            helo=self.helo,
            tls=self.wire.tls,
            client=client.name if client else "",
            user=client.login if client else self.user,
            transaction=self.transaction if stage in ("mail", "rcpt", "data") else None,
            said=self.said,
            recipient=self.recipient,
            came=self._came,
            follows=self.spoilt and stage in ("rcpt", "data") and refusal.reason == "bad_sequence",
        )

    def refuse(self, refusal: Refusal) -> None:
        """Reply with a refusal that was counted already. Who hears too many of them hears 421, and that is the end."""
        self.patience -= _LOST.get(refusal.reason, 5.0 if refusal.code >= 500 else 1.0)
        ends = self.wire.closing or isinstance(refusal, replies.LastRefusal)
        self.write(refusal if self.patience > 0 or ends else replies.ENOUGH())

    def write(self, refusal: Refusal) -> None:
        """Reply with a refusal, whoever has counted it; the connection ends with one that is the last."""
        self.wire.reply(replies.line(refusal))
        self.wire.closing |= isinstance(refusal, replies.LastRefusal)

    def reply_idle(self, line: bytes) -> None:
        """The reply to a command that brings no mail nearer. Raises LastRefusal when there were too many of them."""
        self.patience -= 1
        if self.patience <= 0:
            raise replies.ENOUGH()
        self.wire.reply(line)

    # -- the end of DATA ---------------------------------------------------------------------------------------------

    async def _finish(self, incoming: Incoming) -> None:
        self._stage, self._came = "data", incoming.reader.received
        self.wire.incoming = None
        self.wire.closing |= incoming.cut_off
        try:
            await self._accept(incoming)
        finally:
            incoming.release()

    async def _accept(self, incoming: Incoming) -> None:
        reader, rules = incoming.reader, self.rules
        site, transaction, started = self.site, self.transaction, self.site.clock.monotonic()
        learning = site.learning
        if learning is not None and reader.refusal is None:
            learning.message(self.wire.peer, reader.head(HEAD), reader.size)
        if transaction is None:
            raise reader.refusal or replies.LEARNING()
        arrival = Arrival(
            id=site.ids(),
            received_at=site.clock.now(),
            listener=site.name,
            peer=self.wire.peer,
            helo=self.helo,
            protocol=self._protocol(),
            tls=self.wire.tls,
        )
        headerless = "missing_headers" in site.settings.tolerate
        envelope, client, rewritten = transaction.envelope(), transaction.client, transaction.rewritten

        def ready() -> NewMessage:
            mended = ("line_ends",) if reader.odd else ()
            return prepare(
                reader.message(), envelope, client, arrival, rules,
                headerless=headerless, repairs=mended, rewritten=rewritten,
            )  # fmt: skip

        # Looking through a large message takes longer than anybody else should wait.
        slow = reader.size > SMALL_MAIL and (reader.odd or client.default_domain or rules.routing.particular)
        message = await look_through_mail(ready) if slow else ready()
        incoming.hand_over()
        if client.quota is None:
            await site.put(message)  # nobody cancels this task: whatever the client does, the commit runs to its end
        else:
            sender, many, now = transaction.asked.sender, len(transaction.recipients), site.clock.monotonic()
            with site.shared.quotas.taking(client, message, sender, many, now) as message:
                await site.put(message)
        site.events.accepted(message, site.clock.monotonic() - started)
        if learning is not None:
            learning.mail(message, transaction.asked, helo=self.helo, tls=self.wire.tls)
        self.transaction = None
        self.patience = _PATIENCE
        self.wire.reply(f"250 2.0.0 Ok: queued as {message.id}\r\n".encode())

    def _protocol(self) -> str:
        """RFC 3848."""
        if not (self.extended or self.wire.tls or self.logged_in):
            return "SMTP"
        return "ESMTP" + "S" * bool(self.wire.tls) + "A" * self.logged_in
