"""Delay notices: who hears that his mail waits, whether or not anybody tried to send it, and what he is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.config.models import RouteSettings
from tests import builders
from tests.delivery.kit import FULL, THROTTLED, House, house, settings
from tests.fakes import ScriptedBackend
from tests.spool_kit import statements

LATE = 4 * 3600.0 + 1
REST = replace(THROTTLED, retry_after=timedelta(days=2), detail="come back on Monday")


async def one_round(at: House) -> None:
    """Begin and end one more."""
    begun = len(at.begun)
    await at.rounds(lambda: len(at.begun) > begun)
    await at.rounds(lambda: len(at.ended) >= len(at.begun))


async def told(at: House, identifier: str) -> list[tuple[str, str]]:
    detail = await at.spool.show(identifier)
    assert detail is not None
    return [(row.kind, row.reason) for row in detail.bounces]


async def test_everybody_hears_while_the_backend_rests(tmp_path: Path) -> None:
    """More than two pages of them, each once and in few statements; due times and attempts stay as they are."""
    b, other = ScriptedBackend("b"), ScriptedBackend("other")
    async with house(tmp_path, b, other, routes=("b",), bounces={"backend": "other"}) as at:
        await at.dispatcher.pause("b", None)
        await at.dispatcher.pause("other", None)
        ids = await at.put_many(450, "b")
        at.clock.advance(LATE - 60)
        young = await at.put("b")
        before = {row.id: (row.next_attempt_at, row.attempts) for row in await at.spool.find(limit=999)}
        with statements() as seen:
            at.clock.advance(60)
            await at.rounds(lambda: at.spool.counts().get(("other", "queued")) == 450)
        written = [" ".join(statement.split()[:4]) for statement in seen]
        assert written.count("UPDATE message SET delay_notified") == 3
        assert sum(statement.startswith("INSERT INTO message ") for statement in written) <= 15
        for _ in range(3):
            await one_round(at)
        assert at.spool.counts()["other", "queued"] == 450
        after = {row.id: (row.next_attempt_at, row.attempts) for row in await at.spool.find(limit=999)}
        assert {ident: after[ident] for ident in before} == before
        assert sorted(line["id"] for line in at.logged("bounced")) == sorted(ids)
        assert (await told(at, ids[0]), await told(at, young)) == ([("delayed", "")], [])
        raw = await at.spool.raw(at.logged("bounced")[0]["bounce"])
        assert raw is not None
        assert b"Action: delayed\r\nStatus: 4.3.2\r\n" in raw
        assert b"Reason: not tried yet: the backend rests: paused by the operator (from" in raw
        assert b"Will-Retry-Until: Wed, 25 Nov 2026 12:00:00 +0000\r\n" in raw
        assert b"Last-Attempt-Date" not in raw


async def test_a_notice_does_not_wait_behind_the_mail_it_is_about(tmp_path: Path) -> None:
    """It is put where another backend of the route works, though the mail itself may not go there (sticky)."""
    first, second = ScriptedBackend("first", builders.IN_DOUBT), ScriptedBackend("second")
    async with house(tmp_path, first, second, notice=timedelta(minutes=10)) as at:
        await at.tried(await at.put("first"))
        await at.dispatcher.pause("first", None)
        at.clock.advance(601)
        await at.rounds(lambda: at.logged("bounced"))
        detail = await at.spool.show(at.logged("bounced")[0]["bounce"])
        assert detail is not None
        assert [row.backend for row in detail.deliveries] == ["second"]


@pytest.mark.parametrize(
    ("given", "mode", "rows"),
    [
        ({}, "auto", [("delayed", "")]),
        ({"notify": "SUCCESS,delay"}, "auto", [("delayed", "")]),
        ({"notify": "FAILURE"}, "auto", []),
        ({"notify": "NEVER"}, "auto", []),
        ({"sender": ""}, "auto", [("delayed", "null_sender")]),
        ({"bounce": True}, "auto", [("delayed", "null_sender")]),
        ({}, "off", [("delayed", "off")]),
    ],
)
async def test_who_hears(tmp_path: Path, given: dict[str, Any], mode: str, rows: list[tuple[str, str]]) -> None:
    """As RFC 3461 4.1 says, never the null sender, and nobody where the settings say so; looked at once."""
    async with house(tmp_path, ScriptedBackend("b"), bounces={"mode": mode}) as at:
        await at.dispatcher.pause("b", None)
        identifier = await at.put("b", **given)
        at.clock.advance(LATE)
        for _ in range(3):
            await one_round(at)
        assert await told(at, identifier) == rows
        assert len(await at.spool.find()) == 1 + (("delayed", "") in rows)


async def test_what_they_are_told_of_one_that_was_not_tried(tmp_path: Path) -> None:
    """Why the backend rests, or that there is none any more."""
    b, other = ScriptedBackend("b", REST), ScriptedBackend("other")
    routes = (RouteSettings(backend=("b",), recipients=("*@x.org",)),)
    config = settings(tmp_path, "b", "other", bounces={"backend": "other"}).model_copy(update={"routes": routes})
    async with house(tmp_path, b, other, config=config) as at:
        await at.tried(await at.put("b"))
        await at.put("b")
        await at.put("gone", "a@y.example")
        at.clock.advance(LATE)
        await at.rounds(lambda: len(other.calls) == 3)
        reasons = sorted(raw.partition(b"Diagnostic-Code: ")[2].partition(b"\r\nFinal")[0] for _, raw in other.calls)
        assert b"smtp; 421 4.7.0 come back on Monday" in reasons[0] + reasons[1] + reasons[2]
        text = b"".join(b" ".join(raw.split()) for _, raw in other.calls)
        assert b"x-gateway; not tried yet: the backend rests: come back on Monday" in text
        assert b"x-gateway; not tried yet: its backend is not configured any more" in text
        assert sum(b"Last-Attempt-Date: Fri, 20 Nov 2026 12:00:00 +0000" in raw for _, raw in other.calls) == 1


async def test_one_notice_for_all_that_waits_of_a_message(tmp_path: Path) -> None:
    """Also where its recipients wait for several backends, with the backend of each."""
    names = [ScriptedBackend(name) for name in ("b", "c", "other")]
    async with house(tmp_path, *names, routes=("b", "c"), bounces={"backend": "other"}) as at:
        for name in ("b", "c"):
            await at.dispatcher.pause(name, None)
        identifier = at.ids()
        ways = {"b": ("a@x.org",), "c": ("d@x.org",)}
        await at.spool.put(builders.new_message("a@x.org", "d@x.org", ident=identifier, deliveries=ways))
        at.clock.advance(LATE)
        for _ in range(3):
            await one_round(at)
        ((_, raw),) = names[2].calls
        assert raw.count(b"Action: delayed") == 2
        assert b"(from backend b)" in b" ".join(raw.split())
        assert b"(from backend c)" in b" ".join(raw.split())


async def test_a_full_disk_keeps_notices_for_later(tmp_path: Path) -> None:
    """Nothing is said before it is written; what could not be is in the next round."""
    b, other = ScriptedBackend("b"), ScriptedBackend("other")
    async with house(tmp_path, b, other, routes=("b",), bounces={"backend": "other"}) as at:
        await at.dispatcher.pause("b", None)
        identifier = await at.put("b")
        left = at.refuse("notice", FULL)
        at.clock.advance(LATE)
        await at.rounds(lambda: not left)
        assert (at.logged("bounced"), await told(at, identifier)) == ([], [])
        await at.rounds(lambda: other.calls)
        assert [line["id"] for line in at.logged("bounced")] == [identifier]
