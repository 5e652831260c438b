"""The backends over HTTP: how each does, what it said last, and what an operator does with one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from starlette.exceptions import HTTPException
from starlette.requests import Request

from gateway import checkup
from gateway.checks import Check, Renewed
from gateway.delivery import BackendStatus, Dispatcher
from gateway.health.words import state_word
from gateway.http import acts
from gateway.http.access import actor_of
from gateway.http.described import Described, described, given
from gateway.http.problem import duration_of, fields_of, json_body, text_of
from gateway.http.service import Service, running
from gateway.lifeline.words import meaning
from gateway.model import SpoolTrouble
from gateway.spool import AnswerRow

_ANSWERS = 50
_ACTIONS = ("check", "pause", "resume", "fix", "renew")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerShown(AnswerRow):
    """``meaning`` says it plainly."""

    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckShown(Check):
    """When it was made, and asked for by whom."""

    at: datetime
    who: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendDetail(BackendStatus):
    """``word`` is its state for people, ``known_as`` the sender that its provider knows it by. ``held`` and
    ``in_doubt`` count what is held for it, ``oldest`` is since when the first of what waits does."""

    word: str
    known_as: str
    held: int
    in_doubt: int
    oldest: datetime | None
    checked: CheckShown | None
    answers: list[AnswerShown]


async def backends(service: Service, _request: Request) -> Mapping[str, BackendStatus]:
    """How each backend does, by name.

    Without a running service only what is configured and queued; ``state`` is "" then.
    """
    return await _standing(service)


async def _standing(service: Service) -> Mapping[str, BackendStatus]:
    if service.dispatcher is not None:
        return service.dispatcher.status()
    queued = await service.spool.queued()
    return {
        name: BackendStatus(
            name, section.type, queued.get(name, 0), 0, None, "", "", None, state="", title=section.title
        )
        for name, section in service.settings.backends.items()
    }


@described(refusals=(404,))
async def backend(service: Service, request: Request) -> BackendDetail:
    """One backend with its identity, its last check and its last answers."""
    name = _known(service, request)
    spool = service.spool
    standing = (await _standing(service))[name]
    counts, backlog = spool.counts(), await spool.backlog()
    # A running service has looked it up at its start; history may be long.
    last_success = standing.last_success if service.dispatcher is not None else await spool.last_sent(name)
    checked = (await spool.checks()).get(name)
    answers = await spool.answers(name, _ANSWERS)
    return BackendDetail(
        **{**fields_of(standing), "last_success": last_success},
        word=state_word(standing.state, standing.who),
        known_as=service.settings.backends[name].known_as,
        held=counts.get((name, "held"), 0),
        in_doubt=sum(one.count for one in backlog.doubts if one.backend == name),
        oldest=backlog.oldest.get(name),
        checked=CheckShown(**fields_of(checked.check), at=checked.at, who=checked.who) if checked else None,
        answers=[AnswerShown(**fields_of(row), meaning=meaning(row)) for row in answers],
    )


def _known(service: Service, request: Request) -> str:
    name = str(request.path_params["name"])
    if name not in service.settings.backends:
        raise HTTPException(404, f"no backend {name}; there are {', '.join(service.settings.backends)}")
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseOrder:
    for_: str | None = given("Go on by itself after this, as 30m; until it is resumed where it is left out.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Steered(BackendStatus):
    """How it stands now; what came of messages ``at`` that time or later came after the order."""

    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedNow(CheckShown):
    """``read`` are secrets that were read anew from their changed files, ``differs`` what waits for a reload, both by
    their keys; ``errors`` are those of the settings on disk. ``status`` is how the backend stands after it.

    ``by`` is the instance that works it and made the check on its own machine, "" for the one that was asked.
    ``read_here`` was read anew there; ``unlike``: the two do not have the same settings or secrets of the backend."""

    by: str
    unlike: bool
    read_here: tuple[str, ...]
    read: tuple[str, ...]
    differs: tuple[str, ...]
    errors: tuple[str, ...]
    status: BackendStatus


@described(
    refusals=(404, 409, 503),
    actions={
        "check": Described(says="Try credentials and reachability, sending nothing.", gives=CheckedNow),
        "fix": Described(says="Check it, and let it work again if the check is good.", gives=CheckedNow),
        "pause": Described(says="Send nothing more by it; its messages wait.", gives=Steered, body=PauseOrder),
        "resume": Described(says="Send by it again, now.", gives=Steered),
        "renew": Described(says="Let the certificate of its application renew itself now.", gives=Renewed),
    },
)
async def steer(service: Service, request: Request) -> Steered | CheckedNow | Renewed:
    """What an operator orders of one backend."""
    action, body = request.path_params["action"], await json_body(request)
    dispatcher, name = running(service), _known(service, request)
    if action not in _ACTIONS:
        raise HTTPException(404, f"no action {action}; there are {', '.join(_ACTIONS)}")
    if action in ("check", "fix"):
        return await check_now(service, request, name, fix=action == "fix")
    if action == "renew":
        return await _renew(service, dispatcher, request, name)
    at = service.clock.now()
    await order(service, request, name, action, text_of(body, "for"))
    return Steered(**fields_of(_still(dispatcher, name)), at=at)


async def order(service: Service, request: Request, name: str, action: str, lasts: str = "") -> None:
    """Pause (``lasts``: for so long, "" until it is resumed) or resume. Raises HTTPException."""
    dispatcher = running(service)
    if name not in service.settings.backends or action not in ("pause", "resume"):
        raise HTTPException(404, f"no backend {name} or no action {action}")
    if action == "pause":
        duration = duration_of({"for": lasts}, "for")
        await dispatcher.pause(name, duration.total_seconds() if duration else None, actor_of(request).name)
    elif _still(dispatcher, name).state == "working" and dispatcher.elsewhere(name) is None:  # its owner knows better
        more = f"to try what waits now: gateway queue retry --backend {name}"
        raise HTTPException(409, f"backend {name}: nothing to resume: it works; {more}")
    else:
        await _count(service, dispatcher, name)
        await dispatcher.resume(name)
    await acts.note(service, request, action, f"backend {name}{f' for {lasts}' if lasts else ''}")


async def _renew(service: Service, dispatcher: Dispatcher, request: Request, name: str) -> Renewed:
    try:
        found = await dispatcher.renewals.order(name)
    except KeyError:
        raise _removed(name) from None
    except TimeoutError:
        raise HTTPException(503, f"backend {name}: still at it; see soon: gateway backend check {name}") from None
    if found is None:
        raise HTTPException(409, f"backend {name}: nothing of it renews itself; certificate_renew: true lets it")
    with suppress(SpoolTrouble):  # it is done, also while the disk is full
        await acts.note(service, request, "renew", f"backend {name}: {found.summary}")
    return found


async def _count(service: Service, dispatcher: Dispatcher, name: str) -> None:
    """What waits for it was accepted by others, too: whoever looks for an outcome has to know of it before."""
    if dispatcher.elsewhere(name) is not None:
        await service.spool.recount()


async def check_now(service: Service, request: Request, name: str, *, fix: bool) -> CheckedNow:
    """Where it is worked (checkup.check). Before a check has passed nothing is said to work. Raises HTTPException."""
    dispatcher, who = running(service), actor_of(request).name
    status = _still(dispatcher, name)
    await _count(service, dispatcher, name)
    try:
        found = await checkup.check(service, dispatcher, name, who, fix=fix)
    except checkup.Removed:
        raise _removed(name) from None
    except checkup.Unanswered as error:
        raise HTTPException(503, _unanswered(name, str(error))) from None
    with suppress(SpoolTrouble):  # what was found counts, also while the disk is full
        await acts.note(service, request, "fix" if fix else "check", f"backend {name}: {_came(found.check)}")
    renewal = found.renewal
    return CheckedNow(
        **fields_of(found.check), at=found.at, who=who, by=found.by, unlike=found.unlike, read_here=found.read_here,
        read=renewal.taken, differs=renewal.differs, errors=renewal.errors,
        status=dispatcher.status().get(name, status),
    )  # fmt: skip


def _unanswered(name: str, owner: str) -> str:
    who = f"instance {owner}, which works {name}, has not answered" if owner else f"no instance works {name} just now"
    return f"{who}: it is checked as soon as one does; see then: gateway backend list"


def _still(dispatcher: Dispatcher, name: str) -> BackendStatus:
    """Raises HTTPException: a reload has removed it meanwhile."""
    if (status := dispatcher.status().get(name)) is None:
        raise _removed(name)
    return status


def _removed(name: str) -> HTTPException:
    return HTTPException(409, f"backend {name} was removed meanwhile")


def _came(check: Check) -> str:
    return "good" if check.ok else check.summary
