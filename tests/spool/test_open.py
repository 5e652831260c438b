"""Opening: one owner, whole files only, nothing readable by others, migrations that survive a kill."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from sqlalchemy.exc import DatabaseError

from gateway.spool import Filter, SpoolError, connecting, opening
from gateway.spool.sqlite import SQLite
from tests.builders import RAW
from tests.fakes import START
from tests.spool_kit import LEASE, At, made, message, of, opened, peer

ROOT = Path(__file__).parents[2]


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A real second process with the test's own modules."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    given = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(given, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ)


OWNER = """
import asyncio, sys
from pathlib import Path
from tests.spool_kit import opened
async def main():
    async with opened(Path(sys.argv[1])):
        print("open", flush=True)
        await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""


async def test_a_second_process_is_refused_at_once(tmp_path: Path) -> None:
    """The text names the process that has it; when that has ended, whichever way, the spool can be opened."""
    with child(OWNER, tmp_path) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "open\n"
        with pytest.raises(SpoolError, match=rf"in use by process {owner.pid}: stop it, or use the running"):
            async with opened(tmp_path):
                pass
        owner.kill()
    async with opened(tmp_path) as at:
        await at.put()
        with pytest.raises(SpoolError, match=f"process {os.getpid()}"):
            async with opened(tmp_path):
                pass
        await at.put()


async def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    """Directory 0700, files 0600, whatever the umask."""
    umask = os.umask(0)
    try:
        async with opened(tmp_path / "state" / "gateway") as at:
            await at.put()
            found = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "state" / "gateway").iterdir()}
    finally:
        os.umask(umask)
    assert found == dict.fromkeys(
        ("spool.db", "spool.db-wal", "spool.db-shm", "spool.key", "spool.lock", "spool.mark"), 0o600
    )
    assert (tmp_path / "state" / "gateway").stat().st_mode & 0o777 == 0o700


async def test_every_commit_is_synchronous_and_only_the_writer_checkpoints(tmp_path: Path) -> None:
    """The settings the promise rests on, asked of the connections themselves."""
    engine = SQLite(tmp_path)
    with closing(engine), closing(engine.open()) as writer:
        for name, value in (("synchronous", 2), ("journal_mode", "wal")):
            assert writer.execute(f"PRAGMA {name}").fetchone()[0] == value
        readers = engine.readers()
        async with readers.connect() as reader:
            for name, value in (("query_only", 1), ("wal_autocheckpoint", 0)):
                assert (await reader.exec_driver_sql(f"PRAGMA {name}")).scalar() == value
        await readers.dispose()


async def test_what_was_opened_is_logged(tmp_path: Path, at: At) -> None:
    """Where it is, and the version of SQLite, which decides what is known to go wrong."""
    (line,) = at.logged("spool_opened")
    assert (line["path"], line["sqlite"]) == (str(tmp_path / "spool.db"), sqlite3.sqlite_version)


def _foreign(path: Path) -> None:
    path.unlink()
    peer(path.parent, "CREATE TABLE t (x)")


def _newer(path: Path) -> None:
    peer(path.parent, "UPDATE alembic_version SET version_num = '9999'")


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096)


def _overwrite(at: int) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        with path.open("r+b") as spool:
            spool.seek(at)
            spool.write(b"\xa5" * 2000)

    return spoil


def _only_log(path: Path) -> None:
    path.with_name("spool.db-wal").write_bytes(path.read_bytes())
    path.unlink()


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda path: path.write_bytes(b""), "damaged: empty"),
        (lambda path: path.write_bytes(b"hello, world, this is no database" * 200), "damaged: no SQLite file"),
        (_overwrite(30), "spool.db cannot be used: unsupported file format"),
        (_overwrite(4096 + 8), "spool.db is damaged"),
        (_cut, "spool.db is damaged"),
        (_only_log, "is missing but its spool.db-wal is there: put the file back, or move that away"),
        (Path.unlink, "is missing but its spool.key is there: put the file back, or move that away"),
        (_foreign, "not a spool"),
        (lambda path: peer(path.parent, "DROP TABLE refusal"), "damaged: table refusal is missing"),
        (
            lambda path: peer(path.parent, "UPDATE alembic_version SET version_num = '9999'"),
            rf"newer version \(schema 9999, this one knows {opening.revision(opening.scripts()[-1])}\)",
        ),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be used: Is a directory"),
    ],
)
async def test_what_is_no_whole_spool_is_refused(tmp_path: Path, spoil: Callable[[Path], object], text: str) -> None:
    """With a text that names the file; there is never a new empty spool in its place, and the lock is free again."""
    async with opened(tmp_path) as at:
        for _ in range(50):
            await at.put(raw=RAW * 50)
    path = tmp_path / "spool.db"
    spoil(path)
    before = path.read_bytes() if path.is_file() else b""
    for _ in range(2):
        with pytest.raises(SpoolError, match=text) as refused:
            async with opened(tmp_path):
                pass
        assert str(path) in str(refused.value)
    assert (path.read_bytes() if path.is_file() else b"")[100:] == before[100:]


async def test_a_directory_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    """No traceback for a wrong state_dir."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match="cannot be used"):
        async with opened(tmp_path / "file" / "spool"):
            pass


CRAMPED = """
import asyncio, resource, sys
from pathlib import Path
from gateway.spool import SpoolError
from tests.spool_kit import opened
async def main():
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    try:
        async with opened(Path(sys.argv[1])):
            pass
    except SpoolError as error:
        print(error)
asyncio.run(main())
"""


async def test_no_room_at_the_start_is_explained(tmp_path: Path) -> None:
    """No traceback, not even for the few bytes of the lock."""
    async with opened(tmp_path) as at:
        await at.put()
    with child(CRAMPED, tmp_path) as cramped:
        output, _ = cramped.communicate()
    assert output.startswith(f"spool {tmp_path / 'spool.db'} cannot be ")


OTHER = """
import asyncio, os, sys
from pathlib import Path
from gateway.spool import SpoolError
from tests.spool_kit import opened
async def main():
    os.setresuid(65534, 65534, 65534)
    try:
        async with opened(Path(sys.argv[1])):
            pass
    except SpoolError as error:
        print(error)
asyncio.run(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize(
    ("name", "owner", "mode", "cure"),
    [
        ("spool.db", 0, 0o600, "chown 65534 {state}/spool.db"),
        ("bodies", 65534, 0o500, "chmod -R u+rwX {state}/bodies"),
        *(
            pytest.param(*row, marks=pytest.mark.slow)  # each row starts two processes
            for row in [
                ("spool.db", 65534, 0o400, "chmod u+rwX {state}/spool.db"),
                ("bodies", 0, 0o700, "chown -R 65534 {state}/bodies"),
                ("bodies", 65534, 0o600, "chmod -R u+rwX {state}/bodies"),
                ("bodies/00000001", 0, 0o600, "chown -R 65534 {state}/bodies"),
                ("bodies/00000001", 65534, 0o400, "chmod -R u+rwX {state}/bodies"),
            ]
        ),
    ],
)
async def test_a_file_that_root_put_back_is_named(name: str, owner: int, mode: int, cure: str) -> None:
    """With what to type, which helps."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:  # that user may not pass through tmp_path
        async with opened(Path(folder)) as at:
            await at.put(raw=bytes(100_000))
        os.chown(folder, 65534, 65534)
        for file in Path(folder).rglob("*"):
            os.chown(file, 65534, 65534)
        spoiled = Path(folder, name)
        os.chown(spoiled, owner, owner)
        spoiled.chmod(mode)
        typed = cure.format(state=folder)
        with child(OTHER, Path(folder)) as other:
            output, _ = other.communicate()
        who = f"{owner}, and user id 65534" if owner != 65534 else "65534, who"
        assert output == f"{spoiled} belongs to user id {who} may not write to it: {typed}\n"
        subprocess.run(typed.split(), check=True)
        with child(OTHER, Path(folder)) as other:
            assert other.communicate()[0] == ""


async def test_a_link_in_the_place_of_the_spool_is_refused(tmp_path: Path) -> None:
    """SQLite has the log beside the real file, where nobody looks after it. The text says how to put it right."""
    state, elsewhere = tmp_path / "state", tmp_path / "elsewhere.db"
    async with opened(state) as at:
        await at.put(ident="A")
    (state / "spool.db").rename(elsewhere)
    (state / "spool.db").symlink_to(elsewhere)
    with pytest.raises(SpoolError, match=f"is a link: put {elsewhere} itself in its place, and {elsewhere}-wal"):
        async with opened(state):
            pass
    elsewhere.rename(state / "spool.db")
    (tmp_path / "link").symlink_to(state)
    async with opened(tmp_path / "link") as at:
        await at.put(ident="B")
        assert len(await at.spool.find()) == 2


async def test_half_a_new_spool_is_no_spool(tmp_path: Path) -> None:
    """A crash while the first file was made leaves only its working name behind: made again."""
    for name in ("spool.db.new", "spool.db.new-wal"):
        (tmp_path / name).write_bytes(b"half")
    async with opened(tmp_path) as at:
        await at.put()
    assert {path.name for path in tmp_path.iterdir()} == {"spool.db", "spool.key", "spool.lock", "spool.mark"}


async def test_flipped_bits_are_noticed(tmp_path: Path) -> None:
    """Each flip anywhere in the file: refused at start, or the message is marked corrupt, or nothing of it changed.

    No message is lost, altered or sent elsewhere, and its neighbours go on.
    """
    (tmp_path / "whole").mkdir()
    async with opened(tmp_path / "whole") as at:
        wanted = {}
        for n in range(40):
            one = message(f"user{n}@example.org", f"other{n}@example.com", raw=RAW * (1 + n % 20))
            wanted[one.id] = one
            await at.spool.put(one)
    whole = (tmp_path / "whole" / "spool.db").read_bytes()
    rng = random.Random(int(os.environ.get("FLIP_SEED", "1")))
    found = {"refused": 0, "corrupt": 0, "untouched": 0}
    for turn in range(int(os.environ.get("FLIPS", "40"))):
        spoiled = bytearray(whole)
        spoiled[rng.randrange(len(spoiled))] ^= 1 << rng.randrange(8)
        (tmp_path / str(turn)).mkdir()
        (tmp_path / str(turn) / "spool.db").write_bytes(spoiled)
        try:
            async with opened(tmp_path / str(turn)) as at:
                claims = [claim for backend in await at.spool.queued() for claim in await at.claim(backend)]
                bodies = await at.spool.bodies([claim.message.id for claim in claims])
                for claim in claims:
                    one = wanted[claim.message.id]
                    if one.id in bodies:
                        assert (bodies[one.id], claim.message.everyone) == (one.raw, tuple(one.deliveries["b"]))
                        assert claim.message.envelope.sender == one.envelope.sender
                to = {(c.message.id, r.address) for c in claims for r in c.message.envelope.recipients}
                corrupt = {row.id for row in await at.spool.find(Filter(state="corrupt"))}
                for one in wanted.values():
                    assert one.id in corrupt or all((one.id, address) in to for address in one.deliveries["b"])
                assert (bodies.keys() | corrupt) == wanted.keys()
                assert {line["id"] for line in at.logged("corrupt")} == corrupt
                found["corrupt" if corrupt else "untouched"] += 1
        except SpoolError:
            found["refused"] += 1
        shutil.rmtree(tmp_path / str(turn))
    assert all(found.values()), found


async def test_a_corrupt_message_is_kept_for_a_person(tmp_path: Path, at: At) -> None:
    """Not sent, not swept, shown; released by hand it is found out again; it can be given up or deleted."""
    ident, good = await at.put(), await at.put()
    peer(tmp_path, "UPDATE body SET raw = 'x' || raw WHERE message_id = ?", ident)
    for _ in range(2):
        claims = await at.claim()
        assert set(await at.spool.bodies([claim.message.id for claim in claims])) <= {good}
        assert await at.states(ident) == ("corrupt", {"a@example.org": "held"}, {"b": "held"})
        detail = await at.show(ident)
        assert detail.attempts[-1].verdict == "corrupt"
        assert await at.spool.release(of(ident), START) == 1
    await at.spool.bodies([ident])
    ((claim,),) = [page async for page in at.spool.fail(of(ident), START)]
    assert claim.message.id == ident
    assert await at.spool.delete(of(ident), START) == 1


def _break_pages(directory: Path, of: bytes) -> None:
    """In the log: whatever page holds nothing but this byte leads to one that there is not."""
    log = directory / "spool.db-wal"
    pages = bytearray(log.read_bytes())
    for at in range(32 + 24, len(pages), 24 + 4096):
        if pages[at + 4 : at + 4096] == of * 4092:
            pages[at : at + 4] = b"\xff" * 4
    with log.open("r+b") as file:
        file.write(pages)


async def test_a_body_that_cannot_be_read_stops_nobody_else(tmp_path: Path, at: At) -> None:
    """Claims bring bodies; a page that leads nowhere is one message's trouble, not that of all who write."""
    bad, good = await at.put(raw=b"Z" * 30_000), await at.put()
    _break_pages(tmp_path, b"Z")
    peer(tmp_path, "UPDATE message SET login = 'x' WHERE id = ?", good)  # so that nothing cached is good any more
    taken = await at.spool.claim("b", now=at.clock.now(), lease=LEASE, limit=10, eager=1 << 18)
    assert [claim.message.id for claim in taken.claims] == [bad, good]
    assert not taken.bodies
    assert set(await at.spool.bodies([good])) == {good}
    await at.put()
    with pytest.raises(DatabaseError):
        await at.spool.bodies([bad])


async def test_whoever_claims_hears_that_more_is_due(tmp_path: Path, at: At) -> None:
    """Also where all that was claimed turned out to be damaged: nothing else would wake him."""
    for _ in range(2):
        peer(tmp_path, "UPDATE body SET raw = 'x' || raw WHERE message_id = ?", await at.put())
    good = await at.put()
    now = at.clock.now()
    taken = await at.spool.claim("b", now=now, lease=LEASE, limit=2, eager=1 << 18)
    assert not taken.claims
    assert taken.due is not None
    assert taken.due <= at.spool.now()
    taken = await at.spool.claim("b", now=now, lease=LEASE, limit=2, eager=1 << 18)
    assert list(taken.bodies) == [good]


def _held(file: Path) -> int:
    found = 0
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found += path.readlink() == file
    return found


def test_what_cannot_be_opened_anew_is_not_kept_open(tmp_path: Path) -> None:
    """Tried again with each group: it would run out of descriptors."""
    engine = SQLite(tmp_path)
    with closing(engine):
        connection = engine.open()
        engine.finish(connection)
        file = engine.path
        file.write_bytes(file.read_bytes()[:8192] + b"\xff" * (file.stat().st_size - 8192))
        held = _held(file)
        for _ in range(3):
            with pytest.raises((SpoolError, sqlite3.DatabaseError)):
                engine.reopen()
        assert _held(file) == held


def test_what_is_heavy_is_not_copied_for_good(tmp_path: Path) -> None:
    """A statement keeps what it was given last: one body, never those of a whole group."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    with closing(connecting.line(made(tmp_path))) as line:
        line.execute("CREATE TEMP TABLE sizes (size)")
        heavy = b"x" * 2_000_000
        before = resident()
        with line.begin():
            line.many("INSERT INTO sizes SELECT length(column1) FROM (VALUES (?))", [(heavy,)] * 64)
        assert resident() - before < 32_000_000
        assert line.all("SELECT count(*) AS n, sum(size) AS size FROM sizes") == [{"n": 64, "size": 128_000_000}]


@pytest.mark.parametrize("ending", ["", "-wal"])
def test_what_was_closed_for_good_can_be_finished(tmp_path: Path, ending: str) -> None:
    """Broken and not to be opened anew, its file or its log gone: the stop ends in order all the same."""
    made(tmp_path)
    engine = SQLite(tmp_path)
    with closing(engine):
        connection = engine.open()
        with connection.begin():
            connection.execute("UPDATE alembic_version SET version_num = version_num")
            engine.probe(connection)
        engine.committed(connection, 1)
        path = engine.path.with_name(f"{engine.path.name}{ending}")
        path.unlink()
        connection.close()
        engine.finish(connection)
