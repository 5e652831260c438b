"""The door over HTTP: who was turned away, page by page and with how to let him in; what came and went."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest

from gateway.refusals import Refused
from gateway.spool import DoorBook
from tests.http.kit import Service, ask


async def turned_away(running: Service, *found: Refused) -> None:
    book = DoorBook(running.spool.note_refusals, running.clock, running.events)
    for one in found:
        book.note(one)
    await book.flush()


def refused(n: int, **more: Any) -> Refused:
    given = {"listener": "local", "stage": "mail", "reason": "relay_denied", "code": 550, "peer": f"192.0.2.{n}"}
    return Refused(**{**given, **more})


async def test_pages_hold_each_row_once(running: Service) -> None:
    """Also where many are of one moment; each with its reason in plain words and what helps."""
    await turned_away(running, *(refused(n) for n in range(1, 26)), refused(7, reason="idle", stage="data"))
    seen, before = [], ""
    while True:
        page = (await ask(running, "GET", f"/api/v1/refusals?limit=10&before={before}")).json
        seen += page["refusals"]
        if not (before := page["next"]):
            break
    assert len({row["id"] for row in seen}) == len(seen) == 26
    assert page["reasons"] == {"relay_denied": 25, "idle": 1}
    assert page["kept"] == 26
    row = next(row for row in seen if row["peer"] == "192.0.2.9" and row["reason"] == "relay_denied")
    assert row["why"] == "Nobody by the address 192.0.2.9 may send here."
    assert "networks:" in row["yaml"]
    assert row["command"] == "gateway reload"
    only = (await ask(running, "GET", "/api/v1/refusals?reason=idle")).json
    assert [row["reason"] for row in only["refusals"]] == ["idle"]
    assert only["reasons"] == {"relay_denied": 25, "idle": 1}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("refusals?limit=0", "limit must be"), ("refusals?limit=1001", "limit must be"),
        ("refusals?before=x", "before: give what"), ("refusals?sender=a", "unknown filter sender"),
        ("refusals?from=soon", "from: "), ("flow?hours=0", "hours must be"), ("flow?days=91", "days must be"),
        ("flow?hours=1&days=1", "unknown: hours"), ("flow?weeks=1", "unknown: weeks"),
    ],
)  # fmt: skip
async def test_a_slip_is_refused(running: Service, path: str, words: str) -> None:
    """With what there is instead."""
    answer = await ask(running, "GET", f"/api/v1/{path}")
    assert (answer.status, words in answer.json["detail"]) == (400, True), answer.body


@pytest.mark.parametrize("q", ["%", "_", "\\", "*" * 5000, "'; DROP TABLE refusal; --", "\u0000", "192.0.2.0/999"])
async def test_what_is_looked_for_is_only_text(running: Service, q: str) -> None:
    """Signs that mean something to the database mean themselves."""
    await turned_away(running, refused(1))
    answer = await ask(running, "GET", f"/api/v1/refusals?{urlencode({'q': q})}")
    assert answer.status == 200
    assert len(answer.json["refusals"]) == (1 if set(q) == {"*"} else 0)


async def test_flow_has_a_bar_for_each_step(running: Service) -> None:
    """The running one last; 24 hours where nothing is asked for."""
    await turned_away(running, refused(1), refused(1))
    for path, bars, step in (("flow", 24, "hour"), ("flow?days=7", 7, "day"), ("flow?hours=168", 168, "hour")):
        found = (await ask(running, "GET", f"/api/v1/{path}")).json
        assert (len(found["points"]), found["step"]) == (bars, step)
        assert found["points"][-1]["refused"] == found["total"]["refused"] == 2
