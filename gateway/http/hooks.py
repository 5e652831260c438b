"""Where providers call back to say what became of mail they took: ``POST /hooks/{backend}``, open to the network.

Whether a call is the provider's, the backend decides by what it carries (a signature or a secret), before it is used.
"""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request

from gateway.http.service import Service
from gateway.model import HookRefused

LARGEST_BODY = 256 * 1024


async def receive(service: Service, request: Request) -> object:
    """On disk before the answer. What is not ours is no error: others may send by the same account."""
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
    return {"events": len(said)}
