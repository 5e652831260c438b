"""The doctor over HTTP: who may ask, what comes back, one run at a time."""

from __future__ import annotations

import asyncio
import os
import pwd
from pathlib import Path

import pytest

from gateway.doctor import Finding, Subject
from gateway.doctor.examine import LOOKS
from tests.http.kit import Service, ask


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """The area dns ends when this is set."""
    event = asyncio.Event()

    async def look(_subject: Subject, _tell: object) -> None:
        await event.wait()

    monkeypatch.setitem(LOOKS, "dns", look)
    return event


async def test_a_run_and_its_report(running: Service, admin: Path) -> None:
    """The answer is the report, which is kept and says when, by whom and of what."""
    assert (await ask(admin, "GET", "/api/v1/doctor")).json == {"under_way": None, "last": None}
    made = (await ask(admin, "POST", "/api/v1/doctor", {"areas": ["settings"]})).json
    assert {name: made[name] for name in ("by", "service", "areas", "worst", "verdict")} == {
        "by": pwd.getpwuid(os.getuid()).pw_name,
        "service": True,
        "areas": ["settings"],
        "worst": "good",
        "verdict": "Nothing is wrong.",
    }
    assert made["at"] == running.clock.now().isoformat().replace("+00:00", "Z")
    assert {name: made["findings"][0][name] for name in ("key", "area", "level")} == {
        "key": "settings_good",
        "area": "settings",
        "level": "good",
    }
    assert set(made["findings"][0]) == set(Finding.__slots__)
    assert (await ask(admin, "GET", "/api/v1/doctor")).json == {"under_way": None, "last": made}


async def test_one_at_a_time(running: Service, admin: Path, gate: asyncio.Event) -> None:
    """Who does not wait hears at once that it began; a second run is refused until it has ended."""
    began = await ask(admin, "POST", "/api/v1/doctor", {"areas": ["dns"], "wait": False})
    assert (began.status, began.json["under_way"]["areas"]) == (202, ["dns"])
    assert (await ask(admin, "GET", "/api/v1/doctor")).json["under_way"] == began.json["under_way"]
    refused = await ask(admin, "POST", "/api/v1/doctor", {"areas": ["settings"]})
    assert (refused.status, "is under way" in refused.json["detail"]) == (409, True)
    gate.set()
    while running.doctor.under_way:
        await asyncio.sleep(0)
    assert (await ask(admin, "GET", "/api/v1/doctor")).json["last"]["areas"] == ["dns"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"areas": ["nonsense"]}, 400, "no area nonsense; there are settings, "),
        ({"areas": "dns"}, 400, "must be a list"),
        ({"wait": "yes"}, 400, "wait must be true or false"),
    ],
)
async def test_what_makes_no_sense(admin: Path, body: object, status: int, words: str) -> None:
    """It is said what would."""
    reply = await ask(admin, "POST", "/api/v1/doctor", body)
    assert (reply.status, words in reply.json["detail"]) == (status, True)


async def test_while_no_service_runs(running: Service) -> None:
    """There is nothing that could look; the command looks itself."""
    running.dispatcher = None
    assert (await ask(running, "POST", "/api/v1/doctor", {})).status == 503
