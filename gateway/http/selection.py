"""Which messages a request is about: filters and pages, read strictly, for a slip must never widen what an act hits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from starlette.exceptions import HTTPException

from gateway.config.durations import parse_duration, parse_moment
from gateway.http.described import given, needed
from gateway.http.problem import text_of
from gateway.spool import STATES, Cut, Filter

PAGE = 100
LARGEST_PAGE = 1000
_TEXTS = (
    "id", "message_id", "address", "remote_id", "state", "backend", "client", "peer", "sender", "recipient", "verdict",
    "upto",
)  # fmt: skip
_TIMES = ("since", "until", "older")
_ORDERS = ("newest", "oldest")
_WHEN = "2026-11-20T10:15Z, 10:15, or an age as 2h"
State = Literal["queued", "held", "in_doubt", "sent", "done", "failed", "corrupt", "unfinished"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterGiven:
    """Which messages: those that meet everything given."""

    id: str = given("This queue id.")
    message_id: str = given("With this Message-ID.")
    address: str = given("With this sender or recipient, in any of the forms of these.")
    remote_id: str = given("That the provider knows by this name.")
    state: State | Literal[""] = given("In this state; in_doubt: held, for no answer came.")
    backend: str = given("Waiting for this backend, or sent by it.")
    client: str = given("From this client.")
    peer: str = given("From this address of the network.")
    sender: str = given("With this sender: an address, a domain, *@*.example.com, a name without a domain, <>.")
    recipient: str = given("With this recipient, in the same forms.")
    verdict: str = given("To a recipient of which this was said last.")
    upto: str = given("Up to this queue id.")
    since: str = given(f"Accepted since: {_WHEN}.")
    until: str = given(f"Accepted before: {_WHEN}.")
    older: str = given("Older than this, as 2h.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageQuery(FilterGiven):
    limit: int = given(f"At most so many, up to {LARGEST_PAGE}.", PAGE)
    before: str = given("The next of the page before.")
    after: str = given("Instead of before: the previous of the page behind.")
    order: Literal["", "newest", "oldest"] = given("What comes first.", "newest")
    total: str = given("1: count all pages up to 1,001; exact: count them all.")


@dataclass(frozen=True, slots=True, kw_only=True)
class OneOrder:
    """Nothing has to be given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OneReroute:
    backend: str = needed("Where to.")
    force: bool | None = given("Also what may arrive twice, or demands another backend.", False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyOrder:
    """``ids`` or ``filter``; the empty filter means every message the act is for."""

    ids: list[str] | None = given("These messages; or", None)
    filter: FilterGiven | None = given("those that meet this.", None)
    background: bool | None = given(
        "What is about more than 1,000 messages goes on as work, and 202 says which.", False
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyReroute(ManyOrder):
    backend: str = needed("Where to.")
    force: bool | None = given("Also what may arrive twice, or demands another backend.", False)


REROUTES: Mapping[type, type] = {OneOrder: OneReroute, ManyOrder: ManyReroute}


def filter_of(given: Mapping[str, Any], now: datetime) -> Filter:
    """Raises HTTPException for an unknown name, an empty value, and for what is no time or no state."""
    if unknown := set(given) - {*_TEXTS, *_TIMES}:
        known = ", ".join((*_TEXTS, *_TIMES))
        raise HTTPException(400, f"unknown filter {', '.join(sorted(unknown))}; there are {known}")
    if empty := [name for name in given if not text_of(given, name).strip()]:
        raise HTTPException(400, f"empty filter {', '.join(sorted(empty))}: leave it out, or say what to look for")
    found: dict[str, Any] = {name: given[name] for name in _TEXTS if name in given}
    if "id" in found:
        found["ids"] = (found.pop("id"),)
    if found.get("state", "queued") not in STATES:
        raise HTTPException(400, f"no state {found['state']}; there are {', '.join(STATES)}")
    times = {name: _time(name, given[name], now) for name in _TIMES if name in given}
    ends = [times[name] for name in ("until", "older") if name in times]
    return Filter(**found, since=times.get("since"), until=min(ends, default=None))


def _time(name: str, text: str, now: datetime) -> datetime:
    try:
        return now - parse_duration(text) if name == "older" else parse_moment(text, now)
    except ValueError as error:
        raise HTTPException(400, f"{name}: {error}") from None


def cut_of(query: dict[str, str]) -> Cut:
    """Takes limit, before, after and order out of the query. Raises HTTPException."""
    limit = query.pop("limit", str(PAGE))
    if not (limit.isascii() and limit.isdecimal() and len(limit) < 6 and 1 <= int(limit) <= LARGEST_PAGE):
        raise HTTPException(400, f"limit must be a number from 1 to {LARGEST_PAGE}")
    before, after, order = query.pop("before", ""), query.pop("after", ""), query.pop("order", "") or _ORDERS[0]
    if order not in _ORDERS:
        raise HTTPException(400, f"no order {order}; there are {', '.join(_ORDERS)}")
    if before and after:
        raise HTTPException(400, "give before or after, not both")
    return Cut(limit=int(limit), before=before, after=after, oldest=order == "oldest")
