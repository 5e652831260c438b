"""What the door tells learn mode, at one listener. Every call is quick and waits for nobody."""

from __future__ import annotations

from collections.abc import Collection

from gateway.clock import Clock
from gateway.learn.book import Book
from gateway.learn.seen import Seen
from gateway.message import plain_addresses, qualify_header, scan, sole_address
from gateway.model import BadMessage, Envelope, Network, NewMessage
from gateway.networks import prefix_length
from gateway.refusals import Refused

HEAD = 65_536  # octets of a message that are looked at; of these only who stands in From and Sender is kept
_NONE = "nowhere.invalid"  # stands for the domain that a name in the header lacks
# No mail was asked for with these: a client out of step, or one that did not stop after an earlier no.
_NO_MAIL = frozenset(("bad_sequence", "bad_syntax", "shutting_down", "idle", "learning"))


class Ear:
    """``hear_out`` are the networks whose mail is heard to its end though it is refused."""

    def __init__(self, listener: str, book: Book, clock: Clock, hear_out: Collection[Network]) -> None:
        self.hear_out = hear_out
        self._listener, self._book, self._clock = listener, book, clock

    def hears_out(self, peer: str) -> bool:
        return prefix_length(self.hear_out, peer) >= 0

    def _seen(self, peer: str) -> Seen | None:
        found = self._book.of(self._listener, peer, self._clock.now())
        if found is not None:
            found.changed = True
        return found

    def connected(self, peer: str) -> None:
        if (seen := self._seen(peer)) is None:
            self._book.others += 1
            return
        seen.connections += 1
        seen.last = max(seen.last, self._clock.now())

    def logged_in(self, peer: str, user: str) -> None:
        if seen := self._seen(peer):
            seen.logins.add(user)

    def refused(self, refused: Refused) -> None:
        """Somebody heard no, or would have. A user name stands in it only as far as a log may say it."""
        if (seen := self._seen(refused.peer)) is None:
            return
        if not refused.follows and refused.reason != "learning":
            seen.refused(refused.stage, refused.code, refused.enhanced, refused.reason, refused.text)
        if refused.reason == "tls_failed":
            seen.tls_failed.add(refused.detail)
        elif refused.stage == "auth":
            seen.logins.add(refused.user) if refused.user else None
            seen.clear_logins += not refused.tls
        elif refused.reason not in _NO_MAIL and refused.stage in ("mail", "rcpt", "data"):
            self._no_mail(seen, refused)

    def _no_mail(self, seen: Seen, refused: Refused) -> None:
        now = self._clock.now()
        seen.said(now, refused.helo, refused.tls)
        if refused.stage == "mail":
            seen.mail(now, refused.sender, recipients=(), known=False)
            seen.size(refused.size)
            seen.headless += 1
            return
        if refused.stage == "data":
            seen.mail(now, refused.sender, recipients=refused.recipients, known=True)
            return
        seen.sender(refused.sender)
        for one in refused.recipients:
            seen.recipient(one)

    def heard(self, refused: Refused) -> None:
        """Mail that is refused in any case, and is heard to its end: its recipients and header may follow."""
        if seen := self._seen(refused.peer):
            now = self._clock.now()
            seen.refused(refused.stage, refused.code, refused.enhanced, refused.reason, refused.text)
            seen.said(now, refused.helo, refused.tls)
            seen.mail(now, refused.sender, recipients=(), known=True)
            seen.heard += 1

    def recipient(self, peer: str, address: str) -> None:
        """One of what is heard out."""
        if seen := self._seen(peer):
            seen.recipient(address)

    def message(self, peer: str, head: bytes, size: int) -> None:
        """A message came whole, whatever becomes of it: who it says that it is from. Nothing else of it is kept."""
        if (seen := self._seen(peer)) is None:
            return
        seen.size(size)
        try:
            header = scan(qualify_header(head[:HEAD], _NONE))
        except BadMessage:
            seen.header(None)
            return
        values = [field.value for name in ("from", "sender") for field in header.named.get(name, ())]
        plain = all(plain_addresses(value) or sole_address(value) for value in values)
        shown = (*header.addresses("from"), *header.addresses("sender"))
        seen.header([one.removesuffix(f"@{_NONE}") for one in shown], plain=plain)

    def fault(self, refused: Refused) -> None:
        """Something else was wrong with what is heard out."""
        if seen := self._seen(refused.peer):
            seen.refused(refused.stage, refused.code, refused.enhanced, refused.reason, refused.text)

    def mail(self, message: NewMessage, asked: Envelope, *, helo: str, tls: str) -> None:
        """It was accepted. ``asked`` is what MAIL said."""
        if seen := self._seen(message.peer):
            now = self._clock.now()
            recipients = [one.address for one in message.envelope.recipients]
            recipients += [one.asked for one in message.rewritten]
            seen.said(now, helo, tls)
            seen.mail(now, asked.original or asked.sender or "<>", recipients=recipients, known=True)
            seen.clients.add(message.client)
            seen.accepted += 1
