"""What docs/cluster.md says of each failure, with real processes and a durable PostgreSQL, under load: nothing that was
accepted is lost or hangs, and only what was on the wire at that moment may come twice.

``pytest -s -m slow -k 10s tests/flow/test_drills.py`` prints the figures of its table.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.flow.instances import CONCURRENCY, Cast, cast
from tests.flow.test_clock import LIBRARY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.parametrize("failover", [2.0, 10.0], ids=["2s", "10s"]),
]


class Drill:
    """Mail comes in at about 30 a second, most of it at the one that lives on, while something befalls ``owner``."""

    def __init__(self, at: Cast) -> None:
        self.at = at
        at.shared_out()
        self.owner = at.owners()["box"]
        (self.other,) = at.gateways.keys() - {self.owner}
        at.feed(2, at=[self.other], pause=0.05)
        at.feed(1, at=[self.owner], pause=0.1)
        at.wait(lambda: len(at.sink.answered) > 60)
        self.began = time.monotonic()

    def for_(self, seconds: float) -> None:
        """Since it began."""
        time.sleep(max(0.0, self.began + seconds - time.monotonic()))

    def over(self, what: str, *, settle: float = 2.0) -> set[str]:
        """Let some more mail come, look whether all of it arrives, and print the figures; returns what came twice."""
        time.sleep(settle)
        accepted = self.at.end(self.at.grace + 180)
        sink = self.at.sink
        again = [times[1] - self.began for times in sink.came.values() if len(times) > 1]
        refused = [one for client in self.at.clients for one in client.refused]
        doubled = {one.split()[0] for one in refused} & sink.came.keys()
        print(
            f"\n{what}, failover {self.at.failover:g} s: {len(accepted)} accepted, {len(refused)} refused, "
            f"{len(doubled)} refused and sent, lost 0, {len(sink.twice)} twice"
            + (f" (again after {min(again):.1f} to {max(again):.1f} s)" if again else "")
            + f", gap {sink.gap('box', self.began):.1f} s, of the other backend {sink.gap('up', self.began):.1f} s, "
            f"load {os.getloadavg()[0]:.1f}"
        )
        for line in sorted({one.partition(" ")[2] for one in refused})[:3]:
            print("   ", line)
        return sink.twice


def test_stopped(tmp_path: Path, failover: float) -> None:
    with cast(tmp_path, "a", "b", failover=failover) as at:
        drill = Drill(at)
        assert at.gateways[drill.owner].stop() == 0
        at.wait(lambda: at.moved_from(drill.owner))
        assert not drill.over("SIGTERM")


def test_killed(tmp_path: Path, failover: float) -> None:
    with cast(tmp_path, "a", "b", failover=failover) as at:
        drill = Drill(at)
        at.gateways[drill.owner].kill()
        at.wait(lambda: at.logged("instance_buried"), at.grace + 20)
        assert drill.over("kill -9") <= at.sink.on_the_wire(drill.began)


def test_killed_and_started_at_once(tmp_path: Path, failover: float) -> None:
    with cast(tmp_path, "a", "b", failover=failover) as at:
        drill = Drill(at)
        at.gateways[drill.owner].kill()
        at.gateways[drill.owner].start()
        assert drill.over("kill -9 and started") <= at.sink.on_the_wire(drill.began)


@pytest.mark.parametrize("times", [2.2, 4.5])
def test_frozen(tmp_path: Path, failover: float, times: float) -> None:
    """Before it is buried, and after."""
    with cast(tmp_path, "a", "b", failover=failover) as at:
        drill = Drill(at)
        at.gateways[drill.owner].signal(signal.SIGSTOP)
        drill.for_(times * failover)
        at.gateways[drill.owner].signal(signal.SIGCONT)
        at.shared_out()
        twice = drill.over(f"SIGSTOP for {times * failover:g} s")
        assert twice <= (at.sink.on_the_wire(drill.began) if times > 3 else set())


@pytest.mark.parametrize("times", [2.5, 5.0])
def test_swallowed(tmp_path: Path, failover: float, times: float) -> None:
    """All that its connections to the database carry is lost, and neither side is told."""
    with cast(tmp_path, "a", "b", failover=failover, proxied=True) as at:
        drill = Drill(at)
        at.proxies[drill.owner].swallow_for(times * failover, gone=failover)
        at.shared_out()
        twice = drill.over(f"TCP swallowed for {times * failover:g} s")
        assert twice <= (at.sink.on_the_wire(drill.began) if times > 3 else set())


def _crash(at: Cast) -> None:
    at.server.crash()
    at.server.start()


@pytest.mark.parametrize(
    ("what", "befalls"),
    [
        ("all sessions ended", lambda at: at.server.cut("spool")),
        ("database restarted", lambda at: at.server.restart()),
        ("database crashed", _crash),
    ],
)
def test_database(tmp_path: Path, failover: float, what: str, befalls: Callable[[Cast], object]) -> None:
    with cast(tmp_path, "a", "b", failover=failover) as at:
        drill = Drill(at)
        befalls(at)
        at.shared_out()
        assert not drill.over(what)


@pytest.mark.parametrize("times", [0.8, 2.0])
@pytest.mark.parametrize("crash", [False, True], ids=["stopped", "crashed"])
def test_database_away(tmp_path: Path, failover: float, times: float, crash: bool) -> None:
    """More comes than can be sent, so that all have claimed as much as they may."""
    with cast(tmp_path, "a", "b", failover=failover, latency=0.5) as at:
        drill = Drill(at)
        at.server.crash() if crash else at.server.stop()
        drill.for_(times * failover)
        at.server.start()
        at.shared_out()
        assert not drill.over(f"database {'crashed' if crash else 'stopped'} for {times * failover:g} s")


def test_answers_to_commits_swallowed(tmp_path: Path, failover: float) -> None:
    """At random, each time with the connection: nobody is refused what was stored."""
    with cast(tmp_path, "a", "b", failover=failover, proxied=True) as at:
        drill = Drill(at)
        while time.monotonic() < drill.began + 15:
            for proxy in at.proxies.values():
                proxy.break_at(b"COMMIT", after=True)
            time.sleep(0.4)
        twice = drill.over("answers to COMMIT swallowed")
        print("    swallowed", sum(proxy.broken for proxy in at.proxies.values()))
        assert not twice
        assert not {one.split()[0] for client in at.clients for one in client.refused} & at.sink.came.keys()


@pytest.mark.skipif(LIBRARY is None, reason="libfaketime (Debian package faketime) is not installed")
@pytest.mark.parametrize("off", [600, -600])
def test_clocks_apart(tmp_path: Path, failover: float, off: int) -> None:
    """The clock of one machine is wrong: what it accepts is sent at once by the other, too."""
    fake = {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME": f"{off:+d}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",
    }
    with cast(tmp_path, "a", "b", failover=failover, environ={"a": fake}) as at:
        drill = Drill(at)
        drill.for_(10)
        assert not drill.over(f"clock {off:+d} s")
        assert at.sink.gap() < 10
        assert at.logged("clock_differs")


def test_one_of_three_killed_every_ten_seconds(tmp_path: Path, failover: float) -> None:
    """10,000 messages under load: lost 0, and only what was on the wire comes twice."""
    with cast(tmp_path, "a", "b", "c", latency=0.05, failover=failover) as at:
        began, killed = time.monotonic(), []
        at.feed(6, most=1667, pause=0.0)
        while any(client.is_alive() for client in at.clients):
            time.sleep(10)
            victim = "abc"[len(killed) % 3]
            killed.append(time.monotonic())
            at.gateways[victim].kill()
            time.sleep(1)
            at.gateways[victim].start()
        taken = time.monotonic() - began
        accepted = at.end(300)
        gaps = [round(at.sink.gap(name), 1) for name in ("up", "box")]
        refused = sum(len(client.refused) for client in at.clients)
        print(
            f"\n{len(killed)} kills in {taken:.0f} s, failover {failover:g} s: {len(accepted)} accepted, "
            f"{refused} refused, lost 0, {len(at.sink.twice)} twice, longest gap {gaps}, load {os.getloadavg()[0]:.1f}"
        )
        assert len(accepted) == 6 * 1667
        assert at.sink.twice <= set().union(*(at.sink.on_the_wire(moment) for moment in killed))


def test_a_rate_holds_also_while_the_owner_moves(tmp_path: Path, failover: float) -> None:
    """``rate: 20/second`` is of the backend, not of an instance."""
    with cast(tmp_path, "a", "b", latency=0.0, extra=", rate: 20/second", failover=failover) as at:
        at.shared_out()
        at.feed(6, pause=0.0)
        at.wait(lambda: len(at.sink.answered) > 100)
        began = time.monotonic()
        time.sleep(10)
        owner = at.owners()["box"]
        assert at.gateways[owner].stop() == 0
        at.wait(lambda: at.moved_from(owner))
        at.gateways[owner].start()
        at.shared_out()
        until = time.monotonic()
        rates = at.sink.rate(began, began + 10), at.sink.rate(began + 10, until)
        print(f"\nof two backends with 20/second each: {rates[0]:.1f}/s, while the owner moves {rates[1]:.1f}/s")
        assert 25 <= rates[0] <= 43
        assert rates[1] <= 43 + 2 * CONCURRENCY / (until - began - 10)
        for client in at.clients:
            client.over.set()
