"""Providers call back: only where a backend listens, only with its secret, stored before the answer, and once."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest

from gateway.backends import Context
from gateway.backends.smtp2go import Smtp2go, Smtp2goSettings
from gateway.fetch import Fetch
from gateway.http.hooks import LARGEST_BODY
from gateway.http.server import HttpServer
from gateway.model import CallsBack, DeliveryEvent, HookRefused, Outcome, SpoolFull, Verdict
from tests.fakes import START
from tests.http.kit import Reply, Service, ask, serving
from tests.spool_kit import LEASE, settlement

SECRET = "webhook-secret-0123456789"
BEARER = f"Bearer {SECRET}"
IDENT = "1j2k3l-4m5n6o-7p"


class Signed:
    """A provider that signs: the body is a list of reports."""

    hook = True

    def called_back(self, headers: Mapping[str, str], body: bytes) -> Sequence[DeliveryEvent]:
        if not hmac.compare_digest(headers.get("x-secret", ""), SECRET):
            raise HookRefused("wrong signature", "unsigned")
        try:
            return [DeliveryEvent(**one) for one in json.loads(body)]
        except ValueError:
            raise HookRefused("no JSON", "unintelligible") from None


WITH_SECRET = {"api_key": "k" * 40, "webhook_secret": SECRET}


def smtp2go(running: Service, secret: str | None = SECRET) -> Smtp2go:
    settings = Smtp2goSettings.model_validate(WITH_SECRET | {"webhook_secret": secret})
    fetch = Fetch.__new__(Fetch)  # never used: a webhook asks nobody
    context = Context("relay.test", Path(running.settings.state_dir), running.clock, fetch, random.Random(1))
    return Smtp2go("s2g", settings, context)


class Ways(NamedTuple):
    running: Service
    loopback: int


@pytest.fixture
async def ways(running: Service, server: HttpServer) -> Ways:
    """A message handed over by box and s2g, each of which listens."""
    assert running.dispatcher
    running.dispatcher.hooks |= {"box": Signed(), "s2g": smtp2go(running)}
    await running.put(1)
    (claim,) = (await running.spool.claim("box", now=START, lease=LEASE, limit=1)).claims
    sent = Outcome(Verdict.SENT, 200, "2.0.0", "", IDENT)
    await running.spool.settle(settlement(claim, sent, poll_at=START))
    return Ways(running, server.port)


@pytest.fixture
async def network(ways: Ways) -> AsyncIterator[int]:
    """The port of the same service off loopback."""
    async with serving(ways.running, "0.0.0.0:0") as server:
        yield server.port


async def call(ways: Ways, body: object, *, path: str = "/hooks/box", host: str = "localhost", **headers: str) -> Reply:
    headers = {"X_Secret": SECRET, **headers} if path == "/hooks/box" else headers
    return await ask(ways.loopback, "POST", path, body, host, **headers)


async def told(ways: Ways) -> list[tuple[str, str, str]]:
    detail = await ways.running.spool.show("M001")
    assert detail is not None
    assert detail.state == "done"
    return [(row.state, row.address, row.detail) for row in detail.events]


def report(state: str = "delivered", **more: str) -> list[dict[str, str]]:
    return [{"remote_id": IDENT, "state": state, "key": "k1", **more}]


async def test_a_report_is_stored_before_the_answer(ways: Ways) -> None:
    """200 means it is on disk and shown; the question to the provider is gone."""
    reply = await call(ways, report("bounced", detail="mailbox full"))
    assert (reply.status, reply.json) == (200, {"events": 1})
    assert await told(ways) == [("bounced", "", "mailbox full")]
    assert await ways.running.spool.polls("box", 9) == []
    shown = (await ask(ways.loopback, "GET", "/api/v1/messages/M001")).json["events"]
    assert shown == [
        {
            "backend": "box",
            "address": "",
            "remote_id": IDENT,
            "state": "bounced",
            "detail": "mailbox full",
            "reported_at": "2026-11-20T12:00:00Z",
            "source": "webhook",
        }
    ]
    detail = (await ask(ways.running, "GET", "/api/v1/messages/M001")).json
    assert detail["events"] == shown
    assert ("box reports: bounced", "mailbox full") in [(row["title"], row["said"]) for row in detail["life"]]


async def test_twice_is_once(ways: Ways) -> None:
    """A provider that did not hear our 200 says it again, also at the same moment."""
    replies = await asyncio.gather(*(call(ways, report()) for _ in range(5)))
    assert {reply.status for reply in replies} == {200}
    assert await told(ways) == [("delivered", "", "")]


@pytest.mark.parametrize("remote_id", ["somebody else's", "", "M001"])
async def test_what_is_not_ours_is_no_error(ways: Ways, remote_id: str) -> None:
    """Others may send by the same account: 200, so that the provider is content, and nothing changes."""
    assert (await call(ways, [{"remote_id": remote_id, "state": "bounced"}])).status == 200
    assert await told(ways) == []


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (report(), {"X_Secret": ""}, 401),
        (report(), {"X_Secret": SECRET[:-1]}, 401),
        (b"{", {"X_Secret": ""}, 401),
        (b"{", {}, 400),
        (report(), {"Origin": "https://evil.example"}, 403),
    ],
)
async def test_what_is_not_the_providers_is_refused(
    ways: Ways, body: object, headers: dict[str, str], status: int
) -> None:
    """Without the secret nothing is read, kept or told; the refusal is in the log, without what was sent."""
    reply = await call(ways, body, **headers)
    assert reply.status == status
    assert await told(ways) == []
    ways.running.events.flush()
    log = ways.running.log.read_text()
    assert ("hook_refused" in log) is (status != 403)
    assert SECRET[:-1] not in log + reply.body.decode()


async def test_only_who_listens_is_there(ways: Ways) -> None:
    """Any other name is 404, whatever is sent (who listens, delivery.Dispatcher.calls_back decides)."""
    for name in ("nobody", "box/more", "", "..", "box%0a", "BOX"):
        for headers in ({}, {"X_Secret": SECRET}, {"Authorization": BEARER}):
            reply = await ask(ways.loopback, "POST", f"/hooks/{name}", report(), **headers)
            assert reply.status == 404


async def test_only_post(network: int) -> None:
    """Nothing can be read there."""
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        assert (await ask(network, method, "/hooks/box", X_Secret=SECRET)).status == 405


async def test_a_proxy_may_keep_the_providers_name_for_us(ways: Ways, network: int) -> None:
    """By loopback with any Host, and over the network; everything else still answers to localhost only."""
    for host in ("relay.example.com", "localhost", "127.0.0.1:8026", "[::1]", "x" * 300, ""):
        assert (await call(ways, report(), host=host)).status == 200
        assert (await ask(network, "POST", "/hooks/box", report(), host, X_Secret=SECRET)).status == 200
    for path in ("/healthz", "/hooks", "/hooks/../healthz", "/hooks/%2e%2e/healthz", "/hooks/box/../../healthz"):
        assert (await ask(ways.loopback, "GET", path, None, "relay.example.com")).status in (404, 405, 421)


async def test_a_body_has_its_limit(ways: Ways) -> None:
    """256 KB; what is larger is refused by what it announces, or where it goes beyond, and is not read to its end."""
    assert (await call(ways, json.dumps(report("queued")).encode().ljust(LARGEST_BODY))).status == 200
    for announced, body in (
        (f"Content-Length: {LARGEST_BODY + 1}", b""),
        ("Transfer-Encoding: chunked", f"{LARGEST_BODY + 1:x}\r\n".encode() + b" " * (LARGEST_BODY + 1)),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", ways.loopback)
        writer.write(
            f"POST /hooks/box HTTP/1.1\r\nHost: x\r\nX-Secret: {SECRET}\r\n{announced}\r\n\r\n".encode() + body
        )
        assert b" 413 " in await reader.readline()
        writer.close()
    assert len(await told(ways)) == 1


async def test_who_hangs_up_in_the_middle_is_no_bug(ways: Ways) -> None:
    """Anybody may call here: what he leaves unfinished raises no alarm."""
    reader, writer = await asyncio.open_connection("127.0.0.1", ways.loopback)
    writer.write(b"POST /hooks/box HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n[")
    assert b" 100 " in await reader.readline()  # it waits for the rest
    writer.close()
    await writer.wait_closed()
    assert (await call(ways, report())).status == 200
    ways.running.events.flush()
    assert '"bug"' not in ways.running.log.read_text()


async def test_not_while_it_starts_or_stops(ways: Ways) -> None:
    """The provider is asked to come again."""
    ways.running.draining = True
    assert (await call(ways, report())).status == 503
    ways.running.draining, ways.running.dispatcher = False, None
    assert (await call(ways, report())).status == 503


async def test_not_kept_is_not_answered_for(ways: Ways) -> None:
    """A spool that takes no writes: the provider tries again later."""

    async def full(*_: object) -> None:
        raise SpoolFull("not enough space in the spool")

    ways.running.spool.add_events = full  # type: ignore[method-assign]
    assert (await call(ways, report())).status == 503


async def test_a_bug_in_a_backend_is_ours(ways: Ways) -> None:
    """Logged with its traceback; the caller learns nothing."""
    reply = await call(ways, [{"unknown": 1}])
    assert (reply.status, reply.json["detail"]) == (500, "internal error, see the log")


# -- smtp2go (providers.md 3.6) ----------------------------------------------------------------------------------------

EVENT = {
    "event": "delivered",
    "time": "2026-11-20T12:00:01Z",
    "sendtime": "2026-11-20T12:00:00Z",
    "sender": "app@example.com",
    "from_address": "app@example.com",
    "rcpt": "bob@example.net",
    "email_id": IDENT,
    "message-id": "<1@example.com>",
    "subject": "Ünïcode & more",
    "srchost": "192.0.2.1",
}
FORM, JSON = "application/x-www-form-urlencoded", "application/json"


def encoded(event: Mapping[str, Any], kind: str) -> bytes:
    return json.dumps(event).encode() if kind.startswith(JSON) else urlencode(event).encode()


def heard(event: Mapping[str, Any], backend: Smtp2go, kind: str = FORM) -> list[DeliveryEvent]:
    return backend.called_back({"content-type": kind, "authorization": BEARER}, encoded(event, kind))


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize("kind", [FORM, JSON, "application/json; charset=utf-8", FORM + ";charset=UTF-8"])
@pytest.mark.parametrize(
    ("more", "state", "detail"),
    [
        ({}, "delivered", ""),
        ({"message": "250 2.0.0 OK"}, "delivered", "250 2.0.0 OK"),
        (
            {"event": "bounce", "bounce": "hard", "message": "550 5.1.1 no\r\nsuch user"},
            "bounced",
            "550 5.1.1 no such user",
        ),
        ({"event": "bounce", "bounce": "soft", "message": "mailbox full"}, "queued", "mailbox full"),
        ({"event": "reject", "context": "previously bounced"}, "failed", "previously bounced"),
        ({"event": "processed"}, "queued", ""),
    ],
)
async def test_events_of_smtp2go(running: Service, kind: str, more: dict[str, str], state: str, detail: str) -> None:
    """JSON or form, each event with its meaning, the recipient and the id that the send was answered with."""
    (said,) = heard(EVENT | more, smtp2go(running), kind)
    assert (said.remote_id, said.state, said.detail, said.address) == (IDENT, state, detail, "bob@example.net")


@pytest.mark.parametrize(
    "more",
    [{"event": event} for event in ("open", "click", "spam", "unsubscribe", "resubscribe", "new one")]
    + [{"email_id": ""}, {"event": "bounce", "bounce": "odd"}],
)
async def test_other_events_of_smtp2go_are_ignored(running: Service, more: dict[str, str]) -> None:
    """No error, or the provider would send them for a day."""
    assert heard(EVENT | more, smtp2go(running)) == []


async def test_the_key_of_a_smtp2go_event(running: Service) -> None:
    """The same for the same event, another for another id, event, recipient or time."""
    backend = smtp2go(running)
    changes: list[dict[str, str]] = [{}, {"email_id": "2"}, {"rcpt": "c@x.org"}, {"time": "x"}, {"event": "processed"}]
    keys = [heard(EVENT | change, backend, kind)[0].key for change in changes for kind in (FORM, JSON)]
    assert (len(set(keys)), keys[0]) == (len(changes), keys[1])


GOOD = (BEARER, f"bearer {SECRET}", basic(f"user:{SECRET}"), basic(f":{SECRET}"))
BAD = (
    "", "Bearer", "Bearer ", SECRET, f"{BEARER}x", BEARER[:-1], f"Token {SECRET}", basic(SECRET),
    basic(f"{SECRET}:user"), "Basic ***", "Basic é",
)  # fmt: skip


async def test_the_secret_of_smtp2go(ways: Ways) -> None:
    """As bearer token or as the password of basic, over real HTTP; else refused with 401 and the scheme."""
    for authorization in (*BAD, *GOOD):
        given = {"Authorization": authorization} if authorization else {}
        reply = await call(ways, encoded(EVENT, FORM), path="/hooks/s2g", Content_Type=FORM, **given)
        assert (authorization, reply.status) == (authorization, 200 if authorization in GOOD else 401)
        assert authorization in GOOD or reply.headers["www-authenticate"] == "Bearer"


async def test_nonsense_for_smtp2go(ways: Ways) -> None:
    """400, and nothing breaks."""
    for body in (b"{", b"[]", b"", b"\xff\xfe", b"&" * 9000, b"{}", b'{"event": ', b"[" * 200_000):
        for kind in (JSON, FORM, ""):
            reply = await call(ways, body, path="/hooks/s2g", Content_Type=kind, Authorization=BEARER)
            assert reply.status == 400
    ways.running.events.flush()
    assert '"bug"' not in ways.running.log.read_text()


@pytest.mark.parametrize("secret", [None, ""])
async def test_without_a_secret_smtp2go_does_not_listen(running: Service, secret: str | None) -> None:
    """Nobody gets in with an empty secret either; the secret is never shown."""
    backend = smtp2go(running, secret)
    assert isinstance(backend, CallsBack)
    assert not backend.hook
    for authorization in ("", "Bearer ", "Bearer", basic(""), basic(":")):
        with pytest.raises(HookRefused) as refused:
            backend.called_back({"authorization": authorization}, encoded(EVENT, FORM))
        assert refused.value.kind == "unsigned"
    assert SECRET not in repr(Smtp2goSettings.model_validate(WITH_SECRET))
