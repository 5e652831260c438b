"""Whatever is asked, by whomever: the answer is a clear no, never an internal error, and never counts as a bug."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

import pytest

from gateway.http.routes import ROUTES
from gateway.http.server import HttpServer
from tests.http.kit import Service, ask

FEW = [
    *(b"[" * 60 + b"]" * 60, b"9" * 30, b"NaN", b"true", b"[1]", b'["a", 5]', b'{"a": 1}', rb'"\ud800"'),
    *(rb'["\udfff"]', rb'"\u0000"', b'"9999999999d"', b'""', b'"a"'),
]  # fmt: skip
MORE = [
    *(b'{"a":' * 60 + b"1" + b"}" * 60, b"[" * 100_000, b"[" * 2000 + b"]" * 2000, b"9" * 5000, b"1e999", b"-1"),
    *(b"-Infinity", b"0", b"1.5", b"null", b"[]", b"{}", b"[null]", rb'{"\ud800": 1}', b'"' + b"x" * 70_000 + b'"'),
    *(b'" "', b'"\\n"', b'"999999999w"', b'"99999999999999999999"', b'"a@b@c"', b'"<>"', b'"\xff"', b"'a'", b"{"),
]  # fmt: skip
WHOLE = [*FEW, *MORE, b'{"a": 1, "a": 2}', b"\xef\xbb\xbf{}", "{}".encode("utf-16")]
CLAIMS = [
    "sub",
    "exp",
    "nbf",
    "iat",
    "aud",
    "iss",
    "jti",
    "senders",
    "recipients",
    "networks",
    "backend",
    "max_size",
    "x",
]
FILTERS = ["id", "message_id", "address", "remote_id", "state", "backend", "sender", "recipient", "older", "x"]
# What may stand in the body of each, and in what.
FIELDS = {
    "/api/v1/messages/hold": [*(f'"filter": {{"{name}": %s}}' for name in FILTERS), '"ids": %s', '"filter": %s'],
    "/api/v1/messages/bounce": ['"ids": %s', '"filter": {"older": %s}'],
    "/api/v1/backends/box/pause": ['"for": %s'],
    "/api/v1/tokens": [
        *(f'"subject": "a", "expires": "1h", "claims": {{"{name}": %s}}' for name in CLAIMS),
        *(f'"{name}": %s' for name in ("subject", "key", "note", "claims", "admin", "expires")),
        *(f'"subject": "a", "expires": "1h", "{name}": %s' for name in ("key", "note", "claims", "admin")),
    ],
    "/api/v1/doctor": ['"areas": ["settings"], "wait": %s', '"areas": [%s]'],
    "/api/v1/signins": ['"role": %s'],
    "/api/v1/tokens/inspect": ['"token": %s'],
    "/api/v1/tokens/revoke": ['"jti": %s', '"subject": %s'],
    "/api/v1/send": ['"to": %s', '"to": ["a@b.example"], "from": %s', '"to": ["a@b.example"], "backend": %s'],
}


@pytest.mark.parametrize("values", [FEW, pytest.param(FEW + MORE, marks=pytest.mark.slow)], ids=["few", "all"])
@pytest.mark.parametrize("path", FIELDS)
async def test_bodies(running: Service, path: str, values: list[bytes]) -> None:
    """Every value of the wrong type or form, in every field and instead of the whole."""
    await running.put(1)
    inside = [b"{" + form.encode().replace(b"%s", value) + b"}" for form in FIELDS[path] for value in values]
    for body in [*WHOLE[:: 1 if len(values) > len(FEW) else 5], *inside]:
        reply = await ask(running, "POST", path, body)
        assert reply.status < 500, (path, body[:80], reply.body)
        assert isinstance(reply.json, dict)
    assert not bugs(running)


def test_every_path_with_a_body_is_tried() -> None:
    """These others take none, or are tried by tests of their own (hooks)."""
    others = {
        "/api/v1/work/{number}/stop",
        "/api/v1/alerts/test",
        "/api/v1/learn/{action}",
        "/api/v1/reload",
        "/api/v1/signins/end",
        "/api/v1/messages/{id}/{action}",
        "/hooks/{name}",
    }
    patterns = {
        "/api/v1/messages/hold": "/api/v1/messages/{action}",
        "/api/v1/backends/box/pause": "/api/v1/backends/{name}/{action}",
    }
    tried = {patterns.get(path, path) for path in FIELDS} - {"/api/v1/messages/bounce"}
    assert tried | others == {path for method, path, *_ in ROUTES if method == "POST"}


QUERIES = [
    *("state=%ED%A0%80", "address=%FF", "older=9999999999d", "older=999999999w", "older=%00", "limit=-1", "limit=1e9"),
    *("before=%00", "before=" + "z" * 5000, "message_id=%3C%3E", "x=1", "limit=" + "9" * 5000, "limit=%D9%A1"),
    *("recipient=" + "a" * 5000, "%ED%A0%80=1"),
]  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
async def test_paths_and_queries(running: Service, method: str) -> None:
    """Names that do not exist, and cannot."""
    odd = ["%00", "%FF", "%ED%A0%80", "..", "a%2Fb", "%2F", "x" * 5000, "%F0%9F%93%A7"]
    for template in sorted({template for _, template, *_ in ROUTES}):
        for word in odd if "{" in template else ["M001"]:
            reply = await ask(running, method, template.format(id=word, name=word, action=word, number=word))
            assert reply.status < 500 or reply.status == 503, (method, template, word)
    for query in QUERIES:
        reply = await ask(running, method, f"/api/v1/messages?{query}")
        assert reply.status < 500, query
    assert not bugs(running)


def signed(header: bytes, claims: bytes) -> str:
    """With a secret that nobody knows here: what is read before a signature is checked, anybody can write."""
    parts = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, claims))
    mark = base64.urlsafe_b64encode(hmac.digest(b"x" * 32, parts, "sha256")).rstrip(b"=")
    return (parts + b"." + mark).decode()


async def test_tokens_from_the_network(running: Service, server: HttpServer) -> None:
    """Where a token is needed, any token: 401 with words, and a word to the operator who has one looked at."""
    good = json.dumps({"sub": "a", "exp": 2_000_000_000, "aud": "gateway-admin"}).encode()
    values = [value for value in FEW + MORE if len(value) < 5000]
    tokens = [signed(b'{"alg":"EdDSA","typ":%s}' % value, good) for value in values]
    tokens += [signed(b'{"alg":%s}' % value, good) for value in values]
    tokens += [signed(b'{"alg":"EdDSA"}', value) for value in WHOLE if len(value) < 5000]
    tokens += [signed(b'{"alg":"EdDSA"}', b'{"%s":%s}' % (n.encode(), value)) for n in CLAIMS for value in FEW]
    tokens += ["", ".", "..", "...", "a.b.c", "=.=.=", "eyJ", "\u00e9.\u00e9.\u00e9", "x" * 20_000]
    for token in tokens:
        assert (
            await ask(running, "POST", "/api/v1/tokens/inspect", json.dumps({"token": token}).encode())
        ).status == 200
    for token in tokens[:: 1 + len(tokens) // 60]:
        reply = await ask(server.port, "POST", "/api/v1/reload", authorization=f"Bearer {token}")
        assert reply.status in (400, 401), token[:80]
    assert not bugs(running)


def bugs(running: Service) -> list[dict[str, Any]]:
    running.events.flush()
    lines = map(json.loads, running.log.read_text().splitlines())
    return [line for line in lines if line["event"] == "bug"]
