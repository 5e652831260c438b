"""What needs somebody: one row for each kind, and what is none."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gateway.config.inforce import FailedReload
from gateway.events.memory import Happened, Storm
from gateway.health.problem import KINDS, Problem
from gateway.health.problems import problems, verdict
from gateway.health.records import (
    BackendNow,
    DeadNow,
    DiskNow,
    Ends,
    ListenerNow,
    PickupNow,
    Pile,
    Snapshot,
    StepNow,
    Stuck,
    UnreadNow,
)
from tests.fakes import START

GB = 10**9
DATABASE = DiskNow(used=GB, free=0, total=0, reserve=0, room=None, database="gateway on db")
DISK = DiskNow(used=GB, free=50 * GB, total=100 * GB, reserve=10 * GB, room=40 * GB)
OFFICE = BackendNow(name="office", type="graph", title="Microsoft 365, noreply@example.com", state="working")
GOOD = Snapshot(now=START, running=True, disk=DISK, started_at=START - timedelta(days=12), backends=(OFFICE,))
AN_HOUR_AGO = START - timedelta(hours=1)
STORM = Storm(client="pcs", count=5, held=2, since=AN_HOUR_AGO, why="used up", who=("192.0.2.7",))
HAPPENED = Happened(count=50, since=AN_HOUR_AGO, last=START, where=("192.0.2.7",))


def office(state: str, by: str = "", **more: Any) -> tuple[BackendNow, ...]:
    return (replace(OFFICE, state=state, by=by, since=AN_HOUR_AGO, **more),)


def ends(days: float, kind: str = "secret") -> tuple[Ends, ...]:
    key = "backends.office.client_secret"
    ends_at = START + timedelta(days=days)
    return (Ends(key=key, kind=kind, what="The client secret", of="backend office", ends_at=ends_at),)


def renews(days: float, **more: str) -> tuple[Ends, ...]:
    return tuple(replace(one, renews=True, **more) for one in ends(days, "certificate"))


def listener(*, accepting: bool) -> tuple[ListenerNow, ...]:
    bind = "0.0.0.0:587"
    return (ListenerNow(name="mail", bind=bind, tls="starttls", auth="required", port=587, accepting=accepting),)


# kind, its key and severity, what is seen besides what is good, and words that must be said of it
SEEN: list[tuple[str, str, str, dict[str, Any], tuple[str, ...]]] = [
    (
        "backend_stopped", "backend:office", "bad",
        {"backends": office("stopped", "misconfigured", waiting=214, said="401 invalid_client", fix="make a new one.")},
        ("office cannot send: Microsoft 365 (noreply@example.com) does not accept us", "214 messages wait",
         "They go out by themselves", "Make a new one. Then: gateway backend fix office", "401 invalid_client"),
    ),
    (
        "backend_stopped", "backend:office", "bad", {"backends": office("stopped", "unreachable", waiting=1)},
        ("is not reached", "1 message waits. It goes out by itself", "gateway backend fix office"),
    ),
    ("delivery_dead", "delivery", "bad", {"delivering": False}, ("Nothing is sent", "nothing is lost", "restart")),
    ("spool_unwritable", "spool", "bad", {"disk": replace(DISK, writable=False)}, ("cannot be written", "spool_error")),
    (
        "door_shut", "door:disk", "bad", {"disk": replace(DISK, shut="disk", fix="delete something", free=0)},
        ("No new mail is taken: the disk is full.", "Delete something.", "try again"),
    ),
    (
        "door_shut", "door:away", "bad", {"disk": replace(DATABASE, shut="away", fix="see that PostgreSQL runs")},
        ("No new mail is taken: the database does not answer.", "See that PostgreSQL runs."),
    ),
    (
        "spool_unwritable", "spool", "bad", {"disk": replace(DATABASE, writable=False)},
        ("What was accepted is in the database.",),
    ),
    ("damaged", "damaged", "bad", {"disk": DATABASE, "damaged": 2}, ("damaged in the database", "Look at its disk")),
    ("listener_deaf", "listener:mail", "bad", {"listeners": listener(accepting=False)}, ("0.0.0.0:587", "ss -ltnp")),
    (
        "no_backend", "no_backend:old", "bad", {"orphans": (Pile(backend="old", count=3, since=AN_HOUR_AGO),)},
        ("3 messages wait for old, which is not configured", "backends.old", "gateway reload"),
    ),
    (
        "in_doubt", "doubt:office", "warn", {"doubts": (Pile(backend="office", count=3, since=AN_HOUR_AGO),)},
        ("3 messages may or may not have arrived", "gets mail twice", "queue list --state held --backend office"),
    ),
    ("damaged", "damaged", "bad", {"damaged": 2, "damaged_id": "ID1"}, ("2 messages are damaged", "queue show ID1")),
    ("ends", "ends:backends.office.client_secret", "bad", {"ends": ends(-1)}, ("has ended on 2", "nothing is lost")),
    ("ends", "ends:backends.office.client_secret", "bad", {"ends": ends(0.5)}, ("ends in 12 hours",)),
    ("ends", "ends:backends.office.client_secret", "warn", {"ends": ends(6)}, ("The client secret of backend office",)),
    ("ends", "ends:backends.office.client_secret", "warn", {"ends": ends(6, "certificate")}, ("gateway reload",)),
    ("ends", "ends:backends.office.client_secret", "warn", {"ends": renews(13)}, ("gateway backend renew office",)),
    (
        "ends", "ends:backends.office.client_secret", "warn",
        {"ends": renews(13, trouble="addKey: HTTP 401", fix="see object_id")}, ("addKey: HTTP 401", "See object_id."),
    ),
    (
        "queue_stuck", "stuck:office", "warn",
        {"stuck": (Stuck(backend="office", since=AN_HOUR_AGO, id="ID1", attempts=3, said="450 greylisted"),)},
        ("office works, but a message has waited for 1 hour", "tried 3 times", "queue show ID1", "450 greylisted"),
    ),
    ("disk_low", "disk", "warn", {"disk": replace(DISK, free=15 * GB)}, ("15 GB are free", "Below 10 GB")),
    (
        "reload_refused", "reload", "bad", {"reload": FailedReload(at=AN_HOUR_AGO, errors=("config.yaml:3:1: bad",))},
        ("config.yaml:3:1: bad", "old ones", "gateway check-config"),
    ),
    (
        "reload_refused", "reload", "bad",
        {"reload": FailedReload(at=AN_HOUR_AGO, errors=("config.yaml:3:1: s2g.key: Permission denied",))},
        ("Let the user of the service read what is named here. Then: gateway reload",),
    ),
    (
        "pickup_unreadable", "pickup:scans", "bad",
        {"pickups": (PickupNow(name="scans", path="/srv/scans", reason="Permission denied"),)},
        ("/srv/scans", "Permission denied", "nothing is lost"),
    ),
    (
        "over_quota", "over_quota:pcs", "warn", {"storms": (STORM,)},
        ("pcs sends more than its quota", "2 messages are held", "192.0.2.7", "--client pcs --state held --yes"),
    ),
    ("log_in_attack", "log_ins", "warn", {"log_ins": HAPPENED}, ("50 log-ins were refused", "192.0.2.7")),
    (
        "clock_stepped", "clock", "warn", {"steps": (StepNow(was_at=START, now_at=AN_HOUR_AGO),)},
        ("set back by 1 hour", "timedatectl"),
    ),
    (
        "settings_differ", "settings", "warn", {"differing": ("backends.office: a, c / b", "retry: a / b, c")},
        ("backends.office: a, c / b; retry: a / b, c", "Nothing is lost", "gateway reload"),
    ),
    ("few_descriptors", "descriptors", "warn", {"descriptors": "1300 needed, 1024 there"}, ("LimitNOFILE", "1300")),
    (
        "returns_unread", "returns:office", "warn",
        {"unread": (UnreadNow(backend="office", since=AN_HOUR_AGO, said="403 denied", fix="grant it Mail.Read"),)},
        ("office cannot look for mail that came back", "403 denied", "Grant it Mail.Read.", "sent all the same"),
    ),
    (
        "address_dead", "dead:x@y.example", "warn",
        {"dead": (DeadNow(backend="office", address="x@y.example", count=3, since=AN_HOUR_AGO, said="5.1.1 no"),)},
        ("3 messages to x@y.example came back", "5.1.1 no", "gateway trace x@y.example"),
    ),
    ("bug", "bug", "warn", {"bugs": HAPPENED}, ("happened 50 times", "journalctl")),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "key", "severity", "seen", "words"), SEEN)
def test_what_needs_somebody(kind: str, key: str, severity: str, seen: dict[str, Any], words: tuple[str, ...]) -> None:
    """One thing that is seen is one problem: what it is, what it costs, what to do, under a key that stays the same."""
    [found] = problems(replace(GOOD, **seen))
    assert (found.kind, found.key, found.severity) == (kind, key, severity)
    for part in (found.what, found.cost, found.fix):
        assert part.strip()
    said = " | ".join((found.what, found.cost, found.fix, found.said))
    assert [word for word in words if word not in said] == [], said


def test_every_kind_has_a_row() -> None:
    """A new kind is shown here, or nobody knows how it reads."""
    assert {kind for kind, *_ in SEEN} == set(KINDS)


@pytest.mark.parametrize(
    "seen",
    [
        {"backends": office("slowed_down", "throttled", waiting=3)},
        {"backends": office("paused", "operator", waiting=3, who="root")},
        {"ends": ends(8)},
        {"ends": renews(15)},
        {"steps": (StepNow(was_at=START - timedelta(days=3), now_at=START - timedelta(days=2)),)},
        {"listeners": listener(accepting=True)},
        {"listeners": listener(accepting=False), "draining": True},
        {"delivering": False, "draining": True},
        {"running": False, "delivering": False, "disk": replace(DISK, writable=False)},
    ],
)
def test_what_needs_nobody(seen: dict[str, Any]) -> None:
    """Slowed down by the provider, paused by a person, or over: it stands in the table, and alarms nobody."""
    assert problems(replace(GOOD, **seen)) == []


def test_the_worst_comes_first_and_keys_differ() -> None:
    """Everything at once: bad before warn, and no two events are taken for one."""
    seen: dict[str, Any] = {}
    for _, _, _, more, _ in SEEN:
        seen |= more
    found = problems(replace(GOOD, **seen))
    severities = [one.severity for one in found]
    assert severities == sorted(severities)  # "bad" < "warn"
    assert len({one.key for one in found}) == len(found)


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({}, "Everything is all right. The backend works, nothing waits."),
        (
            {"backends": (*office("working", oldest=START - timedelta(seconds=40)), OFFICE)},
            "Everything is all right. All 2 backends work, the oldest waiting message is 40 seconds old.",
        ),
        (
            {"backends": (OFFICE, *office("paused", "operator"))},
            "Everything is all right. 1 of 2 backends work, nothing waits.",
        ),
        ({"draining": True}, "The service is stopping."),
        ({"running": False}, "No service is running."),
        ({"bugs": HAPPENED}, "1 thing needs you."),
        ({"bugs": HAPPENED, "log_ins": HAPPENED}, "2 things need you."),
    ],
)
def test_the_first_line_is_the_verdict(seen: dict[str, Any], words: str) -> None:
    """Nobody has to add up numbers at three in the morning."""
    shown = replace(GOOD, **seen)
    assert verdict(shown, problems(shown)) == words


@pytest.mark.parametrize(
    ("days", "step"), [(31, None), (30, 30), (20, 30), (14, 14), (7, 7), (1, 1), (0.1, 1), (-3, 0)]
)
def test_steps_before_an_end(days: float, step: int | None) -> None:
    """30, 14, 7 and 1 days before, and afterwards."""
    assert ends(days)[0].step(START) == step


def test_a_problem_is_a_record() -> None:
    """Alerts compare what is with what was."""
    [one] = problems(replace(GOOD, damaged=1))
    assert one == Problem(**{name: getattr(one, name) for name in Problem.__slots__})
