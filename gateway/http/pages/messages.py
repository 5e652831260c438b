"""The list of messages: what is looked for stands in the address, so that every list is a link."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from gateway.health.words import lasting
from gateway.http import trace
from gateway.http.pages.rows import line
from gateway.http.pages.text import Whole, url
from gateway.http.pages.visit import View, Visit
from gateway.http.selection import filter_of
from gateway.spool import Cut, Filter
from gateway.spool.listing import Page, Total

PAGE = 50
COUNTED = 1001
_FRESH = 5.0  # seconds
_LONGEST = 320  # characters of what is looked for: an address has no more (RFC 5321 4.5.3.1)
_ID = re.compile("[0-9A-HJKMNP-TV-Z]{13}", re.IGNORECASE | re.ASCII)
# As people call them in the address and above the list, and as the API does.
STATES: Mapping[str, tuple[str, str]] = {
    "waiting": ("Waiting", "queued"),
    "held": ("Held", "held"),
    "failed": ("Failed", "failed"),
    "sent": ("Sent", "sent"),
    "doubt": ("In doubt", "in_doubt"),
    "damaged": ("Damaged", "corrupt"),
}
_API_STATES = {api: name for name, (_, api) in STATES.items()} | {"done": "sent"}
_TABS = ("waiting", "held", "failed", "sent")
PERIODS: Mapping[str, str] = {"1h": "Last hour", "24h": "Last 24 hours", "7d": "Last 7 days", "30d": "Last 30 days"}
# What the box may hold, in the order in which it is tried.
WAYS = ("address", "message_id", "remote_id", "peer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the address of the page says. ``by`` is as what ``q`` was found."""

    q: str = ""
    by: str = ""
    state: str = ""
    client: str = ""
    backend: str = ""
    since: str = ""
    until: str = ""
    order: str = ""

    @property
    def query(self) -> dict[str, str]:
        """As it stands in an address; ``since`` and ``until`` are called from and to there."""
        return {
            "q": self.q, "by": self.by, "state": self.state, "client": self.client, "backend": self.backend,
            "from": self.since, "to": self.until, "order": self.order,
        }  # fmt: skip

    def but(self, **other: str) -> Wanted:
        return replace(self, **other)

    @property
    def narrowed(self) -> bool:
        return any((self.q, self.state, self.client, self.backend, self.since, self.until))

    def filter(self, visit: Visit, by: str) -> Filter:
        """Raises HTTPException for what is no time."""
        given = {
            "state": STATES[self.state][1] if self.state else "", "client": self.client, "backend": self.backend,
            "since": self.since, "until": self.until, by: self.q,
        }  # fmt: skip
        return filter_of({name: value for name, value in given.items() if name and value}, visit.service.clock.now())


def wanted_of(given: Mapping[str, str]) -> Wanted:
    """Raises HTTPException for a state that does not exist. States may also be called as the API calls them."""
    found = {
        name: given.get(name, "").strip()[:_LONGEST] for name in ("q", "by", "state", "client", "backend", "order")
    }
    found["state"] = _API_STATES.get(found["state"], found["state"])
    if found["state"] and found["state"] not in STATES:
        raise HTTPException(400, f"There is no state {found['state']}. There are {', '.join(STATES)}.")
    if found["by"] not in ("", *WAYS):
        found["by"] = ""
    found["order"] = "oldest" if found["order"] == "oldest" else ""
    return Wanted(**found, since=given.get("from", "").strip()[:40], until=given.get("to", "").strip()[:40])


async def page(visit: Visit) -> View | Response:
    query = visit.request.query_params
    wanted = wanted_of(query)
    cut = Cut(limit=PAGE, before=query.get("before", ""), after=query.get("after", ""), oldest=bool(wanted.order))
    if cut.before and cut.after:
        cut = replace(cut, after="")
    async with visit.desk.lock(visit.person.key):
        if _ID.fullmatch(wanted.q) and await visit.service.spool.states([wanted.q.upper()]):
            return visit.go(f"/ui/messages/{wanted.q.upper()}")
        if visit.asked_part == "newer":
            return await _newer(visit, wanted, query.get("top", ""))
        by, listed, total = await _listed(visit, wanted, cut)
        if not listed.messages and not listed.partial and trace.is_name(wanted.q) and by == WAYS[0]:
            name = wanted.but(q=f"{wanted.q}@*")
            found = await _listed(visit, name, cut)
            if found[1].messages:
                wanted, (by, listed, total) = name, found
        wanted = wanted.but(by=by if wanted.q else "")
        values = _values(visit, wanted, cut, listed, await _failed(visit))
        values["all_found"] = counted(total.number, more=total.more)
        if not listed.messages and not (cut.before or cut.after):
            values |= await _nothing(visit, wanted)
    return View(template="messages.html", values=values)


async def _listed(visit: Visit, wanted: Wanted, cut: Cut) -> tuple[str, Page, Total]:
    """As the first of the ways that finds something, else as the first."""
    first: tuple[str, Page, Total] | None = None
    ways = WAYS if trace.as_peer(wanted.q) else WAYS[:-1]
    for by in (wanted.by,) if wanted.by or not wanted.q else ways:
        found = by, *await visit.service.spool.counted_page(wanted.filter(visit, by), cut, COUNTED)
        if found[1].messages or found[1].partial:
            return found
        first = first or found
    assert first is not None
    return first


async def _failed(visit: Visit) -> str:
    """How many have failed, as of a few seconds ago, but never of before what was done here last."""
    desk, now = visit.desk, visit.service.clock.monotonic()
    known = desk.failed.get(visit.actor.tenant)
    if known is None or now - known[0] >= _FRESH:
        found = await visit.service.spool.total(Filter(state="failed"), COUNTED)
        known = desk.failed[visit.actor.tenant] = now, counted(found.number, more=found.more) if found.number else ""
    return known[1]


def _values(visit: Visit, wanted: Wanted, cut: Cut, listed: Page, failed: str) -> dict[str, Any]:
    service, times = visit.service, visit.times
    backends = service.dispatcher.status() if service.dispatcher is not None else {}
    rows = [line(row, backends, times) for row in listed.messages]
    back, onward = (listed.previous, listed.next)
    names = {"back": "after", "onward": "before"} if not cut.oldest else {"back": "before", "onward": "after"}
    newest = max((row.id for row in listed.messages), default="")
    return {
        "section": "messages", "wanted": wanted, "rows": rows, "tabs": list(_tabs(visit, wanted, failed)),
        "periods": PERIODS,
        "clients": sorted({*service.settings.clients, wanted.client} - {""}),
        "backends": sorted({*service.settings.backends, wanted.backend} - {""}),
        "chips": list(_chips(wanted)), "turned": list_url(wanted.but(order="" if wanted.order else "oldest")),
        "back": list_url(wanted, **{names["back"]: back}) if back else "",
        "onward": list_url(wanted, **{names["onward"]: onward}) if onward else "",
        "partial": listed.partial, "newest": newest, "first_page": not (cut.before or cut.after or cut.oldest),
        "hidden": {name: value for name, value in wanted.query.items() if value},
    }  # fmt: skip


def counted(number: int, *, more: bool) -> str:
    return "more than 1,000" if number >= COUNTED or more else f"{number:,}"


def list_url(wanted: Wanted, **more: object) -> Whole:
    return url("/ui/messages", **wanted.query, **more)


def _tabs(visit: Visit, wanted: Wanted, failed: str) -> Iterator[dict[str, object]]:
    """Sent has no number: counting it is work for nothing."""
    waiting: dict[str, int] = {"queued": 0, "held": 0}
    for (_, state), number in visit.service.spool.counts().items():
        waiting[state] = waiting.get(state, 0) + number
    tabs = [*_TABS] if wanted.state in ("", *_TABS) else [*_TABS, wanted.state]
    yield {"word": "All", "url": list_url(wanted.but(state="")), "here": not wanted.state, "count": ""}
    for name in tabs:
        here, number = wanted.state == name, waiting.get(STATES[name][1], 0)
        shown = failed if name == "failed" else f"{number:,}" if number else ""
        yield {"word": STATES[name][0], "url": list_url(wanted.but(state=name)), "here": here, "count": shown}


def _chips(wanted: Wanted) -> Iterator[dict[str, object]]:
    """What narrows the list, each with the address of the list without it."""
    words = {
        "state": STATES[wanted.state][0].lower() if wanted.state else "", "q": wanted.q,
        "client": wanted.client and f"client {wanted.client}",
        "backend": wanted.backend and f"backend {wanted.backend}",
        "since": wanted.since and PERIODS.get(wanted.since, f"since {wanted.since}").lower(),
        "until": wanted.until and f"until {wanted.until}",
    }  # fmt: skip
    for name, word in words.items():
        if word:
            less = {name: "", "by": ""} if name == "q" else {name: ""}
            yield {"word": word, "url": list_url(wanted.but(**less))}


async def _newer(visit: Visit, wanted: Wanted, top: str) -> View:
    """How many came in since the page was made; the script puts it below the list, and moves nothing."""
    number, more = 0, False
    if top:
        page = await visit.service.spool.page(wanted.filter(visit, wanted.by), Cut(limit=100, after=top))
        number, more = len(page.messages), len(page.messages) == 100
    values = {
        "newer": number,
        "newer_more": more,
        "newer_url": list_url(wanted),
        "section": "messages",
        "wanted": wanted,
    }
    return View(template="messages_newer.html", values=values)


async def _nothing(visit: Visit, wanted: Wanted) -> dict[str, Any]:
    """Where it was looked, what is close to it, and where else to look."""
    kept = lasting(visit.service.settings.retention.history)
    if not wanted.q:
        return {"kept": kept, "found_near": [], "refused": 0, "deleted": []}
    other = await trace.not_here(visit.service, wanted.q)
    return {"kept": kept, "found_near": other.near, "refused": other.refusals, "deleted": other.acts}
