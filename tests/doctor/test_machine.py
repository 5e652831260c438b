"""The machine and the spool: facts gathered from real files, and what each comes to."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gateway.doctor.facts import Facts, gather
from gateway.doctor.host import Host
from gateway.doctor.machine import clock, judge
from gateway.events import Events
from gateway.spool import Spool
from gateway.spool.survey import quick_check
from tests.builders import new_message
from tests.doctor.kit import found, levels, of, settings, subject
from tests.fakes import FakeClock

STATE = Path("/var/lib/gateway")
WELL = Facts(
    synchronised=True, clock_by="adjtimex", state_dir=STATE, free=50 * 10**9, total=100 * 10**9, kind="ext4", mount="/",
    descriptors=65536, socket=STATE / "admin.sock", socket_mode=0o600, unit=True, watchdog=True,
)  # fmt: skip
GOOD = {"disk_good", "backup_unseen", "descriptors_good", "socket_good", "unit_good", "loop_good"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"free": 9 * 10**9}, {"disk_full": "bad"}),
        ({"inodes": 0}, {"disk_full": "bad"}),
        ({"free": 15 * 10**9}, {"disk_low": "warn"}),
        ({"kind": "nfs4"}, {"disk_kind": "bad"}),
        ({"kind": "tmpfs"}, {"disk_kind": "bad"}),
        ({"kind": "overlay"}, {"disk_kind": "warn"}),
        ({"descriptors": 1024}, {"descriptors_few": "warn"}),
        ({"descriptors": 0}, {}),
        ({"loop": "uvloop"}, {"loop_missing": "warn"}),
        ({"socket_mode": None}, {"socket_missing": "bad"}),
        ({"socket_mode": 0o666}, {"socket_open": "bad"}),
        ({"socket_mode": 0o660}, {}),
        ({"root": True}, {"unit_root": "warn"}),
        ({"root": True, "container": True, "unit": False}, {}),
        ({"unit": False}, {"unit_missing": "note"}),
        ({"watchdog": False}, {"unit_watchdog": "note"}),
    ],
)
def test_what_facts_come_to(tmp_path: Path, changes: Mapping[str, Any], expected: Mapping[str, str]) -> None:
    """Exactly what is wrong; all else stays good."""
    result = list(judge(replace(WELL, **changes), settings(tmp_path)().settings, runs=True))
    assert {one.key: one.level for one in result if one.key not in GOOD} == expected
    assert all(one.fix and one.paste for one in result if one.level in ("bad", "warn"))


@pytest.mark.parametrize(
    ("synchronised", "by", "key", "level"),
    [
        (True, {}, "clock_good", "good"),
        (True, {"api.example": 400.0}, "clock_wrong", "bad"),
        (False, {"api.example": -400.0}, "clock_wrong", "bad"),
        (True, {"api.example": 60.0}, "clock_wrong", "warn"),
        (True, {"api.example": 400.0, "other.example": 2.0}, "clock_good", "good"),  # it is theirs
        (False, {}, "clock_unsynchronised", "warn"),
        (False, {"api.example": 1.0}, "clock_unsynchronised", "warn"),
        (None, {"api.example": 1.0}, "clock_good", "good"),
        (None, {}, "clock_unseen", "unknown"),
    ],
)
def test_the_clock(synchronised: bool | None, by: dict[str, float], key: str, level: str) -> None:
    """Tokens are refused from five minutes on; a server whose own clock is wrong proves nothing."""
    one = clock(replace(WELL, synchronised=synchronised), by)
    assert (one.key, one.level) == (key, level)
    if key == "clock_wrong":
        assert ("ahead of" if by["api.example"] > 0 else "behind") in one.what


MOUNTS = """\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 21 0:25 / {here} rw - tmpfs tmpfs rw
31 30 0:26 / {here}/my\\040state rw - nfs4 server:/x rw
32 30 0:27 / {here}/my rw - xfs /dev/sdb rw
"""


def test_facts_of_a_machine(tmp_path: Path) -> None:
    """The filesystem that a folder really lies on, who can read what is in it, and who started us."""
    state = tmp_path / "my state"
    state.mkdir(mode=0o711)
    state.chmod(0o711)
    for name, mode in (("token.key", 0o644), ("spool.db", 0o600), ("spool.db-shm", 0o644)):
        (state / name).write_text("x")
        (state / name).chmod(mode)
    root = tmp_path / "root"
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text(MOUNTS.format(here=tmp_path))
    read = settings(tmp_path, f"state_dir: '{state}'\n")
    facts = gather(read().settings, Host(root, {"INVOCATION_ID": "x"}), "asyncio")
    assert (facts.kind, facts.mount) == ("nfs4", str(state))
    assert facts.opened == (str(state / "token.key"),)
    assert (facts.unit, facts.watchdog, facts.socket_mode) == (True, False, None)
    assert facts.total > facts.free > 0
    assert facts.root == (os.geteuid() == 0)
    state.chmod(0o700)
    assert gather(read().settings, Host(root, {}), "asyncio").opened == ()


async def test_secrets_that_others_can_read(tmp_path: Path) -> None:
    """With the very line that closes it."""
    (tmp_path / "s.pw").write_text("secret")
    (tmp_path / "s.pw").chmod(0o644)
    text = "backends: {way: {type: smtp, host: x.example, username: u, password_file: s.pw}}\n"
    result = await found(subject(settings(tmp_path, text)), "machine")
    assert of(result, "secret_open").paste == f"chmod 600 {tmp_path / 's.pw'}"


# -- the spool ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def events(tmp_path: Path) -> Iterator[Events]:
    with (tmp_path / "log").open("w") as stream:
        made = Events(CollectorRegistry(), format="json", level="error", clock=FakeClock(), stream=stream)
        made.declare(listeners=["local"], backends=["box"], clients=["localhost"], keys=[])
        yield made
        made.close()


async def look(tmp_path: Path, spool: Spool, clock: FakeClock, **more: Any) -> Mapping[str, str]:
    return levels(await found(subject(settings(tmp_path), clock, spool=spool, **more), "spool"))


async def test_a_spool_in_use(tmp_path: Path, events: Events) -> None:
    """Looked through while it is open, without stopping anybody; what waits for long is told, and what grows."""
    clock = FakeClock()
    spool = await Spool.open(tmp_path / "state", clock, events=events, reserve=1.0)
    assert await look(tmp_path, spool, clock) == {"spool_good": "good", "backlog_good": "good"}
    for number in range(120):
        await spool.put(new_message("b@example.net", backend="box", ident=f"M{number:03}", received_at=clock.now()))
    assert (await look(tmp_path, spool, clock))["backlog_good"] == "good"
    clock.advance(2 * 3600)
    grown = {"backlog_grows backends.box": "warn", "backlog_old backends.box": "warn", "spool_good": "good"}
    assert await look(tmp_path, spool, clock, before={"box": 10}) == grown
    assert "backlog_grows backends.box" not in await look(tmp_path, spool, clock, before={"box": 100})
    clock.advance(13 * 3600)
    assert (await look(tmp_path, spool, clock))["backlog_old backends.box"] == "bad"
    assert [(row.address, row.backend, row.n) for row in await spool.senders()] == [("s@example.com", "box", 120)]
    await spool.aclose()


def test_damage_is_found_and_time_is_kept(tmp_path: Path) -> None:
    """By SQLite's own check; a file that is too large is left when the time is over, and not called whole."""
    path = tmp_path / "spool.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE body (id INTEGER PRIMARY KEY, raw BLOB)")
        connection.execute("CREATE INDEX i ON body (raw)")
        connection.executemany("INSERT INTO body (raw) VALUES (?)", [(os.urandom(500),) for _ in range(2000)])
    connection.close()
    assert quick_check(path, 60).whole
    assert quick_check(path, 0).whole is False
    with path.open("r+b") as file:
        file.seek(40 * 4096)
        file.write(b"\xff" * 8192)
    assert quick_check(path, 60).fault


async def test_a_service_that_does_not_run(tmp_path: Path) -> None:
    """Its spool is not opened behind its back: it is said that it was not seen."""
    assert levels(await found(subject(settings(tmp_path)), "spool")) == {"needs_service": "unknown"}
