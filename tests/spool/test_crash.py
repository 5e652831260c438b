"""What survives: SIGKILL in mid-load, a torn tail of the log, a copy taken at any moment."""

from __future__ import annotations

import os
import random
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from tests.builders import RAW
from tests.fakes import START
from tests.spool.test_open import child
from tests.spool_kit import LEASE, of, opened


def body(ident: str) -> bytes:
    """1 KiB to 1 MiB, another for each; a fifth of them is large."""
    rng = random.Random(ident)
    size = 1024 << rng.randrange(11) if rng.random() < 0.2 else 1024
    return ident.encode() + rng.randbytes(64) * (size // 64)


LOAD = """
import asyncio, sys
from pathlib import Path
from tests.spool.test_crash import body
from tests.builders import SENT
from tests.spool_kit import START, opened, settlement, message
async def main():
    async with opened(Path(sys.argv[1])) as at:
        names = iter(range(1_000_000))
        async def put():
            for n in names:
                ident = f"{sys.argv[2]}.{n:06d}"
                await at.put(ident=ident, raw=body(ident))
                sys.stdout.write(f"stored {ident}\\n")
                sys.stdout.flush()
        async def send():
            while True:
                for claim in await at.claim(limit=20):
                    sys.stdout.write(f"begun {claim.message.id}\\n")
                    sys.stdout.flush()
                    await at.spool.settle(settlement(claim))
                    sys.stdout.write(f"sent {claim.message.id}\\n")
                    sys.stdout.flush()
        await asyncio.gather(*(put() for _ in range(20)), send(), send())
asyncio.run(main())
"""


async def kill_and_look(directory: Path, name: str, lines: int) -> tuple[int, int]:
    """Kill a process in mid-load once it has said so much, open what it left, and compare with what it said."""
    with child(LOAD, directory, name) as load:
        assert load.stdout is not None
        said = [load.stdout.readline() for _ in range(lines)]
        load.kill()
        said += load.stdout.readlines()
    words = [line.split() for line in said if line.endswith("\n")]
    acknowledged = {ident for word, ident in words if word == "stored"}
    sent = {ident for word, ident in words if word == "sent"}
    begun = {ident for word, ident in words if word == "begun"}
    async with opened(directory) as at:
        rows = {row.id: row for row in await at.spool.find(limit=1_000_000) if row.id.startswith(name)}
        assert acknowledged <= rows.keys()
        assert {ident for ident in sent if rows[ident].state != "done"} == set()
        queued = {ident for ident, row in rows.items() if row.state == "queued"}
        assert at.spool.counts().get(("b", "queued"), 0) == len(queued)
        claims = await at.claim(limit=1_000_000)
        assert {claim.message.id for claim in claims} == queued  # also what was under way: due at once, and sticky
        interrupted = {claim.message.id for claim in claims if claim.sticky}
        assert begun & queued <= interrupted
        found = await at.spool.bodies(sorted(queued))
        assert found.keys() == queued
        assert [ident for ident, raw in found.items() if raw != body(ident)] == []
        flow = await at.spool.flow(START, 24, timedelta(hours=1))
        assert (flow.before, flow.waiting["queued"]) == (0, len(queued))  # counted in the commit of what is counted
        assert flow.total.accepted >= len(acknowledged)
        await at.spool.delete(of(*rows), START)
    return len(acknowledged), len(interrupted)


@pytest.mark.parametrize("lines", [1, 200, 900])
async def test_nothing_acknowledged_is_lost_by_a_kill(tmp_path: Path, lines: int) -> None:
    """Every acknowledged message is there, what was settled is done, what was under way is shown as interrupted."""
    acknowledged, _ = await kill_and_look(tmp_path, "K", lines)
    assert acknowledged


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_nothing_acknowledged_is_lost_by_many_kills(tmp_path: Path) -> None:
    """200 kills at random moments of one spool's life."""
    rng = random.Random(7)
    found = [await kill_and_look(tmp_path, f"K{turn:03d}", rng.randrange(1, 400)) for turn in range(200)]
    assert sum(acknowledged for acknowledged, _ in found) > 5_000
    assert any(interrupted for _, interrupted in found)


async def test_an_interrupted_attempt_is_shown_and_waits_longer_each_time(tmp_path: Path) -> None:
    """A message that kills the process cannot do so in a loop: due at once, then after one minute, then two."""
    async with opened(tmp_path) as at:
        ident = await at.put()
        await at.claim()
    for minutes in (0, 1, 2):
        async with opened(tmp_path) as at:
            detail = await at.show(ident)
            assert {row.verdict for row in detail.attempts} == {"interrupted"}
            due = await at.spool.due("b")
            assert due is not None
            assert (due - START).total_seconds() == 60 * minutes
            (claim,) = await at.claim(now=due)
            assert (claim.sticky, claim.in_doubt) == (True, minutes + 1)


@pytest.mark.parametrize("seed", range(4))
async def test_a_torn_tail_of_the_log_is_dropped(tmp_path: Path, seed: int) -> None:
    """The machine dies in mid-write: of the log only what was synced counts, all of which was acknowledged."""
    rng = random.Random(seed)
    torn = tmp_path / "torn"
    torn.mkdir()
    async with opened(tmp_path / "live") as at:
        acknowledged = {await at.put() for _ in range(10)}
        log = tmp_path / "live" / "spool.db-wal"
        synced = log.stat().st_size
        await at.put()
        for name in ("spool.db", "spool.db-wal"):
            shutil.copy(tmp_path / "live" / name, torn / name)
    tail = (torn / "spool.db-wal").stat().st_size - synced
    assert tail > 0
    with (torn / "spool.db-wal").open("r+b") as file:
        file.truncate(synced + rng.randrange(tail))
        file.seek(0, os.SEEK_END)
        file.write(rng.randbytes(rng.randrange(9000)))
    async with opened(torn) as at:
        assert acknowledged <= {row.id for row in await at.spool.find()}
        await at.put()


async def test_a_copy_taken_at_any_moment_opens(tmp_path: Path) -> None:
    """File and log copied between two commits, with checkpoints going on: nothing acknowledged is missing."""
    async with opened(tmp_path / "live") as at:
        acknowledged: set[str] = set()
        for turn in range(6):
            acknowledged |= {await at.put(raw=RAW * 2000) for _ in range(12)}
            copy = tmp_path / str(turn)
            copy.mkdir()
            for name in ("spool.db", "spool.db-wal"):
                shutil.copy(tmp_path / "live" / name, copy / name)
            shutil.copytree(tmp_path / "live" / "bodies", copy / "bodies")
            async with opened(copy) as other:
                assert {row.id for row in await other.spool.find()} == acknowledged
                assert len(await other.spool.bodies(sorted(acknowledged))) == len(acknowledged)


async def test_whom_an_interrupted_attempt_was_for_is_told_to_the_next(tmp_path: Path) -> None:
    """Also when somebody has joined since: a provider with idempotency keys must get the same call again."""
    async with opened(tmp_path) as at:
        ident = await at.put(
            "a@example.org", "b@example.org", deliveries={"b": ("a@example.org",), "c": ("b@example.org",)}
        )
        [claim] = await at.claim()
        assert claim.message.interrupted == ()
    async with opened(tmp_path) as at:  # nobody settled it: that process is gone
        [other] = await at.waiting("c")
        await at.spool.move([other.delivery_id], "b", START)
        [claim] = await at.claim(now=START + LEASE)
        assert (claim.message.id, claim.message.interrupted) == (ident, ("a@example.org",))
        assert {one.address for one in claim.message.envelope.recipients} == {"a@example.org", "b@example.org"}
