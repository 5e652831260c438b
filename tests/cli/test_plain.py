"""Text for people: times, sizes, tables, the life line, and nothing that steers a terminal."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from gateway.cli import lifeline, plain


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (59, "59 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7199, "120 min"),
        (7200, "2 h"),
        (432000, "5 d"),
    ],
)
def test_span(seconds: float, text: str) -> None:
    """One unit, fine enough to be useful."""
    assert plain.span(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (35_000_000, "35.0 MB")])
def test_size(number: int, text: str) -> None:
    """Decimal units, as in the configuration."""
    assert plain.size(number) == text


def test_relative() -> None:
    """Past, future, never."""
    assert plain.relative(None) == "-"
    assert plain.relative(plain.now() + timedelta(hours=3, seconds=5)) == "in 3 h"
    assert plain.relative(plain.now() - timedelta(minutes=4)) == "4 min ago"


@pytest.mark.parametrize("text", ["\x1b]0;owned\x07", "\x9b2J", "\u202e", "\r"])
def test_control_characters_are_shown(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """A file name or an answer from outside cannot move the cursor; JSON stays JSON."""
    plain.say(f"name{text}")
    plain.show_json({"name": text})
    said, _, printed = capsys.readouterr().out.partition("\n")
    assert text not in said + printed
    assert json.loads(printed)["name"] == text


def test_table_with_lines_between(capsys: pytest.CaptureFixture[str]) -> None:
    """What belongs to one row stands under it."""
    plain.table(("A", "B"), [("x", "y"), ("z", "")], ["to do: this", ""])
    assert capsys.readouterr().out == "A  B\nx  y\n  to do: this\nz\n"


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Aligned columns, one line for each row whatever stands in it."""
    plain.table(("A", "LONG"), [("xx", "y\nz"), (1, "")])
    assert capsys.readouterr().out == "A   LONG\nxx  y z\n1\n"


NOW = "2026-11-20T12:00:00Z"
ROW = {"code": None, "enhanced": "", "detail": "", "remote_id": "", "verdict": "", "state": "queued", "backend": "b"}


def detail(state: str, **more: Any) -> dict[str, Any]:
    recipient = {**ROW, "address": "x@example.net", "state": state}
    return {
        "id": "M1", "state": state, "sender": "", "message_id": "", "peer": "", "listener": "", "login": "",
        "client": "c", "received_at": NOW, "size": 1,
        "expires_at": (plain.now() + timedelta(days=4, hours=12)).isoformat(),
        "recipients": [recipient], "attempts": [], "deliveries": [], "events": [], **more,
    }  # fmt: skip


WAITS = detail("queued", deliveries=[{"backend": "b", "state": "queued", "next_attempt_at": NOW}])


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"code": 451, "enhanced": "4.7.1", "detail": "451 4.7.1 later"}, "451 4.7.1 later"),
        ({"code": 451, "enhanced": "4.7.1", "detail": "451-4.7.1 later"}, "451 4.7.1 later"),
        ({"code": 429, "detail": "slow down"}, "429 slow down"),
        ({"code": 451, "enhanced": "4.7.1", "detail": "later", "said_by": "smtp"}, "451 4.7.1 later"),
        ({"code": 400, "enhanced": "5.6.0", "detail": "no subject", "said_by": "http"}, "400 no subject"),
        ({"code": 400, "detail": "HTTP 400 BadRequest no subject", "said_by": "http"}, "400 BadRequest no subject"),
        ({"enhanced": "5.4.7", "detail": "gave up", "said_by": "gateway"}, "gave up"),
        ({"detail": "two\r\nlines"}, "two lines"),
        ({}, ""),
    ],
)
def test_answer(row: dict[str, Any], text: str) -> None:
    """The provider's words as they came; codes are not said twice, and only those that it gave."""
    assert lifeline.answer({**ROW, **row}) == text


@pytest.mark.parametrize(
    ("found", "backends", "line"),
    [
        (detail("done"), {}, "  => sent to everybody"),
        (detail("held"), {}, "  => held: nothing happens until you run: gateway queue release M1"),
        (detail("corrupt"), {}, "  => its content is damaged on disk: it will not be sent, and stays "),
        (detail("queued"), {}, "  => returned to the sender if it cannot be sent within 4 d"),
        (
            WAITS,
            {"b": {"paused_by": "throttled", "paused_until": None, "reason": "429 slow down"}},
            "  => waits for backend b, which is throttled, next try now: 429 slow down",
        ),
        (WAITS, {"b": {"paused_by": ""}}, "  => next attempt by b at 2026-11-20 12:00:00Z ("),
        (
            WAITS,
            {"other": {"paused_by": ""}},
            "  => waits for backend b, which is not configured: put it back, or add a route that matches, then gateway "
            "reload",
        ),
        (WAITS, {"b": {"name": "b"}}, "  => waits for backend b; nothing is sent until a service runs: gateway serve"),
    ],
)
def test_what_happens_next(found: dict[str, Any], backends: dict[str, Any], line: str) -> None:
    """The last words of a life line."""
    assert any(said.startswith(line) for said in lifeline.lines(found, backends))


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({"ended_at": None}, "b: under way"),
        ({"ended_at": NOW, "verdict": "interrupted"}, "b: interrupted by a restart, may have been sent (0.0 s)"),
        ({"ended_at": NOW, "verdict": "in_doubt"}, "b: in doubt, it went out and no usable answer came back (0.0 s)"),
        ({"ended_at": NOW, "verdict": "sent", "remote_id": "r1"}, "b: sent, as r1 (0.0 s)"),
    ],
)
def test_attempts(row: dict[str, Any], line: str) -> None:
    """Every verdict in plain words, the unfinished one included."""
    attempt = {**ROW, "started_at": NOW, "recipients": ["x@example.net"], **row}
    assert f"  2026-11-20 12:00:00Z  {line}" in list(lifeline.lines(detail("queued", attempts=[attempt]), {}))


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({"kind": "failed", "bounce_id": "B1"}, "the sender was told of the failure by B1"),
        ({"kind": "delayed", "bounce_id": "B1"}, "the sender was told of the delay by B1"),
        ({"kind": "failed", "reason": "null_sender"}, "not told of the failure: it came with the null sender"),
        ({"kind": "failed", "reason": "off"}, "not told of the failure: bounces.mode is off"),
    ],
)
def test_whether_the_sender_was_told(row: dict[str, Any], line: str) -> None:
    """By which bounce, or why not (design: every message is accounted for)."""
    told = {"bounce_id": "", "reason": "", "made_at": NOW, **row}
    assert any(said.endswith(line) for said in lifeline.lines(detail("failed", bounces=[told]), {}))


def test_who_asked_not_to_be_told() -> None:
    """NOTIFY=NEVER (RFC 3461 4.1)."""
    failed = {**ROW, "address": "x@example.net", "state": "failed", "notify": "NEVER"}
    assert any("asked not to be told" in line for line in lifeline.lines(detail("failed", recipients=[failed]), {}))


def test_an_attempt_under_way_has_no_next_one_yet() -> None:
    """The time that stands in the spool meanwhile is the one for a crash."""
    attempt = {**ROW, "started_at": NOW, "ended_at": None, "recipients": ["x@example.net"]}
    said = list(lifeline.lines({**WAITS, "attempts": [attempt]}, {"b": {"paused_by": ""}}))
    assert not any("next attempt" in line for line in said), said


def test_a_rewritten_sender_is_told() -> None:
    """What was changed stands beside what it was."""
    said = list(lifeline.lines({**WAITS, "original": "root"}, {}))
    assert said[1] == "  the sender was root and was rewritten"


def test_what_is_to_be_done() -> None:
    """Below an attempt, below a failure, and below what waits for a backend that somebody has to mend."""
    row = {**ROW, "code": 403, "detail": "403 no", "said_by": "http", "fix": "allow\nit"}
    attempt = row | {"started_at": NOW, "ended_at": NOW, "recipients": ["x@example.net"], "verdict": "rejected"}
    failed = row | {"address": "x@example.net", "state": "failed"}
    assert list(lifeline.lines(detail("done", attempts=[attempt], recipients=[failed]), {}))[-4:] == [
        "  2026-11-20 12:00:00Z  b: refused for good: 403 no (0.0 s)",
        "     to do: allow it",
        "  => x@example.net will not get it: 403 no",
        "     to do: allow it",
    ]
    rests = {"b": {"paused_by": "misconfigured", "paused_until": None, "reason": "401 no", "fix": "renew the key"}}
    _, _, due, fix, _ = lifeline.lines(WAITS, rests)
    assert due.startswith("  => waits for backend b, which is misconfigured")
    assert fix == "     to do: renew the key"


@pytest.mark.parametrize(
    ("row", "line", "end"),
    [
        ({"state": "delivered"}, "delivered according to b", "sent to everybody"),
        (
            {"state": "bounced", "detail": "mailbox full"},
            "bounced according to b: mailbox full",
            "sent, and taken by the provider, but it did not arrive",
        ),
        ({"state": "queued", "address": "x@example.net"}, "queued according to b", "sent to everybody"),
    ],
)
def test_events(row: dict[str, Any], line: str, end: str) -> None:
    """What the provider said later stands after the attempts; whom it is about only where there are several."""
    event = {**ROW, "address": "", "reported_at": NOW, **row}
    attempt = {**ROW, "recipients": ["x@example.net"], "started_at": NOW, "ended_at": NOW, "verdict": "sent"}
    found = detail("done", events=[event], attempts=[attempt])
    *_, sent, said, last = lifeline.lines(found, {})
    assert (said, last) == (f"  2026-11-20 12:00:00Z  {line}", f"  => {end}")
    assert "b: sent" in sent
    second = {**found["recipients"][0], "address": "y@example.net"}
    many = detail("done", events=[event | {"address": "y@example.net"}], recipients=[*found["recipients"], second])
    assert any("according to b for y@example.net" in said for said in lifeline.lines(many, {}))
    back = {**many, "events": [event | {"address": "y@example.net", "state": "bounced"}]}
    assert list(lifeline.lines(back, {}))[-1].endswith("it did not arrive: y@example.net")
