"""What operators ordered: kept, and looked up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request

from gateway.actor import Order
from gateway.http.access import actor_of
from gateway.http.described import described, given
from gateway.http.problem import fields_of
from gateway.http.service import Service
from gateway.spool.records import ActRow

_PAGE = 100
_LARGEST_PAGE = 1000


def order_of(request: Request, verb: str, what: str = "") -> Order:
    """What whoever asks orders: for the spool to keep beside what it changes."""
    return Order(actor_of(request), verb, what)


async def note(
    service: Service, request: Request, verb: str, what: str = "", *, ids: Sequence[str] = (), count: int = 0
) -> None:
    """Keep an order that was carried out otherwise than by a change of the spool."""
    await service.spool.act(order_of(request, verb, what), ids=ids, count=count)


def number(request: Request, name: str, default: int, least: int, most: int) -> int:
    """A number of the query. Raises HTTPException."""
    given = request.query_params.get(name, str(default))
    if not given.isascii() or not given.isdigit() or len(given) > 18 or not least <= int(given) <= most:
        raise HTTPException(400, f"{name} must be a number from {least} to {most}")
    return int(given)


@dataclass(frozen=True, slots=True)
class ActList:
    """``next`` is the ``before`` of the next page, 0 on the last."""

    acts: list[ActRow]
    next: int


@dataclass(frozen=True, slots=True)
class ActShown(ActRow):
    """One with all its ``messages``, 1,000 at once; ``next`` is the ``after`` of the next page, "" on the last."""

    next: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActsQuery:
    limit: int = given(f"At most so many, up to {_LARGEST_PAGE}.", _PAGE)
    before: int = given("The next of the page before.", 0)
    message: str = given("Only what changed the message with this queue id.")
    verb: str = given("Only what did this: hold, release, retry, bounce, delete, resend, reroute, pause, resume ...")


@dataclass(frozen=True, slots=True, kw_only=True)
class ActQuery:
    after: str = given("The next of the page before.")


@described(query=ActsQuery)
async def find(service: Service, request: Request) -> ActList:
    """Who did what, the last first."""
    limit = number(request, "limit", _PAGE, 1, _LARGEST_PAGE)
    before = number(request, "before", 0, 0, 10**17)
    message = request.query_params.get("message", "").strip().upper()
    verb = request.query_params.get("verb", "").strip()
    rows = await service.spool.acts(limit=limit, before=before, message=message, verb=verb)
    return ActList(rows, rows[-1].id if len(rows) == limit else 0)


@described(query=ActQuery, refusals=(404,))
async def show(service: Service, request: Request) -> ActShown:
    """One order, with the ids of 1,000 of its messages, from ``after`` on; ``next`` is that of the next page."""
    given = request.path_params["id"]
    act = int(given) if given.isascii() and given.isdigit() and len(given) < 18 else 0
    rows = await service.spool.acts(limit=1, before=act + 1) if act else []
    if not rows or rows[0].id != act:
        raise HTTPException(404, f"no act {given}; see them with: gateway acts")
    ids = await service.spool.acted_on(act, limit=_LARGEST_PAGE, after=request.query_params.get("after", ""))
    more = ids[-1] if len(ids) == _LARGEST_PAGE else ""
    return ActShown(**{**fields_of(rows[0]), "messages": tuple(ids)}, next=more)
