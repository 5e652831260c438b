"""The OpenAPI 3.1 document of the JSON interface, made from the routes and the records that handlers answer with.

Published at ``/api/v1/openapi.json``, kept in docs/openapi.json. https://spec.openapis.org/oas/v3.1.1.html
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter
from starlette.responses import Response

import gateway
from gateway.config.objects import Remark
from gateway.http.described import Described, of
from gateway.http.problem import Answer

_REF = "#/components/schemas/{model}"
_PROBLEM = "application/problem+json"
_REFUSALS = {
    400: "The request is wrong; detail says what.",
    401: "A token is needed, or the one given is not accepted.",
    403: "The token's role does not reach so far.",
    404: "There is no such thing.",
    409: "It exists, but this cannot be done to it now.",
    413: "The request is too large.",
    421: "This address answers to localhost only.",
    422: "What was given cannot be used; detail or errors say why.",
    500: "A fault of ours; the log has it.",
    503: "Not now; ask again later.",
}
_USUAL = (400, 401, 403, 413, 421, 500, 503)


@dataclass(frozen=True, slots=True)
class Error:
    """An error (RFC 9457). ``detail`` says what is wrong and what to do. ``code`` and ``enhanced`` are the SMTP reply
    that a client would have got; ``errors`` and ``findings`` what is wrong with the configuration."""

    type: str
    title: str
    status: int
    detail: str
    instance: str = ""
    code: int = 0
    enhanced: str = ""
    errors: tuple[str, ...] = ()
    findings: tuple[Remark, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """One that can be called: a route, or one action of it."""

    method: str
    path: str
    name: str
    summary: str
    more: str
    role: str
    told: Described
    answers: Mapping[int, Any]  # the records by status; None is no JSON

    @property
    def key(self) -> str:
        return f"{self.method} {self.path}"


def operations(routes: Iterable[tuple[str, str, Callable[..., Any], Any]]) -> Iterator[Operation]:
    """Of routes given as method, path, handler and role. An ``{action}`` is written out: paths must not be alike."""
    for method, path, handler, role in routes:
        told, (summary, _, more) = of(handler), (inspect.getdoc(handler) or "").partition("\n\n")
        first, name, words = (
            " ".join(summary.split()),
            f"{handler.__module__.rpartition('.')[2]}_{handler.__name__}",
            role.word,
        )
        if not told.actions:
            yield Operation(method, path, name, first, more, words, told, _answers(handler, told))
        for action, one in told.actions.items():
            known = Described(
                body=one.body, refusals=told.refusals, also=one.also, gives=one.gives, status=told.status
            )  # fmt: skip
            place, answers = path.replace("{action}", action), {200: one.gives, **one.also}
            yield Operation(method, place, f"{name}_{action}", one.says, more, words, known, answers)


def _answers(handler: Callable[..., Any], told: Described) -> dict[int, Any]:
    """What is returned as it is has status 200, an Answer that of its description."""
    kind = get_type_hints(handler)["return"]
    parts = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    found: dict[int, Any] = {}
    plain = tuple(one for one in parts if get_origin(one) is not Answer)
    if told.media or plain == (Response,):
        return {200: None}
    if plain:
        found[200] = Union[plain]  # noqa: UP007 - made from a tuple
    for one in parts:
        if get_origin(one) is Answer:
            found[told.status] = get_args(one)[0]
    return found | dict(told.also)


def document(routes: Iterable[tuple[str, str, Callable[..., Any], Any]]) -> dict[str, Any]:
    """The whole of it, as plain values."""
    listed = list(operations(routes))
    given: dict[str, Any] = {
        f"{one.key} {status}": kind for one in listed for status, kind in one.answers.items() if kind is not None
    }
    schemas, parts = _schemas("serialization", given)
    for schema in parts.values():
        if "properties" in schema:  # a record has all its fields always, those with a default as well, and no others
            schema |= {"required": list(schema["properties"]), "additionalProperties": False}
    problem, of_problem = _schemas("serialization", {"problem": Error})
    of_problem["Error"]["additionalProperties"] = False
    bodies, asked = _schemas("validation", {one.key: one.told.body for one in listed if one.told.body is not None})
    parts = {**of_problem, **asked, **parts}
    paths: dict[str, Any] = {}
    for one in listed:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, schemas, bodies)
    whole: dict[str, Any] = _plain({
        "openapi": "3.1.0",
        "info": {
            "title": "gateway",
            "version": gateway.__version__,
            "description": "What the commands and the pages use. Times are ISO 8601 in UTC; absent text is empty.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:8026"}],
        "security": [{}, {"admin": []}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(parts.items())),
            "responses": {str(status): _refusal(status, problem["problem"]) for status in _REFUSALS},
            "securitySchemes": {
                "admin": {
                    "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                    "description": "gateway token mint --admin. Nothing is needed on the admin socket.",
                }
            },
        },
    })  # fmt: skip
    return whole


def _schemas(
    mode: Literal["serialization", "validation"], kinds: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """By the names given, and the parts that they refer to. A name that is a word of Python ends with _ there."""
    adapters = [(name, mode, TypeAdapter(kind)) for name, kind in kinds.items()]
    made, whole = TypeAdapter.json_schemas(adapters, ref_template=_REF)
    parts = whole.get("$defs", {})
    for schema in parts.values():
        if "properties" in schema:
            schema["properties"] = {name.rstrip("_"): one for name, one in schema["properties"].items()}
    for kind in filter(None, kinds.values()):
        _say(kind, parts)
    return {name: schema for (name, _), schema in made.items()}, parts


def _say(kind: Any, parts: Mapping[str, Any]) -> None:
    """What the fields of a body mean, in the schema of its name."""
    schema = parts.get(getattr(kind, "__name__", ""), {})
    for field in fields(kind) if schema else ():
        if "says" in field.metadata:
            schema["properties"][field.name.rstrip("_")]["description"] = field.metadata["says"]


def _operation(one: Operation, schemas: Mapping[str, Any], bodies: Mapping[str, Any]) -> dict[str, Any]:
    told = one.told
    made: dict[str, Any] = {"operationId": one.name, "summary": one.summary.rstrip("."), "tags": [tag(one.path)]}
    made["description"] = " ".join(filter(None, (" ".join(one.more.split()), f"Role: {one.role}.")))
    if parameters := [*_in_path(one.path), *_in_query(told.query)]:
        made["parameters"] = parameters
    if told.body is not None:
        content = {"application/json": {"schema": bodies[one.key]}}
        made["requestBody"] = {"content": content, "required": any(map(is_needed, fields(told.body)))}
    answers = {status: _success(told, schemas.get(f"{one.key} {status}")) for status in one.answers}
    refused = {*_USUAL, *told.refusals}
    answers |= {status: {"$ref": f"#/components/responses/{status}"} for status in refused if status not in answers}
    made["responses"] = {str(status): answers[status] for status in sorted(answers)}
    return made


def tag(path: str) -> str:
    """What a path is about."""
    return path.removeprefix("/api/v1/").split("/")[0] if path.startswith("/api/v1/") else "service"


def _success(told: Described, schema: Any) -> dict[str, Any]:
    if told.media and schema is None:
        kind = {"type": "object"} if told.media == "application/json" else {"type": "string"}
        return {"description": "Done.", "content": {told.media: {"schema": kind}}}
    return {"description": "Done.", "content": {"application/json": {"schema": schema}}}


def _refusal(status: int, schema: Any) -> dict[str, Any]:
    return {"description": _REFUSALS[status], "content": {_PROBLEM: {"schema": schema}}}


def _in_path(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"\{(\w+)\}", path)
    ]


def _in_query(kind: type | None) -> list[dict[str, Any]]:
    if kind is None:
        return []
    hints = TypeAdapter(kind).json_schema()["properties"]
    return [
        {"name": field.name.rstrip("_"), "in": "query", "required": is_needed(field), "schema": hints[field.name],
         "description": field.metadata.get("says", "")}
        for field in fields(kind)
    ]  # fmt: skip


def is_needed(field: Any) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _plain(node: Any) -> Any:
    """Without the titles that pydantic makes from names; doc strings as Markdown."""
    if isinstance(node, dict):
        return {
            key: value.replace("``", "`").replace("\n", " ")
            if key in ("description", "summary") and isinstance(value, str)
            else _plain(value)
            for key, value in node.items()
            if not (key == "title" and isinstance(value, str) and "openapi" not in node and "version" not in node)
        }
    return [_plain(each) for each in node] if isinstance(node, list) else node
