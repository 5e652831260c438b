"""The queue over HTTP: find, show and read messages; retry, hold, release, delete and bounce them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gateway.config.values import parse_duration
from gateway.http.problem import json_body
from gateway.http.service import Service

_PAGE = 100
_LARGEST_PAGE = 1000
_TEXT_FILTERS = ("id", "message_id", "address", "remote_id", "state", "backend", "sender", "recipient")
# Which messages an action without a state filter is for: what a person means by "all".
_STATES = {
    "retry": ("queued",),
    "hold": ("queued",),
    "release": ("held",),
    "delete": ("queued", "held"),
    "bounce": ("queued", "held"),
}


def _filters(service: Service, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments for Spool.find. An unknown name is refused: a slip must never widen what a bulk action hits."""
    if unknown := set(given) - {*_TEXT_FILTERS, "older"}:
        known = ", ".join((*_TEXT_FILTERS, "older"))
        raise HTTPException(400, f"unknown filter {', '.join(sorted(unknown))}; there are {known}")
    found: dict[str, Any] = {name: str(given[name]) for name in _TEXT_FILTERS if name in given}
    if "older" in given:
        try:
            found["older_than"] = service.clock.now() - parse_duration(given["older"])
        except (ValueError, OverflowError) as error:
            raise HTTPException(400, f"older: {error}") from None
    return found


async def find(service: Service, request: Request) -> object:
    """Newest first; ``next`` is the ``before`` of the next page, "" on the last."""
    query = dict(request.query_params)
    try:
        limit = int(query.pop("limit", _PAGE))
    except ValueError:
        limit = 0
    if not 1 <= limit <= _LARGEST_PAGE:
        raise HTTPException(400, f"limit must be a number from 1 to {_LARGEST_PAGE}")
    before = query.pop("before", "")
    rows = await service.spool.find(**_filters(service, query), limit=limit, before=before)
    return {"messages": rows, "next": rows[-1].id if len(rows) == limit else ""}


async def show(service: Service, request: Request) -> object:
    detail = await service.spool.show(request.path_params["id"])
    if detail is None:
        raise HTTPException(404, f"no message {request.path_params['id']}")
    message = {name: getattr(detail.message, name) for name in detail.message.__dataclass_fields__}
    return {
        **message,
        "recipients": detail.recipients,
        "attempts": detail.attempts,
        "deliveries": detail.deliveries,
        "events": detail.events,
    }


async def raw(service: Service, request: Request) -> object:
    body = await service.spool.raw(request.path_params["id"])
    if body is None:
        raise HTTPException(404, f"no content of {request.path_params['id']}: unknown, or removed after sending")
    return Response(body, media_type="message/rfc822")


async def _change(service: Service, action: str, ids: Sequence[str]) -> list[str]:
    if action == "bounce":
        if service.dispatcher is None:
            raise HTTPException(
                409, "only a running service can return mail to its sender; start it with: gateway serve"
            )
        return await service.bounce(ids)
    spool = service.spool
    change = {"retry": spool.retry, "hold": spool.hold, "release": spool.release, "delete": spool.delete}[action]
    return await change(ids, service.clock.now())


async def change_one(service: Service, request: Request) -> object:
    action, queue_id = _action(request), request.path_params["id"]
    detail = await service.spool.show(queue_id)
    if detail is None:
        raise HTTPException(404, f"no message {queue_id}")
    changed = await _change(service, action, [queue_id])
    if not changed:
        raise HTTPException(409, f"message {queue_id} is {detail.state}: nothing to {action}")
    return {"changed": changed}


async def change_many(service: Service, request: Request) -> object:
    """``{"ids": [...]}`` or ``{"filter": {...}}``; the empty filter means every message the action is for."""
    action = _action(request)
    body = await json_body(request)
    ids, chosen = body.get("ids"), body.get("filter")
    if isinstance(ids, list) and chosen is None:
        wanted = [str(item) for item in ids]
    elif isinstance(chosen, dict) and ids is None:
        wanted = await _matching(service, action, _filters(service, chosen))
    else:
        raise HTTPException(400, 'give {"ids": [...]} or {"filter": {...}}')
    changed: list[str] = []
    for start in range(0, len(wanted), _LARGEST_PAGE):
        changed += await _change(service, action, wanted[start : start + _LARGEST_PAGE])
    return {"changed": changed, "unchanged": sorted(set(wanted) - set(changed))}


async def _matching(service: Service, action: str, filters: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for state in (filters["state"],) if "state" in filters else _STATES[action]:
        before, rows = "", None
        while rows is None or len(rows) == _LARGEST_PAGE:
            rows = await service.spool.find(**{**filters, "state": state}, limit=_LARGEST_PAGE, before=before)
            found += [row.id for row in rows]
            before = found[-1] if found else ""
    return found


def _action(request: Request) -> str:
    action: str = request.path_params["action"]
    if action not in _STATES:
        raise HTTPException(404, f"no action {action}; there are {', '.join(_STATES)}")
    return action
