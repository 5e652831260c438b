"""Health, status, backends and the test message over HTTP."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from functools import partial

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gateway.address import parse_address
from gateway.config.objects import Remark, remarks
from gateway.drop.drop import places
from gateway.drop.overview import Folder, overview
from gateway.http import acts
from gateway.http.described import described, given, needed
from gateway.http.problem import Answer, answer, json_body, text_of, texts_of
from gateway.http.service import Service, running
from gateway.pools import read_files
from gateway.spool import FIXES

_scrapes: dict[tuple[int, str], asyncio.Task[tuple[str, bytes]]] = {}  # under way


@described(media="text/plain")
async def metrics(service: Service, request: Request) -> Response:
    """What Prometheus reads.

    Whoever asks while it is being put together gets the same: it takes a while, and is open to strangers."""
    accept = request.headers.get("accept", "")
    key = id(service), accept
    if key not in _scrapes:
        _scrapes[key] = asyncio.create_task(_scrape(service, accept), name="scrape")
        _scrapes[key].add_done_callback(lambda _: _scrapes.pop(key))
    content_type, text = await asyncio.shield(_scrapes[key])
    return Response(text, headers={"content-type": content_type})


async def _scrape(service: Service, accept: str) -> tuple[str, bytes]:
    if service.dispatcher is not None:
        await service.dispatcher.publish()
    return service.events.render(accept)


@dataclass(frozen=True, slots=True)
class Alive:
    ok: bool = True


async def healthz(_service: Service, _request: Request) -> Alive:
    """The process answers.

    Nothing else is looked at: a slow disk is no reason to be killed."""
    return Alive()


@dataclass(frozen=True, slots=True)
class ReadyCheck:
    """``detail`` says what is wrong, "" where nothing is."""

    check: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Ready:
    """``ready`` where every check is ok."""

    ready: bool
    checks: tuple[ReadyCheck, ...]


@described(also={503: Ready})
async def readyz(service: Service, _request: Request) -> Answer[Ready]:
    """Whether mail should be sent here now; 503 with the reason if not."""
    deaf = [name for name, one in service.listeners.items() if not one.accepting]
    checks = [
        ("spool", service.spool.accepting(), _shut(service)),
        ("listeners", bool(service.listeners) and not deaf, f"not accepting: {', '.join(deaf) or 'no listener'}"),
        ("delivery", service.dispatcher is not None and service.dispatcher.alive, "the delivery tasks have ended"),
        ("draining", not service.draining, "the service is shutting down"),
    ]
    ready = all(ok for _, ok, _ in checks)
    shown = tuple(ReadyCheck(name, ok, "" if ok else detail) for name, ok, detail in checks)
    return answer(Ready(ready, shown), 200 if ready else 503)


def _shut(service: Service) -> str:
    cause = service.spool.room.shut
    return (
        f"no new mail ({cause}): {FIXES[cause]}" if cause else "the spool takes no writes: see spool_error in the log"
    )


@dataclass(frozen=True, slots=True)
class Dropped:
    """The folders that mail is taken from: the maildrop, and those of ``pickup``."""

    folders: list[Folder]


async def drop(service: Service, _request: Request) -> Dropped:
    """What lies in the maildrop and in pickup folders."""
    reasons, hanging = (service.drop.reasons, service.drop.hanging) if service.drop else ({}, set[str]())
    return Dropped(await read_files(partial(overview, places(service.settings), reasons, hanging)))


@dataclass(frozen=True, slots=True)
class Reloaded:
    """``changes`` in words, none where nothing has changed; ``warnings`` about the settings in force now."""

    changes: list[str]
    warnings: list[Remark]


@described(refusals=(422, 503))
async def reload(service: Service, request: Request) -> Reloaded:
    """Read the configuration again; if it is wrong, the old one stays."""
    changes = await reload_now(service, request)
    return Reloaded(changes, remarks(service.in_force.loaded.warnings))


async def reload_now(service: Service, request: Request) -> list[str]:
    """What changed, in words. Raises ConfigError with all that is wrong, HTTPException while no service runs."""
    running(service)
    changes = await service.reload()
    await acts.note(service, request, "reload", "; ".join(changes) or "nothing has changed")
    return changes


@dataclass(frozen=True, slots=True, kw_only=True)
class TestMessage:
    to: list[str] = needed("Who is to get it: addresses.")
    from_: str | None = given("Envelope sender and From field; bounces.from, or postmaster, where it is left out.")
    backend: str | None = given("By this backend, whatever the routes say.")


@dataclass(frozen=True, slots=True)
class Sent:
    """``id`` is the queue id: /api/v1/messages/{id} tells what became of it."""

    id: str


@described(body=TestMessage, status=202, refusals=(404, 422, 503))
async def send(service: Service, request: Request) -> Answer[Sent]:
    """Accept a short test message, as if a client had sent it."""
    running(service)
    body = await json_body(request)
    to, pin = texts_of(body, "to"), text_of(body, "backend")
    if not to:
        raise HTTPException(400, 'give at least one recipient: {"to": ["someone@example.com"]}')
    recipients = [parse_address(address) for address in to]
    own = service.settings.bounces.sender or f"postmaster@{service.settings.hostname}"
    sender = parse_address(text_of(body, "from") or own)
    if pin and pin not in service.settings.backends:
        raise HTTPException(404, f"no backend {pin}; there are {', '.join(service.settings.backends)}")
    message = EmailMessage(policy=SMTP)
    message["From"], message["To"] = sender, ", ".join(recipients)
    message["Subject"] = f"Test message of {service.settings.hostname}"
    message.set_content(f"This is a test message sent by gateway on {service.settings.hostname}.\n")
    queue_id = await service.submit(sender, recipients, message.as_bytes(), client="admin", pin=pin)
    await acts.note(service, request, "send-test", f"by {pin}" if pin else "", ids=[queue_id])
    return answer(Sent(queue_id), 202)
