"""A start after a clean stop: quick for a spool of any size, and as careful as ever with one that is not as it was."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError

from gateway.spool import SpoolError, clean
from gateway.spool.engine import Trouble
from gateway.spool.mark import boot
from gateway.spool.sqlite import SQLite
from tests.spool.test_open import OWNER, child
from tests.spool_kit import opened, peer, statements

pytestmark = pytest.mark.skipif(boot() == bytes(16), reason="this system does not tell when it was started")
SPOOL, MARK, LOG = "spool.db", "spool.mark", "spool.db-wal"


async def _looked_through(directory: Path) -> bool:
    """Whether a start looks at every page."""
    with statements() as seen, suppress(SpoolError):
        async with opened(directory):
            pass
    return any("integrity_check" in one for one in seen)


def _same_times(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """As who hides what he did."""

    def spoil(state: Path) -> None:
        before = (state / SPOOL).stat()
        change(state / SPOOL)
        os.utime(state / SPOOL, ns=(before.st_atime_ns, before.st_mtime_ns))

    return spoil


def _flip(file: Path) -> None:
    with file.open("r+b") as opened_file:
        opened_file.seek(file.stat().st_size // 2)
        opened_file.write(b"\xa5")


def _restored(state: Path) -> None:
    shutil.copy2(state / SPOOL, state / "backup")
    (state / "backup").rename(state / SPOOL)


def _killed(state: Path) -> None:
    with child(OWNER, state) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "open\n"
        owner.kill()


def _cut_mark(state: Path) -> None:
    os.truncate(state / MARK, (state / MARK).stat().st_size - 1)


@pytest.mark.parametrize(
    ("between", "looked_through"),
    [
        (lambda _state: None, False),
        (lambda state: _flip(state / SPOOL), True),
        (_same_times(_flip), True),
        (_restored, True),
        (_killed, True),
        (lambda state: peer(state, "PRAGMA user_version = 7"), True),
        (lambda state: (state / LOG).write_bytes(b"x"), True),
        (lambda state: (state / MARK).unlink(), True),
        (lambda state: _flip(state / MARK), True),
        (_cut_mark, True),
    ],
)
async def test_only_what_a_clean_stop_left_is_not_looked_through(
    tmp_path: Path, between: Callable[[Path], object], looked_through: bool
) -> None:
    """Whoever wrote to the file, put another there, killed the service or took the mark away: all of it is checked."""
    async with opened(tmp_path) as at:
        await at.put()
    between(tmp_path)
    assert await _looked_through(tmp_path) is looked_through


async def test_a_start_that_finds_damage_finds_it_again(tmp_path: Path) -> None:
    """Until somebody has put it right: what was refused is no clean stop."""
    async with opened(tmp_path) as at:
        for _ in range(50):
            await at.put()
    with (tmp_path / SPOOL).open("r+b") as file:
        file.seek(4096 + 8)
        file.write(b"\xa5" * 2000)
    for _ in range(3):
        with pytest.raises(SpoolError, match="damaged"):
            async with opened(tmp_path):
                pass


async def test_another_file_in_its_place_is_looked_through(tmp_path: Path) -> None:
    """Put there while the service ran: what was closed whole is not that."""
    async with opened(tmp_path / "other") as at:
        await at.put()
    async with opened(tmp_path / "state") as at:
        await at.put()
        (tmp_path / "other" / SPOOL).replace(tmp_path / "state" / SPOOL)
    assert await _looked_through(tmp_path / "state")


async def test_what_showed_damage_is_looked_through_at_the_next_start(tmp_path: Path) -> None:
    """Bytes that are not what was accepted: then the disk lies, and other pages may be no better."""
    async with opened(tmp_path) as at:
        ident = await at.put()
        peer(tmp_path, "UPDATE body SET raw = 'x' || raw WHERE message_id = ?", ident)
        assert await at.spool.bodies([ident]) == {}
    assert await _looked_through(tmp_path)
    assert not await _looked_through(tmp_path)


async def test_an_older_schema_is_looked_through_before_it_is_changed(tmp_path: Path) -> None:
    """Also after a clean stop."""
    async with opened(tmp_path):
        pass
    engine = SQLite(tmp_path)
    with closing(engine), closing(engine.open()) as connection:
        with connection.begin():
            connection.execute("UPDATE alembic_version SET version_num = '0001'")
        engine.finish(connection)
    assert await _looked_through(tmp_path)


def test_another_start_of_the_machine_is_another_file(tmp_path: Path) -> None:
    """What the kernel held is gone then; and where nobody knows of starts, nothing is the same."""
    file = tmp_path / SPOOL
    file.write_bytes(b"x")
    known = clean.record(file, b"1" * 16)
    assert clean.same(file, known, b"1" * 16)
    assert not clean.same(file, known, b"2" * 16)
    assert not clean.same(file, clean.record(file, bytes(16)), bytes(16))


async def test_damage_is_told_from_our_mistakes_whoever_finds_it(tmp_path: Path) -> None:
    """The connections that look wrap the driver's errors, the one that writes does not."""
    async with opened(tmp_path) as at:
        await at.put()
    file = tmp_path / SPOOL
    file.write_bytes(file.read_bytes()[:4096] + b"\xff" * (file.stat().st_size - 4096))
    engine, found = SQLite(tmp_path), list[Trouble]()
    readers = engine.readers()
    async with readers.connect() as reader:
        for statement in ("SELECT count(*) FROM message", "SELECT nonsense"):
            with pytest.raises(DBAPIError) as wrapped:
                await reader.exec_driver_sql(statement)
            assert wrapped.value.orig is not None
            found += [engine.classify(wrapped.value), engine.classify(wrapped.value.orig)]
    await readers.dispose()
    assert found == [Trouble.BROKEN, Trouble.BROKEN, Trouble.FAILED, Trouble.FAILED]
