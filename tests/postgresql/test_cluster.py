"""Instances that are frozen, killed and cut off, by the machine's own time: nobody ever works what another works."""

from __future__ import annotations

import asyncio
import random
import signal
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from tests import postgres_kit
from tests.fakes import until
from tests.postgresql.member_kit import BACKENDS, cluster, make
from tests.postgresql.member_process import Process, process
from tests.postgresql.proxy import proxy

_SECOND = timedelta(seconds=1)
_APART = 0.2  # seconds without a word end a run: a process says each 0.01 what it has


async def test_what_a_frozen_process_worked_moves_and_it_begins_nothing_when_it_wakes(tmp_path: Path) -> None:
    """The kernel keeps its connection up: the server ends the session."""
    async with cluster(failover=_SECOND) as here:
        with process(here.url, "z", 1, tmp_path) as frozen:
            await until(lambda: frozen.owned == sorted(BACKENDS))
            other = await here.join("b")
            await here.settled(b=2)
            frozen.popen.send_signal(signal.SIGSTOP)
            await here.settled(b=BACKENDS)
            assert other.buried == []
            before = len(frozen.said)
            frozen.popen.send_signal(signal.SIGCONT)
            await until(lambda: len(frozen.said) > before)
            assert (awake := frozen.said[before])["slept"] > 0.5
            assert (awake["valid"], awake["owned"]) == (False, [])
            await here.settled(b=2)
            await until(lambda: len(frozen.owned) == 2)
            assert other.buried == []


@pytest.mark.slow
async def test_who_was_buried_while_it_was_frozen_joins_anew(tmp_path: Path) -> None:
    async with cluster(failover=2 * _SECOND) as here:
        with process(here.url, "z", 2, tmp_path) as frozen:
            await until(lambda: frozen.owned == sorted(BACKENDS))
            other = await here.join("b")
            await here.settled(b=2)
            frozen.popen.send_signal(signal.SIGSTOP)
            began = time.monotonic()
            await here.settled(b=BACKENDS)
            moved = time.monotonic() - began
            await until(lambda: bool(other.buried))
            print(f"moved after {moved:.2f} s, buried after {time.monotonic() - began:.2f} s")
            third = await here.join("c")
            assert third.member.number == frozen.said[-1]["number"]  # it was free again
            frozen.popen.send_signal(signal.SIGCONT)
            await until(lambda: frozen.said[-1]["anew"] and len(frozen.owned) > 0)
            assert frozen.said[-1]["number"] not in {other.member.number, third.member.number}
            await until(lambda: len(frozen.owned) + sum(map(len, here.owners().values())) == len(BACKENDS))


async def test_a_server_that_starts_anew_is_found_again() -> None:
    """Stopped and crashed: all have nothing while it is away, and share again; nobody is taken for dead."""
    with postgres_kit.cluster(fsync="off", autovacuum="off") as server:
        make(server.url("postgres"))
        async with cluster(failover=_SECOND, url=server.url("postgres")) as here:
            parties = [await here.join("a"), await here.join("b")]
            for end in (server.stop, server.crash):
                await here.settled(a=2, b=2)
                end()
                await until(lambda: not any(party.member.valid() for party in parties))
                assert here.owners() == {"a": [], "b": []}
                server.start()
            await here.settled(a=2, b=2)
            assert [party.buried for party in parties] == [[], []]


async def test_a_line_that_is_swallowed_is_given_up_before_others_have_what_was_worked_by_it() -> None:
    """Nothing ends it on either side: both go by their own time (``settled`` looks each millisecond)."""
    own = postgres_kit.shared().folder
    async with cluster(failover=_SECOND) as here:
        with tempfile.TemporaryDirectory() as folder, proxy(Path(folder), own) as broken:
            cut = await here.join("a", url=here.url.replace(str(own), folder))
            await here.join("b")
            await here.settled(a=2, b=2)
            broken.swallows = True
            await here.settled(a=0, b=BACKENDS)
            broken.swallows = False
            await here.settled(a=2, b=2)
            assert "no answer within" in cut.logged("session_lost")[0]["detail"]
            await cut.member.aclose()


def overlaps(processes: Iterable[Process]) -> list[str]:
    """Where two had the same backend at the same time."""
    runs: dict[str, list[tuple[float, float, str]]] = {}
    for one in processes:
        since: dict[str, tuple[float, float]] = {}
        for said in one.said:
            for backend in said["owned"]:
                first, last = since.get(backend, (said["at"], said["at"]))
                if said["at"] - last > _APART:
                    runs.setdefault(backend, []).append((first, last, one.name))
                    first = said["at"]
                since[backend] = (first, said["at"])
            for backend in since.keys() - set(said["owned"]):
                runs.setdefault(backend, []).append((*since.pop(backend), one.name))
        for backend, (first, last) in since.items():
            runs.setdefault(backend, []).append((first, last, one.name))
    found = []
    for backend, each in runs.items():
        ordered = sorted(each)
        found += [
            f"{backend}: {one} {other}" for one, other in pairwise(ordered) if other[0] <= one[1] and one[2] != other[2]
        ]
    return found


@pytest.mark.slow
async def test_three_that_are_frozen_killed_and_cut_all_the_time_never_have_the_same(tmp_path: Path) -> None:
    """And in the end all is worked again."""
    rng, every = random.Random(12), []
    async with cluster(failover=_SECOND) as here:
        with ExitStack() as parts:
            alive = {name: parts.enter_context(process(here.url, name, 1, tmp_path)) for name in "xyz"}
            every += alive.values()
            await until(lambda: sorted(name for one in alive.values() for name in one.owned) == sorted(BACKENDS))
            for _ in range(15):
                name = rng.choice("xyz")
                match rng.choice(("freeze", "freeze", "kill", "cut")):
                    case "freeze":
                        alive[name].popen.send_signal(signal.SIGSTOP)
                        await asyncio.sleep(rng.uniform(0.5, 4))
                        alive[name].popen.send_signal(signal.SIGCONT)
                    case "kill":
                        alive[name].popen.kill()
                        alive[name].popen.wait()
                        alive[name] = parts.enter_context(process(here.url, name, 1, tmp_path))
                        every.append(alive[name])
                    case "cut":
                        postgres_kit.shared().cut(here.database)
                await asyncio.sleep(rng.uniform(0, 2))
            await until(lambda: sorted(name for one in alive.values() for name in one.owned) == sorted(BACKENDS))
        assert len([said for one in every for said in one.said if said["owned"]]) > 1000
        assert overlaps(every) == []
