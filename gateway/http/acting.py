"""What operators order of messages: read, carried out step by step, answered with what came of it and why not more."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.exceptions import HTTPException

from gateway.actor import Order
from gateway.delivery.again import Step
from gateway.http.outcome import Bounced, Changed, Deleted, Resent, Retried, Why
from gateway.http.problem import text_of, texts_of, truth_of
from gateway.http.selection import filter_of
from gateway.http.service import Service, running
from gateway.http.work import Busy, Work
from gateway.spool import Filter

# Which messages an act without a state filter is for: what a person means by "all".
STATES: Mapping[str, tuple[str, ...]] = {
    "retry": ("queued",),
    "hold": ("queued",),
    "release": ("held",),
    "delete": ("queued", "held"),
    "bounce": ("queued", "held"),
    "resend": (),
    "reroute": ("queued",),
}
MANY = 1000  # what is about more can run as work
_NAMED = 20  # ids named with each reason
# What each state of a message is called where an act has nothing to do with it.
_IT = {
    "queued": "it waits",
    "held": "it is held",
    "done": "it is sent",
    "failed": "it has failed",
    "corrupt": "its content is damaged",
}
_NOW = {"retry": {"queued": "it is being sent just now"}, "bounce": {"queued": "it is being sent just now"}}
UNKNOWN = "no such message"
OFFLINE = "no service is running: gateway serve; only it can send failed mail again"


@dataclass(frozen=True, slots=True)
class Selection:
    """The messages an order is for: what meets one of these filters. ``ids`` are those that were named, if any."""

    filters: Sequence[Filter]
    ids: frozenset[str] | None = None
    backend: str = ""  # where to
    force: bool = False


@dataclass(slots=True)
class Deed:
    """What an order has come to so far."""

    verb: str
    unchanged: set[str]
    changed: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    left: dict[str, list[str]] = field(default_factory=dict)  # ids by why nothing was done
    copies: dict[str, str] = field(default_factory=dict)
    step: Callable[[int], object] = int  # told after each step, may end it

    def done(self, ids: Iterable[str]) -> None:
        found = list(ids)
        self.changed += len(found)
        self.unchanged.difference_update(found)
        self.step(self.changed)

    def answer(self) -> Changed:
        """The record of its verb."""
        why = [Why(why=text, count=len(ids), ids=sorted(ids)[:_NAMED]) for text, ids in self.left.items()]
        kind, names = _RECORDS.get(self.verb, (Changed, ()))
        more: dict[str, Any] = {name: self.counts[name] for name in names}
        if kind is Resent:
            more["copies"] = dict(sorted(self.copies.items())[:MANY])
        return kind(changed=self.changed, unchanged=sorted(self.unchanged), why=why, **more)


_RECORDS: Mapping[str, tuple[type[Changed], tuple[str, ...]]] = {
    "bounce": (Bounced, ("told", "left")),
    "delete": (Deleted, ("bounces",)),
    "retry": (Retried, ("told",)),
    "resend": (Resent, ()),
}


def selection(service: Service, verb: str, body: Mapping[str, Any]) -> Selection:
    """``ids`` or a ``filter``; for reroute with ``backend`` and ``force``. Raises HTTPException."""
    ids, chosen, force = body.get("ids"), body.get("filter"), truth_of(body, "force")
    target = _target(service, body) if verb == "reroute" else ""
    if ids is not None and chosen is None:
        named = frozenset(texts_of(body, "ids"))
        return Selection([Filter(ids=tuple(sorted(named)))], named, target, force)
    if not isinstance(chosen, dict) or ids is not None:
        raise HTTPException(400, 'give {"ids": [...]} or {"filter": {...}}')
    which = filter_of(chosen, service.clock.now())
    if verb == "resend" and not chosen:
        raise HTTPException(400, "resend is never for all that was ever sent: give ids, or a filter")
    filters = [which] if which.state else [replace(which, state=state) for state in STATES[verb] or ("sent",)]
    return Selection(filters, None, target, force)


def about(chosen: Selection, given: Mapping[str, Any] | None) -> str:
    """What an order is about, as an operator reads it: ``given`` is the filter, None where he gave ids."""
    words = ", ".join(f"{name} {value}" for name, value in (given or {}).items())
    which = "" if given is None else f"all with {words}" if words else "all"
    return ", ".join(filter(None, (which, f"to backend {chosen.backend}" if chosen.backend else "")))


def _target(service: Service, body: Mapping[str, Any]) -> str:
    name, known = text_of(body, "backend"), service.settings.backends
    if name not in known:
        raise HTTPException(404 if name else 400, f"no backend {name or 'given'}; there are {', '.join(known)}")
    return name


async def carry_out(service: Service, order: Order, chosen: Selection, deed: Deed) -> None:
    """Counts in the deed, step by step. A filter never bounces what would be lost without a word (messages)."""
    if order.verb in ("reroute", "resend", "bounce"):
        running(service)
    filters = list(chosen.filters)
    if order.verb == "bounce" and chosen.ids is None and not filters[0].sender and filters[0].ids is None:
        deed.counts["left"] = await _untold(service, filters)
        filters = [replace(one, untold=False) for one in filters]
    for which in filters:
        await _ACTS[order.verb](service, order, which, chosen, deed)
    if chosen.ids is not None:
        await _explain(service, order.verb, deed)


async def _explain(service: Service, verb: str, deed: Deed) -> None:
    """Say of those that were named and not changed why not."""
    known = {ident for ids in deed.left.values() for ident in ids}
    asked = sorted(deed.unchanged - known)
    states = await service.spool.states(asked)
    for ident in asked:
        state = states.get(ident, "")
        why = _NOW.get(verb, {}).get(state) or _IT.get(state, UNKNOWN)
        deed.left.setdefault(why, []).append(ident)


async def _untold(service: Service, wanted: Iterable[Filter]) -> int:
    """How many of them are still to be sent and tell somebody that his mail failed, or came with the null sender."""
    ways = [replace(one, untold=True, state=state) for one in wanted for state in ("queued", "held")
            if one.state in ("", state)]  # fmt: skip
    return sum([await service.spool.count(which) for which in ways])


async def _change(service: Service, order: Order, which: Filter, _chosen: Selection, deed: Deed) -> None:
    spool = service.spool
    change = {"retry": spool.retry, "hold": spool.hold, "release": spool.release, "delete": spool.delete}[order.verb]
    if order.verb == "delete":
        deed.counts["bounces"] += await _untold(service, [which])
    await change(which, spool.now(), deed.done, order)


async def _retry(service: Service, order: Order, which: Filter, chosen: Selection, deed: Deed) -> None:
    """What waits is due now; what failed waits again, but only where it is asked for."""
    if which.state != "failed":
        await _change(service, order, which, chosen, deed)
    if which.state == "failed" or chosen.ids is not None:
        failed = replace(which, state="failed")
        if service.dispatcher is None:
            ids = [row.id for row in await service.spool.find(failed, limit=_NAMED)]
            deed.left |= {OFFLINE: ids} if ids else {}
            return
        await _steps(service, order, deed, service.dispatcher.again.retry(failed, order))


async def _reroute(service: Service, order: Order, which: Filter, chosen: Selection, deed: Deed) -> None:
    again = running(service).again
    if which.state != "failed":
        await _steps(service, order, deed, again.reroute(which, order, chosen.backend, force=chosen.force))
    if which.state == "failed" or chosen.ids is not None:
        await _steps(service, order, deed, again.retry(replace(which, state="failed"), order, chosen.backend))


async def _resend(service: Service, order: Order, which: Filter, _chosen: Selection, deed: Deed) -> None:
    await _steps(service, order, deed, running(service).again.resend(which, order))


async def _steps(service: Service, order: Order, deed: Deed, steps: AsyncIterator[Step]) -> None:
    before = deed.changed
    try:
        async for step in steps:
            for why, ids in step.left.items():
                deed.left.setdefault(why, []).extend(ids)
            deed.counts["told"] += step.told
            deed.copies |= step.copies
            deed.done(step.changed)
    finally:
        if deed.changed > before:
            service.events.act(order, deed.changed - before)


async def _bounce(service: Service, order: Order, which: Filter, _chosen: Selection, deed: Deed) -> None:
    bounced: list[str] = []

    def each(found: Mapping[str, bool]) -> None:
        bounced.extend(found)
        deed.counts["told"] += sum(found.values())
        deed.done(found)

    try:
        await service.bounce(which, each)
    finally:
        if bounced:
            await service.spool.act(order, ids=bounced)


_ACTS = {
    "retry": _retry,
    "hold": _change,
    "release": _change,
    "delete": _change,
    "bounce": _bounce,
    "resend": _resend,
    "reroute": _reroute,
}


async def background(service: Service, order: Order, chosen: Selection, deed: Deed) -> Work | None:
    """As work, if it is about many messages; None if it is not. Raises HTTPException: too much is under way."""
    if chosen.ids is not None:
        number, more = len(chosen.ids), False
    else:
        totals = [await service.spool.total(which) for which in chosen.filters]
        number, more = sum(one.number for one in totals), any(one.more for one in totals)
    if number <= MANY and not more:
        return None

    async def run(work: Work) -> None:
        deed.step = work.go_on
        if more:
            work.total, work.total_more = sum([await service.spool.count(which) for which in chosen.filters]), False
        try:
            await carry_out(service, order, chosen, deed)
        finally:
            work.changed, work.result = deed.changed, deed.answer()

    by, what = order.actor.name, order.what
    try:
        return service.works.start(order.verb, what, by, total=number, total_more=more, run=run)
    except Busy:
        raise HTTPException(503, "too much work is under way: wait for it, or stop some") from None
