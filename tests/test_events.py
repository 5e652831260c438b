"""Every mail event is one log line and its metrics, whatever strangers wrote into it."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import re
import shutil
import subprocess
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from gateway import auth
from gateway.events import REASONS, Events
from gateway.events.log import Renderer, Writer, in_journal
from gateway.model import DeliveryEvent, Envelope, Outcome, Recipient, Verdict
from gateway.refusals import Refused
from tests.builders import new_message, spooled_message
from tests.fakes import FakeClock

NOW = datetime(2026, 11, 20, 12, 0, 0, 123000, tzinfo=UTC)
ENVELOPE = Envelope("a@example.com", (Recipient("x@example.org"), Recipient("y@example.org")))
NEW = new_message(
    ident="Q1",
    envelope=ENVELOPE,
    raw=b"x" * 2000,
    deliveries={"box": ("x@example.org", "y@example.org")},
    client="printers",
    listener="local",
    peer="192.0.2.1",
    message_id="<m@example.com>",
)
SPOOLED = spooled_message(
    id="Q1", envelope=ENVELOPE, size=2000, received_at=NOW - timedelta(seconds=7), client="printers", attempt=3
)


def refused(reason: str, *, stage: str = "rcpt", **more: Any) -> Refused:
    return Refused(listener="local", stage=stage, reason=reason, peer="192.0.2.9", **more)


class Log:
    """Events that write to memory, with what they wrote and counted."""

    def __init__(self, form: str = "json", level: str = "info") -> None:
        self.stream = io.StringIO()
        self.registry = CollectorRegistry()
        self.events = Events(self.registry, form, level, clock=FakeClock(NOW), stream=self.stream)
        self.events.declare(listeners=["local"], backends=["box", "smart"], clients=["printers"], keys=["corp"])

    @property
    def text(self) -> str:
        self.events.flush()
        return self.stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"gateway_{name}", labels)


@pytest.fixture
def log():
    log = Log()
    yield log
    log.events.close()


def test_accepted_is_one_line_and_its_metrics(log: Log) -> None:
    """The line names the queue id, who, to whom and by which way; no body, no subject."""
    log.events.accepted(NEW, 0.004)
    assert log.lines == [
        {
            "timestamp": "2026-11-20T12:00:00.123+00:00", "level": "info", "event": "accepted", "id": "Q1",
            "listener": "local", "peer": "192.0.2.1", "client": "printers", "sender": "a@example.com",
            "recipients": ["x@example.org", "y@example.org"], "size": 2000, "message_id": "<m@example.com>",
            "backends": ["box"],
        }
    ]  # fmt: skip
    assert log.metric("messages_received_total", listener="local", client="printers") == 1
    assert log.metric("accept_duration_seconds_bucket", listener="local", le="0.005") == 1
    assert log.metric("accept_duration_seconds_bucket", listener="local", le="0.0025") == 0
    assert log.metric("message_size_bytes_sum") == 2000


SENT = Outcome(Verdict.SENT, 250, "2.0.0", "ok", "r1")


@pytest.mark.parametrize(
    ("verdict", "event", "level"),
    [
        (Verdict.SENT, "sent", "info"),
        (Verdict.REJECTED, "failed", "warning"),
        (Verdict.DEFERRED, "deferred", "info"),
        (Verdict.THROTTLED, "deferred", "info"),
        (Verdict.MISCONFIGURED, "deferred", "info"),
        (Verdict.IN_DOUBT, "in_doubt", "warning"),
    ],
)
def test_every_verdict_has_its_event(log: Log, verdict: Verdict, event: str, level: str) -> None:
    """An attempt counts once under its verdict, a delivery once for each recipient under its event."""
    outcome = Outcome(verdict, 450, "4.2.0", "try later", "id7", fix="wait")
    log.events.settled(SPOOLED, "smart", {"x@example.org": outcome, "y@example.org": outcome}, 0.25, NOW)
    (line,) = log.lines
    assert (line["event"], line["level"], line["verdict"]) == (event, level, verdict.value)
    assert line["recipients"] == ["x@example.org", "y@example.org"]
    assert (line["code"], line["enhanced"], line["detail"], line["remote_id"]) == (450, "4.2.0", "try later", "id7")
    assert (line["attempt"], line["milliseconds"], line["fix"]) == (3, 250, "wait")
    assert log.metric("deliveries_total", backend="smart", result=event) == 2
    assert log.metric("delivery_attempts_total", backend="smart", result=verdict.value) == 1
    assert log.metric("delivery_duration_seconds_sum", backend="smart") == 0.25
    assert log.metric("message_latency_seconds_sum", backend="smart") == (7 if event == "sent" else 0)


def test_distinct_outcomes_are_distinct_lines(log: Log) -> None:
    """Recipients with different fates get a line each, and the attempt counts as mixed."""
    failed = Outcome(Verdict.REJECTED, 550, "5.1.1", "no such user")
    log.events.settled(SPOOLED, "box", {"x@example.org": SENT, "y@example.org": failed}, 0.1, NOW)
    assert [(line["event"], line["recipients"]) for line in log.lines] == [
        ("sent", ["x@example.org"]),
        ("failed", ["y@example.org"]),
    ]
    assert log.metric("delivery_attempts_total", backend="box", result="mixed") == 1


@pytest.mark.parametrize(
    ("call", "event", "metric", "labels", "value"),
    [
        (lambda e: e.connection_opened("local"), None, "smtp_connections_total", {"listener": "local"}, 1),
        (lambda e: e.connection_opened("local"), None, "smtp_connections_open", {"listener": "local"}, 1),
        (lambda e: e.connection_closed("local"), None, "smtp_connections_open", {"listener": "local"}, -1),
        (
            lambda e: e.rejected(refused("too_many_connections", stage="connect")), "rejected",
            "smtp_rejected_total", {"listener": "local", "stage": "connect", "reason": "too_many_connections"}, 1,
        ),
        (
            lambda e: e.login_refused(refused("auth_failed", stage="auth"), "PLAIN", "failed"), "auth",
            "smtp_auth_total", {"listener": "local", "mechanism": "PLAIN", "result": "failed"}, 1,
        ),
        (
            lambda e: e.login_refused(refused("too_many_failures", stage="auth"), "CRAM-MD5", "refused"), "auth",
            "smtp_auth_total", {"listener": "local", "mechanism": "other", "result": "refused"}, 1,
        ),
        (
            lambda e: e.rejected(refused("relay_denied")), "rejected",
            "smtp_rejected_total", {"listener": "local", "stage": "rcpt", "reason": "relay_denied"}, 1,
        ),
        (
            lambda e: e.rejected(refused("x@evil.example")), "rejected",
            "smtp_rejected_total", {"listener": "local", "stage": "rcpt", "reason": "other"}, 1,
        ),
        (lambda e: e.bounced(SPOOLED, "Q2", "failed"), "bounced", "bounces_total", {"result": "failed"}, 1),
        (lambda e: e.digest("s@x.example", 3, "Q2", ""), "digest", "bounces_total", {"result": "digest"}, 1),
        (lambda e: e.digest("s@x.example", 3, "", "off"), "digest", "bounces_total", {"result": "suppressed"}, 1),
        (lambda e: e.alert("mail", "full", ""), "alert", "alerts_total", {"way": "mail", "result": "ok"}, 1),
        (lambda e: e.alert("mail", "full", "no"), "alert", "alerts_total", {"way": "mail", "result": "failed"}, 1),
        (
            lambda e: e.delivery_event("Q1", "box", DeliveryEvent("r1", "bounced"), "poll"), "delivery_event",
            "delivery_events_total", {"backend": "box", "state": "bounced"}, 1,
        ),
        (
            lambda e: e.bounce_suppressed(SPOOLED, "null_sender"), "bounce_suppressed",
            "bounces_total", {"result": "suppressed"}, 1,
        ),
        (
            lambda e: e.backend_paused("box", "throttled", "429", 60), "backend_paused",
            "backend_paused", {"backend": "box"}, 1,
        ),
        (lambda e: e.backend_up("box", False), None, "backend_up", {"backend": "box"}, 0),
        (lambda e: e.spool_written(0.002), None, "spool_write_duration_seconds_count", {}, 1),
        (lambda e: e.spool_space(5, 9, {"disk": 7}, "quota"), None, "spool_bytes", {}, 5),
        (lambda e: e.spool_space(5, 9, {"disk": 7}, "quota"), None, "spool_free_bytes", {}, 9),
        (lambda e: e.spool_space(5, 9, {}, "away"), None, "spool_shut", {"cause": "away"}, 1),
        (lambda e: e.spool_space(5, 9, {"disk": 7}, ""), None, "spool_room_bytes", {"limit": "disk"}, 7),
        (lambda e: e.spool_shut("quota", "fix", 9, {}), "spool_shut", "spool_shut", {"cause": "quota"}, 1),
        (lambda e: e.spool_open({"disk": 7}), "spool_open", "spool_shut", {"cause": "quota"}, 0),
        (lambda e: e.reloaded(False, "bad"), "reloaded", "config_last_reload_successful", {}, 0),
        (
            lambda e: e.tls_expiry("local", 1.5e9), None,
            "tls_certificate_not_after_timestamp_seconds", {"listener": "local"}, 1.5e9,
        ),
        (lambda e: e.learning("local", 2), None, "learning", {"listener": "local"}, 2),
        (lambda e: e.jwks("corp", True, "2 keys"), "jwks", "jwks_up", {"key": "corp"}, 1),
        (lambda e: e.bug("here", ValueError("x")), "bug", "bugs_total", {}, 1),
    ],
)  # fmt: skip
def test_event_and_metric_go_together(
    log: Log, call: Any, event: str | None, metric: str, labels: dict[str, str], value: float
) -> None:
    """One call, one count, and one line unless the event is too frequent to be worth one."""
    call(log.events)
    assert [line["event"] for line in log.lines] == ([event] if event else [])
    assert log.metric(metric, **labels) == value


def test_a_refusal_says_who_what_and_why(log: Log) -> None:
    """All that is kept of it stands in its line, too; and whoever keeps it is told."""
    kept: list[Refused] = []
    log.events.on_refusal = kept.append
    said = refused(
        "too_big", code=552, enhanced="5.3.4", text="too big", helo="printer", tls="TLSv1.3 X", client="printers",
        user="scan", sender="a@example.com", recipients=tuple(f"{n}@example.org" for n in range(50)), size=9,
        detail="told to you",
    )  # fmt: skip
    log.events.rejected(said)
    log.events.login_refused(said, "PLAIN", "failed")
    first, second = log.lines
    assert first == {
        "timestamp": "2026-11-20T12:00:00.123+00:00", "level": "info", "event": "rejected", "stage": "rcpt",
        "listener": "local", "peer": "192.0.2.9", "helo": "printer", "tls": "TLSv1.3 X", "client": "printers",
        "user": "scan", "sender": "a@example.com", "recipients": [f"{n}@example.org" for n in range(20)], "size": 9,
        "code": 552, "enhanced": "5.3.4", "reason": "too_big", "text": "too big", "detail": "told to you",
    }  # fmt: skip
    assert second.items() >= {"event": "auth", "mechanism": "PLAIN", "result": "failed", "helo": "printer"}.items()
    assert kept == [said, said]


def test_a_bounce_is_told_with_both_ids(log: Log) -> None:
    """So that either leads to the other."""
    log.events.bounced(SPOOLED, "Q2", "failed")
    (line,) = log.lines
    assert (line["id"], line["bounce"], line["kind"], line["to"]) == (
        SPOOLED.id, "Q2", "failed", SPOOLED.envelope.sender,
    )  # fmt: skip


def test_resumed_backend_is_no_longer_paused(log: Log) -> None:
    """A pause without end is told in words: JSON has no infinity."""
    log.events.backend_paused("box", "operator", "paused by the operator", float("inf"))
    log.events.backend_resumed("box")
    assert log.lines[0]["pause"] == "until resumed"
    assert log.metric("backend_paused", backend="box") == 0


def test_all_label_sets_exist_before_the_first_event(log: Log) -> None:
    """rate() must see the first failure, so every series starts at 0 (and a backend as up)."""
    before = {sample.name + repr(sample.labels) for family in log.registry.collect() for sample in family.samples}
    log.events.accepted(NEW, 0.1)
    log.events.settled(SPOOLED, "box", {"x@example.org": SENT}, 0.1, NOW)
    log.events.login_refused(refused("auth_unavailable", stage="auth"), "XOAUTH2", "unavailable")
    log.events.rejected(refused("bad_message", stage="data"))
    log.events.refusal_dropped()
    log.events.queue_gauges({("box", "queued"): 3}, {"box": 9.0})
    after = {sample.name + repr(sample.labels) for family in log.registry.collect() for sample in family.samples}
    assert after == before
    assert log.metric("backend_up", backend="box") == 1


def test_reload_forgets_what_is_gone_and_keeps_what_is_known(log: Log) -> None:
    """A backend that left the configuration raises no alarm; a known one keeps its state and its counts."""
    log.events.backend_up("box", False)
    log.events.backend_up("smart", False)
    log.events.connection_opened("local")
    log.events.declare(listeners=["local"], backends=["box", "new"], clients=["printers"], keys=[])
    assert log.metric("backend_up", backend="box") == 0
    assert log.metric("backend_up", backend="smart") is None
    assert log.metric("backend_up", backend="new") == 1
    assert log.metric("jwks_up", key="corp") is None
    log.events.declare(keys=["corp"])
    assert log.metric("jwks_up", key="corp") == 1, "nothing has failed yet"
    log.events.jwks("corp", False)
    log.events.declare(keys=["corp"])
    assert log.metric("jwks_up", key="corp") == 0
    assert log.metric("smtp_connections_total", listener="local") == 1


def test_tokens_and_credentials(log: Log) -> None:
    """Series of refreshes exist from the start for who asks for tokens; ends are those last told, and go with it."""
    log.events.declare(backends=["office", "box"], oauth=["office"])
    assert log.metric("oauth_token_refresh_total", backend="office", result="refused") == 0
    assert log.metric("oauth_token_refresh_total", backend="box", result="refused") is None
    log.events.token_refreshed("office", "ok", 1_800_000_000.0)
    log.events.token_refreshed("office", "refused", detail="AADSTS7000222: the secret has expired")
    log.events.credential_ends("office", 1_900_000_000.0)
    assert log.metric("certificate_renewals_total", backend="office", result="failed") == 0
    log.events.key_renewed("office", "failed", "addKey: HTTP 401", "object_id must be another")
    log.events.key_renewed("office", "failed", "addKey: HTTP 401", "object_id must be another", news=False)
    assert log.metric("certificate_renewals_total", backend="office", result="failed") == 2
    [line] = [line for line in log.lines if line["event"] == "certificate_renewal"]
    assert (line["level"], line["result"], line["fix"]) == ("warning", "failed", "object_id must be another")
    assert log.metric("oauth_token_refresh_total", backend="office", result="ok") == 1
    assert log.metric("oauth_token_expiry_timestamp_seconds", backend="office") == 1_800_000_000
    assert log.metric("credential_expiry_timestamp_seconds", backend="office") == 1_900_000_000
    [line] = [line for line in log.lines if line["event"] == "oauth"]
    assert (line["level"], line["result"], line["backend"]) == ("warning", "refused", "office")
    log.events.declare(backends=["box"])
    assert log.metric("credential_expiry_timestamp_seconds", backend="office") is None


def test_queue_gauges_go_back_to_zero(log: Log) -> None:
    """What the spool no longer reports is 0, not the last value."""
    log.events.queue_gauges({("box", "queued"): 3, ("gone", "held"): 1}, {"box": 60.0})
    log.events.queue_gauges({("smart", "queued"): 2}, {})
    assert log.metric("queue_messages", backend="box", state="queued") == 0
    assert log.metric("queue_messages", backend="gone", state="held") == 0
    assert log.metric("queue_messages", backend="smart", state="queued") == 2
    assert log.metric("queue_oldest_message_age_seconds", backend="box") == 0


NASTY = st.text(st.characters(codec=None), max_size=3000) | st.sampled_from(
    ["\r\nlevel=error event=bug", "\x1b[31mred", "a\x00b", "\u202egnp.exe", "\ud800", "\x85", "\u2028"]
)


@given(NASTY, NASTY)
def test_no_text_breaks_out_of_its_line(sender: str, detail: str) -> None:
    """Whatever strangers write: one JSON object on one line, every value printable and cut (door.md row 39)."""
    render = Renderer(console=False, journal=False)
    text = render("info", {"event": "rejected", "sender": sender, "recipients": [detail] * 50, "n": 1}, NOW)
    text.encode()
    assert text.endswith("}\n")
    assert text[:-1].isprintable()
    line = json.loads(text)
    assert line["n"] == 1
    assert len(line.get("sender", "")) <= 10 * 1100
    assert len(text) <= 10 * 4000


@given(NASTY)
def test_no_text_breaks_out_of_a_console_line(detail: str) -> None:
    """On a terminal only a traceback has further lines, and those are indented."""
    render = Renderer(console=True, journal=False)
    first, *rest = render("error", {"event": "bug", "detail": detail, "exception": detail}, NOW).split("\n")
    assert first.startswith("12:00:00 error")
    assert first.isprintable()
    assert rest[-1] == ""
    assert all(line.startswith("    ") and line.isprintable() for line in rest[:-1])


TOKEN = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJiaWxsaW5nIn0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "fields",
    [
        {"detail": f"cannot verify {TOKEN} now"},
        {"detail": f"Authorization: Bearer {TOKEN}"},
        {"detail": "authorization: bearer ya29.c2lnbmF0dXJl"},
        {"recipients": [f"{TOKEN}@example.org"]},
        {"password": "c2lnbmF0dXJl"},
        {"admin_token": "c2lnbmF0dXJl"},
        {"Authorization": "c2lnbmF0dXJl"},
        {"client_secret": b"c2lnbmF0dXJl"},
        {"smtp2go_api_key": "c2lnbmF0dXJl"},
        {"exception": f"ValueError: {TOKEN}"},
    ],
)
@pytest.mark.parametrize("console", [True, False])
def test_secrets_never_reach_a_line(fields: dict[str, Any], console: bool) -> None:
    """Masked by the name of the field and by the look of the value, also in the middle of a text."""
    text = Renderer(console=console, journal=False)("info", {"event": "x", **fields}, NOW)
    assert "c2lnbmF0dXJl" not in text
    assert "[redacted]" in text


def test_long_lists_say_how_many_are_left_out(log: Log) -> None:
    """A message to a thousand people is still one short line."""
    log.events.info("x", recipients=[f"user{n}@example.org" for n in range(1000)])
    shown = log.lines[0]["recipients"]
    assert len(str(shown)) < 2000
    assert shown[-1] == f"and {1000 - len(shown) + 1} more"


def test_long_values_are_cut(log: Log) -> None:
    """One field is about 1 kB at most."""
    log.events.info("x", detail="y" * 5000)
    assert log.lines[0]["detail"] == "y" * 1024 + "..."


def test_a_bug_shows_its_traceback(log: Log) -> None:
    """The traceback is one field of the one line, its message masked."""
    try:
        raise LookupError(f"Bearer {TOKEN}")
    except LookupError as error:
        log.events.bug("delivery.box", error)
    (line,) = log.lines
    assert (line["level"], line["where"], line["error"]) == ("error", "delivery.box", "LookupError")
    assert "test_events.py" in line["exception"]
    assert TOKEN not in line["exception"]


@pytest.mark.parametrize(
    ("level", "events"), [("debug", ["attempt", "x", "y"]), ("info", ["x", "y"]), ("warning", ["y"])]
)
def test_level(level: str, events: list[str]) -> None:
    """Below the level nothing is written; metrics are counted all the same."""
    log = Log(level=level)
    log.events.attempt("Q1", "box", 1)
    log.events.info("x")
    log.events.warning("y")
    assert [line["event"] for line in log.lines] == events


def test_console_line() -> None:
    """For people: time, level, event, then the fields."""
    log = Log("console")
    log.events.accepted(NEW, 0.1)
    assert log.text == (
        "12:00:00 info    accepted   id=Q1 listener=local peer=192.0.2.1 client=printers sender=a@example.com"
        " recipients=x@example.org,y@example.org size=2000 message_id=<m@example.com> backends=box\n"
    )


@pytest.mark.parametrize(("level", "priority"), [("debug", 7), ("info", 6), ("warning", 4), ("error", 3)])
def test_journald_gets_priorities_and_no_timestamps(level: str, priority: int) -> None:
    """sd-daemon(3): a <N> prefix; journald has its own clock."""
    line = Renderer(console=False, journal=True)(level, {"event": "x"}, NOW)
    assert line == f'<{priority}>{{"level":"{level}","event":"x"}}\n'


def test_journal_is_recognised_by_its_stream() -> None:
    """JOURNAL_STREAM is inherited by children: it counts only if it names this very stream."""
    reader, writer = os.pipe()
    with os.fdopen(reader), os.fdopen(writer, "w") as stream:
        status = os.fstat(writer)
        assert in_journal(stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        assert not in_journal(stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino + 1}"})
        assert not in_journal(stream, {})
    assert not in_journal(io.StringIO(), {"JOURNAL_STREAM": "1:2"})


class Stuck(io.StringIO):
    """A pipe whose reader has stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = threading.Event()
        self.free = threading.Event()

    def write(self, text: str) -> int:
        self.taken.set()
        self.free.wait(60)
        return super().write(text)


@dataclass
class Text:
    text: str

    def line(self) -> str:
        return self.text


def test_a_blocked_output_does_not_block_the_caller() -> None:
    """Lines wait in a bounded queue; what does not fit is dropped and counted, the rest comes out in order."""
    stream, dropped = Stuck(), []
    writer = Writer(stream, dropped.append)
    writer.write(Text("first\n"))
    assert stream.taken.wait(60)
    for number in range(10_005):
        writer.write(Text(f"{number}\n"))
    assert sum(dropped) == 5
    stream.free.set()
    writer.flush(60)
    assert stream.getvalue().split() == ["first", *map(str, range(10_000))]


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "No space left on device"), ValueError("closed")])
def test_a_broken_output_is_counted_and_survived(error: Exception) -> None:
    """The mail goes on without a log, and a later line is tried again."""
    stream, dropped = io.StringIO(), []
    writer = Writer(stream, dropped.append)

    def fail(_text: str) -> int:
        raise error

    stream.write, real = fail, stream.write  # type: ignore[method-assign]
    writer.write(Text("lost\n"))
    writer.flush(60)
    stream.write = real  # type: ignore[method-assign]
    writer.write(Text("kept\n"))
    writer.flush(60)
    assert (sum(dropped), stream.getvalue()) == (1, "kept\n")


def test_an_ascii_terminal_gets_escapes() -> None:
    """LANG=C must not lose the line."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    writer = Writer(stream, lambda _: pytest.fail("dropped"))
    writer.write(Text("grüße\n"))
    writer.flush(60, stop=True)
    assert raw.getvalue() == b"gr\\xfc\\xdfe\n"


def test_libraries_warn_through_the_same_renderer(log: Log) -> None:
    """Warnings of libraries become lines of ours, exceptions count as bugs, aiosmtpd's log is left out."""
    log.events.capture_libraries()
    logging.getLogger("sqlalchemy.pool").warning("pool of %d\nlines", 2)
    logging.getLogger("httpx").info("GET https://example.com/?token=x")
    logging.getLogger("mail.log").warning("unrecognised: b'U0VDUkVU'")
    try:
        raise RuntimeError("lost")
    except RuntimeError:
        logging.getLogger("asyncio").exception("Task exception was never retrieved")
    log.events.close()
    logging.getLogger("sqlalchemy.pool").warning("after close")
    assert [(line["event"], line.get("logger"), line.get("where")) for line in log.lines] == [
        ("library", "sqlalchemy.pool", None),
        ("bug", None, "asyncio: Task exception was never retrieved"),
    ]
    assert log.lines[0]["text"] == "pool of 2\\nlines"
    assert log.metric("bugs_total") == 1


def test_a_lack_of_descriptors_does_not_flood_the_log() -> None:
    """asyncio reports it for each listener and each second; one line a minute says it as well."""
    clock, stream = FakeClock(), io.StringIO()
    events = Events(CollectorRegistry(), "json", clock=clock, stream=stream)
    events.capture_libraries()
    for _ in range(180):
        logging.getLogger("asyncio").error(
            "socket.accept() out of system resource\nsocket: x", exc_info=OSError(24, "Too many open files")
        )
        logging.getLogger("asyncio").error("something else")
        clock.advance(1)
    events.close()
    lines = stream.getvalue().splitlines()
    assert sum("out of system resource" in line for line in lines) == 3
    assert len(lines) == 183


def test_what_a_stop_cuts_off_is_no_bug() -> None:
    """uvicorn logs each request that its time of grace was too short for as an exception."""
    log = Log()
    log.events.capture_libraries()
    logging.getLogger("uvicorn.error").error("Exception in ASGI application", exc_info=asyncio.CancelledError())
    log.events.close()
    assert log.lines == []
    assert log.metric("bugs_total") == 0


def test_instances_do_not_share_anything() -> None:
    """Two of them in one process, with other levels, formats and registries."""
    one, two = Log(level="error"), Log()
    one.events.info("x")
    two.events.accepted(NEW, 0.1)
    assert one.text == ""
    assert [line["event"] for line in two.lines] == ["accepted"]
    assert one.metric("messages_received_total", listener="local", client="printers") == 0


def test_every_login_refusal_has_a_reason_of_ours() -> None:
    """What the login can answer is counted under its own name."""
    assert auth.REASONS <= REASONS


PROMISED = {
    "smtp_connections_total", "smtp_connections_open", "smtp_auth_total", "smtp_rejected_total",
    "messages_received_total", "message_size_bytes", "accept_duration_seconds", "delivery_attempts_total",
    "deliveries_total", "delivery_events_total", "returned_reports_total", "returned_reports_readable",
    "delivery_duration_seconds", "message_latency_seconds",
    "queue_messages", "queue_oldest_message_age_seconds", "spool_write_duration_seconds", "spool_bytes",
    "spool_room_bytes", "spool_shut",
    "spool_free_bytes", "backend_up", "backend_paused", "tls_certificate_not_after_timestamp_seconds",
    "alerts_total", "learning", "over_quota_total", "quota_used_ratio",
    "bounces_total", "config_last_reload_successful", "bugs_total", "build_info", "log_lines_dropped_total",
    "jwks_up", "oauth_token_refresh_total", "oauth_token_expiry_timestamp_seconds",
    "credential_expiry_timestamp_seconds", "certificate_renewals_total",
    "clock_steps_total", "dropped_files", "refusals_dropped_total",
}  # fmt: skip


def test_metric_names_and_labels(log: Log) -> None:
    """The names are API, and labels come from a short list: never an address."""
    log.events.accepted(NEW, 0.1)
    log.events.settled(SPOOLED, "box", {"x@example.org": SENT}, 0.1, NOW)
    text = log.events.render()[1].decode()
    assert set(re.findall(r"^# TYPE gateway_(\w+)", text, re.M)) == PROMISED
    labels = {
        label for labels in re.findall(r"^gateway_\w+\{(.*)\}", text, re.M) for label in re.findall(r"(\w+)=", labels)
    }
    assert labels <= {
        "listener", "backend", "client", "folder", "mechanism", "stage", "result", "reason", "state", "key", "le",
        "version", "python", "sqlite", "direction", "limit", "cause", "way",
    }  # fmt: skip
    assert "@" not in text
    assert "process_cpu_seconds_total" in text
    assert "python_gc_collections_total" in text


def test_metrics_in_both_formats(log: Log) -> None:
    """/metrics honours Accept; the OpenMetrics text passes its strict parser."""
    assert log.events.render()[0].startswith("text/plain; version=0.0.4")
    content_type, text = log.events.render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    names = {family.name for family in parse_openmetrics(text.decode())}
    assert {"gateway_smtp_connections", "gateway_smtp_connections_open"} <= names


def test_promtool_accepts_the_metrics(log: Log) -> None:
    """Prometheus' own linter has nothing to say."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    log.events.accepted(NEW, 0.1)
    done = subprocess.run(
        [promtool, "check", "metrics"], input=log.events.render()[1], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
