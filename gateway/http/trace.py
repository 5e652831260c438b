"""Looking for a message by whatever somebody knows of it; and where else to look when it is not here."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address

from starlette.exceptions import HTTPException
from starlette.requests import Request

from gateway.config.models import Settings
from gateway.health.words import lasting, number
from gateway.http import acts
from gateway.http.described import described, given, needed
from gateway.http.service import Service
from gateway.pools import look_through_mail
from gateway.spool import Filter, near
from gateway.spool.listing import Cut, MessageRow
from gateway.spool.records import ActRow
from gateway.spool.refusals import RefusalFilter

_LONGEST = 1000  # characters
_PAGES = 5  # of bounded work: who asks must not keep others waiting
_AROUND = "<>,;'\""  # what is copied along with an id or an address
LOOKED_AT = ("queue id", "Message-ID", "provider id", "sender", "rewritten sender", "recipient", "network address")


@dataclass(frozen=True, slots=True)
class Near:
    """An ``address`` that is like the one looked for, and how many ``messages`` have it (up to 1,001)."""

    address: str
    messages: int


@dataclass(frozen=True, slots=True)
class Found:
    """``messages`` are the newest, ``more`` says that there are others. Without any: ``looked_at`` is as what it was
    looked for among what is ``kept``, ``near`` are addresses like it, ``acts`` who deleted it, ``refusals`` how often
    such mail was turned away, and ``elsewhere`` says where to look."""

    messages: list[MessageRow]
    more: bool
    looked_at: tuple[str, ...]
    kept: str
    near: list[Near]
    acts: list[ActRow]
    refusals: int
    elsewhere: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceQuery:
    what: str = needed("What somebody knows of it.")
    limit: int = given("At most so many messages, up to 1000.", 10)


@described(query=TraceQuery)
async def find(service: Service, request: Request) -> Found:
    """Look for mail by whatever somebody knows of it.

    ``what`` is a queue id, a Message-ID, a provider's id, an address, a domain, a pattern, a part before the @, or
    the network address that mail came from."""
    what = request.query_params.get("what", "").strip()[:_LONGEST]
    limit = acts.number(request, "limit", 10, 1, 1000)
    if not what:
        raise HTTPException(400, "say what to look for: an id, an address, a domain, a part before the @")
    rows = await _look(service, what, limit + 1)
    if rows:
        kept = lasting(service.settings.retention.history)
        return Found(rows[:limit], len(rows) > limit, LOOKED_AT, kept, [], [], 0, [])
    return await not_here(service, what)


async def not_here(service: Service, what: str) -> Found:
    """Of what no message has: as what it was looked for, and where else to look."""
    kept = lasting(service.settings.retention.history)
    done = [
        act for act in await service.spool.acts(message=what.strip(_AROUND).upper(), limit=5) if act.verb == "delete"
    ]
    refused = await service.spool.refusals(RefusalFilter(q=what), limit=1)
    times = sum(refused.reasons.values())
    close = await _near(service, what)
    deleted = [] if done else await service.spool.acts(verb="delete", limit=1)
    where = [*_elsewhere(service.settings, what, times), *map(_deleted, deleted)]
    return Found([], False, LOOKED_AT, kept, close, done, times, where)


async def _look(service: Service, what: str, limit: int) -> list[MessageRow]:
    """By the first meaning that finds any: the more particular ones come first."""
    bare = what.strip(_AROUND)
    ways = [Filter(ids=(bare.upper(),)), Filter(message_id=what), Filter(remote_id=what)]
    ways += [Filter(address=bare) if bare else Filter(sender=what)]
    ways += [Filter(address=f"{bare}@*")] if is_name(bare) else []
    ways += [Filter(peer=peer)] if (peer := as_peer(bare)) else []
    for which in ways:
        cut, rows = Cut(limit=limit), list[MessageRow]()
        for _ in range(_PAGES):
            page = await service.spool.page(which, cut)
            rows += page.messages
            if not page.partial:
                break
            cut = Cut(limit=limit - len(rows), before=page.next)
        if rows:
            return rows
    return []


def is_name(what: str) -> bool:
    """Whether it may be a part before the @ although it looks like a domain: john.doe."""
    return "." in what and not set(what) & {"@", "*", "<", ">", " "}


def as_peer(what: str) -> str:
    """As the network address that mail came from; "" if it is none."""
    try:
        return str(ip_address(what))
    except ValueError:
        return ""


async def _near(service: Service, what: str) -> list[Near]:
    if "@" not in what or "*" in what:
        return []
    wanted, known = await service.spool.addresses(what.strip("<>"))
    close = await look_through_mail(partial(near.closest, wanted, known))
    return [Near(address, count) for address, count in await service.spool.counted(close)]


def _deleted(act: ActRow) -> str:
    """Nobody knows any more from whom and to whom it was."""
    who = f"{act.name or 'somebody'} at {act.made_at:%Y-%m-%d %H:%M:%SZ}"
    return f"among what was deleted, of which only the queue ids are kept (last by {who}): gateway acts --did delete"


def _elsewhere(settings: Settings, what: str, refused: int) -> Iterator[str]:
    shown = shlex.quote(what)
    seen = f" ({number(refused, 'time')} turned away)" if refused else ""
    if " " in what:
        yield "by sender, recipient or time: no subject is kept of any message"
    yield f"among what was turned away at the door{seen}: gateway refused {shown}"
    yield "in the maildrop, where mail waits that came while no service ran: gateway queue dropped"
    yield f"in the log, which may reach further back: journalctl -u gateway | grep -F {shown}"
    if names := [name for name, one in settings.backends.items() if one.type != "capture"]:
        yield f"at the provider, for what was sent long ago ({', '.join(names[:3])}): by address and day"
    yield "at the device: a message that never reached this machine is nowhere here; look at its server name and port"
