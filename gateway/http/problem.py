"""JSON in and out: plain values, and errors as application/problem+json (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, Generic, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gateway.config.durations import parse_duration
from gateway.model import (
    BadAddress,
    BadMessage,
    CannotCarry,
    CannotTell,
    Fault,
    HookRefused,
    SpoolFull,
    SpoolUnavailable,
)
from gateway.strangers import strict_json

# What went wrong below, by its class and kind, as a status (RFC 9110 15.5, 15.6).
STATUS: Mapping[tuple[type[Fault], str], int] = {
    (SpoolFull, ""): 503,
    (SpoolUnavailable, ""): 503,
    (CannotTell, ""): 503,
    (HookRefused, "unsigned"): 401,
    (HookRefused, "unintelligible"): 400,
    **{(BadMessage, kind): 422 for kind in BadMessage.KINDS},
    **{(BadAddress, kind): 422 for kind in BadAddress.KINDS},
    **{(CannotCarry, kind): 422 for kind in CannotCarry.KINDS},
}


T = TypeVar("T")


class Answer(Response, Generic[T]):
    """A record as JSON with a status of its own."""


def fields_of(record: Any) -> dict[str, Any]:
    """A dataclass, one level deep."""
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _plain(value: object) -> Any:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else fields_of(value)


def answer(value: T, status: int = 200) -> Answer[T]:
    """``value`` as JSON, indented for people with curl: times ISO 8601 in UTC with Z, dataclasses as objects."""
    body = json.dumps(value, ensure_ascii=False, indent=1, default=_plain) + "\n"
    return Answer(body, status, media_type="application/json")


def problem(status: int, detail: str, **more: object) -> Response:
    """An error whose ``detail`` says what to do; 401 names the scheme as RFC 6750 section 3 asks."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    headers = {"www-authenticate": "Bearer"} if status == 401 else None
    return Response(json.dumps(body) + "\n", status, headers, media_type="application/problem+json")


def text_of(body: Mapping[str, Any], name: str, default: str = "") -> str:
    """A value that must be a text, ``default`` where it is absent or null. Raises HTTPException."""
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise HTTPException(400, f'{name}: must be a text, as {{"{name}": "..."}}')
    return default if value is None else value


def texts_of(body: Mapping[str, Any], name: str) -> list[str]:
    """A list of texts, [] where it is absent or null. Raises HTTPException."""
    value = body.get(name)
    if value is not None and not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
        raise HTTPException(400, f'{name}: must be a list of texts, as {{"{name}": ["..."]}}')
    return value or []


def duration_of(body: Mapping[str, Any], name: str) -> timedelta | None:
    """A duration as text, None where it is absent, null or empty. Raises HTTPException."""
    if not (given := text_of(body, name)):
        return None
    try:
        if not (duration := parse_duration(given)):
            raise ValueError("must be longer than 0")
        return duration
    except ValueError as error:
        raise HTTPException(400, f"{name}: {error}") from None


def truth_of(body: Mapping[str, Any], name: str, default: bool = False) -> bool:
    """True or false, ``default`` where it is absent or null. Raises HTTPException."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise HTTPException(400, f"{name} must be true or false")
    return default if value is None else value


def flag(request: Request, name: str) -> bool:
    """A switch of the query: 1, or 0 as if it were not there. Raises HTTPException."""
    given: str = request.query_params.get(name, "")
    if given not in ("", "0", "1"):
        raise HTTPException(400, f"{name} must be 1 or 0")
    return given == "1"


async def json_body(request: Request) -> dict[str, Any]:
    """The request's JSON object; an empty body is an empty object. Raises HTTPException."""
    text = await request.body()
    try:
        return strict_json(text) if text else {}
    except ValueError as error:
        words = "the body must be a JSON object in UTF-8 that names nothing twice (RFC 7493)"
        raise HTTPException(400, f"{words}: {error}") from None
