"""Signing in by a link that works once, signing out, and in which zone times are shown."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response

from gateway.http.pages import frame
from gateway.http.pages.guard import Refused, Way
from gateway.http.pages.persons import signed_in, signed_out
from gateway.http.pages.text import Times
from gateway.http.pages.visit import LONGEST, Desk, Visit
from gateway.http.service import Service
from gateway.http.signins import hashed
from gateway.networks import neighbour
from gateway.spool import SigninRow

OpenPage = Callable[[Service, Desk, Request, Way, Mapping[str, list[str]]], Awaitable[Response]]
_FRESH = "Run gateway ui-login on the server for a new one."


async def _link(service: Service, desk: Desk, way: Way, key: str) -> SigninRow:
    """Raises Refused. Wrong keys are counted by address; a right one is let in all the same, so that nobody who guesses
    keeps out who belongs here."""
    row = await service.spool.signin(hashed(key)) if key else None
    now, who = service.clock.monotonic(), neighbour(way.peer)
    if row is None or row.kind != "link":
        if not desk.wrong_keys.allow(who, now):
            raise Refused(429, "Too many wrong links", "Wait a minute. A link that is good works all the same.")
        desk.wrong_keys.add(who, now)
        raise Refused(403, "This is no link of ours", f"It may be cut off, or older than a day. {_FRESH}")
    times = Times(service.clock.now(), utc=False)
    if row.ended_at is not None and row.peer:
        when = f"It was used at {times.text(row.ended_at)} from {row.peer}, and works once."
        doubt = "If that was not you, run gateway ui-login --end-all."
        raise Refused(403, "This link was used already", f"{when} {doubt} {_FRESH}")
    if row.ended_at is not None:
        raise Refused(403, "This link was ended", f"By gateway ui-login --end-all. {_FRESH}")
    if row.expires_at <= service.clock.now():
        raise Refused(403, "This link has ended", f"It was good until {times.text(row.expires_at)}. {_FRESH}")
    return row


async def ask(service: Service, desk: Desk, request: Request, way: Way, _form: Mapping[str, list[str]]) -> Response:
    """Only a button: whoever looks ahead at links must not use one up."""
    if not (key := request.query_params.get("k", "")):
        return signed_out_page(request)
    row = await _link(service, desk, way, key)
    now = service.clock.now()
    values = {"key": key, "hostname": service.settings.hostname, "times": Times(now, utc=False)}
    values |= {"name": row.name, "role": row.role, "made": row.made_at, "left": (row.expires_at - now).total_seconds()}
    return frame.render_alone("login.html", 200, values)


async def enter(service: Service, desk: Desk, _request: Request, way: Way, form: Mapping[str, list[str]]) -> Response:
    """Uses the link up. The key stands in no address after that."""
    key, session = (form.get("k") or [""])[0], secrets.token_urlsafe(32)
    row = await _link(service, desk, way, key)
    if not await service.spool.use_link(hashed(key), hashed(session), way.peer or "this machine", LONGEST):
        await _link(service, desk, way, key)  # somebody was faster: says so
        raise Refused(403, "This link has ended", _FRESH)
    service.events.info("signed_in", name=row.name, role=row.role, peer=way.peer)
    response = Visit.go("/ui/")
    response.headers.update(signed_in(session, way))
    return response


def signed_out_page(request: Request) -> Response:
    """For whoever is not signed in. From another site a browser brings no cookie (SameSite=Strict): it asks again."""
    again = request.method == "GET" and request.headers.get("sec-fetch-site") == "cross-site"
    values = {"again": again, "undone": request.method == "POST"}
    response = frame.render_alone("signed_out.html", 401, values)
    response.headers["www-authenticate"] = "Bearer"
    return response


async def out(visit: Visit) -> Response:
    if visit.actor.way == "page":
        await visit.service.spool.end_signins(visit.person.key)
    return signed_out(Visit.go("/ui/login"), visit.request.scope["way"])


async def times(visit: Visit) -> Response:
    """In UTC or in the machine's zone, for this sign-in."""
    visit.desk.utc[visit.person.key] = visit.text("zone") == "utc"
    back = visit.text("back")
    ours = back.startswith("/ui/") and back.isascii() and back.isprintable()
    return Response(status_code=303, headers={"location": back if ours else "/ui/"})
