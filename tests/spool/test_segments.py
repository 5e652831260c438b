"""Large bodies in files of their own: as whole, as durable and as well deleted as those in the spool's file."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from gateway.config.models import RetentionSettings
from gateway.model import SpoolFull, SpoolUnavailable
from gateway.spool import Filter, SpoolError, segment, segments
from tests.builders import RAW
from tests.fakes import START, FakeClock
from tests.spool.test_open import child
from tests.spool.test_space import Disk, passes
from tests.spool_kit import LEASE, At, of, opened, peer, settlement, statements

_KIB = 1024


def large(seed: int, octets: int = 100 * _KIB) -> bytes:
    return random.Random(seed).randbytes(octets)


def files(directory: Path) -> list[Path]:
    return sorted((directory / "bodies").glob("*"))


def blocks(directory: Path) -> int:
    """Octets that they take of the disk."""
    for file in files(directory):
        with file.open("rb") as written:
            os.fsync(written.fileno())  # what is not yet written has no place yet
    return sum(file.stat().st_blocks * 512 for file in files(directory))


def extents(directory: Path) -> dict[str, tuple[int, int, int]]:
    rows = peer(directory, "SELECT message_id, segment, start, length FROM body WHERE segment > 0")
    return {ident: (segment, start, length) for ident, segment, start, length in rows}


async def read(at: At, *idents: str) -> dict[str, bytes]:
    return await at.spool.bodies(idents)


async def delete(at: At, *idents: str) -> None:
    assert await at.spool.delete(of(*idents), START) == len(idents)


def spoil(directory: Path, ident: str) -> None:
    """Flip a bit in the middle of its bytes."""
    segment, start, length = extents(directory)[ident]
    with (directory / "bodies" / f"{segment:08d}").open("r+b") as file:
        file.seek(start + length // 2)
        (octet,) = file.read(1)
        file.seek(start + length // 2)
        file.write(bytes([octet ^ 1]))


@contextmanager
def mounted(where: Path, kind: str, options: str = "rw") -> Iterator[Path]:
    where.mkdir()
    mount = ["mount", "-t", kind, "-o", options, kind, where]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip(f"cannot mount a {kind} here")
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", where], check=True)


@contextmanager
def read_only(where: Path) -> Iterator[None]:
    """Also for root: nothing in it can be made, renamed or removed."""
    if subprocess.run(["mount", "--bind", where, where], capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a folder here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", where], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", where], check=True)


# -- what goes where ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "outside"), [(1, False), (32 * _KIB - 1, False), (32 * _KIB, True), (100_001, True), (3_000_000, True)]
)
async def test_a_body_comes_back_byte_for_byte(tmp_path: Path, octets: int, outside: bool) -> None:
    """With its claim, alone, as it lies there, and after a start; only the owner may read the files."""
    raw = large(octets, octets)
    async with opened(tmp_path) as at:
        before, ident = await at.put(), await at.put(raw=raw)
        assert (ident in extents(tmp_path)) == outside
        taken = await at.spool.claim("b", now=START, lease=LEASE, limit=9, eager=1 << 18)
        assert taken.bodies == ({before: RAW, ident: raw} if octets <= 1 << 18 else {before: RAW})
        assert await read(at, before, ident) == {before: RAW, ident: raw}
        assert (tmp_path / "spool.db-wal").stat().st_size < 200_000  # not a second time in the log
        assert await at.spool.raw(ident) == raw
    async with opened(tmp_path) as at:
        assert await read(at, ident) == {ident: raw}
    if outside:
        assert raw[:4096] not in (tmp_path / "spool.db").read_bytes()
        assert stat.S_IMODE((tmp_path / "bodies").stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) for file in files(tmp_path)} == {0o600}


async def test_a_group_is_synced_once_and_before_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is answered, and no row is there for others, before the bytes are on disk."""
    synced: list[int] = []
    fdatasync = os.fdatasync

    def watched(descriptor: int) -> None:
        synced.append(len(extents(tmp_path)))
        fdatasync(descriptor)

    async with opened(tmp_path) as at:
        await at.put(raw=large(0))
        monkeypatch.setattr(os, "fdatasync", watched)
        with statements() as seen:
            await asyncio.gather(*(at.put(raw=large(n)) for n in range(20)))
        commits = seen.count("COMMIT")
        assert len(synced) == commits < 4
        assert synced[0] == 1
        await asyncio.gather(*(at.put() for _ in range(20)))
        assert len(synced) == commits


async def test_a_file_system_without_holes_gets_no_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be given back piece by piece stays where room is used again."""
    monkeypatch.setattr(os, "statvfs", Disk().look)  # that one does not tell how large it is
    with mounted(tmp_path / "ram", "ramfs") as where:
        async with opened(where / "state") as at:
            idents = [await at.put(raw=large(n)) for n in range(3)]
            assert await read(at, *idents) == {ident: large(n) for n, ident in enumerate(idents)}
            assert (extents(where / "state"), files(where / "state")) == ({}, [])


async def test_a_disk_without_inodes_takes_large_mail(tmp_path: Path) -> None:
    """There is room, only no new file can be made: it stands in the spool's file until one can."""
    with mounted(tmp_path / "few", "tmpfs", "size=40m,nr_inodes=20") as where:
        async with opened(where / "state") as at:
            with suppress(OSError):
                for n in range(30):
                    (where / f"{n}").touch()
            idents = [await at.put(raw=large(n)) for n in range(3)]
            assert not extents(where / "state")
            for n in range(5):
                (where / f"{n}").unlink()
            idents.append(await at.put(raw=large(3)))
            assert set(extents(where / "state")) == {idents[3]}
            assert await read(at, *idents) == {ident: large(n) for n, ident in enumerate(idents)}


async def test_what_is_refused_its_owner_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root who may not give files away (a container without that right) keeps large mail in the spool's file."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    async with opened(tmp_path) as at:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(os, "chown", refuse)
        idents = [await at.put(raw=large(n)) for n in range(3)]
        assert await read(at, *idents) == {ident: large(n) for n, ident in enumerate(idents)}
        assert (extents(tmp_path), files(tmp_path)) == ({}, [])


async def test_bytes_are_gone_also_where_their_file_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody made the folder read-only: files cannot be removed, but what is in them can, and the rest as well."""
    monkeypatch.setattr(segments, "SEGMENT", 100_000)
    async with opened(tmp_path) as at:
        idents = [await at.put(raw=large(n)) for n in range(5)]
        with read_only(tmp_path / "bodies"):
            await delete(at, *idents[1:4])
            assert blocks(tmp_path) <= 2 * 110 * _KIB
            assert await read(at, idents[0], idents[4]) == {idents[0]: large(0), idents[4]: large(4)}
        await delete(at, idents[0])
        assert [file.name for file in files(tmp_path)] == ["00000005"]
    assert [file.name for file in files(tmp_path)] == ["00000005"]


async def test_segments_are_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one transaction only one is added to, for it is one sync."""
    monkeypatch.setattr(segments, "SEGMENT", 300_000)
    async with opened(tmp_path) as at:
        idents = await asyncio.gather(*(at.put(raw=large(n)) for n in range(12)))
        idents += [await at.put(raw=large(n)) for n in range(12, 24)]
        assert await read(at, *idents) == {ident: large(n) for n, ident in enumerate(idents)}
        assert len(files(tmp_path)) >= 4
        assert all(file.stat().st_size < 300_000 + 110_000 for file in files(tmp_path))
    async with opened(tmp_path) as at:
        assert await read(at, *idents) == {ident: large(n) for n, ident in enumerate(idents)}
        await delete(at, *idents)
    assert files(tmp_path) == []


async def test_what_an_older_version_wrote_stays_where_it_is(tmp_path: Path) -> None:
    """It is read, and deleted, as it always was."""
    async with opened(tmp_path) as at:
        old = await at.put(raw=large(1))
        await at.spool.backup(tmp_path / "within")
    (tmp_path / "within").replace(tmp_path / "spool.db")
    shutil.rmtree(tmp_path / "bodies")
    for undo in (
        "DROP INDEX body_by_segment",
        *(f"ALTER TABLE body DROP {name}" for name in ("segment", "start", "length")),
        *(f"DROP TABLE {name}" for name in ("backend", "instance", "secret", "cluster", "asked", "membership")),
        *(f"ALTER TABLE {name} DROP tenant" for name in ("act", "signin")),
    ):
        peer(tmp_path, undo)
    peer(tmp_path, "UPDATE alembic_version SET version_num = '0010'")
    async with opened(tmp_path) as at:
        assert await read(at, old) == {old: large(1)}
        new = await at.put(raw=large(2))
        assert set(extents(tmp_path)) == {new}
        await delete(at, old, new)
        assert peer(tmp_path, "SELECT count(*) FROM body") == [(0,)]


# -- deletion and room -------------------------------------------------------------------------------------------------


async def test_what_is_deleted_is_gone_from_the_disk(tmp_path: Path) -> None:
    """Its bytes and its room at once, its neighbours untouched; a file that nobody needs goes whole."""
    async with opened(tmp_path) as at:
        idents = [await at.put(raw=large(n)) for n in range(10)]
        await asyncio.sleep(0)
        assert blocks(tmp_path) >= 10 * 100 * _KIB
        (file,) = files(tmp_path)
        gone, kept = idents[1:9], (idents[0], idents[9])
        await delete(at, *gone)
        assert blocks(tmp_path) <= 2 * 110 * _KIB
        left = file.read_bytes()
        for n in range(1, 9):
            assert large(n)[:64] not in left
        assert await read(at, *kept) == {idents[0]: large(0), idents[9]: large(9)}
        await delete(at, *kept)
    assert files(tmp_path) == []


@pytest.mark.parametrize("kept", [timedelta(0), timedelta(hours=1)])
async def test_retention_takes_bodies_out_of_their_files(tmp_path: Path, kept: timedelta) -> None:
    """With the settlement where nothing is kept, else when its time has come; the message stays in the history."""
    clock = FakeClock()
    retention = RetentionSettings(sent_body=kept)
    async with opened(tmp_path, clock=clock, retention=retention) as at:
        ident, other = await at.put(raw=large(1)), await at.put(raw=large(2), backend="c")
        await at.settle()
        assert (ident in extents(tmp_path)) == bool(kept)
        await at.spool.sweep(START + timedelta(hours=2), retention)
        assert set(extents(tmp_path)) == {other}
        assert blocks(tmp_path) <= 110 * _KIB
        assert await at.spool.raw(ident) is None
        assert (await at.show(ident)).state == "done"
        assert await read(at, ident, other) == {other: large(2)}
        assert not at.logged("corrupt")


async def test_they_count_as_room_that_is_taken(tmp_path: Path) -> None:
    """limits.spool_size shuts the door; with mail gone it opens, for the disk has the room back."""
    clock = FakeClock()
    async with opened(tmp_path, clock=clock, most=30_000_000) as at:
        answers = [await asyncio.gather(at.put(raw=large(n, 1_000_000)), return_exceptions=True) for n in range(40)]
        idents = [answer for (answer,) in answers if isinstance(answer, str)]
        assert 10 < len(idents) < 29
        assert all(isinstance(answer, str | SpoolFull) for (answer,) in answers)
        assert blocks(tmp_path) >= len(idents) * 1_000_000
        await passes(clock, lambda: at.spool.room.space.used > len(idents) * 1_000_000)
        assert at.spool.room.space.used < 30_000_000
        await delete(at, *idents)
        await passes(clock, lambda: at.spool.room.space.used < 5_000_000)
        await at.put(raw=large(1, 5_000_000))


async def test_room_within_the_file_is_used_where_there_is_no_other(tmp_path: Path) -> None:
    """A spool of an older version is full of pages that hold nothing: large mail still finds room there."""
    clock = FakeClock()
    async with opened(tmp_path, clock=clock) as at:
        old = await asyncio.gather(*(at.put(raw=b"x" * 30_000) for _ in range(400)))
        await delete(at, *old)
    most = (tmp_path / "spool.db").stat().st_size + 2_000_000
    async with opened(tmp_path, clock=clock, most=most) as at:
        await passes(clock, lambda: at.spool.room.space.reusable > 10_000_000)
        idents = [await at.put(raw=large(n, 500_000)) for n in range(8)]
        await passes(clock, lambda: at.spool.room.space.used < most)
        assert len(extents(tmp_path)) < 8
        assert await read(at, *idents) == {ident: large(n, 500_000) for n, ident in enumerate(idents)}


# -- what goes wrong ---------------------------------------------------------------------------------------------------


async def test_what_was_undone_leaves_nothing(tmp_path: Path) -> None:
    """An error between append and commit: the neighbours are put, and what was written is written over."""
    async with opened(tmp_path) as at:
        first = await at.put(raw=large(0))
        bad = at.put(raw=large(1), deliveries={})
        answers = await asyncio.gather(at.put(raw=large(2)), bad, at.put(), return_exceptions=True)
        assert isinstance(answers[1], SpoolUnavailable)
        kept = [first, *(answer for answer in answers if isinstance(answer, str))]
        assert len(kept) == 3
        assert await read(at, *kept[:2]) == {first: large(0), kept[1]: large(2)}
        places = sorted(extents(tmp_path).values())
        assert [(segment, start) for segment, start, _ in places] == [(1, 0), (1, 25 * 4096)]


@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
@pytest.mark.parametrize(
    ("number", "refusal"),
    [
        (errno.ENOSPC, SpoolFull),
        (errno.EDQUOT, SpoolFull),
        (errno.EIO, SpoolUnavailable),
        (errno.EFBIG, SpoolUnavailable),
    ],
)
async def test_what_a_disk_refuses_is_no_acknowledgement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, refusal: type[Exception]
) -> None:
    """4xx as for any other trouble of the disk; what is there stays, others go on, and so does it when that is over. Of
    what was refused nothing is left."""
    clock = FakeClock()
    async with opened(tmp_path, clock=clock) as at:
        kept = [await at.put(raw=large(0))]
        real, broken = getattr(os, call), True

        def refuse(descriptor: int, *rest: object) -> object:
            if broken and "/bodies/" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
                if call == "pwrite":  # some of it still fits
                    real(descriptor, bytes(90_000), rest[1])
                raise OSError(number, os.strerror(number))
            return real(descriptor, *rest)

        monkeypatch.setattr(os, call, refuse)
        answers = await asyncio.gather(at.put(raw=large(1)), at.put(raw=large(2)), at.put(), return_exceptions=True)
        assert [type(answer) for answer in answers[:2]] == [refusal] * 2
        if refusal is SpoolUnavailable:  # of this message; a full disk is everybody's
            assert isinstance(answers[2], str)
            assert at.logged("spool_error")
        assert blocks(tmp_path) <= 110 * _KIB  # nothing of it takes the room that others need
        broken = False
        await passes(clock, at.spool.accepting)
        kept.append(await at.put(raw=large(3)))
        assert await read(at, *kept) == {kept[0]: large(0), kept[1]: large(3)}
        assert not at.logged("bug")
    async with opened(tmp_path) as at:
        assert await read(at, *kept) == {kept[0]: large(0), kept[1]: large(3)}
        await delete(at, *kept)
    assert files(tmp_path) == []


async def test_damage_is_one_message_s(tmp_path: Path) -> None:
    """Found with the claim or when it is sent, kept, never sent; its neighbours go on."""
    async with opened(tmp_path) as at:
        idents = [await at.put(raw=large(n, octets)) for n, octets in enumerate([100_000, 100_000, 400_000, 400_000])]
        spoil(tmp_path, idents[1])
        spoil(tmp_path, idents[2])
        taken = await at.spool.claim("b", now=START, lease=LEASE, limit=9, eager=1 << 18)
        assert [claim.message.id for claim in taken.claims] == [idents[0], idents[2], idents[3]]
        assert set(await read(at, *idents)) == {idents[0], idents[3]}
        assert {line["id"] for line in at.logged("corrupt")} == {idents[1], idents[2]}
        assert len(await at.spool.raw(idents[1]) or b"") == 100_000


@pytest.mark.parametrize("spoiled", ["cut", "removed"])
async def test_a_segment_that_is_missing_or_cut_costs_what_lay_there(tmp_path: Path, spoiled: str) -> None:
    """The start goes on, says so, and the others are sent. With the file back, a release by hand sends these, too."""
    async with opened(tmp_path) as at:
        lost, small = await at.put(raw=large(1)), await at.put()
    (file,) = files(tmp_path)
    file.rename(tmp_path / "kept")
    if spoiled == "cut":
        file.write_bytes((tmp_path / "kept").read_bytes()[:5000])
    async with opened(tmp_path) as at:
        assert [line["files"] for line in at.logged("spool_bodies_missing")] == [[str(file)]] * (spoiled == "removed")
        new = await at.put(raw=large(2))
        assert await read(at, lost, small, new) == {small: RAW, new: large(2)}
        assert (await at.show(lost)).state == "corrupt"
        assert extents(tmp_path)[new][0] == 2  # in the place of what is missing nothing else may stand
    (tmp_path / "kept").replace(file)
    async with opened(tmp_path) as at:
        assert await at.spool.release(of(lost), START) == 1
        assert await read(at, lost, new) == {lost: large(1), new: large(2)}


async def test_a_spool_without_its_folder_is_refused(tmp_path: Path) -> None:
    """Somebody copied the file alone. An empty folder accepts the loss."""
    async with opened(tmp_path / "state") as at:
        lost = await at.put(raw=large(1))
    (tmp_path / "state" / "bodies").rename(tmp_path / "bodies")
    for _ in range(2):
        with pytest.raises(SpoolError, match="bodies is missing, and 1 large messages lie there: put it back; or"):
            async with opened(tmp_path / "state"):
                pass
    (tmp_path / "state" / "bodies").mkdir()
    async with opened(tmp_path / "state") as at:
        assert await read(at, lost) == {}
        await at.put(raw=large(2))


def held_up() -> tuple[Callable[..., bytes], threading.Event, threading.Event]:
    """A way to read that says when it has begun, and goes on when it may."""
    begun, go = threading.Event(), threading.Event()
    read_it = segments.Segments.read

    def slowly(self: segments.Segments, extent: segment.Extent) -> bytes:
        begun.set()
        go.wait(10)
        return read_it(self, extent)

    return slowly, begun, go


async def test_who_reads_what_is_deleted_meanwhile_finds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is no damage: nobody is alarmed, and no message that was delivered becomes corrupt."""
    slowly, there, go = held_up()
    async with opened(tmp_path) as at:
        idents, kept = [await at.put(raw=large(n)) for n in range(2)], await at.put(raw=large(9))
        monkeypatch.setattr(segments.Segments, "read", slowly)
        for ident, ask in zip(idents, (partial(read, at), at.spool.raw), strict=True):
            asking = asyncio.ensure_future(ask(ident))
            await asyncio.to_thread(there.wait, 10)
            await delete(at, ident)
            go.set()
            assert not await asking
            go.clear()
            there.clear()
        go.set()
        assert await read(at, kept) == {kept: large(9)}
        assert not at.logged("corrupt")


KILLED = """
import asyncio, os, sys, signal
from pathlib import Path
from tests.spool.test_segments import large
from tests.spool_kit import opened, of, START
async def main():
    async with opened(Path(sys.argv[1])) as at:
        for n in range(6):
            await at.put(ident=f"M{n}", raw=large(n))
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that a kill left, with M0 to M5, which are large."""
    folder = tmp_path_factory.mktemp("killed")
    with child(KILLED, folder) as putter:
        putter.communicate()
    return folder


DAMAGE = ["start = start + 8192", "start = 'x'", "length = -1", "segment = 7", "segment = x'00'"]


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_row_that_is_damaged_costs_no_neighbour(tmp_path: Path, damage: str) -> None:
    """It leads anywhere, perhaps to the bytes of another; deleted, it does not take these along."""
    async with opened(tmp_path) as at:
        bad, good = await at.put(raw=large(1)), await at.put(raw=large(2))
        peer(tmp_path, f"UPDATE body SET {damage} WHERE message_id = ?", bad)
        assert await read(at, bad, good) == {good: large(2)}
        await delete(at, bad)
        assert not at.logged("bug")
        await at.put(raw=large(3))
        assert await read(at, good) == {good: large(2)}


@pytest.mark.parametrize("damage", [*DAMAGE, "start = start + 1099511627776"])
async def test_a_start_with_a_row_that_is_damaged_costs_no_neighbour(killed: Path, tmp_path: Path, damage: str) -> None:
    """Also after a kill, when all that no row leads to is given back; what comes later finds a place, too."""
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    with closing(sqlite3.connect(tmp_path / "spool.db")) as spool, spool:
        spool.execute("PRAGMA wal_autocheckpoint = 0")
        spool.execute(f"UPDATE body SET {damage} WHERE message_id = 'M2'")
    rest = {f"M{n}": large(n) for n in (0, 1, 3, 4, 5)}
    for turn in range(2):
        async with opened(tmp_path) as at:
            new = await at.put(raw=large(6 + turn))
            rest[new] = large(6 + turn)
            assert await read(at, "M2", *rest) == rest
            assert not at.logged("bug")
    async with opened(tmp_path) as at:
        await delete(at, "M2")
        assert await read(at, *rest) == rest


# -- copies, kills and things taken away -------------------------------------------------------------------------------


async def test_a_copy_of_a_spool_in_use_has_all_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file, of one moment, also where mail is deleted meanwhile; it needs nothing beside it, and is a spool."""
    slowly, taken, go = held_up()
    async with opened(tmp_path / "live") as at:
        idents = [await at.put(raw=large(n)) for n in range(5)]
        small = await at.put()
        (tmp_path / "copy").mkdir()
        monkeypatch.setattr(segments.Segments, "read", slowly)
        copying = asyncio.ensure_future(at.spool.backup(tmp_path / "copy" / "spool.db"))
        await asyncio.to_thread(taken.wait, 10)
        await delete(at, *idents)
        go.set()
        await copying
        await at.put()
        assert blocks(tmp_path / "live") == 0
    assert [file.name for file in (tmp_path / "copy").iterdir()] == ["spool.db"]
    async with opened(tmp_path / "copy") as at:
        assert await read(at, small, *idents) == {small: RAW, **{ident: large(n) for n, ident in enumerate(idents)}}
        assert extents(tmp_path / "copy") == {}


async def test_after_a_kill_nothing_is_left_that_no_row_leads_to(killed: Path, tmp_path: Path) -> None:
    """What was deleted but not given back, what was written but not committed, and files of neither."""
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    (file,) = files(tmp_path)
    with file.open("ab") as end:
        end.write(large(77))
    (tmp_path / "bodies" / "00000002").write_bytes(large(78))
    (tmp_path / "bodies" / "00000001.part").write_bytes(large(79))
    with closing(sqlite3.connect(tmp_path / "spool.db")) as spool, spool:
        spool.execute("PRAGMA wal_autocheckpoint = 0")
        spool.execute("DELETE FROM message WHERE id IN ('M0', 'M2', 'M3')")
        spool.execute("DELETE FROM body WHERE message_id IN ('M0', 'M2', 'M3')")
    async with opened(tmp_path) as at:
        assert await read(at, "M1", "M4", "M5") == {f"M{n}": large(n) for n in (1, 4, 5)}
        assert files(tmp_path) == [file]
        left = file.read_bytes()
        assert len(left) == 6 * 25 * 4096
        assert not [n for n in (0, 2, 3, 77) if large(n)[:64] in left]
        assert blocks(tmp_path) <= 3 * 110 * _KIB


async def test_what_another_spool_left_is_put_aside_and_found_again(tmp_path: Path) -> None:
    """Somebody moved the spool away and started without: with the file put back, all of it is there."""
    async with opened(tmp_path) as at:
        ident = await at.put(raw=large(1))
    for name in ("spool.db", "spool.key"):
        (tmp_path / name).rename(tmp_path / f"mine.{name}")
    async with opened(tmp_path) as at:
        (line,) = at.logged("spool_bodies_left")
        assert line["files"] == [str(tmp_path / "bodies" / "00000001.left")]
        other = await at.put(raw=large(2))
        await delete(at, other)
        await at.put(raw=large(3))
    for name in ("spool.db", "spool.key"):
        (tmp_path / f"mine.{name}").replace(tmp_path / name)
    async with opened(tmp_path) as at:
        assert await read(at, ident) == {ident: large(1)}


async def test_a_backup_in_place_of_a_damaged_spool_takes_no_bodies_along(tmp_path: Path) -> None:
    """As the refusal asks for: what can still be read out of the damaged one has its bytes, and so has the backup."""
    spool, damaged, backup = (tmp_path / name for name in ("spool.db", "damaged", "backup"))
    async with opened(tmp_path) as at:
        first = await at.put(raw=large(1))
        await at.spool.backup(backup)
        second = await at.put(raw=large(2))
    shutil.copy(spool, damaged)
    os.truncate(spool, spool.stat().st_size - 4096)
    for _ in range(2):
        with pytest.raises(SpoolError, match="put a backup in its place"):
            async with opened(tmp_path):
                pass
    shutil.copy(backup, spool)
    async with opened(tmp_path) as at:
        assert await read(at, first) == {first: large(1)}
        assert at.logged("spool_bodies_left")
        await at.put(raw=large(3))
    damaged.replace(spool)
    async with opened(tmp_path) as at:
        assert await read(at, first, second) == {first: large(1), second: large(2)}


def _all(directory: Path) -> None:
    for file in (*directory.glob("spool.*"), *files(directory)):
        file.unlink()


def _bodies(directory: Path) -> None:
    shutil.rmtree(directory / "bodies")


@pytest.mark.parametrize("remove", [_all, _bodies])
@pytest.mark.parametrize("idle", [True, False])
async def test_what_is_removed_in_use_is_written_back(
    tmp_path: Path, remove: Callable[[Path], None], idle: bool
) -> None:
    """Within a second, or before the next 250, to the last byte."""
    clock = FakeClock()
    async with opened(tmp_path, clock=clock) as at:
        idents = [await at.put(raw=large(n)) for n in range(4)]
        await delete(at, idents.pop(2))
        remove(tmp_path)
        if idle:
            await passes(clock, lambda: bool(at.logged("spool_rescued")))
        idents.append(await at.put(raw=large(4)))
        assert at.logged("spool_rescued")
        await passes(clock, at.spool.accepting)
        wanted = dict(zip(idents, map(large, (0, 1, 3, 4)), strict=True))
        assert await read(at, *idents) == wanted
        assert not at.logged("bug")
        assert [file.name for file in files(tmp_path)] == ["00000001"]
    async with opened(tmp_path) as at:
        assert await read(at, *idents) == wanted


async def test_what_is_written_back_leaves_no_empty_file(tmp_path: Path) -> None:
    """Nor does what is opened anew for another reason: a segment without bodies is still one of ours."""
    async with opened(tmp_path) as at:
        await delete(at, await at.put(raw=large(1)))
        (tmp_path / "spool.db").unlink()
        await at.put()
        assert at.logged("spool_rescued")
        kept = await at.put(raw=large(2))
        assert await read(at, kept) == {kept: large(2)}
        await delete(at, kept)
        assert len(files(tmp_path)) <= 1
    assert files(tmp_path) == []


async def test_a_folder_that_is_moved_away_shuts_the_door_until_it_is_back(tmp_path: Path) -> None:
    """What is queued goes on; nothing is begun a second time in its old place."""
    clock, folder, away = FakeClock(), tmp_path / "bodies", tmp_path / "away"
    async with opened(tmp_path, clock=clock) as at:
        ident = await at.put(raw=large(1))
        folder.rename(away)
        with pytest.raises(SpoolUnavailable):
            await at.put(raw=large(2))
        await passes(clock, lambda: at.spool.room.shut == "moved")
        assert "move it back" in at.logged("spool_shut")[0]["fix"]
        for claim in await at.claim(limit=1):
            assert await read(at, claim.message.id) == {ident: large(1)}
            await at.spool.settle(settlement(claim))
        assert not folder.exists()
        away.rename(folder)
        await passes(clock, at.spool.accepting)
        await at.put(raw=large(3))
        assert not at.logged("bug")
    async with opened(tmp_path) as at:
        assert await at.spool.count(Filter()) == 3  # one was committed while its place was lost, and refused for now
