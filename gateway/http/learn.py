"""Learn mode over HTTP: how it stands, what was seen, what it proposes; begun, stopped and forgotten by order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from gateway.http import acts
from gateway.http.access import actor_of
from gateway.http.described import Described, described, given
from gateway.http.problem import duration_of, flag, json_body, texts_of
from gateway.http.service import Service, running
from gateway.learn.proposal import propose
from gateway.learn.wording import fields, section


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnState:
    """``listeners`` are those where it is on, and ``hear_out`` the networks whose mail is heard to its end there, by
    listener. ``since``, ``until`` and ``by`` are of the last order, ``ended_at`` when that was over. ``addresses`` are
    known so far; ``left_out`` counts connections for which there was no place. ``fault``: why it cannot be kept."""

    on: bool
    listeners: list[str]
    hear_out: Mapping[str, list[str]]
    since: datetime | None
    until: datetime | None
    ended_at: datetime | None
    by: str
    addresses: int
    left_out: int
    fault: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DoubtfulClient:
    why: str
    name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnReport(LearnState):
    """``text`` is the proposal to paste, ``clients`` the same as values by name, ``doubtful`` what is left to a person.
    ``seen`` is what was seen of each address at each listener, where it is asked for."""

    text: str
    clients: Mapping[str, Mapping[str, Any]]
    open: Mapping[str, tuple[str, ...]]
    doubtful: list[DoubtfulClient]
    changes: tuple[str, ...]
    hints: tuple[str, ...]
    served: tuple[str, ...]
    others: tuple[str, ...]
    unseen: tuple[str, ...]
    seen: list[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnQuery:
    seen: str = given("1: with all that was seen of each address.", "0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    lasting: str = given("For so long, as 2h.", "2h")
    listeners: list[str] = given("Only at these; at all where it is left out.", ())
    hear_out: list[str] = given("Hear the mail of these networks to its end, and refuse it then with 451.", ())


@dataclass(frozen=True, slots=True)
class Forgotten:
    addresses: int


def state(service: Service) -> LearnState:
    """How it stands."""
    return LearnState(**_state(service))


def _state(service: Service) -> dict[str, Any]:
    learner, run = service.learner, service.learner.run
    return {
        "on": bool(learner.at),
        "listeners": sorted(learner.at),
        "hear_out": {name: [str(one) for one in networks] for name, networks in learner.heard_out.items()},
        "since": run.since if run else None,
        "until": run.until if run else None,
        "ended_at": run.ended_at if run else None,
        "by": run.by if run else "",
        "addresses": len(learner.book),
        "left_out": learner.book.others,
        "fault": learner.fault,
    }


@described(query=LearnQuery, refusals=(503,))
async def report(service: Service, request: Request) -> LearnReport:
    """What learn mode has seen, and the clients section that it proposes."""
    running(service)
    book = service.learner.book
    with_seen = flag(request, "seen")
    found = propose(book.all, book.others, service.settings)
    return LearnReport(
        **_state(service),
        text=section(found, written=bool(service.settings.clients) and not found.kept),
        clients={one.name: fields(one) for one in found.clients},
        open={one.name: one.open for one in found.clients if one.open},
        doubtful=[DoubtfulClient(why=why, name=one.name, settings=fields(one)) for why, one in found.doubtful],
        changes=found.changes,
        hints=found.hints,
        served=found.served,
        others=found.others,
        unseen=found.unseen,
        seen=[one.plain() for one in book.all] if with_seen else [],
    )


_BEGIN = Described(body=Begin, refusals=(422, 503), gives=LearnState, says="Learn for a while.")
_STOP = Described(refusals=(409, 503), gives=LearnState, says="End what was begun.")
_FORGET = Described(refusals=(503,), gives=Forgotten, says="Forget all that was seen.")


@described(actions={"begin": _BEGIN, "stop": _STOP, "forget": _FORGET}, refusals=(404,))
async def steer(service: Service, request: Request) -> LearnState | Forgotten:
    """Begin, stop or forget."""
    running(service)
    action = request.path_params["action"]
    if action not in ("begin", "stop", "forget"):
        raise HTTPException(404, f"no action {action}; there are begin, stop, forget")
    try:
        if action == "begin":
            return await _begin(service, request)
        if action == "forget":
            count = await service.learner.forget()
            await acts.note(service, request, "learn-forget", f"what was seen of {count} addresses")
            return Forgotten(count)
        if not await service.learner.stop():
            raise HTTPException(409, "nothing was begun; learn: true on a listener ends when you take it out")
    except ValueError as error:
        raise HTTPException(422, str(error)) from None
    except OSError as error:
        raise HTTPException(503, f"it cannot be kept: {error}") from None
    await acts.note(service, request, "learn-stop")
    return state(service)


async def _begin(service: Service, request: Request) -> LearnState:
    body = await json_body(request)
    lasting = duration_of(body, "lasting") or duration_of({"lasting": "2h"}, "lasting")
    assert lasting is not None
    listeners, hear_out = texts_of(body, "listeners"), texts_of(body, "hear_out")
    run = await service.learner.begin(lasting, actor_of(request).name, listeners, hear_out)
    words = [f"until {run.until:%Y-%m-%d %H:%M:%SZ}", *(f"hears {one} out" for one in run.hear_out)]
    await acts.note(service, request, "learn", ", ".join(words))
    return state(service)
