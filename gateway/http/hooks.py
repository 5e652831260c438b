"""Where providers call back to say what became of mail they took: ``POST /hooks/{backend}``, open to the network.

Whether a call is the provider's, the backend decides by what it carries (a signature or a secret), before it is used.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request

from gateway.http.described import described
from gateway.http.service import Service
from gateway.model import HookRefused

LARGEST_BODY = 256 * 1024


@dataclass(frozen=True, slots=True)
class Received:
    """``events``: how much was said of mail of ours."""

    events: int


@described(refusals=(404, 413, 503))
async def receive(service: Service, request: Request) -> Received:
    """For providers: what became of mail that they took. The body is the provider's own.

    On disk before the answer. What is not ours is no error: others may send by the same account."""
    name = request.path_params["name"]
    if service.dispatcher is None or service.draining:
        raise HTTPException(503, "not running, call again later")
    backend = service.dispatcher.calls_back(name)
    if backend is None:
        raise HTTPException(404, f"no backend {name} whose provider may call back")
    try:
        said = backend.called_back(dict(request.headers), await request.body())
    except HookRefused as error:
        service.events.warning("hook_refused", backend=name, detail=error.text)
        raise
    await service.spool.add_events(name, said, "webhook")
    return Received(len(said))
