"""The doctor over HTTP: its last report, and a new run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from starlette.exceptions import HTTPException
from starlette.requests import Request

from gateway.doctor import Busy, Report
from gateway.doctor.doctor import UnderWay
from gateway.doctor.finding import Finding, Level
from gateway.http.access import actor_of
from gateway.http.described import described, given
from gateway.http.problem import Answer, answer, fields_of, json_body, texts_of, truth_of
from gateway.http.service import Service, running


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportShown:
    """What one run came to. ``findings`` stand worst first, ``counts`` them by level. ``service``: a running service
    was looked at. ``by`` is who asked for it, ``verdict`` its first line, ``all_right`` what is good, in one line."""

    at: datetime
    by: str
    seconds: float
    service: bool
    areas: tuple[str, ...]
    findings: tuple[Finding, ...]
    verdict: str
    worst: Level
    counts: Mapping[Level, int]
    all_right: str


@dataclass(frozen=True, slots=True)
class DoctorNow:
    """The run that is ``under_way``, and the ``last`` that has ended since the service started; null for none."""

    under_way: UnderWay | None
    last: ReportShown | None


@dataclass(frozen=True, slots=True)
class RunBegun:
    under_way: UnderWay | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOrder:
    areas: list[str] | None = given("Only these areas, as backends or dns; all where it is left out.", None)
    wait: bool | None = given("false: answer at once (202), and GET tells how far it is.", True)


async def show(service: Service, _request: Request) -> DoctorNow:
    """What the last run found, null where there was none, and the one that is under way."""
    last = service.doctor.last
    return DoctorNow(service.doctor.under_way, report(last) if last else None)


@described(body=RunOrder, status=202, refusals=(409, 503))
async def run(service: Service, request: Request) -> ReportShown | Answer[RunBegun]:
    """Begin a run. Answers with its report; with ``wait`` false at once, and ``show`` tells how far it is."""
    body = await json_body(request)
    wait, areas = truth_of(body, "wait", default=True), texts_of(body, "areas")
    running(service)
    try:
        if wait:
            return report(await service.doctor.run(actor_of(request).name, areas))
        service.doctor.start(actor_of(request).name, areas)
    except Busy as error:
        raise HTTPException(409, str(error)) from None
    except ValueError as error:
        raise HTTPException(400, str(error)) from None
    return answer(RunBegun(service.doctor.under_way), 202)


def report(made: Report) -> ReportShown:
    """As ``gateway doctor --json`` prints it."""
    return ReportShown(
        **fields_of(made), verdict=made.verdict, worst=made.worst, counts=made.counts, all_right=made.all_right
    )
