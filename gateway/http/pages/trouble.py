"""What goes wrong on the way to a page, as a page: what it was, what was not done, what to do."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gateway.config import ConfigError
from gateway.http.pages import frame
from gateway.http.pages.guard import Refused
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
        if (found := _expected(request, error)) is not None:
            return found
        number = f"ui-{secrets.token_hex(3)}"
        service.events.bug(number, error)
        changed = "Nothing was changed." if request.method in ("GET", "HEAD") else "Look whether it was done."
        return frame.render_alone("wrong.html", 500, {"number": number, "changed": changed})


def _expected(request: Request, error: Exception) -> Response | None:
    match error:
        case Refused():
            return refusal(error)
        case HTTPException():
            return wrong_path(request, error)
        case Refusal() | Fault():
            return refusal(Refused(503, "That cannot be done now", f"{error.text}."))
        case ConfigError():
            return refusal(Refused(422, "The configuration is wrong, the old one stays", str(error)))
        case ClientDisconnect():
            return Response(status_code=400)  # to nobody
    return None


def refusal(refused: Refused) -> Response:
    return frame.render_alone("refused_request.html", refused.status, {"title": refused.title, "text": refused.text})


def wrong_path(request: Request, error: Exception) -> Response:
    """What the router says, and handlers that share the API's checks."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404 and error.detail == "Not Found":
        return refusal(Refused(404, _TITLES[404], f"No page has the address {request.url.path}."))
    title = _TITLES.get(error.status_code, "That was not understood")
    return refusal(Refused(error.status_code, title, error.detail))
