"""Templates into answers: the whole page, or the one part of it that the script asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, pass_context
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

import gateway
from gateway.http.pages import text
from gateway.http.pages.visit import View, Visit
from gateway.http.service import Service

HERE = Path(__file__).parent
_STATIC = {"pages.css": "text/css", "pages.js": "text/javascript", "icons.svg": "image/svg+xml"}
NAVIGATION = (
    ("overview", "Overview", "/ui/"),
    ("messages", "Messages", "/ui/messages"),
    ("refused", "Refused", "/ui/refused"),
    ("backends", "Backends", "/ui/backends"),
    ("clients", "Clients", "/ui/clients"),
    ("settings", "Settings", "/ui/settings"),
)
FOR_TENANTS = ("messages", "refused", "clients")


@cache
def static_files() -> Mapping[str, bytes]:
    return {name: (HERE / "static" / name).read_bytes() for name in _STATIC}


@cache
def static_hash() -> str:
    """Of all of them: the address changes with the content, so it may be kept for ever."""
    return hashlib.sha256(b"".join(static_files().values())).hexdigest()[:12]


@cache
def templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined,
        finalize=text.finalize, trim_blocks=True, lstrip_blocks=True, auto_reload=False,
    )  # fmt: skip
    made.filters.update(
        visible=text.visible,
        whole=text.Whole,
        number=text.number,
        short=text.short,
        size=text.size,
        span=text.span,
        count=text.count,
    )
    # the other three depend on who looks: Times of the visit, by the context
    made.globals.update(
        url=text.url, static=lambda name: text.Whole(f"/ui/static/{static_hash()}/{name}"), navigation=NAVIGATION,
        version=gateway.__version__, zip=zip,
    )  # fmt: skip

    def timely(name: str) -> Any:
        @pass_context
        def shown(context: Any, at: Any) -> Any:
            return getattr(context["times"], name)(at)

        return shown

    made.filters.update({name: timely(name) for name in ("time", "time_of_day", "hour", "day", "ago", "told")})
    return made


def static(_service: Service, request: Request) -> Response:
    """A file whose address holds the hash of what is in it."""
    name = request.path_params["name"]
    if request.path_params["hash"] != static_hash() or name not in _STATIC:
        raise HTTPException(404)
    kept = {"cache-control": "public, max-age=31536000, immutable"}
    return Response(static_files()[name], headers=kept, media_type=_STATIC[name])


def render(visit: Visit, view: View, problems: int = 0) -> Response:
    """The page, or with ``X-Part`` that block of it alone."""
    template = templates().get_template(view.template)
    block, _, rest = visit.asked_part.partition("-")
    values = {
        "section": "", "done": visit.desk.find(visit.person.key, visit.request.query_params.get("done", "")),
        **view.values,
        "visit": visit, "person": visit.person, "may": visit.may, "times": visit.times, "token": visit.token_field,
        "person_clients": visit.service.settings.clients,
        "navigation": [one for one in NAVIGATION if not visit.actor.tenant or one[0] in FOR_TENANTS],
        "hostname": visit.service.settings.hostname, "problems": problems, "part": rest,
        "up": (visit.service.clock.now() - visit.desk.started).total_seconds(),
        "here": text.Whole(visit.request.url.path + (f"?{query}" if (query := visit.request.url.query) else "")),
    }  # fmt: skip
    values["m"] = _macros(values)
    values["p"] = templates().get_template("pieces.html").make_module(dict(values))
    body = _part(template, block, values) if block else template.render(values)
    return Response(body, view.status, {"vary": "X-Part"}, media_type="text/html")


def _macros(values: Mapping[str, Any]) -> Any:
    """``m`` in every template, also where one block of it is rendered alone."""
    return templates().get_template("macros.html").make_module(dict(values))


def _part(template: Template, block: str, values: Mapping[str, Any]) -> str:
    if block not in template.blocks or block in ("title", "main", "head"):
        raise HTTPException(404, "this page has no such part")
    return "".join(template.blocks[block](template.new_context(dict(values))))


def render_trouble(visit: Visit | None, view: View) -> Response:
    """For whoever is signed in with the way to all other pages. Nothing is looked up: that may be what fails."""
    if visit is None or visit.asked_part:
        return render_alone(view.template, view.status, {"visit": None, **view.values})
    section = visit.request.url.path.removeprefix("/ui/").partition("/")[0]
    known = visit.desk.badge[1] if visit.desk.badge and not visit.actor.tenant else 0
    return render(visit, replace(view, values={"section": section, **view.values}), known)


def render_alone(template: str, status: int, values: Mapping[str, Any]) -> Response:
    """A page for whoever is not signed in: no navigation, no names."""
    given = {"token": "", **values}
    body = templates().get_template(template).render(given, m=_macros(given))
    return Response(body, status, {"vary": "X-Part"}, media_type="text/html")
