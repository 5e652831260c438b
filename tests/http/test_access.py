"""Who may ask what: socket, loopback and network; rebinding, foreign pages, tokens. One service for all of them."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio

from gateway.http.routes import ROUTES
from tests.http.kit import Service, ask, service, serving
from tests.spool_kit import engine_of_file as engine_of_file  # noqa: PLC0414 - a fixture

pytestmark = pytest.mark.asyncio(loop_scope="module")
OPEN = ["/healthz", "/readyz", "/metrics"]
READS = ["/api/v1/status", "/api/v1/messages", "/api/v1/messages/M001", "/api/v1/backends", "/api/v1/tokens"]
RAW = "/api/v1/messages/M001/raw"
CHANGES = [
    "/api/v1/messages/M001/delete",
    "/api/v1/messages/hold",
    "/api/v1/backends/box/pause",
    "/api/v1/tokens",
    "/api/v1/tokens/revoke",
    "/api/v1/send",
    "/api/v1/reload",
]


class Ways(NamedTuple):
    """The same service by each kind of socket."""

    running: Service
    socket: Path
    loopback: int
    network: int


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ways(engine: str) -> AsyncIterator[Ways]:
    async with service() as running, serving(running) as server:
        await running.put(1)
        async with serving(running, "0.0.0.0:0") as network:
            yield Ways(running, running.settings.http.socket, server.port, network.port)


@pytest.mark.parametrize("path", [*OPEN, *READS])
async def test_loopback_may_read(ways: Ways, path: str) -> None:
    """On loopback everything but raw mail may be read without a login."""
    assert (await ask(ways.loopback, "GET", path)).status == 200


@pytest.mark.parametrize(("method", "path"), [("GET", RAW), ("HEAD", RAW), *(("POST", path) for path in CHANGES)])
async def test_loopback_may_not_change_nor_see_content(ways: Ways, method: str, path: str) -> None:
    """Any local user reaches the port: raw mail and changes need the socket or a token, and nothing happens without."""
    reply = await ask(ways.loopback, method, path, {})
    assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
    assert method == "HEAD" or "gateway-admin" in reply.json["detail"]
    assert not ways.running.done
    assert ways.running.dispatcher
    assert not ways.running.dispatcher.paused
    assert [row.state for row in await ways.running.spool.find()] == ["queued"]


FILLED = [(method, path.format(id="M001", name="box", action="hold", number=1)) for method, path, *_ in ROUTES]


@pytest.mark.parametrize("way", ["socket", "loopback", "network"])
@pytest.mark.parametrize(("method", "path"), [*FILLED, ("HEAD", RAW), ("GET", RAW.replace("/raw", "%0a/raw"))])
async def test_no_path_has_control_characters(ways: Ways, way: str, method: str, path: str) -> None:
    """A pattern's "$" also matches before a newline: such a path is nobody's, by whatever way and with any token."""
    bearer = f"Bearer {ways.running.admin_token()}"
    for odd in ("%0a", "%0A", "%0d", "%00", "%7f", "%c2%85", "%e2%80%a8"):
        for headers in ({}, {"authorization": bearer}):
            reply = await ask(getattr(ways, way), method, path + odd, {}, **headers)
            assert reply.status == 404
            assert b"Subject" not in reply.body
    assert not ways.running.done


@pytest.mark.parametrize("path", [RAW.replace("/raw", "%2fraw"), RAW.replace("raw", "r%61w"), RAW + "?x", RAW + ";/"])
async def test_no_spelling_of_a_path_needs_less(ways: Ways, path: str) -> None:
    """The route decides what needs a token, not the spelling of the path."""
    assert (await ask(ways.loopback, "GET", path)).status in (401, 404)


async def test_what_is_in_a_message_is_for_who_may_read_it(ways: Ways) -> None:
    """Its header and the names of its files: not for whoever reaches the port, nor for a token that only looks."""
    path = "/api/v1/messages/M001?content=1"
    for way in (ways.loopback, ways.network):
        assert (await ask(way, "GET", path)).status == 401
        for role, status in (("read", 403), ("operate", 200)):
            bearer = f"Bearer {ways.running.admin_token(role=role)}"
            reply = await ask(way, "GET", path, authorization=bearer)
            assert (reply.status, b"secret" in reply.body) == (status, status == 200)


@pytest.mark.parametrize(("method", "path"), FILLED)
async def test_every_route_says_what_it_needs(ways: Ways, method: str, path: str) -> None:
    """Off loopback all but health and metrics need a token; on loopback what changes or shows mail."""
    needs = {way for way in ("loopback", "network") if (await ask(getattr(ways, way), method, path, {})).status == 401}
    if path in OPEN or path.startswith("/hooks/"):  # there the backend decides
        assert needs == set()
    else:
        assert needs == ({"loopback", "network"} if method == "POST" or path == RAW else {"network"})


@pytest.mark.parametrize("path", [*OPEN, *READS, RAW])
async def test_socket_may_read_all(ways: Ways, path: str) -> None:
    """Whoever may open the socket file is trusted."""
    assert (await ask(ways.socket, "GET", path)).status == 200


async def test_only_our_user_may_open_the_socket(ways: Ways) -> None:
    """File permissions are the login of the admin socket."""
    assert stat.S_IMODE(ways.socket.stat().st_mode) == 0o600


@pytest.mark.parametrize("way", ["loopback", "network"])
@pytest.mark.parametrize(
    ("audience", "lifetime", "status"), [("gateway-admin", 3600, 200), ("", 3600, 401), ("gateway-admin", -3600, 401)]
)
async def test_tokens(ways: Ways, way: str, audience: str, lifetime: float, status: int) -> None:
    """A token opens the rest only with aud gateway-admin and while it is valid."""
    ways.running.clock.advance(abs(min(lifetime, 0)))  # mint refuses to make an expired one
    made = ways.running.admin_token(audience, timedelta(seconds=abs(lifetime)))
    ways.running.clock.advance(-2 * min(lifetime, 0))
    assert (await ask(getattr(ways, way), "GET", RAW, authorization=f"Bearer {made}")).status == status


@pytest.mark.parametrize(("path", "status"), [(path, 200) for path in OPEN] + [(path, 401) for path in [*READS, RAW]])
async def test_off_loopback_nearly_everything_needs_a_token(ways: Ways, path: str, status: int) -> None:
    """Bound to the network, only health and metrics are open; under which name is the network's business."""
    assert (await ask(ways.network, "GET", path, host="relay.example.com")).status == status
    bearer = f"bearer {ways.running.admin_token()}"
    assert (await ask(ways.network, "GET", path, host="relay.example.com", authorization=bearer)).status == 200


@pytest.mark.parametrize("authorization", ["Basic b3BzOm9wcw==", "Bearer", "Bearer x.y.z", "eyJhbGciOiJub25lIn0.e30."])
async def test_other_credentials(ways: Ways, authorization: str) -> None:
    """Nothing but a valid bearer token counts."""
    assert (await ask(ways.loopback, "POST", "/api/v1/reload", authorization=authorization)).status == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8026", 200),
        ("127.0.0.1", 200),
        ("[::1]:8026", 200),
        ("LOCALHOST.", 200),
        ("evil.example.com", 421),
        ("127.0.0.1.evil.example.com", 421),
        ("localhost@evil.example.com", 421),
        ("[", 421),
        ("", 421),
    ],
)
async def test_rebinding(ways: Ways, host: str, status: int) -> None:
    """A page whose name was pointed at 127.0.0.1 gives itself away by its Host header."""
    assert (await ask(ways.loopback, "GET", "/api/v1/status", host=host)).status == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://evil.example.com"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://["}, 403),
        ({"origin": "http://localhost:1"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"origin": "http://localhost", "sec_fetch_site": "same-origin"}, 200),
        ({}, 200),
    ],
)
async def test_foreign_pages(ways: Ways, headers: dict[str, str], status: int) -> None:
    """A browser page of another site changes nothing, even one that has a token."""
    headers = {**headers, "authorization": f"Bearer {ways.running.admin_token()}"}
    assert (await ask(ways.loopback, "POST", "/api/v1/reload", **headers)).status == status


@pytest.mark.parametrize("header", ["x_forwarded_for", "x_real_ip"])
async def test_no_header_makes_a_client_trusted(ways: Ways, header: str) -> None:
    """Where a request comes from is decided by the listening socket."""
    assert (await ask(ways.network, "GET", "/api/v1/status", **{header: "127.0.0.1"})).status == 401


@pytest.mark.parametrize("path", ["/healthz", "/api/v1/status", "/nonsense", RAW])
async def test_answers_are_private(ways: Ways, path: str) -> None:
    """No cache keeps them and no browser guesses their type, errors included."""
    headers = (await ask(ways.loopback, "GET", path)).headers
    assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")
    assert "server" not in headers
