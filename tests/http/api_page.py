"""docs/api.md, made from the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

HEAD = """\
# The interface for programs

What the commands and the pages use is yours too: JSON over HTTP, under `/api/v1/`. This page and
[openapi.json](openapi.json) are made from the code. A running service gives its own: `GET /api/v1/openapi.json`.

- **Where.** On the admin socket, and on `http.bind` (`127.0.0.1:8026`).
- **Who.** The socket may do everything. Loopback may read. For more, or from elsewhere, send a token:
  `gateway token mint --sub NAME --admin` makes one, and `--role` narrows it. Send it as `Authorization: Bearer TOKEN`.
- **Roles.** `read` looks, `operate` changes what happens to mail and backends, `admin` reloads and makes tokens.
- **Times** are ISO 8601 in UTC, as `2026-11-20T10:15:00Z`. What is not there is `""`, `0` or `null`, never left out.
- **Errors** are `application/problem+json` ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)): `detail` says what is
  wrong and what to do. 400 and 422: the request; 401: a token is missing; 403: its role does not reach; 404: no such
  thing; 409: not possible now; 503: ask again later.
- **The commands** print the same fields with `--json`. Names of paths and fields are part of what the
  [changelog](../CHANGELOG.md) promises. New fields may come at any time: skip what you do not know.

```sh
curl -s http://127.0.0.1:8026/api/v1/status
curl -s --unix-socket /run/gateway/admin.sock -d '{"ids": ["1K1EQM5KE2HT7"]}' http://localhost/api/v1/messages/retry
```
"""
KINDS = {"string": "text", "integer": "number", "number": "number", "boolean": "true or false", "null": "null"}


def page(whole: Mapping[str, Any]) -> str:
    return "\n".join(_lines(whole)) + "\n"


def _lines(whole: Mapping[str, Any]) -> Iterator[str]:
    yield HEAD
    yield "## Paths\n"
    for path, methods in whole["paths"].items():
        for method, one in methods.items():
            yield from _operation(path, method, one, whole["components"]["schemas"])
    yield "## Records\n"
    yield "What the answers are made of. A type in brackets may be missing from what you send.\n"
    for name, schema in whole["components"]["schemas"].items():
        yield f"### {name}\n"
        if "description" in schema and not schema["description"].startswith(f"{name}("):
            yield _cell(schema["description"]) + "\n"
        yield from _table(schema)


def _operation(path: str, method: str, one: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {method.upper()} {path}\n"
    yield f"{one['summary']}. {one['description']}\n"
    if query := [each for each in one.get("parameters", ()) if each["in"] == "query"]:
        yield "| In the query | type | meaning |\n| --- | --- | --- |"
        for each in query:
            kind = _kind(each["schema"])
            yield f"| `{each['name']}` | {kind if each['required'] else f'[{kind}]'} | {_cell(each['description'])} |"
        yield ""
    if body := one.get("requestBody"):
        yield f"Takes {_kind(body['content']['application/json']['schema'])}.\n"
    for status, answer in one["responses"].items():
        for media, found in answer.get("content", {}).items():  # the others are errors
            of = _kind(found["schema"]) if media == "application/json" else f"`{media}`"
            yield f"Answers {status} with {of}.\n"


def _table(schema: Mapping[str, Any]) -> Iterator[str]:
    if not schema.get("properties"):
        return
    says = any("description" in one for one in schema["properties"].values())
    yield "| field | type | meaning |\n| --- | --- | --- |" if says else "| field | type |\n| --- | --- |"
    for name, one in schema["properties"].items():
        kind = _kind(one) if name in schema.get("required", ()) else f"[{_kind(one)}]"
        yield f"| `{name}` | {kind} |" + (f" {_cell(one.get('description', ''))} |" if says else "")
    yield ""


def _kind(schema: Mapping[str, Any]) -> str:
    """A schema in few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(one) for one in schema["anyOf"]))
    if "const" in schema:
        return f"`{schema['const']}`" if schema["const"] else '`""`'
    if "enum" in schema:
        return ", ".join(f"`{one}`" if one else '`""`' for one in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}" if "items" in schema else "list"
    if schema.get("type") == "object":
        inner = schema.get("additionalProperties")
        return f"{_kind(inner)} by name" if isinstance(inner, dict) else "object"
    if schema.get("format") == "date-time":
        return "time"
    return KINDS.get(schema.get("type", ""), "any value")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
