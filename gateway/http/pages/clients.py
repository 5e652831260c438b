"""Who may send, and the tokens that let programs in: seen, made, revoked."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta

from starlette.exceptions import HTTPException
from starlette.responses import Response

from gateway.config.durations import parse_duration
from gateway.http import clients, door, learn, tokens
from gateway.http.pages.visit import Flash, View, Visit
from gateway.http.tokens import Made, TokenView, Wanted

LASTS = (("30d", "30 days"), ("90d", "90 days"), ("365d", "1 year"), ("", "ever, until it is revoked"))
_TRIED = timedelta(days=30)  # so long a revoked token that is still tried is worth a line
_MOST = 12  # tokens on a page
_EMPTY = {"subject": "", "expires": "90d", "senders": "", "note": ""}


async def page(visit: Visit) -> View:
    return await _page(visit)


async def _page(
    visit: Visit, made: Made | None = None, given: Mapping[str, str] = _EMPTY, done: Flash | None = None
) -> View:
    service, everything = visit.service, visit.text("ended") == "1"
    known, now = await tokens.views(service), service.clock.now()
    path = service.in_force.loaded.path
    shown = [one for one in reversed(known) if everything or _worth(one, now)]
    values = {
        "section": "clients", "clients": await clients.views(service), "file": path.name if path else "the settings",
        "tokens": shown[:_MOST], "more": max(0, len(shown) - _MOST), "all": everything,
        "valid": sum(one.state == "valid" for one in known), "ended": sum(not _worth(one, now) for one in known),
        "made": made, "made_for": given["subject"], "given": _EMPTY if made else given, "lasts": LASTS,
        "once": secrets.token_hex(8), "learning": None if visit.actor.tenant else learn.state(service),
    }  # fmt: skip
    return View(template="clients.html", values=values | ({"done": done} if done else {}))


def _worth(one: TokenView, now: datetime) -> bool:
    return one.state == "valid" or (one.tried_at is not None and now - one.tried_at < _TRIED)


async def client(visit: Visit) -> View:
    service = visit.service
    name = clients.find(service, visit.request.path_params["name"])
    (one,) = await clients.views(service, (name,))
    mine = [row for row in await tokens.views(service) if row.subject and row.subject == one.token]
    refused = [door.explained(service, row) for row in await service.spool.last_refused(5, name)]
    values = {"section": "clients", "one": one, "tokens": mine[::-1], "refused": refused}
    return View(template="client.html", values=values)


async def mint(visit: Visit) -> View:
    """Answered with the page itself: the token is told once, and the same form sent again makes no other."""
    given, once = {name: visit.text(name) for name in _EMPTY}, f"mint-{visit.text('once')[:16]}"
    if (before := visit.desk.find(visit.person.key, once)) is not None:
        return await _page(visit, done=before)
    senders = given["senders"].replace(",", " ").split()
    try:
        if not given["subject"]:
            raise ValueError("Nothing was made: the token needs a subject, the name of what it is for.")
        wanted = Wanted(
            subject=given["subject"], note=given["note"], claims={"senders": senders} if senders else {},
            lifetime=parse_duration(given["expires"]) if given["expires"] else None,
        )  # fmt: skip
        made = await tokens.mint(visit.service, visit.request, wanted)
    except (ValueError, HTTPException) as error:
        text = f"Nothing was made: {error.detail}." if isinstance(error, HTTPException) else str(error)
        return await _page(visit, given=given, done=Flash(text, "bad"))
    text = f"The token {made.jti} was shown once already. If it is lost, revoke it and make another."
    visit.desk.keep(visit.person.key, Flash(text, "warn"), once)
    return await _page(visit, made, given)


async def revoke(visit: Visit) -> View | Response:
    """Asks first; with ``sure`` it is done."""
    jti = visit.request.path_params["jti"]
    one = next((row for row in await tokens.views(visit.service) if row.jti == jti), None)
    if one is None:
        raise HTTPException(404, f"No token with the id {jti} was made here.")
    if one.state == "revoked":
        return visit.go("/ui/clients", done=visit.say(f"The token {jti} was revoked already.", "warn"))
    if visit.text("sure") != "1":
        return View(template="token_revoke.html", values={"section": "clients", "one": one})
    await tokens.revoke(visit.service, visit.request, jti=jti)
    text = f"Revoked: the token {jti} of {one.subject}. What logs in with it is refused from now on."
    return visit.go("/ui/clients", done=visit.say(text))
