"""One message over HTTP: its life, what is in it, and its bytes."""

from __future__ import annotations

from functools import partial

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gateway.actor import Role
from gateway.http.access import Asked, actor_of, require
from gateway.http.problem import fields_of
from gateway.http.service import Service
from gateway.lifeline import Content, Life, content, life
from gateway.pools import look_through_mail
from gateway.spool import MessageDetail


async def show(service: Service, request: Request) -> object:
    """All that is known of it, with its ``life`` in words; ``all=1``: nothing of that cut or left out.

    With ``content=1`` also the names of its parts and its header, for whoever may read the message itself.
    """
    ident = request.path_params["id"]
    detail = await service.spool.show(ident)
    if detail is None:
        raise HTTPException(404, f"no message {ident}")
    told = life_of(service, detail, whole=request.query_params.get("all", "") not in ("", "0"))
    asked = request.query_params.get("content", "") not in ("", "0")
    found = {"content": await content_of(service, request, ident)} if asked else {}
    fields = fields_of(detail)
    del fields["how"]
    entries = [{**fields_of(entry), "tone": entry.tone} for entry in told.entries]
    ended = {"shown": told.state, "kept_until": told.kept_until}
    return {**fields_of(fields.pop("message")), **fields, **ended, "life": entries, **found}


def life_of(service: Service, detail: MessageDetail, *, whole: bool = False) -> Life:
    """Its life as of now."""
    backends = service.dispatcher.status() if service.dispatcher is not None else None
    return life(detail, service.settings, service.clock.now(), backends, whole=whole)


async def content_of(service: Service, request: Request, ident: str) -> Content | None:
    """What is in it, None where the text has gone. Raises HTTPException for who may not read it."""
    require(Asked(actor_of(request)), Role.OPERATE)
    body = await service.spool.raw(ident)
    return await look_through_mail(partial(content, body)) if body is not None else None


async def raw(service: Service, request: Request) -> object:
    body = await service.spool.raw(request.path_params["id"])
    if body is None:
        raise HTTPException(404, f"no content of {request.path_params['id']}: unknown, or removed after sending")
    return Response(body, media_type="message/rfc822")
