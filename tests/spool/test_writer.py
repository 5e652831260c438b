"""Group commit and its faults: durable before acknowledged, nobody pays for a neighbour, trouble is temporary."""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from gateway.model import SpoolUnavailable
from gateway.spool import connecting
from gateway.spool.sqlite import SQLite
from tests.builders import SENT
from tests.fakes import START
from tests.spool.test_open import ROOT, child
from tests.spool_kit import DEFERRED, At, foreign_lock, message, of, opened, peer, settlement, statements


async def test_who_comes_together_is_committed_together(at: At) -> None:
    """50 messages at once need two commits at most: the first to come, and all the others."""
    with statements() as seen:
        await asyncio.gather(*(at.put() for _ in range(50)))
    assert seen.count("COMMIT") in (1, 2)
    assert at.spool.counts() == {("b", "queued"): 50}
    claims = await at.claim()
    with statements() as seen:
        await asyncio.gather(*(at.spool.settle(settlement(claim)) for claim in claims))
    assert seen.count("COMMIT") in (1, 2)
    assert at.spool.counts() == {}


async def test_nobody_waits_for_the_log_to_be_copied(at: At, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is shortened behind the answers: with that hanging, whoever made it long has his all the same."""
    due, go_on, lengthy, shorten = threading.Event(), threading.Event(), SQLite.lengthy, SQLite.shorten

    def noting(engine: SQLite) -> bool:
        if found := lengthy(engine):
            due.set()
        return found

    def hanging(engine: SQLite, connection: Any) -> None:
        assert go_on.wait(30)
        shorten(engine, connection)

    monkeypatch.setattr(SQLite, "lengthy", noting)
    monkeypatch.setattr(SQLite, "shorten", hanging)
    try:
        while not due.is_set():
            await asyncio.wait_for(at.put(raw=b"x" * 30_000), 20)
    finally:
        go_on.set()
    log = tmp_path / "spool.db-wal"
    long = log.stat().st_size
    for _ in range(20):
        await at.put(raw=b"x" * 30_000)
    assert log.stat().st_size == long


async def test_one_that_fails_does_not_harm_its_neighbours(at: At) -> None:
    """Each of a failed group is tried alone: it is refused for now and reported as a bug, the others are stored."""
    taken = await at.put()
    ids = [f"N{n}" for n in range(20)]
    ids[7] = taken
    nowhere = message(deliveries={})
    puts = [*(at.spool.put(message(ident=ident)) for ident in ids), at.spool.put(nowhere)]
    answers = await asyncio.gather(*puts, return_exceptions=True)
    refused = [answer for answer in answers if answer is not None]
    assert [(str(answer), type(answer)) for answer in refused] == [
        ("the spool cannot be written, try again later", SpoolUnavailable)
    ] * 2
    assert {row.id for row in await at.spool.find()} == set(ids)
    assert at.spool.counts() == {("b", "queued"): 20}
    assert at.spool.writable()
    assert {line["error"] for line in at.logged("bug")} == {"IntegrityError", "KeyError"}


@pytest.mark.parametrize("seed", range(3))
async def test_cancelled_putters_disturb_nobody(at: At, seed: int) -> None:
    """Clients hang up in mid-commit: what was acknowledged is there, and the writer works on."""
    rng = random.Random(seed)
    acknowledged: set[str] = set()

    async def put() -> None:
        acknowledged.add(await at.put())

    tasks = [asyncio.create_task(put()) for _ in range(60)]
    for task in rng.sample(tasks, 30):
        await asyncio.sleep(rng.choice([0, 0, 0.0005]))
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    acknowledged.add(await at.put())
    assert acknowledged <= {row.id for row in await at.spool.find(limit=1000)}
    assert not at.logged("bug")


def counted(directory: Path) -> dict[tuple[str, str], int]:
    rows = peer(directory, "SELECT backend, state, count(*) FROM delivery WHERE state <> 'done' GROUP BY 1, 2")
    return {(backend, state): number for backend, state, number in rows}


async def test_counts_follow_the_rows(tmp_path: Path) -> None:
    """The counters in memory say what counting the rows would say, also after failed groups and a restart."""
    rng = random.Random(3)
    async with opened(tmp_path) as at:
        for turn in range(8):
            ids = [await at.put(backend=rng.choice("ab")) for _ in range(5)]
            claims = [claim for backend in "ab" for claim in await at.claim(backend, limit=3)]
            work: list[Any] = [at.spool.settle(settlement(c, rng.choice([SENT, DEFERRED]))) for c in claims]
            work += [at.spool.hold(of(ids[0]), START), at.spool.delete(of(ids[1]), START), at.put(ident=ids[2])]
            work += [at.put() for _ in range(turn)]
            await asyncio.gather(*work, return_exceptions=True)
            assert at.spool.counts() == counted(tmp_path)
        before = at.spool.counts()
    async with opened(tmp_path) as at:
        assert at.spool.counts() == before


async def test_what_is_damaged_is_counted_once(tmp_path: Path, at: At) -> None:
    """Found out by one backend while the other's delivery of the same message is settled, both in one group."""
    ident = await at.put("a@x.org", "b@x.org", deliveries={"b": ("a@x.org",), "c": ("b@x.org",)})
    good = await at.put(backend="d")
    (claim,) = await at.claim()
    peer(tmp_path, "UPDATE body SET raw = 'x' || raw WHERE message_id = ?", ident)
    with foreign_lock(tmp_path):
        work: list[asyncio.Future[Any]] = [asyncio.ensure_future(at.put(backend="d"))]
        work += [asyncio.ensure_future(at.spool.bodies([ident]))]
        for _ in range(5):  # by then it waits for the writer
            await at.spool.bodies([good])
        work += [asyncio.ensure_future(at.spool.settle(settlement(claim, DEFERRED)))]
        await asyncio.sleep(0)
    await asyncio.gather(*work)
    assert at.spool.counts() == counted(tmp_path) == {("b", "held"): 1, ("c", "held"): 1, ("d", "queued"): 2}


async def test_a_dead_writer_refuses_at_once_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits and who comes is refused for now, readiness is lost, the bug is reported; closing still works."""
    async with opened(tmp_path) as at:
        monkeypatch.setattr(at.events, "spool_written", lambda seconds: 1 / 0)
        answers = await asyncio.gather(*(at.put() for _ in range(3)), return_exceptions=True)
        assert {type(answer) for answer in answers} == {SpoolUnavailable}
        assert not at.spool.writable()
        with pytest.raises(SpoolUnavailable):
            await at.put()
        assert [line["error"] for line in at.logged("bug")] == ["ZeroDivisionError"]
    with pytest.raises(SpoolUnavailable):
        await at.put()


async def test_a_foreign_lock_is_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Someone holds a lock in the sqlite3 shell: unavailable after the busy time, and then it goes on."""
    monkeypatch.setattr(connecting, "BUSY", 50)
    async with opened(tmp_path) as at:
        with foreign_lock(tmp_path):
            with pytest.raises(SpoolUnavailable):
                await at.put()
            assert not at.spool.writable()
        await at.put()
        assert at.spool.writable()
        assert "locked" in at.logged("spool_error")[0]["detail"]


# -- real processes --------------------------------------------------------------------------------------------------

PUTTER = """
import asyncio, resource, sys
from pathlib import Path
from gateway.model import SpoolTrouble
from tests.spool_kit import message, opened
limit, number = int(sys.argv[2]), int(sys.argv[3])
def say(text):
    sys.stdout.write(text + "\\n")
    sys.stdout.flush()
async def put(at, ident):
    try:
        await at.spool.put(message(ident=ident, raw=b"x" * 20_000))
    except SpoolTrouble as trouble:
        say(f"refused {type(trouble).__name__}")
    else:
        say(f"stored {ident}")
async def main():
    async with opened(Path(sys.argv[1])) as at:
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        for n in range(number):
            await asyncio.gather(*(put(at, f"P{n}.{k}") for k in range(1 if number < 100 else 5)))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await put(at, "last")
        say(f"writable {at.spool.writable()}")
asyncio.run(main())
"""


async def stored(directory: Path) -> set[str]:
    async with opened(directory) as at:
        ids = {row.id for row in await at.spool.find(limit=100_000)}
        assert (await at.spool.bodies(list(ids))).keys() == ids
        return ids


async def test_a_file_size_limit_is_temporary(tmp_path: Path) -> None:
    """A write that fails (EFBIG) is rolled back whole: temporary; when the limit is lifted the same process goes on."""
    with child(PUTTER, tmp_path, 1_000_000, 80) as putter:
        output, _ = putter.communicate()
    assert set(re.findall(r"refused (\w+)", output)) == {"SpoolUnavailable"}
    assert output.endswith("stored last\nwritable True\n")
    assert {line.split()[1] for line in output.splitlines() if line.startswith("stored")} == await stored(tmp_path)


def traced(directory: Path, log: Path, *options: str) -> str:
    """What the putter said, with the kernel's record of its system calls in ``log``."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    strace = ["strace", "--seccomp-bpf", "-f", "-qq", "-y", "-o", str(log), *options]
    given = [*strace, sys.executable, "-c", PUTTER, str(directory), "0", "8"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(given, capture_output=True, text=True, check=False, env=environ)
    if "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    return done.stdout


def syncs(log: Path) -> list[str]:
    """Of the record: ``written`` and ``synced`` for the spool's log, ``stored`` for acknowledgements."""
    found = []
    for line in log.read_text().splitlines():
        if re.search(r"pwrite64\(\d+<.*spool\.db-wal>", line):
            found.append("written")
        elif re.search(r"fdatasync\(\d+<.*> *\) += 0|fdatasync resumed.* = 0", line):
            found.append("synced")
        elif re.search(r'write\(1<.*"stored ', line):
            found.append("stored")
    return found


async def test_nothing_is_acknowledged_before_it_is_synced(tmp_path: Path) -> None:
    """The kernel's own record: before each acknowledgement the log was written, then synced (design: promise 1)."""
    log = tmp_path / "strace"
    traced(tmp_path / "s", log, "-e", "trace=fdatasync,pwrite64,write")
    found = syncs(log)
    assert found.count("stored") == 9
    for place in (n for n, step in enumerate(found) if step == "stored"):
        before = found[:place]
        last = max((n for n, step in enumerate(before) if step == "stored"), default=0)
        assert before[-1] == "synced"
        assert "written" in before[last:]


async def test_a_failed_sync_is_no_acknowledgement(tmp_path: Path) -> None:
    """EIO: refused, the file is opened anew and looked through, mail goes on, and what was acknowledged is there."""
    log = tmp_path / "strace"
    traced(tmp_path / "whole", log, "-e", "trace=fdatasync,write")
    found = syncs(log)
    third = found[: [n for n, step in enumerate(found) if step == "stored"][2]].count("synced")
    inject = f"inject=fdatasync:error=EIO:when={third}"
    output = traced(tmp_path / "failing", log, "-e", "trace=fdatasync", "-e", inject)
    said = output.splitlines()
    assert said[:4] == ["stored P0.0", "stored P1.0", "refused SpoolUnavailable", "stored P3.0"]
    assert said[-1] == "writable True"
    acknowledged = {line.split()[1] for line in said if line.startswith("stored")}
    assert len(acknowledged) == 8
    assert acknowledged <= await stored(tmp_path / "failing")
