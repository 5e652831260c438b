"""Health, readiness, metrics and the status page."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.http.server import HttpServer
from tests.http.kit import Service, ask


async def test_healthz_needs_no_spool(running: Service) -> None:
    """Alive is alive: a closed spool makes it not ready, but no reason to be killed."""
    await running.spool.aclose()
    assert (await ask(running, "GET", "/healthz")).status == 200
    assert (await ask(running, "GET", "/readyz")).status == 503


async def test_ready(running: Service) -> None:
    """Every check is named, so that a probe's answer explains itself."""
    reply = await ask(running, "GET", "/readyz")
    assert reply.status == 200
    assert {check["check"]: check["ok"] for check in reply.json["checks"]} == {
        "spool": True, "listeners": True, "delivery": True, "draining": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("check", "spoil", "words"),
    [
        ("draining", lambda s: setattr(s, "draining", True), "shutting down"),
        ("delivery", lambda s: setattr(s.dispatcher, "alive", False), "have ended"),
        ("delivery", lambda s: setattr(s, "dispatcher", None), "have ended"),
        ("listeners", lambda s: setattr(s.listeners["local"], "accepting", False), "local"),
        ("listeners", lambda s: s.listeners.clear(), "no listener"),
        ("spool", lambda s: setattr(s.spool, "writable", lambda: False), "see spool_error in the log"),
        ("spool", lambda s: s.spool.room.close("quota"), "(quota): raise the quota of the user"),
    ],
)
async def test_not_ready(running: Service, check: str, spoil: Callable[[Service], None], words: str) -> None:
    """One failed check makes 503, and says which and why."""
    spoil(running)
    reply = await ask(running, "GET", "/readyz")
    assert reply.status == 503
    assert [(c["check"], words in c["detail"]) for c in reply.json["checks"] if not c["ok"]] == [(check, True)]


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [("", "text/plain"), ("application/openmetrics-text;version=1.0.0", "application/openmetrics-text")],
)
async def test_metrics(running: Service, server: HttpServer, accept: str, content_type: str) -> None:
    """/metrics itself answers (no redirect), in the asked format, with gauges of this moment."""
    await running.put(1)
    reply = await ask(server.port, "GET", "/metrics", accept=accept)
    assert (reply.status, reply.headers["content-type"].split(";")[0]) == (200, content_type)
    assert b"gateway_queue_messages{" in reply.body
    assert running.dispatcher is not None
    assert running.dispatcher.published == 1


async def test_status(running: Service, engine: str) -> None:
    """One look: version, listeners, what is queued where and since when."""
    await running.put(1)
    status = (await ask(running, "GET", "/api/v1/status")).json
    assert status["queue"] == {"box": {"queued": 1}}
    local = {"name": "local", "bind": "127.0.0.1:8025", "tls": "none", "auth": "optional", "port": 8025}
    assert status["listeners"] == {"local": {**local, "accepting": True, "connections": 2}}
    assert status["oldest"] == {"box": "2026-11-20T12:00:00Z"}
    assert status["backends"]["box"]["last_success"] == "2026-11-20T12:00:00Z"
    assert status["running"] is True
    assert status["spool"]["writable"] is True
    room = status["spool"]["room_bytes"]  # a database may have as much as it likes
    assert (room is None if engine == "postgresql" else room > 0, status["spool"]["shut"]) == (True, "")


async def test_without_a_service_the_configured_backends_are_shown(running: Service) -> None:
    """The offline spool of the commands has no dispatcher."""
    running.dispatcher = None
    await running.put(1)
    shown = {"name": "box", "type": "capture", "queued": 1, "title": "Files, captured", "state": ""}
    box = (await ask(running, "GET", "/api/v1/backends")).json["box"]
    assert box | shown == box
    assert (await ask(running, "GET", "/api/v1/status")).json["running"] is False
