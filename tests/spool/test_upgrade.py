"""A spool of any older version, also a large one, goes on under today's: all is there, and people see how far it is."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.spool import Filter, SpoolError, opening
from gateway.spool.records import micros
from tests.fakes import START, FakeClock
from tests.spool.test_open import child
from tests.spool.test_schema import HEAD, UPGRADE, later_than, newer_code, of_old
from tests.spool_kit import opened, peer

OLDER = [f"{number:04}" for number in range(1, 10)]  # what came later changed no row
# Message n by its rest modulo 10: 0 to 5 were sent, 6 failed, 7 waits, 8 is held, and of 9 an attempt is under way.
# Every 5th went by two backends.
_FILL = """
CREATE TEMP TABLE number AS
    WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < :count)
    SELECT n, printf('0M%011d', n) AS id,
        CASE WHEN n % 10 < 6 THEN 'done' WHEN n % 10 = 6 THEN 'failed' WHEN n % 10 = 8 THEN 'held' ELSE 'queued' END
        AS state FROM n;
INSERT INTO message (id, state, sender, sender_key, message_id, header_from, client, login, listener, peer, pin, ret,
    envid, smtputf8, eightbit, bounce, delay_notified, has_body, size, checksum, received_at, expires_at, finished_at)
SELECT id, state, 's' || (n % 9) || '@x', 's' || (n % 9) || '@x', '<' || n || '@x>', 'a@x', 'c', '', '', '', '', '', '',
    0, 0, 0, 0, 0, 9, 9, :now + n, :later, CASE WHEN state IN ('done', 'failed') THEN :now + n END FROM number;
INSERT INTO recipient (message_id, address, n, key, backend, state, notify, orcpt, verdict, code, enhanced, detail,
    remote_id, updated_at)
SELECT id, 'r' || n || '@y', 0, 'r' || n || '@y', 'b' || (n % 3),
    CASE state WHEN 'done' THEN 'sent' ELSE state END, '', '', '', NULL, '', '', '', :now FROM number;
INSERT INTO delivery (id, message_id, backend, state, next_attempt_at, received_at, attempts, sticky, in_doubt)
SELECT n, id, 'b' || (n % 3), CASE state WHEN 'failed' THEN 'done' ELSE state END, :now + n, :now + n, n % 4,
    n % 7 = 0, 0 FROM number;
INSERT INTO delivery (id, message_id, backend, state, next_attempt_at, received_at, attempts, sticky, in_doubt)
SELECT :count + n, id, 'a', 'done', :now, :now + n, 1, 0, 0 FROM number WHERE n % 5 = 0;
INSERT INTO attempt (id, message_id, delivery_id, backend, addresses, started_at, ended_at, verdict, code, enhanced,
    detail, remote_id)
SELECT n, id, n, 'b' || (n % 3), '["r' || n || '@y"]', :now + n, CASE WHEN n % 10 <> 9 THEN :now + n + 1 END,
    CASE WHEN n % 10 = 9 THEN '' ELSE 'sent' END, NULL, '', '', CASE WHEN n % 10 = 9 THEN '' ELSE 'remote' || n END
FROM number WHERE n % 10 <> 7;
DROP TABLE number
"""
_COUNTS = """
SELECT 'delivery', backend, state, count(*), sum(next_attempt_at % 1000003), sum(attempts) FROM delivery GROUP BY 2, 3
UNION ALL SELECT 'message', '', state, count(*), sum(received_at % 1000003), sum(size) FROM message GROUP BY 3
UNION ALL SELECT 'attempt', backend, verdict, count(*), sum(started_at % 1000003), sum(id) FROM attempt GROUP BY 2, 3
UNION ALL SELECT 'open', '', '', count(*), sum(started_at % 1000003), sum(id) FROM attempt WHERE ended_at IS NULL
ORDER BY 1, 2, 3"""


def older(directory: Path, revision: str, count: int) -> Path:
    """A spool as the version with this schema made it, with so many messages."""
    state, scripts = directory / "state", directory / "then"
    shutil.copytree(opening.MIGRATIONS, scripts, ignore=later_than(revision))
    state.mkdir()
    with pytest.MonkeyPatch.context() as then:
        then.setattr(opening, "MIGRATIONS", scripts)
        of_old(state)
    with closing(sqlite3.connect(state / "spool.db")) as file, file:
        given = {"now": micros(START), "later": micros(START + timedelta(days=5)), "count": count}
        for statement in _FILL.split(";"):
            file.execute(statement, {name: given[name] for name in given if f":{name}" in statement})
    return state


def counted(state: Path) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    return {row[:3]: row[3:] for row in peer(state, _COUNTS)}


@pytest.mark.parametrize("revision", OLDER)
async def test_nothing_is_lost_from_any_older_spool(tmp_path: Path, revision: str) -> None:
    """What waited waits, what was under way was interrupted and is due, each attempt stands where it did."""
    await upgraded(older(tmp_path, revision, 100), 100)


@pytest.mark.slow
@pytest.mark.parametrize("revision", [OLDER[-1], OLDER[0]])
async def test_nothing_is_lost_from_a_large_spool(tmp_path: Path, revision: str) -> None:
    """100,000 messages. A kill at the end of the upgrade leaves the spool as it was; then it is upgraded."""
    state = older(tmp_path, revision, 100_000)
    before = counted(state)
    with child(UPGRADE, state, newer_code(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")) as upgrade:
        assert upgrade.wait() == -9
    assert peer(state, "SELECT version_num FROM alembic_version") == [(revision,)]
    assert counted(state) == before
    await upgraded(state, 100_000)


async def upgraded(state: Path, count: int) -> None:
    before = counted(state)
    async with opened(state) as at:
        after = counted(state)
        kept = [key for key in before if key[0] != "open" and key[2] not in ("", "queued")]
        assert {key: after[key] for key in kept} == {key: before[key] for key in kept}
        assert after["open", "", ""] == (0, None, None)
        lost = {key[1]: row for key, row in after.items() if key[2] == "interrupted"}
        assert lost == {key[1]: row for key, row in before.items() if key[0] == "attempt" and key[2] == ""}
        for backend in ("b0", "b1", "b2"):
            there = before["delivery", backend, "queued"][0]
            assert at.spool.counts()[backend, "queued"] == after["delivery", backend, "queued"][0] == there
            now = START + timedelta(hours=1)
            claims = await at.claim(backend, now=now, limit=count)
            assert len(claims) == there
            assert min(claim.attempt_id for claim in claims) > count
            assert {claim.message.doubtful for claim in claims if claim.message.id.endswith("9")} == {True}
        detail = await at.show("0M00000000005")
        assert [(row.backend, row.state) for row in detail.deliveries] == [("b2", "done"), ("a", "done")]
        assert [(row.backend, row.recipients, row.remote_id) for row in detail.attempts] == [
            ("b2", ("r5@y",), "remote5")
        ]
        assert [row.id for row in await at.spool.find(Filter(remote_id="remote5"))] == ["0M00000000005"]
    assert peer(state, "PRAGMA integrity_check") == [("ok",)]


class Hurried(FakeClock):
    """Whenever somebody looks, six seconds have passed."""

    def monotonic(self) -> float:
        self.advance(6)
        return super().monotonic()


async def test_people_see_how_far_an_upgrade_is(tmp_path: Path) -> None:
    """A line at its start, one every few seconds with the per cent, one at its end."""
    state = older(tmp_path, OLDER[-1], 9000)
    async with opened(state, clock=Hurried()) as at:
        (begun,), (ended,) = at.logged("spool_upgrade"), at.logged("spool_upgraded")
        assert (begun["schema"], begun["to"], ended["schema"]) == (OLDER[-1], HEAD, HEAD)
        assert begun["bytes"] > 1_000_000
        for doing in ("looking it through", "changing it"):
            shares = [line["percent"] for line in at.logged("spool_upgrading") if line["doing"] == doing]
            assert shares == sorted(shares)
            assert 0 < shares[0] < shares[-1] < 100
    async with opened(state) as at:
        assert not at.logged("spool_upgrade")  # there is nothing to do


async def test_no_room_is_said_and_costs_nothing(tmp_path: Path) -> None:
    """On a disk that is too small for it the spool stays as it was, and the refusal says what it takes."""
    there = older(tmp_path, OLDER[-1], 9000)
    size = (there / "spool.db").stat().st_size
    where = tmp_path / "disk"
    where.mkdir()
    given = f"size={size + 400_000}"
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", given, "tmpfs", where], capture_output=True, check=False
    ).returncode:
        pytest.skip("cannot mount a tmpfs here")
    try:
        shutil.copy(there / "spool.db", where)
        with pytest.raises(
            SpoolError, match=f"as it was: there is no room for its upgrade, which may need {size} bytes"
        ):
            async with opened(where):
                pass
        assert peer(where, "SELECT version_num FROM alembic_version") == [(OLDER[-1],)]
        assert counted(where) == counted(there)
    finally:
        subprocess.run(["umount", "-l", where], check=True)
