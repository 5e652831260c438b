"""One message over HTTP: its life, what is in it, and its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Literal

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gateway.actor import Role
from gateway.http.access import Asked, actor_of, require
from gateway.http.described import described, given
from gateway.http.problem import fields_of, flag
from gateway.http.service import Service
from gateway.lifeline import Content, Entry, Life, content, life
from gateway.pools import look_through_mail
from gateway.spool import MessageDetail, MessageRow, RecipientRow, RestRow
from gateway.spool.records import ActRow, AskedRow, AttemptRow, BounceRow, ClockStep, DeliveryRow, EventRow


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageShown(MessageRow):
    """A message with all its ``recipients``, ``attempts`` the oldest first, the ``deliveries`` it still has to make,
    ``events`` that providers told, ``bounces`` to its sender, ``acts`` of operators, the ``rests`` of its backends and
    ``copies`` by which it was sent again, and in ``asked`` what became of recipients that are somebody else's now.
    ``shown`` is its state for people, and its text is ``kept_until``, null where
    it is gone or not to go. ``life`` tells all that in order, in words."""

    recipients: tuple[RecipientRow, ...]  # type: ignore[assignment] # a list has their addresses here
    attempts: tuple[AttemptRow, ...]  # type: ignore[assignment] # and their number
    deliveries: tuple[DeliveryRow, ...]
    events: tuple[EventRow, ...]
    bounces: tuple[BounceRow, ...]
    clock_steps: tuple[ClockStep, ...]
    acts: tuple[ActRow, ...]
    rests: tuple[RestRow, ...]
    copies: tuple[str, ...]
    asked: tuple[AskedRow, ...]
    shown: str
    kept_until: datetime | None
    life: tuple[Entry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRead(MessageShown):
    """With its ``content``, null where the text is gone."""

    content: Content | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageQuery:
    all: Literal["", "0", "1"] = given("1: nothing of its life cut or left out.")
    content: Literal["", "0", "1"] = given("1: also the names of its parts and its header, for the role operate.")


@described(query=MessageQuery, refusals=(404,))
async def show(service: Service, request: Request) -> MessageShown | MessageRead:
    """All that is known of it, with its ``life`` in words; ``all=1``: nothing of that cut or left out.

    With ``content=1`` also the names of its parts and its header, for whoever may read the message itself.
    """
    ident = request.path_params["id"]
    detail = await service.spool.show(ident)
    if detail is None:
        raise HTTPException(404, f"no message {ident}")
    told = life_of(service, detail, whole=flag(request, "all"))
    row, parts = fields_of(detail.message), fields_of(detail)
    del parts["how"], parts["message"]
    fields = {**row, **parts, "shown": told.state, "kept_until": told.kept_until, "life": told.entries}
    if not flag(request, "content"):
        return MessageShown(**fields)
    return MessageRead(**fields, content=await content_of(service, request, ident))


def life_of(service: Service, detail: MessageDetail, *, whole: bool = False) -> Life:
    """Its life as of now."""
    backends = service.dispatcher.status() if service.dispatcher is not None else None
    return life(detail, service.settings, service.clock.now(), backends, whole=whole)


async def content_of(service: Service, request: Request, ident: str) -> Content | None:
    """What is in it, None where the text has gone. Raises HTTPException for who may not read it."""
    require(Asked(actor_of(request)), Role.OPERATE)
    body = await service.spool.raw(ident)
    return await look_through_mail(partial(content, body)) if body is not None else None


@described(media="message/rfc822", refusals=(404,))
async def raw(service: Service, request: Request) -> Response:
    """The message byte for byte, as it will be sent."""
    body = await service.spool.raw(request.path_params["id"])
    if body is None:
        raise HTTPException(404, f"no content of {request.path_params['id']}: unknown, or removed after sending")
    return Response(body, media_type="message/rfc822")
