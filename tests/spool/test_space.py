"""The room on the disk: a reserve that new mail does not touch, and a full disk that loses nothing."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.model import SpoolFull
from tests.builders import RAW
from tests.fakes import FakeClock, until
from tests.spool_kit import opened, statements


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
        used, free = at.spool.space()
        assert used > 0
        assert free > 0
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
    disk.free = 1_000_000
    async with opened(tmp_path, reserve=900_000.0) as at:
        await at.put(raw=RAW * 2000)
        with pytest.raises(SpoolFull):
            await at.put(raw=RAW * 2000)
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
    async with opened(small_disk / "spool") as at:
        answers = [await asyncio.gather(at.put(raw=b"x" * 50_000), return_exceptions=True) for _ in range(80)]
        acknowledged = [answer for (answer,) in answers if isinstance(answer, str)]
        refused = {(type(answer), str(answer)) for (answer,) in answers if not isinstance(answer, str)}
        assert refused == {(SpoolFull, "not enough space in the spool, try again later")}
        assert not at.spool.writable()
        assert acknowledged
        filler.unlink()
        acknowledged.append(await at.put(raw=b"x" * 50_000))
        assert at.spool.writable()
        assert {row.id for row in await at.spool.find()} == set(acknowledged)
        assert len(await at.spool.bodies(acknowledged)) == len(acknowledged)
        assert not at.logged("bug")
