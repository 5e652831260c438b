"""What goes wrong on the way to a page, as a page: what it was, what was not done, what to do."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gateway.config import ConfigError
from gateway.http.pages import frame
from gateway.http.pages.guard import Refused
from gateway.http.pages.visit import View, Visit
from gateway.http.service import Service
from gateway.model import Fault, Refusal

_TITLES = {
    404: "There is nothing here",
    405: "Not in this way",
    409: "There was nothing to do",
    413: "That is too much at once",
}


async def explained(service: Service, request: Request, answer: Callable[[], Awaitable[Response]]) -> Response:
    """The answer, or every error as a page."""
    try:
        return await answer()
    except Exception as error:
        visit: Visit | None = getattr(request.state, "visit", None)
        if (found := _expected(request, error)) is not None:
            return found if isinstance(found, Response) else refusal(found, visit)
        number = f"ui-{secrets.token_hex(3)}"
        service.events.bug(number, error)
        changed = "Nothing was changed." if request.method in ("GET", "HEAD") else "Look whether it was done."
        view = View(template="wrong.html", status=500, values={"number": number, "changed": changed})
        with suppress(Exception):  # what every page has may be what is wrong
            return frame.render_trouble(visit, view)
        return frame.render_trouble(None, view)


def _expected(request: Request, error: Exception) -> Refused | Response | None:
    match error:
        case Refused():
            return error
        case HTTPException():
            return _of_router(request, error)
        case Refusal() | Fault():
            return Refused(503, "That cannot be done now", f"{error.text}.")
        case ConfigError():
            return Refused(422, "The configuration is wrong, the old one stays", str(error))
        case ClientDisconnect():
            return Response(status_code=400)  # to nobody
    return None


def refusal(refused: Refused, visit: Visit | None = None) -> Response:
    values = {"title": refused.title, "text": refused.text}
    return frame.render_trouble(visit, View(template="refused_request.html", status=refused.status, values=values))


def _of_router(request: Request, error: HTTPException) -> Refused:
    """What the router says, and handlers that share the API's checks."""
    if error.status_code == 404 and error.detail == "Not Found":
        return Refused(404, _TITLES[404], f"No page has the address {request.url.path}.")
    title = _TITLES.get(error.status_code, "That was not understood")
    return Refused(error.status_code, title, error.detail)
