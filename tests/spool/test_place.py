"""Files that people and programs take away from an open spool, or from one that was killed: never a silent loss."""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway.model import SpoolUnavailable
from gateway.spool import Filter, SpoolError
from tests.fakes import FakeClock
from tests.spool.test_open import child
from tests.spool.test_space import passes
from tests.spool_kit import At, made, opened, settlement


def removed(*names: str) -> Callable[[Path], None]:
    def remove(directory: Path) -> None:
        for name in names:
            for file in directory.glob(name):
                file.unlink()

    return remove


async def ids(at: At) -> set[str]:
    return {row.id for row in await at.spool.find(limit=1000)}


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (removed("spool.db"), "missing"),
        (removed("spool.db", "spool.db-*"), "missing"),
        (removed("*"), "missing"),
        (removed("spool.db-wal"), "log"),
        (removed("spool.db-shm"), "log"),
        (removed("spool.db-*"), "log"),
    ],
)
@pytest.mark.parametrize("idle", [True, False])
async def test_what_is_removed_in_use_is_written_back(
    tmp_path: Path, spoil: Callable[[Path], None], cause: str, idle: bool
) -> None:
    """Within a second, or before the next 250: mail goes on, reading too, and the next start finds it all."""
    clock = FakeClock()
    async with opened(tmp_path, clock=clock) as at:
        kept = {await at.put() for _ in range(5)}
        (claim,) = await at.claim(limit=1)
        assert await ids(at) == kept
        key = (tmp_path / "spool.key").read_bytes()
        spoil(tmp_path)
        if idle or cause == "log":  # that is looked at every second only
            await passes(clock, lambda: bool(at.logged("spool_rescued")))
        kept.add(await at.put())
        assert [line["cause"] for line in at.logged("spool_rescued")] == [cause]
        with closing(sqlite3.connect(f"file:{tmp_path}/spool.db?mode=ro", uri=True)) as looking:
            assert {row for (row,) in looking.execute("SELECT id FROM message")} == kept
        await at.spool.settle(settlement(claim))
        assert await ids(at) == kept
        assert len(await at.spool.bodies(sorted(kept))) == 5
        await passes(clock, at.spool.accepting)
        assert not at.logged("bug")
    assert not list(tmp_path.glob("*rescued*"))
    assert (tmp_path / "spool.key").read_bytes() == key
    async with opened(tmp_path) as at:
        assert await ids(at) == kept
        assert at.spool.counts() == {("b", "queued"): 5}


async def test_what_cannot_be_written_back_yet_is_worked_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No room for a copy: new mail is refused for now, what is queued leaves, and it comes back with the room."""
    clock, free = FakeClock(), 2**40
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=free, f_frsize=1, f_blocks=2**50))
    async with opened(tmp_path, clock=clock) as at:
        await at.put()
        free = 1
        (tmp_path / "spool.db").unlink()
        with pytest.raises(SpoolUnavailable):
            await at.put(ident="REFUSED")
        await passes(clock, lambda: at.spool.room.shut == "missing")
        for claim in await at.claim(now=clock.now(), limit=1):
            await at.spool.settle(settlement(claim))
        assert at.spool.counts() == {("b", "queued"): 1}
        assert "no room to write" in at.logged("spool_astray")[0]["detail"]
        free = 2**40
        await passes(clock, at.spool.accepting)
        assert len(await ids(at)) == 2
        assert (tmp_path / "spool.db").exists()


async def test_a_folder_that_is_moved_away_shuts_the_door_until_it_is_back(tmp_path: Path) -> None:
    """Nothing is written a second time in its old place: that would be two queues. What is queued goes on."""
    clock, state, away = FakeClock(), tmp_path / "state", tmp_path / "away"
    async with opened(state, clock=clock) as at:
        await at.put()
        state.rename(away)
        with pytest.raises(SpoolUnavailable):
            await at.put()
        await passes(clock, lambda: at.spool.room.shut == "moved")
        with pytest.raises(SpoolUnavailable):
            at.spool.room.admit(0)
        for claim in await at.claim(limit=1):
            await at.spool.settle(settlement(claim))
        assert "move it back" in at.logged("spool_shut")[0]["fix"]
        state.mkdir()
        await passes(clock, lambda: at.spool.room.shut == "moved")
        state.rmdir()
        away.rename(state)
        await passes(clock, at.spool.accepting)
        await at.put()
        assert len(at.logged("spool_astray")) == 1
        assert not at.logged("bug")
    async with opened(state) as at:
        assert len(await ids(at)) == 3  # one was committed while its place was lost, and refused for now


async def test_another_file_in_its_place_is_left_alone(tmp_path: Path) -> None:
    """Of a person who restored a copy into a running service: the door is shut, and what is in use comes back later."""
    clock = FakeClock()
    async with opened(tmp_path, clock=clock) as at:
        kept = await at.put()
        (tmp_path / "other").write_bytes(b"somebody's")
        (tmp_path / "other").replace(tmp_path / "spool.db")
        with pytest.raises(SpoolUnavailable):
            await at.put(ident="REFUSED")
        await passes(clock, lambda: at.spool.room.shut == "replaced")
        assert (tmp_path / "spool.db").read_bytes() == b"somebody's"
        (tmp_path / "spool.db").unlink()
        await passes(clock, at.spool.accepting)
    async with opened(tmp_path) as at:
        assert await ids(at) == {kept, "REFUSED"}


async def test_a_spool_whose_lock_somebody_else_has_is_not_written_back(tmp_path: Path) -> None:
    """A second service came after everything was removed: one queue must not be worked off by two."""
    clock = FakeClock()
    async with opened(tmp_path, clock=clock) as at:
        await at.put()
        removed("*")(tmp_path)
        async with opened(tmp_path) as other:
            with pytest.raises(SpoolUnavailable):
                await at.put()
            await other.put()
            assert len(await ids(other)) == 1


def test_a_kill_while_it_is_written_back_loses_nothing(tmp_path: Path) -> None:
    """The whole copy is taken in by the next start."""

    async def first() -> str:
        async with opened(tmp_path) as at:
            return await at.put()

    async def again() -> set[str]:
        async with opened(tmp_path) as at:
            return await ids(at)

    kept = asyncio.run(first())
    (tmp_path / "spool.db").rename(tmp_path / "spool.db.rescued")
    (tmp_path / "spool.db-wal").write_bytes(b"of another")
    assert asyncio.run(again()) == {kept}


# -- after a kill ----------------------------------------------------------------------------------------------------

PUTTER = """
import asyncio, os, sys, signal
from pathlib import Path
from tests.spool_kit import opened
async def main():
    async with opened(Path(sys.argv[1])) as at:
        for n in range(int(sys.argv[2])):
            await at.put(ident=f"{sys.argv[3]}{n}", raw=b"x" * int(sys.argv[4]))
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


def killed(directory: Path, count: int = 40, name: str = "M", octets: int = 2000) -> None:
    with child(PUTTER, directory, count, name, octets) as putter:
        putter.communicate()


def _cut(octets: int) -> Callable[[Path], None]:
    def cut(directory: Path) -> None:
        log = directory / "spool.db-wal"
        os.truncate(log, log.stat().st_size - octets)

    return cut


def _garble(directory: Path) -> None:
    with (directory / "spool.db-wal").open("r+b") as log:
        log.seek(32 + 4120 * 20 + 500)
        log.write(b"\xa5" * 50)


def _foreign(directory: Path) -> None:
    other = directory.parent / "other"
    killed(other, 3)
    shutil.copy(other / "spool.db-wal", directory / "spool.db-wal")


@pytest.fixture(scope="module")
def worked_with(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """A folder with ``state``, of which a kill left so many new messages in the log, and ``older.db`` from before."""

    before = tmp_path_factory.mktemp("old") / "state"
    killed(before, 400, "old")

    async def tidy() -> None:
        async with opened(before) as at:
            assert len(await ids(at)) == 400

    asyncio.run(tidy())

    @functools.cache
    def made(new: int) -> Path:
        folder = tmp_path_factory.mktemp("killed")
        state = folder / "state"
        shutil.copytree(before, state)
        shutil.copy(state / "spool.db", folder / "older.db")
        killed(state, new, "new")
        return folder

    return made


@pytest.mark.parametrize(
    ("spoil", "text", "new"),
    [
        (removed("spool.db-wal"), "its log spool.db-wal is missing or empty", 30),
        (
            lambda directory: (directory / "spool.db-wal").write_bytes(b""),
            "its log spool.db-wal is missing or empty",
            30,
        ),
        (_cut(4120), r"its log spool.db-wal is cut or damaged: \d+ of \d+ pages are left", 30),
        (_cut(4120 * 30 + 17), "is cut or damaged", 30),
        (_garble, "is cut or damaged", 30),
        (_foreign, "belongs to another file, or to an older copy", 30),
        (removed("spool.db"), "is missing but its spool.db-wal is there", 30),
        (lambda directory: shutil.copy(directory.parent / "older.db", directory / "spool.db"), "an older copy", 600),
    ],
)
def test_a_log_that_lacks_what_was_promised_is_refused(
    tmp_path: Path, worked_with: Callable[[int], Path], spoil: Callable[[Path], object], text: str, new: int
) -> None:
    """With the way out, again and again, and nothing is changed; with the log put back, all is there."""
    folder = tmp_path / "copy"
    shutil.copytree(worked_with(new), folder)
    state, before = folder / "state", tmp_path / "before"
    shutil.copytree(state, before)
    spoil(state)

    async def refused() -> None:
        for _ in range(2):
            with pytest.raises(SpoolError, match=text) as no:
                async with opened(state):
                    pass
        assert "spool.mark" in str(no.value) or "put the file back" in str(no.value)

    async def whole() -> None:
        async with opened(state) as at:
            assert len(await ids(at)) == 400 + new

    left = {file.name: file.read_bytes() for file in state.glob("spool.db*") if "shm" not in file.name}
    asyncio.run(refused())
    assert {file.name: file.read_bytes() for file in state.glob("spool.db*") if "shm" not in file.name} == left
    for name in ("spool.db", "spool.db-wal"):
        shutil.copy(before / name, state / name)
    asyncio.run(whole())


def test_the_loss_can_be_accepted(tmp_path: Path) -> None:
    """Without the mark it starts with what the file holds; the text says from when to when something is missing."""
    killed(tmp_path, 20)
    (tmp_path / "spool.db-wal").unlink()

    async def start() -> int:
        async with opened(tmp_path) as at:
            await at.put()
            return len(await ids(at))

    with pytest.raises(SpoolError, match=r"from \d{4}-.*Z to \d{4}-.*Z is lost.*to accept the loss, move .*spool.mark"):
        asyncio.run(start())
    (tmp_path / "spool.mark").unlink()
    assert asyncio.run(start()) == 1


@pytest.mark.slow
def test_a_log_that_was_copied_into_the_file_may_be_missing(tmp_path: Path) -> None:
    """Then nothing is lost nor refused. Neither is a mark older than the log, as after a power cut."""
    killed(tmp_path, 40)
    mark = (tmp_path / "spool.mark").read_bytes()

    async def look() -> set[str]:
        async with opened(tmp_path) as at:
            return await ids(at)

    assert len(asyncio.run(look())) == 40
    assert not (tmp_path / "spool.db-wal").exists()
    assert len(asyncio.run(look())) == 40
    killed(tmp_path, 1, "one")
    (tmp_path / "spool.mark").write_bytes(mark[:20])
    assert len(asyncio.run(look())) == 41
    killed(tmp_path, 400, "L", 20_000)
    assert len(asyncio.run(look())) == 441


@pytest.mark.parametrize("count", [3, 400])
async def test_a_log_that_another_program_copied_into_the_file_is_not_missed(tmp_path: Path, count: int) -> None:
    """Who closes a SQLite file last copies its log and removes it: somebody looked into the spool after a kill."""
    killed(tmp_path, count)
    with closing(sqlite3.connect(tmp_path / "spool.db")) as looking:
        assert looking.execute("SELECT count(*) FROM message").fetchone() == (count,)
    assert not (tmp_path / "spool.db-wal").exists()
    async with opened(tmp_path) as at:
        assert await at.spool.count(Filter()) == count


async def test_a_stop_while_another_program_reads_is_no_kill(tmp_path: Path) -> None:
    """What the stop could not copy because of it is copied when that program ends."""
    made(tmp_path)
    with closing(sqlite3.connect(tmp_path / "spool.db", isolation_level=None)) as reading:
        async with opened(tmp_path) as at:
            await at.put()
            reading.execute("BEGIN")
            assert reading.execute("SELECT count(*) FROM message").fetchone() == (1,)
            await at.put()
        assert (tmp_path / "spool.db-wal").stat().st_size
    assert not (tmp_path / "spool.db-wal").exists()
    async with opened(tmp_path) as at:
        assert len(await ids(at)) == 2
