"""The room on the disk: a reserve that new mail does not touch, and a full disk that loses nothing."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import sqlite3
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gateway.config.models import RetentionSettings
from gateway.events import Events
from gateway.model import SpoolFull, SpoolUnavailable
from gateway.spool import space
from tests.builders import RAW
from tests.fakes import START, FakeClock, until
from tests.spool_kit import of, opened, settlement, statements


class Disk:
    """What statvfs(3) says of every disk."""

    def __init__(self) -> None:
        self.free = 2**40
        self.error: OSError | None = None

    def look(self, _: object) -> SimpleNamespace:
        if self.error:
            raise self.error
        return SimpleNamespace(f_bavail=self.free, f_frsize=1, f_blocks=2**50)


async def passes(clock: FakeClock, true: Callable[[], bool]) -> None:
    """Time, until this holds."""

    def later() -> bool:
        clock.advance(1)
        return true()

    await until(later)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    monkeypatch.setattr(os, "statvfs", made.look)
    return made


async def test_below_the_reserve_new_mail_is_refused_and_the_rest_goes_on(tmp_path: Path, disk: Disk) -> None:
    """Full before any commit fails; claims and settlements work; with space back mail is taken again by itself."""
    clock = FakeClock()
    async with opened(tmp_path, clock=clock) as at:
        ident = await at.put()
        assert at.spool.room.space.used > 0
        disk.free = -1
        await passes(clock, lambda: not at.spool.accepting())
        with statements() as seen, pytest.raises(SpoolFull, match="not enough space in the spool"):
            await at.put()
        assert seen == []
        assert at.spool.writable()
        await at.settle()
        assert (await at.states(ident))[0] == "done"
        disk.free = 2**40
        await passes(clock, at.spool.accepting)
        await at.put()


@pytest.mark.parametrize(("reserve", "accepts"), [(0.0, True), (0.999999, False), (1.0, True), (2.0**60, False)])
async def test_the_reserve_is_a_share_or_a_size(tmp_path: Path, reserve: float, accepts: bool) -> None:
    """Below 1 a share of the disk, from 1 on bytes."""
    async with opened(tmp_path, reserve=reserve) as at:
        assert at.spool.accepting() == accepts


async def test_one_large_message_does_not_eat_the_reserve(tmp_path: Path, disk: Disk) -> None:
    """What was taken since the last look at the disk counts."""
    disk.free = 20_000_000  # the log may still take 16
    async with opened(tmp_path, reserve=1_000_000.0) as at:
        await at.put(raw=RAW * 30_000)
        with pytest.raises(SpoolFull):
            await at.put(raw=RAW * 30_000)
        await at.put()


async def test_a_blind_look_at_the_disk_is_reported_and_repeated(tmp_path: Path, disk: Disk) -> None:
    """The watch goes on after an error."""
    clock = FakeClock()
    async with opened(tmp_path, clock=clock) as at:
        disk.error = OSError("gone")
        await passes(clock, lambda: bool(at.logged("bug")))
        assert at.spool.accepting()
        disk.error, disk.free = None, -1
        await passes(clock, lambda: not at.spool.accepting())
        disk.free = 2**40
        await passes(clock, at.spool.accepting)


async def test_what_is_on_its_way_counts_and_what_is_only_announced_a_little(tmp_path: Path, disk: Disk) -> None:
    """Many uploads at once do not overshoot; announcements without end do not keep others out of a large disk."""
    disk.free = 40_000_000
    async with opened(tmp_path) as at:
        room = at.spool.room
        for _ in range(2):
            room.hold(5_000_000)
        with pytest.raises(SpoolFull):
            room.hold(5_000_000)
        for _ in range(2):
            room.hold(-5_000_000)
        room.hold(10_000_000)
    disk.free = 2**33
    async with opened(tmp_path) as at:
        for _ in range(1000):
            at.spool.room.hold(35_000_000)
        await at.put()


async def test_what_an_upgrade_kept_is_no_part_of_spool_size(tmp_path: Path) -> None:
    """Waiting until mail has left would never open the door."""
    with (tmp_path / "spool.db.before-0001").open("wb") as kept:
        kept.truncate(40_000_000)
    async with opened(tmp_path, most=30_000_000) as at:
        await at.put()
        assert at.spool.accepting()


async def test_shut_and_open_are_said_once_with_the_fix(tmp_path: Path, disk: Disk) -> None:
    """By cause. The setting counts like a small disk, and what mail has left is room again."""
    clock = FakeClock()
    async with opened(tmp_path, clock=clock, most=30_000_000) as at:
        answers = [await asyncio.gather(at.put(raw=b"x" * 1_000_000), return_exceptions=True) for _ in range(30)]
        ids = [answer for (answer,) in answers if isinstance(answer, str)]
        assert 10 < len(ids) < 28
        await passes(clock, lambda: at.spool.room.space.used > 15_000_000)
        room = at.spool.room
        assert room.space.used < 30_000_000
        with pytest.raises(SpoolFull):
            room.admit(10_000_000)
        disk.free = -(2**30)
        await passes(clock, lambda: not at.spool.accepting())
        disk.free = 2**40
        await passes(clock, at.spool.accepting)
        (shut,), (_,) = at.logged("spool_shut"), at.logged("spool_open")
        assert shut["cause"] == "disk"
        assert "delete something else on this disk" in shut["fix"]
        for claim in await at.claim():
            await at.spool.settle(settlement(claim))
        await passes(clock, lambda: room.space.used < 5_000_000)
        room.admit(10_000_000)


async def test_a_quota_is_told_by_the_ballast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """statvfs(3) does not know a user's quota: the door opens when the ballast can be made."""
    clock, over = FakeClock(), True

    def fallocate(descriptor: int, offset: int, length: int) -> None:
        if over:
            raise OSError(errno.EDQUOT, "")
        os.ftruncate(descriptor, length)

    monkeypatch.setattr(os, "posix_fallocate", fallocate)
    async with opened(tmp_path, clock=clock, reserve=10_000_000.0) as at:
        assert at.spool.room.shut == "quota"
        over = False
        await passes(clock, at.spool.accepting)
        ballast = list(tmp_path.glob("spool.ballast.*"))
        assert (len(ballast), sum(file.stat().st_size for file in ballast)) == (4, 10_000_000)
        assert at.spool.writable()


async def test_a_full_disk_of_a_database_is_tried_again_less_and_less_often() -> None:
    """Nobody can measure it from here, and small commits that still fit tell nothing of mail."""
    clock = FakeClock()
    found = {"space": lambda: space.Space(0, 0, 0), "counts": dict, "allow": lambda octets: None, "shared": True}
    engine: Any = SimpleNamespace(**found, set_aside=lambda: 0, name="queue on db")
    log = io.StringIO()
    events = Events(CollectorRegistry(), format="json", level="info", clock=clock, stream=log)

    async def run(work: Callable[[], Any]) -> Any:
        return work()

    async def heal(*, astray: bool) -> None:
        pass

    room = space.Room(engine, run, heal, reserve=0.1, most=None, clock=clock, events=events)

    async def shut_for() -> int:
        for second in range(1000):
            await room.look()
            if not room.shut:
                return second
            clock.advance(1)
        return -1

    lasted = []
    for _ in range(6):
        room.close("database")
        lasted.append(await shut_for())
    assert lasted == [5, 10, 20, 40, 60, 60]
    clock.advance(121)
    room.close("database")
    clock.advance(4)
    room.close("database")  # still: it begins anew
    assert await shut_for() == 5
    events.close()
    assert log.getvalue().count('"spool_shut"') == 7


async def test_a_disk_that_does_not_answer_shuts_the_door(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead network file system: the loop goes on, new mail is refused for now at MAIL, and taken when it is back."""
    clock, gate = FakeClock(), threading.Event()
    monkeypatch.setattr(space, "_PATIENCE", 0.2)
    async with opened(tmp_path, clock=clock) as at:
        monkeypatch.setattr(os, "statvfs", lambda path: gate.wait() and disk.look(path))
        await passes(clock, lambda: at.spool.room.shut == "silent")
        with pytest.raises(SpoolUnavailable):
            at.spool.room.admit(0)
        assert [line["cause"] for line in at.logged("spool_shut")] == ["silent"]
        gate.set()
        await passes(clock, at.spool.accepting)


async def test_the_log_stays_short_beside_readers(tmp_path: Path) -> None:
    """Readers that overlap without end let it be copied, not begun anew: now and then they are waited for."""
    async with opened(tmp_path) as at:
        stop = False

        async def read() -> None:
            while not stop:
                await at.spool.bodies([row.id for row in await at.spool.find(limit=3)])

        readers = [asyncio.create_task(read()) for _ in range(4)]
        for _ in range(50):
            await asyncio.gather(*(at.put(raw=b"x" * 30_000) for _ in range(30)))
        stop = True
        await asyncio.gather(*readers)
        assert (tmp_path / "spool.db-wal").stat().st_size < 40_000_000


async def test_a_reader_that_stays_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sqlite3 shell in mid-transaction lets the log grow: that is said once, and mail goes on."""
    monkeypatch.setattr(space, "_BLOCKED", 10_000_000)
    clock = FakeClock()
    async with opened(tmp_path, clock=clock) as at:
        await at.put()
        with closing(sqlite3.connect(tmp_path / "spool.db", isolation_level=None)) as shell:
            shell.execute("BEGIN")
            shell.execute("SELECT count(*) FROM message").fetchall()
            for _ in range(20):
                await asyncio.gather(*(at.put(raw=b"x" * 30_000) for _ in range(30)))
            await passes(clock, lambda: bool(at.logged("spool_log_grows")))
        for _ in range(2):
            await at.put()
        await passes(clock, lambda: at.spool.room.space.blocked == 0)
        assert len(at.logged("spool_log_grows")) == 1


async def test_the_file_shrinks_when_it_is_nearly_empty(tmp_path: Path) -> None:
    """The disk gets back what mail took; what is left is whole, and a little is not worth the moment it takes."""
    clock = FakeClock()
    async with opened(tmp_path, clock=clock) as at:
        kept = await at.put()
        await at.spool.hold(of(kept), START)
        await at.spool.sweep(START, RetentionSettings())
        clock.advance(600)
        assert not at.logged("spool_shrunk")
        gone = await asyncio.gather(*(at.put(raw=b"x" * 30_000, backend="c") for _ in range(600)))
        for claim in await at.claim("c", now=clock.now(), limit=600):
            await at.spool.settle(settlement(claim))
        await at.spool.sweep(START, RetentionSettings())
        assert (tmp_path / "spool.db").stat().st_size < 1_000_000
        assert at.logged("spool_shrunk")[0]["bytes"] > 17_000_000
        assert {row.id for row in await at.spool.find(limit=1000)} == {kept, *gone}
        assert (await at.spool.bodies([kept]))[kept] == RAW
        await at.put()


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A real file system of 4 MB."""
    where = tmp_path / "small"
    where.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", where], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("cannot mount a tmpfs here")
    yield where
    subprocess.run(["umount", "-l", where], check=True)


async def test_a_full_disk_loses_nothing_and_heals(small_disk: Path, disk: Disk) -> None:
    """Others fill the disk between two looks: full for what does not fit, nothing acknowledged lost, then it heals."""
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 2_000_000)
    clock = FakeClock()
    async with opened(small_disk / "spool", clock=clock) as at:
        answers = [await asyncio.gather(at.put(raw=b"x" * 50_000), return_exceptions=True) for _ in range(80)]
        acknowledged = [answer for (answer,) in answers if isinstance(answer, str)]
        refused = {(type(answer), str(answer)) for (answer,) in answers if not isinstance(answer, str)}
        assert refused == {(SpoolFull, "not enough space in the spool, try again later")}
        assert at.spool.writable()  # what brings no new mail was served
        assert not at.spool.accepting()
        assert acknowledged
        filler.unlink()
        await passes(clock, at.spool.accepting)
        acknowledged.append(await at.put(raw=b"x" * 50_000))
        assert at.spool.writable()
        assert {row.id for row in await at.spool.find()} == set(acknowledged)
        assert len(await at.spool.bodies(acknowledged)) == len(acknowledged)
        assert not at.logged("bug")
