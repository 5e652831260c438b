"""The queue over HTTP: find, show and read messages; retry, hold, release, delete and bounce them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from gateway.actor import Order
from gateway.http.acts import order_of
from gateway.http.problem import fields_of, json_body, texts_of
from gateway.http.selection import cut_of, filter_of
from gateway.http.service import Service, running
from gateway.spool import Filter

# Which messages an action without a state filter is for: what a person means by "all".
_STATES = {
    "retry": ("queued",),
    "hold": ("queued",),
    "release": ("held",),
    "delete": ("queued", "held"),
    "bounce": ("queued", "held"),
}


async def find(service: Service, request: Request) -> object:
    """A page: newest first, or by ``order`` oldest first.

    ``next`` is the ``before`` of the next page, ``previous`` the ``after`` of the one in front (oldest first the other
    way round); "" where there is none. ``partial``: the search stopped before the page was full, and goes on with
    ``next``. With ``total`` given, ``total`` of them are counted, and ``total_more`` says whether there may be more.
    """
    query = dict(request.query_params)
    cut, wants_total = cut_of(query), bool(query.pop("total", ""))
    which = filter_of({name: value for name, value in query.items() if value}, service.clock.now())
    page = fields_of(await service.spool.page(which, cut))
    if wants_total:
        total = await service.spool.total(which)
        page |= {"total": total.number, "total_more": total.more}
    return page


async def _change(service: Service, order: Order, which: Filter, unchanged: set[str], done: Counter[str]) -> None:
    """Count in ``done`` to how many messages it was done; their ids are taken out of ``unchanged``."""
    action = order.verb
    if action == "bounce":
        running(service)
        if bounced := await service.bounce(which):
            await service.spool.act(order, ids=list(bounced))
        unchanged.difference_update(bounced)
        done.update(changed=len(bounced), told=sum(bounced.values()))
        return
    spool = service.spool
    change = {"retry": spool.retry, "hold": spool.hold, "release": spool.release, "delete": spool.delete}[action]
    untold = await _untold(service, [which]) if action == "delete" else 0
    done.update(changed=await change(which, spool.now(), unchanged.difference_update, order), bounces=untold)


async def _untold(service: Service, wanted: Iterable[Filter]) -> int:
    """How many of them are still to be sent and tell somebody that his mail failed, or came with the null sender."""
    ways = [replace(one, untold=True, state=state) for one in wanted for state in ("queued", "held")
            if one.state in ("", state)]  # fmt: skip
    return sum([await service.spool.count(which) for which in ways])


def _answer(action: str, done: Counter[str], unchanged: Iterable[str] = ()) -> dict[str, object]:
    more = {"bounce": ("told", "left"), "delete": ("bounces",)}.get(action, ())
    return {"changed": done["changed"], "unchanged": sorted(unchanged), **{name: done[name] for name in more}}


async def change_one(service: Service, request: Request) -> object:
    action, queue_id = _action(request), request.path_params["id"]
    detail = await service.spool.show(queue_id)
    if detail is None:
        raise HTTPException(404, f"no message {queue_id}")
    done = Counter[str]()
    await _change(service, order_of(request, action), Filter(ids=(queue_id,)), set(), done)
    if not done["changed"]:
        raise HTTPException(409, f"message {queue_id} is {detail.state}: nothing to {action}")
    return _answer(action, done)


async def change_many(service: Service, request: Request) -> object:
    """``{"ids": [...]}`` or ``{"filter": {...}}``; the empty filter means every message the action is for.

    ``changed`` is the number of messages; ``unchanged`` are those of the given ids that nothing happened to. A filter
    never bounces what would be lost without a word: our own bounces, and other mail with the null sender, are ``left``,
    unless it asks for this sender. ``told`` are the messages whose sender gets a bounce; ``bounces`` those of the
    deleted that were on their way to tell of a failure.
    """
    action = _action(request)
    body = await json_body(request)
    ids, chosen = body.get("ids"), body.get("filter")
    unchanged, done = set(texts_of(body, "ids")), Counter[str]()
    if ids is not None and chosen is None:
        wanted = [Filter(ids=tuple(sorted(unchanged)))]
    elif isinstance(chosen, dict) and ids is None:
        which = filter_of(chosen, service.clock.now())
        wanted = [which] if which.state else [replace(which, state=state) for state in _STATES[action]]
        if action == "bounce" and not which.sender and which.ids is None:
            done["left"] = await _untold(service, wanted)
            wanted = [replace(one, untold=False) for one in wanted]
    else:
        raise HTTPException(400, 'give {"ids": [...]} or {"filter": {...}}')
    order = order_of(request, action, _words(chosen))
    for which in wanted:
        await _change(service, order, which, unchanged, done)
    return _answer(action, done, unchanged)


def _words(chosen: Mapping[str, Any] | None) -> str:
    """A filter as an operator reads it, "" where he gave ids."""
    if chosen is None:
        return ""
    return "all with " + ", ".join(f"{name} {value}" for name, value in chosen.items()) if chosen else "all"


def _action(request: Request) -> str:
    action: str = request.path_params["action"]
    if action not in _STATES:
        raise HTTPException(404, f"no action {action}; there are {', '.join(_STATES)}")
    return action
