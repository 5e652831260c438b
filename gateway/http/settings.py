"""The settings in force over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterable

from starlette.exceptions import HTTPException
from starlette.requests import Request

from gateway.config.inforce import Setting, rows
from gateway.http.service import Service


async def settings(service: Service, request: Request) -> object:
    """What differs from the defaults; ``all`` of them with 1; those that ``q`` is found in, defaults too.

    ``hidden`` are left out for they are as by default. ``failed`` is the reload that came to nothing, null where the
    last one did not.
    """
    query = dict(request.query_params)
    everything, q = query.pop("all", ""), query.pop("q", "").strip()
    if query or everything not in ("", "0", "1"):
        raise HTTPException(400, "give all=1 for every setting, or q=WORD")
    shown, hidden = chosen(service, q=q, everything=everything == "1")
    return {
        "file": None if service.in_force.loaded.path is None else str(service.in_force.loaded.path),
        "read_at": service.in_force.read_at,
        "failed": service.in_force.failed,
        "settings": shown,
        "hidden": hidden,
    }


def chosen(service: Service, *, q: str = "", everything: bool = False) -> tuple[list[Setting], int]:
    """What differs from the defaults, or everything, or what ``q`` is found in; and how many are left out."""
    known = rows(service.in_force.loaded)
    if q:
        return [one for one in known if _meets(one, q.lower().split())], 0
    shown = known if everything else [one for one in known if one.changed]
    return shown, len(known) - len(shown)


def _meets(one: Setting, words: Iterable[str]) -> bool:
    """Each word in key, value or origin. Of a secret there is nothing to be found."""
    text = f"{one.key}\n{'' if one.secret else json.dumps(one.value, ensure_ascii=False)}\n{one.origin}".lower()
    return all(word in text for word in words)
