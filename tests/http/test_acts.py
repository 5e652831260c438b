"""Who asks, by each way; what his role lets him do; and that what he ordered is kept."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from gateway.actor import Role
from gateway.http.client import AdminClient, SocketWay
from gateway.http.routes import ROUTES
from gateway.pools import read_files
from gateway.spool import Filter
from tests.builders import new_message
from tests.http.kit import Service, ask, service, serving
from tests.spool_kit import engine_of_file as engine_of_file  # noqa: PLC0414 - a fixture

pytestmark = pytest.mark.asyncio(loop_scope="module")
ME = pwd.getpwuid(os.geteuid()).pw_name
ORDERS: list[tuple[str, dict[str, Any], str, str, int]] = [
    # path, body, verb, what, how many messages
    ("messages/M001/hold", {}, "hold", "", 1),
    ("messages/M001/release", {}, "release", "", 1),
    ("messages/hold", {"ids": ["M001", "M002", "nothing"]}, "hold", "", 2),
    ("messages/release", {"filter": {"backend": "box"}}, "release", "all with backend box", 2),
    ("messages/retry", {"filter": {}}, "retry", "all", 2),
    ("messages/bounce", {"ids": ["M001"]}, "bounce", "", 1),
    ("messages/M002/delete", {}, "delete", "", 1),
    ("backends/box/pause", {"for": "30m"}, "pause", "backend box for 30m", 0),
    ("backends/box/resume", {}, "resume", "backend box", 0),
    ("backends/box/check", {}, "check", "backend box: good", 0),
    ("reload", {}, "reload", "limits.max_size", 0),
    ("send", {"to": ["a@example.org"], "backend": "box"}, "send-test", "by box", 1),
    ("tokens/revoke", {"jti": "j9"}, "revoke", "token j9", 0),
    ("tokens/revoke", {"subject": "anna"}, "revoke", "all tokens of anna", 0),
]


class Ways(NamedTuple):
    running: Service
    socket: Path
    loopback: int
    network: int


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ways(engine: str) -> AsyncIterator[Ways]:
    async with service() as running, serving(running) as server, serving(running, "0.0.0.0:0") as network:
        yield Ways(running, running.settings.http.socket, server.port, network.port)


@pytest.mark.parametrize(("path", "body", "verb", "what", "count"), ORDERS)
async def test_every_order_is_kept(ways: Ways, path: str, body: object, verb: str, what: str, count: int) -> None:
    """By the user at the socket: in the list of acts, and in the log with his name."""
    for number in (1, 2):
        if await ways.running.spool.show(f"M00{number}") is None:
            await ways.running.put(number)
    spool, everything = ways.running.spool, Filter()
    await (spool.hold if verb == "release" else spool.release)(everything, spool.now())  # that there is something to do
    if verb == "resume" and ways.running.dispatcher:
        await ways.running.dispatcher.pause("box", None)
    assert (await ask(ways.socket, "POST", f"/api/v1/{path}", body)).status < 300
    act = (await ask(ways.loopback, "GET", "/api/v1/acts?limit=1")).json["acts"][0]
    assert (act["name"], act["way"], act["verb"], act["what"], act["count"]) == (ME, "socket", verb, what, count)
    ways.running.events.flush()
    line = ways.running.log.read_text().splitlines()[-1]
    assert f'"by":"{ME}"' in line
    assert f'"verb":"{verb}"' in line


REROUTES: list[tuple[str, dict[str, Any], str]] = [
    ("messages/M050/reroute", {}, "to backend box"),
    ("messages/reroute", {"ids": ["M050"]}, "to backend box"),
    ("messages/reroute", {"filter": {"backend": "old"}}, "all with backend old, to backend box"),
]


@pytest.mark.parametrize(("path", "body", "what"), REROUTES)
async def test_of_a_reroute_is_kept_where_to(ways: Ways, path: str, body: dict[str, Any], what: str) -> None:
    """Whichever messages, and however they were chosen."""
    spool = ways.running.spool
    await spool.put(new_message(ident="M050", backend="old"))
    assert (await ask(ways.socket, "POST", f"/api/v1/{path}", {**body, "backend": "box"})).status == 200
    (act,) = (await ask(ways.loopback, "GET", "/api/v1/acts?message=M050&limit=1")).json["acts"]
    assert (act["verb"], act["what"], act["messages"]) == ("reroute", what, ["M050"])
    await spool.delete(Filter(ids=("M050",)), spool.now())


async def test_a_token_and_its_making_are_kept(ways: Ways) -> None:
    """The id of a token stands there, never the token."""
    made = (await ask(ways.socket, "POST", "/api/v1/tokens", {"subject": "x", "expires": "1h", "admin": True})).json
    page = await ask(ways.loopback, "GET", "/api/v1/acts")
    act = page.json["acts"][0]
    assert (act["verb"], act["what"]) == ("mint", f"token {made['jti']} of x, for the HTTP interface")
    assert made["token"].encode() not in page.body


async def test_acts_of_a_message_and_messages_of_an_act(ways: Ways) -> None:
    """Both ways round; a message that is gone still has them; 404 for an act that is none."""
    await ways.running.put(7)
    await ask(ways.socket, "POST", "/api/v1/messages/M007/hold")
    shown = (await ask(ways.loopback, "GET", "/api/v1/messages/M007")).json
    assert [(act["name"], act["verb"]) for act in shown["acts"]] == [(ME, "hold")]
    await ask(ways.socket, "POST", "/api/v1/messages/M007/delete")
    found = (await ask(ways.loopback, "GET", "/api/v1/acts?message=m007")).json["acts"]
    assert [act["verb"] for act in found] == ["delete", "hold"]
    one = (await ask(ways.loopback, "GET", f"/api/v1/acts/{found[0]['id']}")).json
    assert (one["verb"], one["messages"], one["next"]) == ("delete", ["M007"], "")
    for odd in ("0", "99999", "x", "%d9%a1", "1" * 30):
        assert (await ask(ways.socket, "GET", f"/api/v1/acts/{odd}")).status == 404
    for odd in ("limit=0", "limit=x", "before=-1", "limit=1001"):
        assert (await ask(ways.socket, "GET", f"/api/v1/acts?{odd}")).status == 400


@pytest.mark.parametrize("way", ["loopback", "network"])
@pytest.mark.parametrize("role", ["read", "operate", "admin", ""])
async def test_a_token_may_what_its_role_says(ways: Ways, way: str, role: str) -> None:
    """Each route takes its role: less is 403 with both named; a token that says none has them all, as those of old."""
    bearer = f"Bearer {ways.running.admin_token(role=role)}"
    holds = {"read": Role.READ, "operate": Role.OPERATE}.get(role, Role.ADMIN)
    for method, path, _, needed in ROUTES:
        if not needed or path == "/api/v1/signins":  # for no token at all: a session would outlive it
            continue
        filled = re.sub(r"\{\w+\}", "0", path)
        filled = path.format(id="none", name="none", action="none", number=1)
        reply = await ask(getattr(ways, way), method, filled, {}, authorization=bearer)
        assert (reply.status == 403) == (holds < needed), (path, reply.body)
        assert reply.status != 401
        assert reply.status != 403 or reply.json["detail"] == f"ops has the role {role}; this needs {needed.word}"


async def test_a_role_that_is_none(ways: Ways) -> None:
    """Is neither made, nor believed of a token that was made otherwise; nor does one that only sends mail have any."""
    for body in ({"admin": True, "claims": {"role": "root"}}, {"claims": {"role": "read"}}):
        reply = await ask(ways.socket, "POST", "/api/v1/tokens", {"subject": "x", "expires": "1h", **body})
        assert (reply.status, "role" in reply.json["detail"]) == (400, True)


@pytest.mark.parametrize(
    ("way", "headers", "name", "how"),
    [
        ("socket", {}, ME, "socket"),
        ("socket", {"gateway_operator": "anna"}, "anna" if os.geteuid() == 0 else ME, "socket"),
        ("socket", {"gateway_operator": "a\u202eb"}, ME, "socket"),
        ("socket", {"gateway_operator": "a" * 65}, ME, "socket"),
        ("socket", {"authorization": "Bearer {token}"}, ME, "socket"),
        ("loopback", {"authorization": "Bearer {token}", "gateway_operator": "anna"}, "ops", "token"),
        ("network", {"authorization": "Bearer {token}", "gateway_operator": "anna"}, "ops", "token"),
    ],
)
async def test_who_asks(ways: Ways, way: str, headers: dict[str, str], name: str, how: str) -> None:
    """What sudo says is believed of root at the socket only; a token names its subject."""
    given = {key: value.format(token=ways.running.admin_token()) for key, value in headers.items()}
    assert (await ask(getattr(ways, way), "POST", "/api/v1/reload", **given)).status == 200
    (act,) = await ways.running.spool.acts(limit=1)
    assert (act.name, act.way) == (name, how)


async def test_a_command_says_who_became_root(ways: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    """As sudo tells it: the person, not "root"."""
    for said, name in (("berta", "berta"), ("", ME), ("a\nb", ME)):
        monkeypatch.setenv("SUDO_USER", said)
        await read_files(lambda: AdminClient(SocketWay(ways.socket)).call("POST", "/api/v1/reload"))
        (act,) = await ways.running.spool.acts(limit=1)
        assert act.name == (name if os.geteuid() == 0 else ME)
