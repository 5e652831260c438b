"""The doctor over HTTP: its last report, and a new run."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request

from gateway.doctor import Busy, Report
from gateway.http.access import actor_of
from gateway.http.problem import answer, fields_of, json_body, texts_of
from gateway.http.service import Service, running


async def show(service: Service, _request: Request) -> object:
    """What the last run found, null where there was none, and the one that is under way."""
    last = service.doctor.last
    return {"under_way": service.doctor.under_way, "last": last and report(last)}


async def run(service: Service, request: Request) -> object:
    """Begin a run. Answers with its report; with ``wait`` false at once, and ``show`` tells how far it is."""
    body = await json_body(request)
    wait, areas = body.get("wait", True), texts_of(body, "areas")
    if not isinstance(wait, bool):
        raise HTTPException(400, "wait must be true or false")
    running(service)
    try:
        if wait:
            return report(await service.doctor.run(actor_of(request).name, areas))
        service.doctor.start(actor_of(request).name, areas)
    except Busy as error:
        raise HTTPException(409, str(error)) from None
    except ValueError as error:
        raise HTTPException(400, str(error)) from None
    return answer({"under_way": service.doctor.under_way}, 202)


def report(made: Report) -> dict[str, object]:
    """As ``gateway doctor --json`` prints it."""
    more = {"verdict": made.verdict, "worst": made.worst, "counts": made.counts, "all_right": made.all_right}
    return {**fields_of(made), **more}
