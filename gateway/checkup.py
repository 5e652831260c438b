"""A backend is checked, and set to work again: by the instance that works it, whichever was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Protocol

from gateway.checks import Check, Step
from gateway.clock import Clock
from gateway.config.alike import differences
from gateway.config.models import Settings
from gateway.config.renewal import Renewal
from gateway.delivery import BackendStatus, Dispatcher
from gateway.model import SpoolTrouble
from gateway.spool import CheckRow, Spool
from gateway.spool.records import micros, moment
from gateway.spool.wishes import FIX, Wish

_PATIENCE = 45.0  # seconds for a check
_ELSEWHERE = 50.0  # and for another instance to make it: less than a command waits for its answer
_ALIKE = 10, 0.2  # how often, and after how many seconds each: another instance says soon what it has read


class Serving(Protocol):
    """The part of a running gateway that is needed here."""

    @property
    def settings(self) -> Settings: ...
    @property
    def spool(self) -> Spool: ...
    @property
    def clock(self) -> Clock: ...
    async def renew(self, name: str) -> Renewal: ...


class Removed(Exception):
    """By a reload, meanwhile."""


class Unanswered(Exception):
    """By the instance that works it, which is named; "" where none does just now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """``renewal`` is what was read anew for it. Of another instance, ``by``: ``read_here`` was read anew on this
    machine, and ``unlike``: the two do not have the same settings or secrets of the backend."""

    check: Check
    at: datetime
    renewal: Renewal
    by: str = ""
    read_here: tuple[str, ...] = ()
    unlike: bool = False


async def check(service: Serving, dispatcher: Dispatcher, name: str, who: str, *, fix: bool) -> Found:
    """Read secrets that have changed, try, and say how it went; ``fix``: what works goes back to work, whoever paused
    it before. Raises Removed, Unanswered, SpoolTrouble."""
    if dispatcher.elsewhere(name) is None:
        return await _look(service, dispatcher, name, who, fix=fix, begun=service.clock.now())
    return await _ask(service, dispatcher, name, who, fix=fix)


async def _look(service: Serving, dispatcher: Dispatcher, name: str, who: str, *, fix: bool, begun: datetime) -> Found:
    renewal = await service.renew(name)
    found = await _try(dispatcher, name)
    at, status = service.clock.now(), _still(dispatcher, name)  # what is heard from here on is heard of what was found
    if found.ok and fix and not (status.who and status.since and status.since > begun):  # else the last order holds
        await dispatcher.resume(name)
    with suppress(SpoolTrouble):  # what was found counts, also while the disk is full
        await service.spool.keep_check(CheckRow(backend=name, at=at, who=who, check=found))
    return Found(check=found, at=at, renewal=renewal)


async def _try(dispatcher: Dispatcher, name: str) -> Check:
    _still(dispatcher, name)
    try:
        async with asyncio.timeout(_PATIENCE):
            return await dispatcher.check(name)
    except TimeoutError:
        text = f"no answer within {_PATIENCE:g} s"
        return Check(False, text, "see whether this machine reaches the provider: network, DNS, proxy")


def _still(dispatcher: Dispatcher, name: str) -> BackendStatus:
    if (status := dispatcher.status().get(name)) is None:
        raise Removed(name)
    return status


# -- of several instances --------------------------------------------------------------------------------------------


async def grant(service: Serving, dispatcher: Dispatcher, name: str, wish: Wish) -> Mapping[str, Any]:
    """Here, for another instance. Raises SpoolTrouble."""
    begun = service.clock.now() - (service.spool.now() - wish.at)
    try:
        found = await _look(service, dispatcher, name, wish.who, fix=wish.what == FIX, begun=begun)
    except (Removed, KeyError):
        gone = Check(False, "it was removed there meanwhile", "give all instances the same settings, and reload them")
        found = Found(check=gone, at=service.clock.now(), renewal=Renewal())
    one, at = found.check, found.at + (service.spool.now() - service.clock.now())
    return {
        "by": service.settings.spool.instance, "at": micros(at), "told": dispatcher.others.text(name),
        "check": {each.name: getattr(one, each.name) for each in fields(one)}
        | {"facts": dict(one.facts), "steps": [(step.result, step.text, step.said) for step in one.steps]},
        "renewal": {each.name: getattr(found.renewal, each.name) for each in fields(found.renewal)},
    }  # fmt: skip


async def _ask(service: Serving, dispatcher: Dispatcher, name: str, who: str, *, fix: bool) -> Found:
    """What this machine has new is in force here, too, so that the instances go on alike."""
    here = await service.renew(name)
    wish = await dispatcher.wishes.ask(name, FIX if fix else "check", who, _ELSEWHERE)
    if wish is None or wish.done is None:
        raise Unanswered(dispatcher.elsewhere(name) or "")
    done, given = wish.done, dict(wish.done["check"])
    dispatcher.others.heard(name, done["told"])
    return Found(
        check=Check(**{**given, "steps": tuple(Step(*step) for step in given["steps"])}),
        at=moment(done["at"]) + (service.clock.now() - service.spool.now()),
        renewal=Renewal(**{key: tuple(keys) for key, keys in done["renewal"].items()}),
        by=done["by"],
        read_here=here.taken,
        unlike=await _unlike(service, name, done["by"]),
    )


async def _unlike(service: Serving, name: str, other: str) -> bool:
    """Whether the two have other settings of it, or other secrets."""
    tries, pause = _ALIKE
    for _ in range(tries):
        rows = await service.spool.settings_told()
        both = {one: text for one, text in rows.items() if one in (other, service.settings.spool.instance)}
        if f"backends.{name}" not in {each.part for each in differences(both)}:
            return False
        await service.clock.sleep(pause)
    return True
