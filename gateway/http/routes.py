"""Which path is answered by what. Handlers return plain values; every error becomes problem+json here."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import cache, partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from gateway.actor import Role
from gateway.config import ConfigError
from gateway.config.objects import objects
from gateway.http import (
    acts,
    alerts,
    api,
    backends,
    clients,
    doctor,
    door,
    hooks,
    learn,
    message,
    messages,
    openapi,
    settings,
    signins,
    status,
    tokens,
    trace,
)
from gateway.http.access import Access, Guard, identify, require
from gateway.http.described import described
from gateway.http.problem import STATUS, answer, problem
from gateway.http.service import Service
from gateway.http.tenancy import narrowed
from gateway.model import Fault, Refusal
from gateway.pools import read_files

Handler = Callable[[Service, Request], Awaitable[object]]
_LARGEST_BODY = 8_000_000  # bytes: room for 250,000 queue ids


@cache
def _document() -> str:
    return json.dumps(openapi.document(ROUTES), ensure_ascii=False)


@described(media="application/json")
async def openapi_json(_service: Service, _request: Request) -> Response:
    """This interface as an OpenAPI document."""
    return Response(await read_files(_document), media_type="application/json")


# The last column: what role it takes. The admin socket has them all, loopback may read; else a token says.
ROUTES: tuple[tuple[str, str, Handler, Role], ...] = (
    ("GET", "/metrics", api.metrics, Role.NOBODY),
    ("GET", "/healthz", api.healthz, Role.NOBODY),
    ("GET", "/readyz", api.readyz, Role.NOBODY),
    ("GET", "/api/v1/status", status.status, Role.READ),
    ("GET", "/api/v1/problems", status.found, Role.READ),
    ("POST", "/api/v1/reload", api.reload, Role.ADMIN),
    ("POST", "/api/v1/send", api.send, Role.OPERATE),
    ("GET", "/api/v1/doctor", doctor.show, Role.READ),
    ("POST", "/api/v1/doctor", doctor.run, Role.OPERATE),
    ("GET", "/api/v1/backends", backends.backends, Role.READ),
    ("GET", "/api/v1/backends/{name}", backends.backend, Role.READ),
    ("POST", "/api/v1/backends/{name}/{action}", backends.steer, Role.OPERATE),
    ("GET", "/api/v1/clients", clients.clients, Role.READ),
    ("GET", "/api/v1/clients/{name}", clients.client, Role.READ),
    ("GET", "/api/v1/learn", learn.report, Role.READ),
    ("POST", "/api/v1/learn/{action}", learn.steer, Role.ADMIN),
    ("GET", "/api/v1/settings", settings.settings, Role.READ),
    ("GET", "/api/v1/drop", api.drop, Role.READ),
    ("GET", "/api/v1/trace", trace.find, Role.READ),
    ("GET", "/api/v1/acts", acts.find, Role.READ),
    ("GET", "/api/v1/acts/{id}", acts.show, Role.READ),
    ("GET", "/api/v1/tokens", tokens.list_tokens, Role.READ),
    ("POST", "/api/v1/tokens", tokens.mint_token, Role.ADMIN),
    ("POST", "/api/v1/tokens/inspect", tokens.inspect_token, Role.OPERATE),
    ("POST", "/api/v1/tokens/revoke", tokens.revoke_token, Role.ADMIN),
    ("POST", "/api/v1/signins", signins.make, Role.OPERATE),
    ("POST", "/api/v1/signins/end", signins.end, Role.ADMIN),
    ("GET", "/api/v1/messages", messages.find, Role.READ),
    ("POST", "/api/v1/messages/{action}", messages.change_many, Role.OPERATE),
    ("GET", "/api/v1/messages/{id}", message.show, Role.READ),
    ("GET", "/api/v1/messages/{id}/raw", message.raw, Role.OPERATE),
    ("POST", "/api/v1/messages/{id}/{action}", messages.change_one, Role.OPERATE),
    ("GET", "/api/v1/work", messages.works, Role.READ),
    ("GET", "/api/v1/work/{number}", messages.work, Role.READ),
    ("POST", "/api/v1/work/{number}/stop", messages.stop_work, Role.OPERATE),
    ("GET", "/api/v1/refusals", door.refusals, Role.READ),
    ("GET", "/api/v1/flow", door.flow, Role.READ),
    ("GET", "/api/v1/alerts", alerts.alerts, Role.READ),
    ("POST", "/api/v1/alerts/test", alerts.test, Role.OPERATE),
    ("GET", "/api/v1/openapi.json", openapi_json, Role.READ),
    ("POST", "/hooks/{name}", hooks.receive, Role.NOBODY),
)


# What a tenant's log-in may ask for: handlers that ask nothing of the service but what tenancy.py narrows. All else is
# for operators.
FOR_TENANTS = frozenset(
    {
        "/api/v1/acts", "/api/v1/acts/{id}", "/api/v1/backends", "/api/v1/backends/{name}", "/api/v1/clients",
        "/api/v1/clients/{name}", "/api/v1/flow", "/api/v1/messages", "/api/v1/messages/{action}",
        "/api/v1/messages/{id}", "/api/v1/messages/{id}/raw", "/api/v1/messages/{id}/{action}",
        "/api/v1/openapi.json", "/api/v1/refusals", "/api/v1/trace", "/api/v1/work", "/api/v1/work/{number}",
        "/api/v1/work/{number}/stop",
    }
) | {("GET", "/api/v1/tokens")}  # fmt: skip


def build(service: Service, access: Access) -> ASGIApp:
    """The ASGI application for requests that come in by a socket of this kind."""
    routes = [
        Route(
            path,
            _endpoint(service, handler, access, _needed(path, access, role), _fit(method, path)),
            methods=[method],
            max_body_size=hooks.LARGEST_BODY if handler is hooks.receive else None,
        )
        for method, path, handler, role in ROUTES
    ]
    explained = {HTTPException: partial(_explain, service)}
    app = Starlette(routes=routes, exception_handlers=explained, max_body_size=_LARGEST_BODY)
    app.router.redirect_slashes = False
    return Guard(app, access)


def _fit(method: str, path: str) -> bool:
    return path in FOR_TENANTS or (method, path) in FOR_TENANTS


def _needed(path: str, access: Access, role: Role) -> Callable[[Service], Role]:
    """Numbers of all tenants by name are not for strangers, among whom they are."""
    hidden = path == "/metrics" and access is Access.NETWORK
    return lambda service: Role.READ if hidden and service.settings.tenants else role


def _endpoint(
    service: Service, handler: Handler, access: Access, needed: Callable[[Service], Role], tenants: bool
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            asked = service
            if role := needed(service):
                actor = request.state.actor = require(await identify(service, request, access), role)
                if actor.tenant and not tenants:
                    raise HTTPException(403, "this is for operators; a tenant's log-in sees its own mail only")
                asked = await narrowed(service, actor)
            result = await handler(asked, request)
            return result if isinstance(result, Response) else answer(result)
        except Exception as error:
            return _explain(service, request, error)

    return endpoint


def _explain(service: Service, request: Request, error: Exception) -> Response:
    match error:
        case HTTPException():
            path = request.url.path
            words = f"there is nothing at {path}" if error.detail == "Not Found" else error.detail  # the router's own
            return problem(error.status_code, words, instance=path)
        case Refusal():
            status = 503 if error.code < 500 else 422
            return problem(status, error.text, code=error.code, enhanced=error.enhanced)
        case Fault():
            return problem(STATUS[type(error), error.kind], error.text)
        case ConfigError():
            words = "the configuration is wrong, the old one stays"
            return problem(422, words, errors=str(error).splitlines(), findings=objects(error.lines))
        case ClientDisconnect():
            return problem(400, "the request broke off")  # to nobody
    service.events.bug("http", error)
    return problem(500, "internal error, see the log")
