"""Mail that an operator wants sent again, or by another backend: what can be done with each message, and doing it.

- What failed waits again, the same message with its old attempts: only for those who did not get it.
- What was sent goes out as a new message, a copy that names the old one: what was said of that stays true, and no
  provider takes the copy for the same call again.
- What waits goes by another backend if that can carry it. One that may have taken it already keeps it, unless forced.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from gateway.actor import Order
from gateway.clock import Clock
from gateway.config.models import Settings
from gateway.delivery.batches import batches
from gateway.delivery.orders import Orders
from gateway.events import Events
from gateway.message import Arrival, received, replace_fields, scan
from gateway.model import CannotCarry, NewMessage, SpooledMessage
from gateway.routing import Freight
from gateway.spool import Filter, Place, Spool, Standing, Way

# Why nothing was done, beside what the state of a message says.
NO_TEXT = "its text is no longer kept"
TOKEN_GONE = "the token of its client, which it was to be sent with, was kept only until it ended"  # noqa: S105
SENDING = "it is being sent just now"
IN_DOUBT = "its backend may have taken it already, it may arrive twice: --force moves it all the same"
PINNED = "its client or token demands another backend: --force moves it all the same"
THERE = "it waits for that backend already"
_NOT_OVER = ("queued", "held")


@dataclass(frozen=True, slots=True)
class Step:
    """What one step came to: the messages changed, the ids left by reason, and of how many changed the sender had been
    told that they failed."""

    changed: Sequence[str] = ()
    left: dict[str, list[str]] = field(default_factory=dict)
    told: int = 0
    copies: dict[str, str] = field(default_factory=dict)  # by the message they are of

    def leave(self, why: str, ident: str) -> None:
        self.left.setdefault(why, []).append(ident)


@dataclass(frozen=True, slots=True)
class _Mail:
    """Of which there may be only so much in memory."""

    message: SpooledMessage
    sent: tuple[Place, ...]


class Again:
    """Each order goes in steps, in pages of the filter. Raises SpoolTrouble; what was done by then holds."""

    def __init__(self, spool: Spool, events: Events, clock: Clock, ids: Callable[[], str]) -> None:
        self._orders: Orders
        self._lifetime: timedelta
        self._hostname: str
        self._spool = spool
        self._events = events
        self._clock = clock
        self._ids = ids

    def update(self, orders: Orders, settings: Settings) -> None:
        self._orders = orders
        self._lifetime, self._hostname = settings.retry.lifetime, settings.hostname

    # -- what failed -------------------------------------------------------------------------------------------------

    async def retry(self, which: Filter, order: Order, backend: str = "") -> AsyncIterator[Step]:
        """Of failed messages whose text is kept, those who did not get it wait again: for the backend it failed by, or
        else that the routes say, or for ``backend``; with a new lifetime."""
        async for page in self._spool.standing(replace(which, state="failed")):
            step = Step()
            ways = list(filter(None, (self._way(each, backend, step) for each in page if each.state == "failed")))
            told = {each.message.id for each in page if each.told}
            changed = await self._spool.requeue(ways, self._spool.now() + self._lifetime, order) if ways else []
            yield replace(step, changed=changed, told=len(told.intersection(changed)))

    def _way(self, each: Standing, backend: str, step: Step) -> Way | None:
        if not each.has_body:
            step.leave(NO_TEXT, each.message.id)
            return None
        found, why = {}, ""
        for place in each.those("failed"):
            address = place.recipient.address
            try:
                found[address] = self._backend(each.message, address, backend or place.backend, fixed=bool(backend))
            except CannotCarry as error:
                why = self._why(error)
        if found:
            return Way(each.message.id, found)
        step.leave(why, each.message.id)
        return None

    def _backend(self, message: SpooledMessage, address: str, name: str, *, fixed: bool) -> str:
        """Raises CannotCarry."""
        routing, freight = self._orders.routing, Freight.of(message)
        refusal = routing.refusal(name, freight, [address])
        if refusal is None:
            return name
        if fixed:
            raise refusal
        if ways := self._orders.ways(message, [address]):
            return ways[0]
        routing.usable(freight, address)  # says why not
        raise refusal

    @staticmethod
    def _why(error: CannotCarry) -> str:
        return TOKEN_GONE if error.kind == "token" else error.text

    # -- what waits --------------------------------------------------------------------------------------------------

    async def reroute(self, which: Filter, order: Order, backend: str, *, force: bool) -> AsyncIterator[Step]:
        """What waits or is held goes by that backend, if it can carry it; what is held stays held."""
        async for page in self._spool.standing(which):
            step, ids = Step(), []
            for each in page:
                if each.state not in _NOT_OVER:
                    continue
                if why := self._keeps(each, backend, force=force):
                    step.leave(why, each.message.id)
                else:
                    ids.append(each.message.id)
            changed = await self._spool.reroute(ids, backend, force=force, order=order) if ids else []
            for ident in set(ids).difference(changed):
                step.leave(SENDING, ident)  # since then
            yield replace(step, changed=changed)

    def _keeps(self, each: Standing, backend: str, *, force: bool) -> str:
        """Why it does not go another way, "" where it does."""
        waiting = each.those(*_NOT_OVER)
        leaving = [place for place in waiting if place.backend != backend]
        if not leaving:
            return THERE
        if any(place.busy for place in leaving):
            return SENDING
        if not force and any(place.sticky for place in leaving):
            return IN_DOUBT
        if not force and each.message.pin not in ("", backend):
            return PINNED
        addresses = [place.recipient.address for place in leaving]
        refusal = self._orders.routing.refusal(backend, Freight.of(each.message), addresses)
        return refusal.text if refusal else ""

    # -- what was sent -----------------------------------------------------------------------------------------------

    async def resend(self, which: Filter, order: Order) -> AsyncIterator[Step]:
        """Of what was sent and whose text is kept, a copy to those who were sent it: it may arrive twice."""
        async for page in self._spool.standing(which):
            step, mail = Step(), []
            for each in page:
                sent = tuple(each.those("sent"))
                if each.state not in ("done", "failed") or not sent:
                    continue
                if each.has_body:
                    mail.append(_Mail(each.message, sent))
                else:
                    step.leave(NO_TEXT, each.message.id)
            for some in batches(mail):
                yield await self._copies(some, order)
            yield step

    async def _copies(self, mail: Sequence[_Mail], order: Order) -> Step:
        step, copies = Step(), []
        bodies = await self._spool.bodies([one.message.id for one in mail])
        for one in mail:
            ident = one.message.id
            if ident not in bodies:
                step.leave(NO_TEXT, ident)
                continue
            try:
                copies.append(self._copy(one, bodies[ident]))
            except CannotCarry as error:
                step.leave(self._why(error), ident)
        if copies:
            await self._spool.resend(copies, order)
        for copy in copies:
            self._events.accepted(copy, 0.0)
        named = {copy.resend_of: copy.id for copy in copies}
        return replace(step, changed=list(named), copies=named)

    def _copy(self, one: _Mail, raw: bytes) -> NewMessage:
        """With another line of trace (RFC 5321 4.4), and else as it was. Raises CannotCarry."""
        old, now, ident = one.message, self._clock.now(), self._ids()
        recipients = tuple(place.recipient for place in one.sent)
        addresses = [recipient.address for recipient in recipients]
        arrival = Arrival(ident, now, listener="", peer="", helo="", protocol="local")
        stamped = replace_fields(raw, scan(raw), received(arrival, self._hostname, addresses), {})
        freight = replace(Freight.of(old), size=len(stamped))
        envelope = replace(old.envelope, recipients=recipients)
        return NewMessage(
            id=ident,
            envelope=envelope,
            raw=stamped,
            deliveries=self._orders.routing.deliveries(freight, addresses),
            received_at=now,
            expires_at=now + self._lifetime,
            resend_of=old.id,
            **{name: getattr(old, name) for name in _SAME},
        )


_SAME = ("client", "message_id", "header_from", "authors", "pin", "bounce", "features")
