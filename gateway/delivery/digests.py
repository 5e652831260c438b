"""Digests: what fails or is late is told to each sender in one mail now and then, where bounces.mode says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from functools import partial
from textwrap import wrap

from gateway.bounce import asked_for
from gateway.clock import Clock
from gateway.delivery.bounces import Bouncer, wants
from gateway.events import Events
from gateway.model import Recipient
from gateway.spool import Piece, RecipientRow, Spool, Untold

_SENDERS = 1000  # looked up together
_SHOWN = 200  # messages that a digest tells of one by one
_PEOPLE = 5  # recipients of each that are named
_WIDTH = 76
_TITLES = {"failed": "Not delivered", "delayed": "Still waiting"}


class Digests:
    """Also tells what was kept for a digest by the settings of before."""

    def __init__(self, spool: Spool, events: Events, clock: Clock) -> None:
        self._spool = spool
        self._events = events
        self._clock = clock

    async def tell(self, bouncer: Bouncer, stopping: Callable[[], bool]) -> None:
        """Once the first thing has waited so long. Raises SpoolTrouble."""
        since, every = await self._spool.first_untold(), bouncer.settings.bounces.digest_every
        # A clock that was set must not keep anybody from hearing of it.
        if since is None or abs(self._clock.now() - since) < every:
            return
        while found := await self._spool.untold(_SENDERS):
            for one in found:
                if stopping():
                    return
                await self._one(bouncer, one)

    async def _one(self, bouncer: Bouncer, what: Untold) -> None:
        now, message, reason = self._clock.now(), None, ""
        if what.count:
            pieces = await self._spool.pieces(what, _SHOWN)
            write = partial(_letter, bouncer, what, pieces)
            message = bouncer.letter(what.sender, write, now)
            reason = "" if message is not None else "off" if bouncer.settings.bounces.mode == "off" else "no_backend"
        await self._spool.digest(what, message, reason)
        if what.count:
            self._events.digest(what.sender, what.count, "" if message is None else message.id, reason)


def _letter(bouncer: Bouncer, what: Untold, pieces: Sequence[Piece], author: str, ident: str) -> EmailMessage:
    hostname, failed = bouncer.settings.hostname, any(one.kind == "failed" for one in pieces)
    mail = EmailMessage(policy=SMTP)
    mail["From"] = f"Mail Delivery System <{author}>"
    count = f"{what.count} message{'s' if what.count != 1 else ''}"
    mail["Subject"] = f"{'Undelivered' if failed else 'Delayed'} mail: {count}"
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834 5
    mail["X-Auto-Response-Suppress"] = "All"
    mail["Message-ID"] = f"<{ident}@{hostname}>"
    text = "\n".join(_words(hostname, what, pieces)) + "\n"
    mail.set_content(text.encode("utf-8", "replace").decode(), cte="quoted-printable")
    return mail


def _words(hostname: str, what: Untold, pieces: Sequence[Piece]) -> Iterator[str]:
    yield from (f"This is the mail gateway at {hostname}, about mail from {what.sender}.", "")
    for kind, title in _TITLES.items():
        if these := [one for one in pieces if one.kind == kind]:
            yield from (f"{title}:", "")
            for one in these:
                yield from _piece(one)
                yield ""
    if (more := what.count - len(pieces)) > 0:
        yield from (f"And {more} more.", "")
    yield "Your administrator finds each by its queue id: gateway trace ID"


def _piece(one: Piece) -> Iterator[str]:
    yield f"  {_stamp(one.received_at)}  queue id {one.id}"
    states = ("failed",) if one.kind == "failed" else ("queued", "held")
    asked = [each for each in one.recipients if each.state in states and wants(_recipient(each), one.kind)]
    for each in asked[:_PEOPLE]:
        said = " ".join(f"{each.enhanced} {each.detail}".split()) or "no reason was given"
        line = f"to {asked_for(_recipient(each))}: {_shown(said)}"
        yield from wrap(line, _WIDTH, initial_indent="    ", subsequent_indent="      ")
        if each.fix:
            fix = _shown(f"To do: {' '.join(each.fix.split())}")
            yield from wrap(fix, _WIDTH, initial_indent="      ", subsequent_indent="      ")
    if len(asked) > _PEOPLE:
        yield f"    and {len(asked) - _PEOPLE} more recipients"


def _recipient(row: RecipientRow) -> Recipient:
    return Recipient(row.address, row.notify, row.orcpt)


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:500])


def _stamp(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M:%SZ}"
