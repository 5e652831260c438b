"""Who a request comes from: the cookie of a sign-in, the header of a listed proxy, or a token that only looks."""

from __future__ import annotations

import hmac
import secrets
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256

from starlette.requests import Request
from starlette.responses import Response

from gateway.actor import ROLES, Actor, Role, is_name
from gateway.config.tenants import tenant_of
from gateway.http.access import peer_of
from gateway.http.pages.guard import Refused, Way
from gateway.http.pages.visit import IDLE, LONGEST, Desk, Person
from gateway.http.service import Service
from gateway.http.signins import hashed
from gateway.model import Refusal, SpoolTrouble

COOKIE = "gateway_ui"
_COOKIES = 8  # of that name that are looked at
_WRITTEN = 60  # seconds between two notes of when somebody was last here


async def person_of(service: Service, desk: Desk, request: Request, way: Way) -> Person | None:
    """None for nobody. Raises Refused for somebody whom the proxy knows and we do not."""
    for cookie in _cookies(request):
        if (found := await _signed_in(service, desk, request, cookie)) is not None:
            return found
    if way.user:
        return _by_proxy(service, desk, way.user)
    return _by_token(service, request)


def _cookies(request: Request) -> list[str]:
    """All of this name. Any server of this host can set one for us, on whatever port (RFC 6265 8.5), and where it goes
    among the others is its choice by the path (5.4): that must not sign anybody out."""
    pairs = [one.partition("=") for line in request.headers.getlist("cookie") for one in line.split(";")]
    given = [value.strip().strip('"') for name, _, value in pairs if name.strip() == COOKIE]
    return list(dict.fromkeys(filter(None, given)))[:_COOKIES]


async def _signed_in(service: Service, desk: Desk, request: Request, secret: str) -> Person | None:
    """What the script fetches by itself keeps nobody signed in."""
    key = hashed(secret)
    row, now = await service.spool.signin(key), service.clock.now()
    if row is None or row.kind != "session" or row.ended_at or row.expires_at <= now or row.role not in ROLES:
        return None
    if max(row.seen_at, desk.seen.get(key, row.seen_at)) + IDLE <= now:
        return None
    if "x-part" not in request.headers:
        desk.see(key, now)
        if (now - row.seen_at).total_seconds() >= _WRITTEN:
            with suppress(SpoolTrouble):  # a full disk keeps nobody from looking
                await service.spool.see_signin(key)
    return Person(Actor(row.name, "page", ROLES[row.role], row.tenant), key, secret, row.expires_at)


def _by_proxy(service: Service, desk: Desk, user: str) -> Person:
    roles = service.settings.http.roles
    role = ROLES.get(roles.get(user, roles.get("*", "")))
    if role is None or not is_name(user):
        text = "The proxy let you in, but http.roles gives you none here. An administrator can add you there."
        raise Refused(403, "You have no role here", text)
    tenant = tenant_of(service.settings, "users", user)
    return Person(
        Actor(user, "proxy", role, tenant),
        f"proxy:{tenant}:{user}",
        hmac.new(desk.secret.encode(), user.encode(), sha256).hexdigest(),
    )


def _by_token(service: Service, request: Request) -> Person | None:
    """It sees the pages without a button, whatever it may do elsewhere: no form carries it."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or service.authenticator is None:
        return None
    try:
        actor = service.authenticator.admin_token(token.strip(), peer_of(request))
    except Refusal:
        return None
    return Person(replace(actor, role=Role.READ), f"token:{actor.tenant}:{actor.name}", secrets.token_hex(16))


def signed_in(session: str, way: Way) -> dict[str, str]:
    """The header that sets the cookie: to the session's end it is the browser's, and the server knows better."""
    flags = "Path=/ui; HttpOnly; SameSite=Strict" + ("; Secure" if way.secure else "")
    return {"set-cookie": f"{COOKIE}={session}; Max-Age={int(LONGEST.total_seconds())}; {flags}"}


def signed_out(response: Response, way: Way) -> Response:
    flags = "Path=/ui; HttpOnly; SameSite=Strict" + ("; Secure" if way.secure else "")
    response.headers["set-cookie"] = f"{COOKIE}=; Max-Age=0; {flags}"
    return response
