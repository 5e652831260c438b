"""Two instances on one queue, each of them a real process: one is stopped, and then killed, while mail comes in. The
other failures, and longer ones, are in test_drills.py."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.flow.instances import CONCURRENCY, cast


def test_an_instance_that_stops_and_one_that_is_killed(tmp_path: Path) -> None:
    """An upgrade, one after the other: nothing comes twice, and the other takes over at once. Killed, what was on the
    wire is sent again, later, and nothing else. Nothing is lost, and nobody is refused what was stored."""
    with cast(tmp_path, "a", "b") as at:
        at.shared_out()
        at.feed(pause=0.2)
        at.wait(lambda: len(at.sink.answered) > 10)
        owner = at.owners()["box"]
        assert at.gateways[owner].stop() == 0
        at.wait(lambda: at.moved_from(owner))
        at.gateways[owner].start()
        at.shared_out()
        assert at.sink.twice == set()
        owner = at.owners()["up"]
        killed = time.monotonic()
        at.gateways[owner].kill()
        at.wait(lambda: at.moved_from(owner))
        at.wait(lambda: at.logged("instance_buried"), at.grace + 20)
        assert at.end()
        assert at.sink.twice <= at.sink.on_the_wire(killed)
        assert len(at.sink.twice) <= CONCURRENCY


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
