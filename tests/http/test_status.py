"""What status, problems and one backend say over HTTP, and what an operator does with a backend."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from gateway.checks import Check, good, untried
from gateway.config.document import Keys
from gateway.config.finding import Ending
from gateway.config.renewal import Renewal
from gateway.spool import TokenRow
from tests.fakes import START
from tests.http.kit import Service, ask

DAY = timedelta(days=1)
CERTIFICATE: Keys = ("listeners", "local", "certificate")


async def get(running: Service, path: str) -> Any:
    reply = await ask(running, "GET", f"/api/v1/{path}")
    assert reply.status == 200, reply.body
    return reply.json


async def test_all_is_right(running: Service) -> None:
    """The verdict in words, and nobody is needed."""
    found = await get(running, "problems")
    assert found == {"verdict": "Everything is all right. The backend works, nothing waits.", "problems": []}


async def test_status_says_more(running: Service, engine: str) -> None:
    """Since when it runs and by which settings, the disk, what ends, who was turned away, and what needs somebody."""
    running.clock.advance(90)
    running.events.bug("smtp", ValueError())
    running.ending = (Ending(CERTIFICATE, "the certificate", START + 3 * DAY),)
    status = await get(running, "status")
    assert (status["started_at"], status["uptime_seconds"]) == ("2026-11-20T12:00:00Z", 90)
    assert status["verdict"] == "2 things need you."
    assert [one["kind"] for one in status["problems"]] == ["ends", "bug"]
    assert status["settings"]["file"] is None
    assert status["settings"]["failed"] is None
    [end] = status["ends"]
    assert (end["key"], end["kind"], end["of"], end["step"]) == (
        "listeners.local.certificate", "certificate", "listener local", 7,
    )  # fmt: skip
    spool = status["spool"]
    if engine == "postgresql":
        assert (spool["total_bytes"], spool["free_bytes"]) == (None, None)
    else:
        assert spool["total_bytes"] > spool["free_bytes"] > 0
    assert {"reserve_bytes", "shut_at", "fix"} <= spool.keys()
    assert status["refusals"] == []
    assert status["clock"]["synchronised"] in (True, False, None)


async def test_tokens_that_end(running: Service) -> None:
    """Those that were made to last and end soon; not what was made to end soon, is revoked, or is long gone."""
    rows = {
        "soon": (300, 5),
        "short": (20, 5),
        "later": (300, 60),
        "gone": (300, -30),
        "over": (300, -2),
        "void": (300, 5),
    }
    for name, (made, ends) in rows.items():
        row = TokenRow(name, "own", name, "", START - made * DAY, START + ends * DAY)
        await running.spool.add_token(row)
    await running.spool.revoke(jti="void", now=START)
    assert [one["key"] for one in (await get(running, "status"))["ends"]] == ["token:over", "token:soon"]
    await running.spool.revoke(subject="soon", now=START)
    assert [one["key"] for one in (await get(running, "status"))["ends"]] == ["token:over"]
    [problem] = (await get(running, "problems"))["problems"]
    assert problem["what"] == "The token of over has ended on 2026-11-18."


async def test_what_the_spool_shows(running: Service) -> None:
    """Mail of a backend that nobody knows, mail that waits too long, a door that is shut."""
    await running.put(1)
    running.clock.advance(31 * 60)
    assert [one["key"] for one in (await get(running, "problems"))["problems"]] == ["stuck:box"]
    running.spool.room.close("quota")
    found = (await get(running, "problems"))["problems"]
    assert (found[0]["key"], found[0]["since"]) == ("door:quota", "2026-11-20T12:31:00Z")


async def test_one_backend(running: Service) -> None:
    """Its identity, what waits, its last check and its last answers, all in one."""
    await running.put(1)
    found = await get(running, "backends/box")
    assert (found["name"], found["word"], found["known_as"]) == ("box", "Working", {"directory": "captured"})
    assert (found["queued"], found["held"], found["in_doubt"], found["oldest"]) == (1, 0, 0, "2026-11-20T12:00:00Z")
    assert (found["checked"], found["answers"]) == (None, [])
    reply = await ask(running, "GET", "/api/v1/backends/nobody")
    assert (reply.status, "there are box" in reply.json["detail"]) == (404, True)


async def test_one_backend_without_a_service(running: Service) -> None:
    """The spool knows what waits and what was said."""
    running.dispatcher = None
    await running.put(1)
    found = await get(running, "backends/box")
    assert (found["word"], found["queued"], found["last_success"]) == ("Not running", 1, None)
    assert (await get(running, "problems"))["verdict"] == "No service is running."


@pytest.mark.parametrize("action", ["check", "fix"])
async def test_a_check_is_kept(running: Service, action: str) -> None:
    """Changed secrets are read first; then it is tried; what was found stays, with its steps and who asked."""
    assert running.dispatcher is not None
    await running.dispatcher.pause("box", None)
    running.dispatcher.found = Check(
        True, "well", "", {"directory": "x"}, (good("written"), untried("a whole message"))
    )
    running.renewal = Renewal(taken=("client_secret",), differs=("mailbox",))
    reply = await ask(running, "POST", f"/api/v1/backends/box/{action}", {})
    assert reply.status == 200, reply.body
    assert running.done == [("renew", "box")]
    assert (reply.json["read"], reply.json["differs"], reply.json["errors"]) == (["client_secret"], ["mailbox"], [])
    assert reply.json["steps"][1] == {
        "result": "untried", "text": "a whole message. Only a sent message shows that.", "said": "",
    }  # fmt: skip
    assert reply.json["status"]["paused_by"] == (
        "operator" if action == "check" else ""
    )  # only fix is an order to go on
    checked = (await get(running, "backends/box"))["checked"]
    assert (checked["ok"], checked["summary"], checked["at"]) == (True, "well", "2026-11-20T12:00:00Z")
    assert checked["steps"] == reply.json["steps"]


async def test_a_fix_that_fails_resumes_nothing(running: Service) -> None:
    """Before a check has passed nothing is said to work."""
    assert running.dispatcher is not None
    await running.dispatcher.pause("box", None)
    running.dispatcher.found = Check(False, "still wrong", "do this")
    reply = await ask(running, "POST", "/api/v1/backends/box/fix", {})
    assert (reply.json["ok"], reply.json["fix"], reply.json["status"]["paused_by"]) == (False, "do this", "operator")


async def test_a_pause_while_it_is_tried_holds(running: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check may take long: the pause was ordered later than the fix."""
    dispatcher = running.dispatcher
    assert dispatcher is not None

    async def check(name: str) -> Check:
        running.clock.advance(1)
        await dispatcher.pause(name, None, "ben")
        dispatcher.since = running.clock.now()
        return Check(True, "well")

    monkeypatch.setattr(dispatcher, "check", check)
    reply = await ask(running, "POST", "/api/v1/backends/box/fix", {})
    assert (reply.json["ok"], reply.json["status"]["paused_by"]) == (True, "operator")


@pytest.mark.parametrize("action", ["check", "fix"])
async def test_a_backend_that_is_removed_while_it_is_tried(
    running: Service, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    """By a reload: that is said, and is no bug."""
    dispatcher = running.dispatcher
    assert dispatcher is not None

    async def check(name: str) -> Check:
        monkeypatch.setattr(dispatcher, "status", dict)
        return Check(True, "well")

    monkeypatch.setattr(dispatcher, "check", check)
    reply = await ask(running, "POST", f"/api/v1/backends/box/{action}", {})
    assert (reply.status, reply.json["detail"]) == (409, "backend box was removed meanwhile")


async def test_an_unknown_order(running: Service) -> None:
    """The answer names those that there are."""
    reply = await ask(running, "POST", "/api/v1/backends/box/kick", {})
    assert (reply.status, "check, pause, resume, fix" in reply.json["detail"]) == (404, True)
