"""docs/openapi.json and docs/api.md are made from the routes and their records, so they say what the service does.

``python -m tests.http.test_openapi`` writes both anew.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from starlette.responses import Response

from gateway.http.described import of
from gateway.http.openapi import document, operations
from gateway.http.problem import Answer
from gateway.http.routes import ROUTES
from tests.http.api_page import page
from tests.http.kit import Service, ask

DOCS = Path(__file__).parent.parent.parent / "docs"
FILE, PAGE = DOCS / "openapi.json", DOCS / "api.md"
WHOLE = document(ROUTES)
OPERATIONS = list(operations(ROUTES))


def text() -> str:
    return json.dumps(WHOLE, indent=1, ensure_ascii=False) + "\n"


def test_the_file_is_of_these_routes() -> None:
    """Who reads the file reads what the service does."""
    assert FILE.read_text() == text(), "write it anew: python -m tests.http.test_openapi"


def test_the_page_is_of_these_routes() -> None:
    """So does who reads the page."""
    assert PAGE.read_text() == page(WHOLE), "write it anew: python -m tests.http.test_openapi"


async def test_the_service_gives_it(running: Service) -> None:
    """The document of the very version that runs."""
    assert (await ask(running, "GET", "/api/v1/openapi.json")).json == WHOLE


def test_every_reference_leads_somewhere() -> None:
    """A client generator would stop there. A name with __ would be one of two records that are called the same."""
    named = set(_values(WHOLE, "$ref"))
    there = {f"#/components/{kind}/{name}" for kind in ("schemas", "responses") for name in WHOLE["components"][kind]}
    assert named == there
    assert not [name for name in named if "__" in name]


def _values(node: Any, key: str) -> list[str]:
    if isinstance(node, dict):
        return [node[key] for _ in (1,) if isinstance(node.get(key), str)] + [
            found for each in node.values() for found in _values(each, key)
        ]
    return [found for each in node for found in _values(each, key)] if isinstance(node, list) else []


def test_operations_have_names_of_their_own() -> None:
    """A generator makes a function of each."""
    names = [one["operationId"] for path in WHOLE["paths"].values() for one in path.values()]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("one", OPERATIONS, ids=lambda one: one.key)
def test_every_operation_says_what_it_is_for(one: Any) -> None:
    """In one sentence, from the handler's docstring."""
    assert len(one.summary) > 10


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route[0]} {route[1]}")
def test_no_route_without_types(route: tuple[Any, ...]) -> None:
    """A handler says by its annotation which records it answers with, or what else; never ``object`` or ``Any``."""
    handler = route[2]
    kind = get_type_hints(handler)["return"]
    if of(handler).media:
        assert kind is Response
        return
    if of(handler).actions:
        assert all(dataclasses.is_dataclass(one.gives) for one in of(handler).actions.values())
    for part in _parts(kind):
        assert dataclasses.is_dataclass(part), part


def _parts(kind: Any) -> list[Any]:
    """The records in a union, an Answer or a mapping by names."""
    if dataclasses.is_dataclass(kind):
        return [kind]
    origin = getattr(kind, "__origin__", None)
    inner = get_args(kind)[-1:] if origin is not Answer and "Mapping" in str(origin) else get_args(kind)
    return [part for one in inner for part in _parts(one)] or [kind]


@pytest.mark.parametrize("one", [one for one in OPERATIONS if one.method == "POST"], ids=lambda one: one.key)
def test_what_is_taken_is_explained(one: Any) -> None:
    """Each field of a body has a meaning."""
    for field in dataclasses.fields(one.told.body) if one.told.body else ():
        assert field.metadata["says"]


if __name__ == "__main__":
    FILE.write_text(text())
    PAGE.write_text(page(WHOLE))
