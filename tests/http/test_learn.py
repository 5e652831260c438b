"""Learn mode by HTTP: begun, looked at, stopped and forgotten; each order is kept as an act."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http.kit import Service, ask


async def test_it_is_begun_and_reports_and_ends(running: Service) -> None:
    """What was seen stands in the report, its text as much as its values; status says that it is on."""
    body = {"lasting": "1h", "hear_out": ["192.0.2.0/24"]}
    begun = await ask(running, "POST", "/api/v1/learn/begin", body)
    assert (begun.status, begun.json["on"], begun.json["until"]) == (200, True, "2026-11-20T13:00:00Z")
    for ear in running.learner.at.values():
        ear.connected("192.0.2.4")
    found = (await ask(running, "GET", "/api/v1/learn?seen=1")).json
    assert {one["peer"] for one in found["seen"]} == {"192.0.2.4"}
    assert found["others"] == ["192.0.2.4: connected, and sent nothing"]
    assert "192.0.2.4" in found["text"]
    assert (await ask(running, "GET", "/api/v1/status")).json["learning"]["on"] is True
    assert (await ask(running, "POST", "/api/v1/learn/stop")).json["on"] is False
    assert (await ask(running, "POST", "/api/v1/learn/forget")).status == 200
    acts = (await ask(running, "GET", "/api/v1/acts")).json["acts"]
    assert [one["verb"] for one in acts] == ["learn-forget", "learn-stop", "learn"]
    assert "192.0.2.0/24" in acts[-1]["what"]


@pytest.mark.parametrize(
    ("action", "body", "status", "word"),
    [
        ("begin", {"lasting": "90d"}, 422, "31 days"),
        ("begin", {"lasting": "soon"}, 400, "lasting"),
        ("begin", {"listeners": ["nowhere"]}, 422, "no listener nowhere"),
        ("begin", {"hear_out": ["::/0"]}, 422, "strangers of the Internet"),
        ("begin", {"hear_out": "192.0.2.0/24"}, 400, "list of texts"),
        ("stop", {}, 409, "nothing was begun"),
        ("watch", {}, 404, "there are begin, stop, forget"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    running: Service, action: str, body: dict[str, Any], status: int, word: str
) -> None:
    """With what to do instead."""
    answer = await ask(running, "POST", f"/api/v1/learn/{action}", body)
    assert (answer.status, word in answer.json["detail"]) == (status, True), answer.json
