"""The settings in force over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from starlette.exceptions import HTTPException
from starlette.requests import Request

from gateway.config.inforce import FailedReload, Setting, rows
from gateway.http.described import described, given
from gateway.http.service import Service


@dataclass(frozen=True, slots=True)
class SettingList:
    """``file`` is null where there is none, ``read_at`` when it was read. ``hidden`` counts those that are left out,
    for they are as by default. ``failed`` is the reload that came to nothing, null where the last one did not."""

    file: str | None
    read_at: datetime
    failed: FailedReload | None
    settings: list[Setting]
    hidden: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingQuery:
    all: Literal["", "0", "1"] = given("1: also what is as by default.")
    q: str = given("Only those that hold every one of these words.")


@described(query=SettingQuery)
async def settings(service: Service, request: Request) -> SettingList:
    """The settings in force.

    What differs from the defaults; ``all`` of them with 1; those that ``q`` is found in, defaults too.

    ``hidden`` are left out for they are as by default. ``failed`` is the reload that came to nothing, null where the
    last one did not.
    """
    query = dict(request.query_params)
    everything, q = query.pop("all", ""), query.pop("q", "").strip()
    if query or everything not in ("", "0", "1"):
        raise HTTPException(400, "give all=1 for every setting, or q=WORD")
    shown, hidden = chosen(service, q=q, everything=everything == "1")
    path = service.in_force.loaded.path
    return SettingList(
        None if path is None else str(path), service.in_force.read_at, service.in_force.failed, shown, hidden
    )


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
