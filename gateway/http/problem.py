"""JSON in and out: plain values, and errors as application/problem+json (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gateway.auth.tokens import strict_json
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


def fields_of(record: Any) -> dict[str, Any]:
    """A dataclass, one level deep."""
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _plain(value: object) -> Any:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else fields_of(value)


def answer(value: object, status: int = 200) -> Response:
    """``value`` as JSON, indented for people with curl: times ISO 8601 in UTC with Z, dataclasses as objects."""
    body = json.dumps(value, ensure_ascii=False, indent=1, default=_plain) + "\n"
    return Response(body, status, media_type="application/json")


def problem(status: int, detail: str, **more: object) -> Response:
    """An error whose ``detail`` says what to do; 401 names the scheme as RFC 6750 section 3 asks."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    headers = {"www-authenticate": "Bearer"} if status == 401 else None
    return Response(json.dumps(body) + "\n", status, headers, media_type="application/problem+json")


async def json_body(request: Request) -> dict[str, Any]:
    """The request's JSON object; an empty body is an empty object. Raises HTTPException."""
    text = await request.body()
    try:
        value = strict_json(text) if text else {}
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair can be escaped, but never stored
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body must be a JSON object in UTF-8 that names nothing twice") from None
    return value
