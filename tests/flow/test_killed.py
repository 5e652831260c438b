"""What was ordered of a backend is obeyed by whoever works it next, though its owner was killed. Real processes."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.flow.instances import FAILOVER, Cast, cast

pytestmark = pytest.mark.slow
QUIET = 3.0  # seconds in which a backend that is not paused would have sent


def sent(at: Cast) -> int:
    """By the backend "up", which has the even ones (instances.Client)."""
    return sum(int(name.split("-")[1]) % 2 == 0 for name in at.sink.came)


def rests(at: Cast) -> bool:
    """After what was under way."""
    time.sleep(1)
    before = sent(at)
    time.sleep(QUIET)
    return sent(at) == before


def other(name: str) -> str:
    return "b" if name == "a" else "a"


def test_a_paused_backend_whose_owner_is_killed_stays_paused(tmp_path: Path) -> None:
    """Ordered at the one that does not work it: at the next owner, and where the killed one is back. Every instance
    shows who ordered it. A fix, at the one that does not work it, ends the pause; nothing is lost."""
    with cast(tmp_path, "a", "b", latency=0.02) as at:
        at.shared_out()
        owner = at.owners()["up"]
        next_one = other(owner)
        at.feed(2)
        at.wait(lambda: len(at.sink.answered) > 20)
        assert at.gateways[next_one].run("backend", "pause", "up").returncode == 0
        at.wait(lambda: at.gateways[owner].json("backend", "list")["up"]["state"] == "paused")
        assert rests(at)
        shown = [at.gateways[name].json("backend", "list")["up"] for name in "ab"]
        assert [one["owner"] for one in shown] == [owner] * 2
        assert shown[0]["who"] == shown[1]["who"] != ""
        assert shown[0]["reason"] == shown[1]["reason"]
        at.gateways[owner].kill()
        at.wait(lambda: at.owners().get("up") == next_one)
        assert rests(at)
        after = at.gateways[next_one].json("backend", "list")["up"]
        assert (after["state"], after["who"], after["owner"]) == ("paused", shown[0]["who"], next_one)
        assert after["since"][:16] == shown[0]["since"][:16]
        at.gateways[owner].start()
        at.shared_out()
        assert rests(at)
        before, asked = sent(at), other(at.owners()["up"])
        done = at.gateways[asked].run("backend", "fix", "up")
        assert done.returncode == 0, done.stdout + done.stderr
        at.wait(lambda: sent(at) > before)
        assert at.end()


@pytest.mark.parametrize("order", ["pause", "fix"])
def test_what_the_owner_did_not_live_to_hear_the_next_one_obeys(tmp_path: Path, order: str) -> None:
    """It is frozen when the order is given, and never wakes up."""
    with cast(tmp_path, "a", "b", latency=0.02) as at:
        at.shared_out()
        owner = at.owners()["up"]
        next_one = other(owner)
        asked = at.gateways[next_one]
        if order == "fix":
            assert asked.run("backend", "pause", "up").returncode == 0
            at.wait(lambda: at.gateways[owner].json("backend", "list")["up"]["state"] == "paused")
        at.feed(2)
        at.wait(lambda: len(at.sink.answered) > 20)
        at.gateways[owner].signal(signal.SIGSTOP)
        began = time.monotonic()
        done = asked.run("backend", order, "up")
        assert done.returncode == 0, done.stdout + done.stderr
        at.gateways[owner].kill()
        at.wait(lambda: at.owners().get("up") == next_one, FAILOVER + 30)
        if order == "pause":
            assert rests(at)
            assert asked.json("backend", "list")["up"]["state"] == "paused"
            assert asked.run("backend", "resume", "up").returncode == 0
        else:
            assert f"checked by instance {next_one}" in done.stdout
            assert time.monotonic() - began < 60
            at.wait(lambda: sent(at) > 0)
        at.gateways[owner].start()
        assert at.end()
