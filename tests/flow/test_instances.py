"""Several instances on one queue, each of them a real process: whatever fails, no accepted mail is lost, and only what
was on the wire at that moment may come twice."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.flow.instances import CONCURRENCY, FAILOVER, GRACE, cast


def test_an_instance_that_stops_hands_its_backends_over(tmp_path: Path) -> None:
    """An upgrade, one after the other: nothing is lost, nothing comes twice, and the other takes over at once."""
    with cast(tmp_path, "a", "b") as at:
        at.shared_out()
        at.feed()
        at.wait(lambda: len(at.sink.answered) > 10)
        owner = at.owners()["box"]
        assert at.gateways[owner].stop() == 0
        at.wait(lambda: owner not in at.owners().values() and len(at.owners()) == 2)
        at.gateways[owner].start()
        at.shared_out()
        assert at.end()
        assert at.sink.twice == set()


def test_an_instance_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    """Its backends are worked on by the other at once; what was on the wire is sent again, later, and nothing else."""
    with cast(tmp_path, "a", "b", latency=0.5) as at:
        at.shared_out()
        at.feed()
        at.wait(lambda: len(at.sink.answered) > 10)
        owner = at.owners()["box"]
        killed = time.monotonic()
        at.gateways[owner].kill()
        at.wait(lambda: at.logged("instance_buried"), GRACE + 20)
        assert at.end()
        assert at.sink.twice <= at.sink.on_the_wire(killed)
        assert len(at.sink.twice) <= 2 * CONCURRENCY
        assert at.owners().keys() == {"up", "box"}


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.5 * GRACE, 2.5 * GRACE])
def test_an_instance_that_is_frozen_and_wakes_up(tmp_path: Path, seconds: float) -> None:
    """Before it is taken for dead: nothing comes twice. After that: what was on the wire as it froze."""
    with cast(tmp_path, "a", "b", latency=0.5) as at:
        at.shared_out()
        at.feed()
        at.wait(lambda: len(at.sink.answered) > 10)
        owner = at.owners()["box"]
        frozen = time.monotonic()
        at.gateways[owner].signal(signal.SIGSTOP)
        at.wait(lambda: owner not in at.owners().values() and len(at.owners()) == 2, FAILOVER + 20)
        time.sleep(max(0.0, frozen + seconds - time.monotonic()))
        at.gateways[owner].signal(signal.SIGCONT)
        at.shared_out()
        assert at.end()
        assert at.sink.twice <= (set() if seconds < GRACE else at.sink.on_the_wire(frozen))


@pytest.mark.slow
@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("away", [0.0, 20.0])
def test_a_database_that_starts_anew(tmp_path: Path, crash: bool, away: float) -> None:
    """A restart, a crash, and a long outage: nothing is lost, nothing comes twice, all instances are there again."""
    with cast(tmp_path, "a", "b") as at:
        at.shared_out()
        at.feed()
        at.wait(lambda: len(at.sink.answered) > 10)
        at.server.crash() if crash else at.server.stop()
        time.sleep(away)
        at.server.start()
        at.shared_out()
        assert at.end(150)
        assert at.sink.twice == set()


@pytest.mark.slow
def test_sessions_that_are_cut_again_and_again(tmp_path: Path) -> None:
    """By a firewall or an administrator, under load: nobody is refused mail that is stored, and none comes twice."""
    with cast(tmp_path, "a", "b") as at:
        at.shared_out()
        at.feed()
        for _ in range(20):
            at.server.cut("spool")
            time.sleep(0.5)
        accepted = at.end(150)
        assert accepted >= at.sink.came.keys()
        assert at.sink.twice == set()


@pytest.mark.slow
def test_three_instances_of_which_one_is_killed_every_ten_seconds(tmp_path: Path) -> None:
    """10,000 messages under load, an instance killed every 10 s and started again: lost 0."""
    with cast(tmp_path, "a", "b", "c", latency=0.05) as at:
        at.feed(6, most=1667, pause=0.0)
        victims, killed = ["a", "b", "c"], []
        while any(client.is_alive() for client in at.clients):
            time.sleep(10)
            victim = victims[len(killed) % 3]
            killed.append(time.monotonic())
            at.gateways[victim].kill()
            time.sleep(1)
            at.gateways[victim].start()
        accepted = at.end(300)
        assert len(accepted) == 6 * 1667
        wire = set().union(*(at.sink.on_the_wire(moment) for moment in killed))
        print(f"{len(killed)} kills, {len(at.sink.twice)} twice, longest gap {at.sink.longest_gap():.1f} s")
        assert at.sink.twice <= wire


@pytest.mark.slow
def test_a_rate_holds_however_many_instances_there_are(tmp_path: Path) -> None:
    """``rate: 20/second`` is of the backend, not of an instance."""
    with cast(tmp_path, "a", "b", latency=0.0, extra=", rate: 20/second") as at:
        at.shared_out()
        at.feed(6, pause=0.0)
        at.wait(lambda: len(at.sink.answered) > 100)
        began = time.monotonic()
        time.sleep(10)
        assert 25 <= at.sink.rate(began, began + 10) <= 43  # of two backends
        for client in at.clients:
            client.over.set()
