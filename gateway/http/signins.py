"""Links that sign in to the operator's pages: made for whoever may use the admin socket, kept as a hash, good once."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from starlette.exceptions import HTTPException
from starlette.requests import Request

from gateway.actor import ROLES
from gateway.config.models import HttpSettings
from gateway.config.values import parse_bind
from gateway.http.access import actor_of
from gateway.http.described import described, given
from gateway.http.problem import Answer, answer, json_body, text_of
from gateway.http.service import Service, running
from gateway.url import is_loopback

LINK_LASTS = timedelta(minutes=5)


def hashed(secret: str) -> str:
    """What is kept of it: 32 random bytes need no slow hash."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def bases(settings: HttpSettings) -> list[str]:
    """Where a browser finds the pages, the best first. Raises HTTPException where it is nowhere."""
    found = [f"https://{name}" for name in settings.ui_hosts]
    if settings.bind and is_loopback(parse_bind(settings.bind)[0]):
        found.append(f"http://{settings.bind}")
    if not found:
        why = f"http.bind is {settings.bind}, off loopback" if settings.bind else "http.bind is empty"
        fix = "set http.bind to 127.0.0.1:8026, or put a proxy with TLS in front and its name into http.ui_hosts"
        raise HTTPException(409, f"the pages answer nowhere: {why}; {fix}")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkOrder:
    role: Literal["", "read", "operate", "admin"] | None = given('What the link allows; all you may where it is "".')
    tenant: str | None = given('Only the mail of this tenant; everybody\'s where it is "".')


@dataclass(frozen=True, slots=True)
class Link:
    """``url`` is the best of ``urls``; it works once, until ``expires_at``, for ``name`` with ``role``.

    ``tenant`` is whose mail it shows, "" for everybody's."""

    url: str
    urls: list[str]
    name: str
    role: str
    tenant: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Ended:
    """``ended``: sign-ins, and links that were not used."""

    ended: int


@described(body=LinkOrder, status=201, refusals=(409, 503))
async def make(service: Service, request: Request) -> Answer[Link]:
    """A link for whoever asks at the admin socket, with a role that is at most his.

    Not for who shows a token: a sign-in of his would outlive it, also where it is revoked.
    """
    running(service)
    actor = actor_of(request)
    if actor.way != "socket":
        raise HTTPException(403, "a link is made at the admin socket, by gateway ui-login on this machine")
    body = await json_body(request)
    role = ROLES.get(text_of(body, "role") or actor.role.word)
    if role is None:
        raise HTTPException(400, f"role: there are {', '.join(ROLES)}")
    if role > actor.role:
        raise HTTPException(403, f"role: yours is {actor.role.word}, and a link gives no more than that")
    tenant = text_of(body, "tenant")
    if tenant and tenant not in service.settings.tenants:
        raise HTTPException(400, f"no tenant {tenant}; there are {', '.join(service.settings.tenants) or 'none'}")
    found, secret = bases(service.settings.http), secrets.token_urlsafe(32)
    await service.spool.add_link(hashed(secret), actor.name, role.word, LINK_LASTS, tenant)
    links = [f"{base}/ui/login?k={secret}" for base in found]
    ends = service.clock.now() + LINK_LASTS
    return answer(Link(links[0], links, actor.name, role.word, tenant, ends), 201)


async def end(service: Service, _request: Request) -> Ended:
    """Everybody is signed out, and links that were not used are void."""
    return Ended(await service.spool.end_signins())
