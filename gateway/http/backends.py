"""The backends over HTTP: how each does, what it said last, and what an operator does with one."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from gateway.checks import Check
from gateway.config.renewal import Renewal
from gateway.delivery import Dispatcher
from gateway.health.words import state_word
from gateway.http import acts
from gateway.http.access import actor_of
from gateway.http.problem import duration_of, fields_of, json_body, text_of
from gateway.http.service import Service, running
from gateway.lifeline.words import meaning
from gateway.model import SpoolTrouble
from gateway.spool import CheckRow

_ANSWERS = 50
_PATIENCE = 45.0  # seconds for a check, less than a command waits for its answer
_ACTIONS = ("check", "pause", "resume", "fix")


async def backends(service: Service, _request: Request) -> object:
    """How each backend does; without a running service only what is configured and queued."""
    return await _standing(service)


async def _standing(service: Service) -> dict[str, dict[str, Any]]:
    if service.dispatcher is not None:
        return {name: fields_of(one) for name, one in service.dispatcher.status().items()}
    queued = await service.spool.queued()
    return {
        name: {"name": name, "type": section.type, "queued": queued.get(name, 0), "title": section.title, "state": ""}
        for name, section in service.settings.backends.items()
    }


async def backend(service: Service, request: Request) -> object:
    """One backend with its identity, its last check and its last answers."""
    name = _known(service, request)
    spool = service.spool
    standing = (await _standing(service))[name]
    counts, oldest, doubts = spool.counts(), await spool.oldest(), await spool.doubts()
    # A running service has looked it up at its start; history may be long.
    last_success = standing["last_success"] if service.dispatcher is not None else await spool.last_sent(name)
    checked = (await spool.checks()).get(name)
    return {
        **standing,
        "word": state_word(standing["state"], standing.get("who", "")),
        "known_as": service.settings.backends[name].known_as,
        "last_success": last_success,
        "held": counts.get((name, "held"), 0),
        "in_doubt": sum(one.count for one in doubts if one.backend == name),
        "oldest": oldest.get(name),
        "checked": shown(checked) if checked else None,
        "answers": [{**fields_of(row), "meaning": meaning(row)} for row in await spool.answers(name, _ANSWERS)],
    }


def shown(row: CheckRow) -> dict[str, Any]:
    """A check with its time and person, in one object."""
    return {**fields_of(row.check), "at": row.at, "who": row.who}


def _known(service: Service, request: Request) -> str:
    name = str(request.path_params["name"])
    if name not in service.settings.backends:
        raise HTTPException(404, f"no backend {name}; there are {', '.join(service.settings.backends)}")
    return name


async def steer(service: Service, request: Request) -> object:
    """What an operator orders of one backend."""
    action, body = request.path_params["action"], await json_body(request)
    dispatcher, name = running(service), _known(service, request)
    if action not in _ACTIONS:
        raise HTTPException(404, f"no action {action}; there are {', '.join(_ACTIONS)}")
    if action in ("check", "fix"):
        return await check_now(service, request, name, fix=action == "fix")
    at = service.clock.now()
    await order(service, request, name, action, text_of(body, "for"))
    return {**fields_of(dispatcher.status()[name]), "at": at}


async def order(service: Service, request: Request, name: str, action: str, lasts: str = "") -> None:
    """Pause (``lasts``: for so long, "" until it is resumed) or resume. Raises HTTPException."""
    dispatcher = running(service)
    if name not in service.settings.backends or action not in ("pause", "resume"):
        raise HTTPException(404, f"no backend {name} or no action {action}")
    if action == "pause":
        duration = duration_of({"for": lasts}, "for")
        await dispatcher.pause(name, duration.total_seconds() if duration else None, actor_of(request).name)
    else:
        await dispatcher.resume(name)
    await acts.note(service, request, action, f"backend {name}{f' for {lasts}' if lasts else ''}")


async def check_now(service: Service, request: Request, name: str, *, fix: bool) -> dict[str, Any]:
    """Reads secrets that have changed, tries, and says how it went; ``fix``: what works goes back to work, whoever
    paused it. Before a check has passed nothing is said to work."""
    dispatcher = running(service)
    renewal = await service.renew(name)
    check = await _try(dispatcher, name)
    at = service.clock.now()  # what is heard from here on is heard of what was found
    if check.ok and fix:
        await dispatcher.resume(name)
    row = CheckRow(backend=name, at=at, who=actor_of(request).name, check=check)
    with suppress(SpoolTrouble):  # what was found counts, also while the disk is full
        await service.spool.keep_check(row)
        await acts.note(service, request, "fix" if fix else "check", f"backend {name}: {_came(check)}")
    return {**shown(row), **_said(renewal), "status": dispatcher.status()[name]}


async def _try(dispatcher: Dispatcher, name: str) -> Check:
    try:
        async with asyncio.timeout(_PATIENCE):
            return await dispatcher.check(name)
    except TimeoutError:
        text = f"no answer within {_PATIENCE:g} s"
        return Check(False, text, "see whether this machine reaches the provider: network, DNS, proxy")


def _came(check: Check) -> str:
    return "good" if check.ok else check.summary


def _said(renewal: Renewal) -> dict[str, Any]:
    return {"read": renewal.taken, "differs": renewal.differs, "errors": renewal.errors}
