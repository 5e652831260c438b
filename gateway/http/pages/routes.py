"""The pages by path, and the way from a request to one of them: host, origin, person, role, form token, handler."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.actor import Role
from gateway.http.access import Access, marking
from gateway.http.pages import (
    backends,
    clients,
    flow,
    frame,
    message,
    messages,
    orders,
    overview,
    refused,
    settings,
    signing,
)
from gateway.http.pages.badge import things_to_do
from gateway.http.pages.guard import HEADERS, Refused, Way, check_origin, way_of
from gateway.http.pages.persons import person_of
from gateway.http.pages.trouble import explained, refusal
from gateway.http.pages.visit import Desk, View, Visit
from gateway.http.service import Service
from gateway.http.tenancy import narrowed

Page = Callable[[Visit], Awaitable[View | Response]]
_LARGEST_FORM = 1_000_000  # bytes: room for a few thousand ticks
_FIELDS = 5000

# Verb, path, handler, and the role that it takes. GET changes nothing.
PAGES: tuple[tuple[str, str, Page, Role], ...] = (
    ("GET", "/ui/", overview.page, Role.READ),
    ("GET", "/ui/flow", flow.page, Role.READ),
    ("GET", "/ui/refused", refused.page, Role.READ),
    ("GET", "/ui/backends", backends.page, Role.READ),
    ("GET", "/ui/backends/{name}", backends.backend, Role.READ),
    ("POST", "/ui/backends/{name}/check", backends.check, Role.OPERATE),
    ("POST", "/ui/backends/{name}/fix", backends.fix, Role.OPERATE),
    ("POST", "/ui/backends/{name}/pause", backends.pause, Role.OPERATE),
    ("POST", "/ui/backends/{name}/resume", backends.resume, Role.OPERATE),
    ("GET", "/ui/clients", clients.page, Role.READ),
    ("GET", "/ui/clients/{name}", clients.client, Role.READ),
    ("POST", "/ui/tokens", clients.mint, Role.ADMIN),
    ("POST", "/ui/tokens/{jti}/revoke", clients.revoke, Role.ADMIN),
    ("GET", "/ui/settings", settings.page, Role.READ),
    ("POST", "/ui/doctor", settings.look, Role.OPERATE),
    ("POST", "/ui/reload", settings.reload, Role.ADMIN),
    ("GET", "/ui/messages", messages.page, Role.READ),
    ("GET", "/ui/messages/all", orders.all_found, Role.OPERATE),
    ("POST", "/ui/messages/ask", orders.ask, Role.OPERATE),
    ("POST", "/ui/messages/do", orders.do, Role.OPERATE),
    ("GET", "/ui/work/{n}", orders.work, Role.READ),
    ("POST", "/ui/work/{n}/stop", orders.stop, Role.OPERATE),
    ("GET", "/ui/messages/{id}", message.page, Role.READ),
    ("GET", "/ui/messages/{id}/header", message.header, Role.OPERATE),
    ("GET", "/ui/messages/{id}/source", message.source, Role.OPERATE),
    ("GET", "/ui/messages/{id}/download", message.download, Role.OPERATE),
    ("POST", "/ui/logout", signing.out, Role.READ),
    ("POST", "/ui/times", signing.times, Role.READ),
)
# What a tenant's log-in may open; its first page is that of its messages.
FOR_TENANTS = frozenset(
    {
        "/ui/", "/ui/flow", "/ui/refused", "/ui/messages", "/ui/messages/all", "/ui/messages/ask", "/ui/messages/do",
        "/ui/work/{n}", "/ui/work/{n}/stop", "/ui/messages/{id}", "/ui/messages/{id}/header",
        "/ui/messages/{id}/source", "/ui/messages/{id}/download", "/ui/clients", "/ui/clients/{name}", "/ui/logout",
        "/ui/times",
    }
)  # fmt: skip
# For whoever is not signed in yet.
OPEN: tuple[tuple[str, str, signing.OpenPage], ...] = (
    ("GET", "/ui/login", signing.ask),
    ("POST", "/ui/login", signing.enter),
)


def is_page(path: str) -> bool:
    return path == "/ui" or path.startswith("/ui/")


def build(service: Service, access: Access) -> ASGIApp:
    """The pages for requests that come in by a socket of this kind."""
    desk = Desk(service.clock)
    routes = [
        Route("/ui/static/{hash}/{name}", _plain(service, frame.static), methods=["GET"]),
        Route("/ui", _plain(service, lambda _service, _request: Visit.go("/ui/")), methods=["GET"]),
        *(Route(path, _open(service, desk, handler), methods=[verb]) for verb, path, handler in OPEN),
        *(
            Route(path, _page(service, desk, handler, role, path), methods=[verb])
            for verb, path, handler, role in PAGES
        ),
    ]
    app = Starlette(
        routes=routes, exception_handlers={HTTPException: _lost(service, desk)}, max_body_size=_LARGEST_FORM
    )
    app.router.redirect_slashes = False
    return _Entrance(service, access, app)


class _Entrance:
    """The outermost layer: the headers of every answer, and no for whatever must not reach a page."""

    def __init__(self, service: Service, access: Access, app: ASGIApp) -> None:
        self._service, self._access, self._app = service, access, app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        marked = marking(send, HEADERS)

        try:
            scope["way"] = self._let_in(scope, Headers(scope=scope))
        except Refused as refused:
            await refusal(refused)(scope, receive, marked)
            return
        await self._app(scope, receive, marked)

    def _let_in(self, scope: Scope, headers: Headers) -> Way:
        if not scope["path"].isprintable():  # "$" in the router's patterns also matches before a newline
            raise Refused(404, "There is nothing here", "This address holds characters that no page has.")
        peer = (scope.get("client") or ("",))[0]
        way = way_of(self._service.settings.http, self._access, peer, headers)
        if scope["method"] not in ("GET", "HEAD"):
            check_origin(way, headers)
        return way


Endpoint = Callable[[Request], Awaitable[Response]]


def _plain(service: Service, handler: Callable[[Service, Request], Response]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        return handler(service, request)

    return endpoint


def _open(service: Service, desk: Desk, handler: signing.OpenPage) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        return await explained(service, request, lambda: _answer(request))

    async def _answer(request: Request) -> Response:
        return await handler(service, desk, request, request.scope["way"], await _form(request))

    return endpoint


def _lost(service: Service, desk: Desk) -> Callable[[Request, Exception], Awaitable[Response]]:
    """For what no page answers."""

    async def endpoint(request: Request, error: Exception) -> Response:
        async def answer() -> Response:
            await _visit(service, desk, request)
            raise error

        return await explained(service, request, answer)

    return endpoint


async def _visit(service: Service, desk: Desk, request: Request) -> Visit | None:
    """None of nobody. It stands in the request, for what goes wrong from now on. Raises Refused."""
    person = await person_of(service, desk, request, request.scope["way"])
    if person is None:
        return None
    own = await narrowed(service, person.actor)
    visit = request.state.visit = Visit(service=own, desk=desk, request=request, person=person)
    request.state.actor = person.actor  # for what is shared with the API
    return visit


def _page(service: Service, desk: Desk, handler: Page, role: Role, path: str) -> Endpoint:
    async def answer(request: Request) -> Response:
        if (visit := await _visit(service, desk, request)) is None:
            return signing.signed_out_page(request)
        if visit.actor.tenant and path not in FOR_TENANTS:
            raise Refused(403, "This is for operators", "You see the mail of your own clients, and what became of it.")
        if visit.actor.tenant and path == "/ui/":
            return visit.go("/ui/messages")
        visit, person = replace(visit, form=await _form(request)), visit.person
        if person.actor.role < role:
            raise Refused(
                403, "You may look, not change", f"This takes the role {role.word}; yours is {person.actor.role.word}."
            )
        if request.method == "POST" and not secrets.compare_digest(
            visit.text("form_token").encode(), person.token.encode()
        ):
            raise Refused(
                403, "This page is old", "Nothing was done. Load the page again, then press the button again."
            )
        if request.method == "POST":
            found = await handler(visit)
            desk.badge = None
            desk.failed.clear()
            number = await _number(visit, found)
        else:
            async with visit.service.spool.one_moment():
                found = await handler(visit)
                number = await _number(visit, found)
        return found if isinstance(found, Response) else frame.render(visit, found, number)

    async def endpoint(request: Request) -> Response:
        return await explained(service, request, lambda: answer(request))

    return endpoint


async def _number(visit: Visit, found: View | Response) -> int:
    """How many things need somebody; 0 where nobody is shown it."""
    if isinstance(found, Response) or visit.asked_part or visit.actor.tenant:
        return 0
    if found.needs is not None:
        visit.desk.badge = visit.service.clock.monotonic(), found.needs
        return found.needs
    return await things_to_do(visit.service, visit.desk)


async def _form(request: Request) -> Mapping[str, list[str]]:
    """The fields of a form as browsers send it by default. Raises Refused."""
    if request.method != "POST":
        return {}
    try:
        return parse_qs((await request.body()).decode(), keep_blank_values=True, max_num_fields=_FIELDS)
    except ValueError:
        raise Refused(400, "That is no form", "Nothing was done. Load the page again.") from None
