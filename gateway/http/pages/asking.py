"""What somebody wants done to messages, kept until he has confirmed it, and done once however often he presses."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gateway.actor import Order
from gateway.health.words import number
from gateway.http.acting import Deed, Selection, about, background, carry_out, selection
from gateway.http.pages.messages import Wanted
from gateway.http.pages.visit import Visit
from gateway.http.service import Service
from gateway.http.work import Work
from gateway.spool import Filter

AT_ONCE = 50  # messages that are acted on without asking
TYPED = 100  # from so many on, to delete them their number is typed


@dataclass(frozen=True, slots=True)
class Verb:
    """``asks``: always before it is done; ``done`` follows the number of messages, ``one`` where it is one."""

    label: str
    title: str
    text: str
    done: str
    one: str
    asks: bool = False
    danger: bool = False


VERBS: Mapping[str, Verb] = {
    "retry": Verb("Try now", "Try {} now?", "It is due at once.", "are due now", "is due now"),
    "hold": Verb(
        "Hold", "Hold {}?", "Held mail stays here until somebody releases it. Nobody is told meanwhile.",
        "are held", "is held",
    ),
    "release": Verb("Release", "Release {}?", "It is due at once.", "are due now", "is due now"),
    "again": Verb(
        "Send again", "Send {} again?",
        "What failed goes to those only who did not get it. What was sent goes out once more, so whoever has it may "
        "get it twice. What is no longer kept cannot be sent.",
        "go out again", "goes out again", asks=True,
    ),
    "reroute": Verb(
        "Send by another backend", "Send {} by another backend?",
        "It leaves by the backend that you choose, if that can carry it. What another may have taken already stays "
        "with that, so that nobody gets it twice.",
        "go by {} now", "goes by {} now", asks=True,
    ),
    "bounce": Verb(
        "Return to the senders", "Return {} to the senders?",
        "What is returned is given up. Its sender gets a message that says so, where a backend can send one.",
        "are given up", "is given up", asks=True, danger=True,
    ),
    "delete": Verb(
        "Delete", "Delete {}?",
        "What is deleted is never sent. Nobody is told, neither sender nor recipient. This cannot be undone.",
        "are deleted", "is deleted", asks=True, danger=True,
    ),
}  # fmt: skip
# What a verb is carried out as, each with the state that it takes out of all that were found.
_ORDERS: Mapping[str, Sequence[tuple[str, str]]] = {"again": (("retry", "failed"), ("resend", "sent"))}


@dataclass(slots=True, eq=False)
class Ask:
    """``ids`` are those that were named, else it is all that ``given`` (a filter of the API) means.

    ``count`` is how many the page knew. ``doing`` is the deed, once somebody has pressed: it is done once.
    """

    verb: str
    wanted: Wanted
    ids: tuple[str, ...] = ()
    given: Mapping[str, str] = field(default_factory=dict)
    count: int = 0
    more: bool = False
    one: bool = False
    doing: asyncio.Task[Done] | None = None

    @property
    def words(self) -> Verb:
        return VERBS[self.verb]

    @property
    def named(self) -> str:
        return f"more than {number(self.count, 'message')}" if self.more else number(self.count, "message")

    def orders(self, service: Service, backend: str = "") -> list[tuple[str, Selection]]:
        """Verbs of the API with what each is for. Raises HTTPException."""
        found = []
        for verb, state in _ORDERS.get(self.verb, ((self.verb, ""),)):
            if self.ids:
                found.append((verb, selection(service, verb, {"ids": list(self.ids), "backend": backend})))
            elif not state or self.given.get("state", "failed") in (state, "done" if state == "sent" else state):
                chosen = {**self.given, **({"state": state} if state else {})}
                found.append((verb, selection(service, verb, {"filter": chosen, "backend": backend})))
        return found

    def filters(self, service: Service) -> list[Filter]:
        """What it is about, to be counted and shown before."""
        first = next(iter(service.settings.backends))
        return [one for _, chosen in self.orders(service, first) for one in chosen.filters]


@dataclass(frozen=True, slots=True)
class Done:
    """What it came to: a line for the next page, and the work that goes on with it, if any."""

    text: str
    tone: str = "ok"
    copy: str = ""
    work: int = 0


async def carry(visit: Visit, ask: Ask, backend: str) -> Done:
    """Once: whoever presses again meanwhile or afterwards gets what the first got, also if that one has gone away."""
    if ask.doing is None:
        ask.doing = asyncio.create_task(_carry(visit, ask, backend), name="pages-order")
    return await asyncio.shield(ask.doing)


async def _carry(visit: Visit, ask: Ask, backend: str) -> Done:
    service, deeds = visit.service, list[Deed]()
    for verb, asked in ask.orders(service, backend):
        ids = await _those(service, ask, verb)
        if ids is not None and not ids:
            continue
        chosen = asked if ids is None else selection(service, verb, {"ids": ids, "backend": backend})
        order = Order(visit.actor, verb, about(chosen, None if ask.ids else ask.given))
        deed = Deed(verb, set(chosen.ids or ()))
        if service.dispatcher is not None and (work := await background(service, order, chosen, deed)):
            return Done("", work=work.id)
        await carry_out(service, order, chosen, deed)
        deeds.append(deed)
    return told(ask, deeds, backend)


async def _those(service: Service, ask: Ask, verb: str) -> list[str] | None:
    """Of named messages those that this verb is for, where one button means two of them; None for all."""
    if not ask.ids or ask.verb not in _ORDERS:
        return None
    states = await service.spool.states(list(ask.ids))
    sent = {ident for ident, state in states.items() if state == "done"}
    return sorted(sent if verb == "resend" else set(ask.ids) - sent)


def told(ask: Ask, deeds: Sequence[Deed], backend: str = "") -> Done:
    """202 messages are due now. 12 were left alone: it is sent."""
    changed = sum(deed.changed for deed in deeds)
    words = (ask.words.one if changed == 1 else ask.words.done).format(backend)
    text = [f"{number(changed, 'message')} {words}." if changed else "Nothing was done."]
    left: dict[str, int] = {}
    for deed in deeds:
        for why, ids in deed.left.items():
            left[why] = left.get(why, 0) + len(ids)
    text += [f"{count:,} {'was' if count == 1 else 'were'} left alone: {why}." for why, count in left.items()]
    counts: dict[str, int] = {}
    for deed in deeds:
        counts |= deed.counts
    if ask.verb == "bounce" and changed:
        text.append(f"{number(counts.get('told', 0), 'sender')} {'is' if counts.get('told') == 1 else 'are'} told.")
    if counts.get("left"):
        text.append(f"{counts['left']:,} with the null sender stay: nobody would hear of them.")
    if counts.get("bounces"):
        text.append(f"{counts['bounces']:,} of them were to tell a sender that his mail failed; nobody does so now.")
    copies = [copy for deed in deeds for copy in deed.copies.values()]
    return Done(" ".join(text), "ok" if changed else "warn", copies[0] if len(copies) == 1 else "")


def of_work(work: Work) -> tuple[str, float]:
    """What it is called while it runs, and how much of it is done."""
    verb = next((one.label for name, one in VERBS.items() if name == work.verb), "Send again")
    share = work.changed / work.total if work.total else 0.0
    return f"{verb}: {work.changed:,} of {'more than ' if work.total_more else ''}{work.total:,} done", min(share, 1.0)
