"""The queue over HTTP: messages are found, shown, read and acted on, many of them as work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from starlette.exceptions import HTTPException
from starlette.requests import Request

from gateway.http.acting import STATES, Deed, about, background, carry_out, selection
from gateway.http.acts import order_of
from gateway.http.described import Described, described
from gateway.http.outcome import Bounced, Changed, Deleted, Resent, Retried
from gateway.http.problem import Answer, answer, fields_of, json_body, truth_of
from gateway.http.selection import REROUTES, ManyOrder, OneOrder, PageQuery, cut_of, filter_of
from gateway.http.service import Service
from gateway.http.work import Work
from gateway.spool import Page, Total


@dataclass(frozen=True, slots=True)
class CountedPage(Page):
    """With ``total`` given, so many of all pages; ``total_more``: or more."""

    total: int = 0
    total_more: bool = False


@dataclass(frozen=True, slots=True)
class WorkBegun:
    """The work that goes on: /api/v1/work/{number} by its ``id``."""

    work: Work


@dataclass(frozen=True, slots=True)
class WorkList:
    work: list[Work]


def _actions(body: type, *, also: Mapping[int, object] = {}) -> Mapping[str, Described]:
    """What each act is for; ``body`` is what it takes, for a reroute with more."""
    takes = {"reroute": REROUTES[body]}
    return {
        verb: Described(says=says, gives=gives, body=takes.get(verb, body), also=also)
        for verb, (says, gives) in _SAYS.items()
    }


_SAYS: Mapping[str, tuple[str, type]] = {
    "retry": ("Try again now; failed mail too, by its ids or the state failed.", Retried),
    "hold": ("Keep until it is released.", Changed),
    "release": ("Let held mail go.", Changed),
    "delete": ("Remove for good; nobody is told.", Deleted),
    "bounce": ("Give up, and tell the senders.", Bounced),
    "resend": ("Send what was sent once more, as new messages: they may arrive twice.", Resent),
    "reroute": ("Let it go by another backend that can carry it.", Changed),
}


@described(query=PageQuery)
async def find(service: Service, request: Request) -> Page | CountedPage:
    """Messages, a page: newest first, or by ``order`` oldest first.

    ``next`` is the ``before`` of the next page, ``previous`` the ``after`` of the one in front (oldest first the other
    way round); "" where there is none. ``partial``: the search stopped before the page was full, and goes on with
    ``next``. With ``total`` given, ``total`` of them are counted, and ``total_more`` says whether there may be more;
    ``total=exact`` counts them all, however long that takes.
    """
    query = dict(request.query_params)
    cut, wanted = cut_of(query), query.pop("total", "")
    which = filter_of({name: value for name, value in query.items() if value}, service.clock.now())
    page = await service.spool.page(which, cut)
    if not wanted:
        return page
    total = Total(await service.spool.count(which)) if wanted == "exact" else await service.spool.total(which)
    return CountedPage(**fields_of(page), total=total.number, total_more=total.more)


@described(refusals=(404, 409, 503), actions=_actions(OneOrder))
async def change_one(service: Service, request: Request) -> Changed:
    """One message.

    For reroute with ``backend`` and ``force``."""
    action, queue_id = _action(request), request.path_params["id"]
    if await service.spool.show(queue_id) is None:
        raise HTTPException(404, f"no message {queue_id}")
    given = {name: value for name, value in (await json_body(request)).items() if name in ("backend", "force")}
    chosen = selection(service, action, {"ids": [queue_id], **given})
    deed = Deed(action, {queue_id})
    await carry_out(service, order_of(request, action, about(chosen, None)), chosen, deed)
    if not deed.changed:
        raise HTTPException(409, f"message {queue_id}: nothing to {action}: {'; '.join(deed.left)}")
    return deed.answer()


@described(status=202, refusals=(404, 409, 503), actions=_actions(ManyOrder, also={202: WorkBegun}))
async def change_many(service: Service, request: Request) -> Changed | Answer[WorkBegun]:
    """Many messages.

    ``{"ids": [...]}`` or ``{"filter": {...}}``; the empty filter means every message the action is for.

    ``changed`` is the number of messages; ``unchanged`` are those of the given ids that nothing happened to, and
    ``why`` says for how many messages, and which, there was what reason. A filter never bounces what would be lost
    without a word: our own bounces, and other mail with the null sender, are ``left``, unless it asks for this sender.
    ``told``: of bounced messages, those whose sender gets a bounce; of failed ones that are retried, those whose sender
    had been told that it failed. ``bounces`` are those of the deleted that were on their way to tell of a failure.
    With ``"background": true`` what is about more than 1,000 messages goes on as work, and 202 says which.
    """
    action = _action(request)
    body = await json_body(request)
    chosen = selection(service, action, body)
    deed = Deed(action, set(chosen.ids or ()))
    order = order_of(request, action, about(chosen, body.get("filter")))
    wanted = truth_of(body, "background") and service.dispatcher is not None
    if wanted and (work := await background(service, order, chosen, deed)):
        return answer(WorkBegun(work), 202)
    await carry_out(service, order, chosen, deed)
    return deed.answer()


async def works(service: Service, _request: Request) -> WorkList:
    """What runs in the background, and the last of what has ended, the last first: without its ``result``."""
    return WorkList([replace(one, result=None) for one in service.works.all()])


@described(refusals=(404,))
async def work(service: Service, request: Request) -> Work:
    """Work in the background."""
    return _work(service, request)


@described(refusals=(404,))
async def stop_work(service: Service, request: Request) -> Work:
    """Stop it after the step that it is at; what was done holds."""
    found = _work(service, request)
    service.works.stop(found)
    return found


def _work(service: Service, request: Request) -> Work:
    given = request.path_params["number"]
    found = service.works.get(int(given)) if given.isascii() and given.isdigit() and len(given) < 10 else None
    if found is None:
        raise HTTPException(404, f"no work {given}: it is only remembered for a while, and not over a restart")
    return found


def _action(request: Request) -> str:
    action: str = request.path_params["action"]
    if action not in STATES:
        raise HTTPException(404, f"no action {action}; there are {', '.join(STATES)}")
    return action
