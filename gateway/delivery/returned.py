"""Mail that came back after a backend had handed it over: looked for now and then, matched, told to its sender.

A report is anybody's to write. So it counts only for a recipient of mail that this backend has sent, once, and all that
follows is a line in the message's life and one bounce to its sender. What goes wrong here never rests the backend.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.address import comparable
from gateway.bounce import Failure
from gateway.clock import Clock
from gateway.delivery.bounces import Bouncer, Bounces
from gateway.delivery.orders import Orders
from gateway.events import Events
from gateway.message.text import date, fold, harmless
from gateway.model import DeliveryEvent, Outcome, Scope, SpooledMessage, SpoolTrouble, Verdict
from gateway.returned import Failed, Look, Returned, Returns
from gateway.spool import Back, HandedOver, Spool
from gateway.spool.secrets import WHATEVER, Sealed
from gateway.strangers import lenient_json

EVERY = 300.0  # seconds from one look to the next
SOON = 15.0  # where it did not come to the end
PATIENCE = 600.0  # seconds for one look
LATEST = timedelta(days=14)  # since it was sent: no server tries so long
_LONGEST_REST = 3600.0
_SOON_TRIED = timedelta(minutes=30)  # what passes by itself is told to nobody before that
OFTEN = 3  # messages to one address that came back: somebody should know
_REMEMBERED = timedelta(days=30)
_ADDRESSES = 200  # that came back are remembered


@dataclass(frozen=True, slots=True)
class Unread:
    """Since when it cannot be looked for, and why."""

    since: datetime
    said: str
    fix: str


@dataclass(frozen=True, slots=True)
class Dead:
    """An address to which mail keeps coming back."""

    address: str
    count: int
    since: datetime
    last: datetime
    said: str


class Comebacks:
    """Looks for one backend. Cancelled at any moment it loses nothing: where to go on is kept after what was found."""

    def __init__(
        self, name: str, backend: Returns, spool: Spool, events: Events, clock: Clock, orders: Callable[[], Orders]
    ) -> None:
        self._name = name
        self._backend = backend
        self._spool = spool
        self._events = events
        self._clock = clock
        self._orders = orders
        self._kept: dict[str, object] = {}
        self._begun = self._changed = False
        self._unread: Unread | None = None
        self._passing = False

    async def run(self) -> None:
        self._events.returns_read(self._name, ok=True)
        while True:
            await self._clock.sleep(await self._round())

    @property
    def unread(self) -> Unread | None:
        """Why it cannot be looked for, where somebody should know."""
        one = self._unread
        if one and self._passing and self._clock.now() - one.since < _SOON_TRIED:
            return None
        return one

    @property
    def dead(self) -> tuple[Dead, ...]:
        """The worst first."""
        now, known = self._clock.now(), self._addresses()
        often = [one for one in known.values() if one.count >= OFTEN and abs(now - one.last) < _REMEMBERED]
        return tuple(sorted(often, key=lambda one: (-one.count, one.address)))

    async def _round(self) -> float:
        """One look; returns the seconds until the next."""
        try:
            if not self._begun:
                await self._begin()
            answer = await self._look()
            if isinstance(answer, Outcome):
                return self._failed(answer)
            for one in answer.found:
                self._events.returned(self._name, await self._recorded(one))
            self._events.returned(self._name, "other", answer.others)
            await self._keep(answer.place)
        except SpoolTrouble:  # found again when the disk takes it
            return SOON
        self._unread = None
        self._events.returns_read(self._name, ok=True)
        return SOON if answer.more else EVERY

    async def _look(self) -> Look | Outcome:
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._backend.returned(str(self._kept.get("place") or ""), self._wanted)
        except TimeoutError:
            return Outcome(Verdict.DEFERRED, detail=f"not done within {PATIENCE:g} s")
        except SpoolTrouble:
            raise
        except Exception as error:
            self._events.bug(f"backend.{self._name}", error)
            return Outcome(Verdict.DEFERRED, detail=f"unexpected: {type(error).__name__}, see the log")

    def _failed(self, outcome: Outcome) -> float:
        self._passing = outcome.verdict is not Verdict.MISCONFIGURED
        since = self._unread.since if self._unread else self._clock.now()
        if self._unread is None or self._unread.said != outcome.detail:
            self._events.returns_unread(self._name, outcome.detail, outcome.fix)
        self._unread = Unread(since, outcome.detail, outcome.fix)
        self._events.returns_read(self._name, ok=False)
        rest = outcome.retry_after.total_seconds() if outcome.retry_after else 0.0
        return min(max(EVERY, rest), _LONGEST_REST)

    # -- what is found -------------------------------------------------------------------------------------------------

    async def _handed_over(self, one: Returned) -> list[HandedOver]:
        return await self._spool.handed_over(self._name, one.named, one.remote_id, self._clock.now() - LATEST)

    async def _wanted(self, one: Returned) -> bool:
        for sent in await self._handed_over(one):
            if whom := _whom(sent, one):
                return not sent.back.issuperset(whom)
        return False

    async def _recorded(self, one: Returned) -> str:
        """A report that nobody foresaw keeps no other from being seen."""
        try:
            return await self._record(one)
        except SpoolTrouble:
            raise
        except Exception as error:
            self._events.bug(f"returned.{self._name}", error)
            return "other"

    async def _record(self, one: Returned) -> str:
        """What became of it: counted, known (before) or unmatched."""
        for sent in await self._handed_over(one):
            if not (whom := _whom(sent, one)):
                continue
            new = {address: failed for address, failed in whom.items() if address not in sent.back}
            return "counted" if new and await self._come_back(sent, new, one) else "known"
        return "unmatched"

    async def _come_back(self, sent: HandedOver, new: Mapping[str, Failed], one: Returned) -> bool:
        said = [
            DeliveryEvent(sent.sent[address], "bounced", _said(failed, address), address)
            for address, failed in new.items()
        ]
        bouncer = self._orders().bouncer
        bounces = self._bounces(bouncer, sent.message, new, one)
        back = Back(self._name, sent.message.id, said, self._backend.returns, bounces.messages, bounces.told)
        if not await self._spool.come_back(back):
            return False
        bouncer.tell(sent.message, bounces)
        for address, failed in new.items():
            self._count(address, failed)
        return True

    def _bounces(self, bouncer: Bouncer, message: SpooledMessage, new: Mapping[str, Failed], one: Returned) -> Bounces:
        settings, sender = bouncer.settings.bounces, message.envelope.sender
        knows = one.told and comparable(one.told) == comparable(sender)
        untold = "provider" if knows else "" if settings.later else "later"
        failures = [
            Failure(recipient, _outcome(new[recipient.address]), self._name, "failed")
            for recipient in message.envelope.recipients
            if recipient.address in new
        ]
        return bouncer.returned(message, _header(message, one.subject), failures, self._clock.now(), untold)

    # -- what is kept --------------------------------------------------------------------------------------------------

    @property
    def _secret(self) -> str:
        return f"returned:{self._name}"

    async def _begin(self) -> None:
        """From where whoever looked last has come to; what another key has sealed is of no use, and begun anew."""
        try:
            found = await self._spool.secrets.get(self._secret)
        except Sealed:
            found = None
        self._kept = lenient_json(found or b"")
        self._begun = True

    async def _keep(self, place: str) -> None:
        """Once all that was found on the way there is on disk."""
        kept = {**self._kept, "place": place}
        if kept != self._kept or self._changed:
            await self._spool.secrets.put(self._secret, json.dumps(kept).encode(), expected=WHATEVER)
            self._kept, self._changed = kept, False

    def _addresses(self) -> dict[str, Dead]:
        rows = self._kept.get("addresses")
        found: dict[str, Dead] = {}
        for row in rows if isinstance(rows, list) else ():
            with suppress(ValueError, TypeError):  # of a version to come
                address, count, since, last, said = row
                when = datetime.fromisoformat(since), datetime.fromisoformat(last)
                found[str(address)] = Dead(str(address), int(count), *when, str(said))
        return found

    def _count(self, address: str, failed: Failed) -> None:
        """Only what will never pass (5.x.x); the one that came back longest ago is forgotten first."""
        if failed.enhanced.startswith("4"):
            return
        now, key, known = self._clock.now(), comparable(address), self._addresses()
        before = known.pop(key, None)
        fresh = before is None or abs(now - before.last) >= _REMEMBERED
        since, count = (now, 0) if before is None or fresh else (before.since, before.count)
        known[key] = Dead(key, count + 1, since, now, _said(failed, address))
        rows = [
            [one.address, one.count, one.since.isoformat(), one.last.isoformat(), one.said]
            for one in list(known.values())[-_ADDRESSES:]
        ]
        self._kept, self._changed = {**self._kept, "addresses": rows}, True


def _whom(sent: HandedOver, one: Returned) -> dict[str, Failed]:
    """Of whom it speaks, by the address as the envelope has it.

    A message for one person alone is his, also where his mail goes on to another address that failed.
    """
    by_key = {comparable(address): address for address in sent.sent}
    found: dict[str, Failed] = {}
    for failed in one.failed:
        if address := next((by_key[key] for key in map(comparable, failed.addresses) if key in by_key), ""):
            found.setdefault(address, failed)
    if not found and len(sent.message.envelope.recipients) == len(sent.sent) == 1 and one.failed:
        found[next(iter(sent.sent))] = one.failed[0]
    return found


def _said(failed: Failed, address: str) -> str:
    """The other side's words, its code in front."""
    others = [one for one in failed.addresses if comparable(one) != comparable(address)]
    words = failed.detail if failed.enhanced in failed.detail else f"{failed.enhanced} {failed.detail}".strip()
    return f"{words} (for {others[-1]})".strip() if others else words


def _outcome(failed: Failed) -> Outcome:
    return Outcome(
        Verdict.REJECTED, enhanced=failed.enhanced, detail=failed.detail or "it came back without a reason",
        scope=Scope.RECIPIENT, said_by="smtp" if failed.detail else "gateway",
    )  # fmt: skip


def _header(message: SpooledMessage, subject: str) -> bytes:
    """What is known of the original, whose text is most likely gone."""
    known = {"From": message.header_from, "Subject": subject, "Message-ID": message.message_id}
    fields = [fold(name, [harmless(text, limit=900)]) for name, text in known.items() if text]
    return b"".join([*fields, fold("Date", [date(message.received_at)]), b"\r\n"])
