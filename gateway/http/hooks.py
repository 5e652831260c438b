"""Where providers call back to say what became of mail they took: ``POST /hooks/{backend}``, open to the network.

Whether a call is the provider's, the backend decides by what it carries (a signature or a secret), before it is used.
"""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request

from gateway.http.service import Service
from gateway.model import Refusal

LARGEST_BODY = 256 * 1024
_STATUS = {535: 401, 501: 400}


async def receive(service: Service, request: Request) -> object:
    """On disk before the answer. What is not ours is no error: others may send by the same account."""
    name = request.path_params["name"]
    if service.delivery is None or service.draining:
        raise HTTPException(503, "not running, call again later")
    backend = service.delivery.hooked(name)
    if backend is None:
        raise HTTPException(404, f"no backend {name} whose provider may call back")
    try:
        said = backend.reports(dict(request.headers), await request.body())
    except Refusal as refusal:
        service.events.warning("hook_refused", backend=name, detail=refusal.text)
        raise HTTPException(_STATUS.get(refusal.code, 503), refusal.text) from None
    await service.spool.report(name, said, "webhook")
    return {"reports": len(said)}
