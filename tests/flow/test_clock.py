"""A machine whose clock is set while a service runs, or is wrong when it starts: no mail expires, and none waits."""

from __future__ import annotations

import json
import signal
import smtplib
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from tests.flow.kit import Gateway, free_port

LIBRARY = next((path for path in Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="libfaketime (Debian package faketime) is not installed")
MAILS = 20
DAY = timedelta(days=1)
CONFIG = """
backends: {{up: {{type: smtp, host: 127.0.0.1, port: {port}, tls: none, concurrency: 8}}}}
routes: [{{backend: up}}]
retry: {{delays: [1s], jitter: 0}}
"""


class Upstream:
    """Puts everybody off until it is told to take mail."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.refused = 0
        self.taken: list[bytes] = []

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _: Any) -> str:  # noqa: N802
        if not self.open.is_set():
            self.refused += 1
            return "450 4.2.1 the mailbox is busy"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        self.taken.append(envelope.content)
        return "250 2.0.0 ok"


@pytest.fixture
def upstream() -> Iterator[tuple[Upstream, int]]:
    handler, port = Upstream(), free_port()
    controller = Controller(handler, hostname="127.0.0.1", port=port)
    controller.start()
    yield handler, port
    controller.stop()


class Machine:
    """A gateway on a machine whose clock is off by as much as we say."""

    def __init__(self, directory: Path, port: int) -> None:
        self._file = directory / "faketime"
        self.off = timedelta(0)
        self.set(self.off)
        fake = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # else every wait with a limit takes too long
        }
        self.gateway = Gateway(directory, CONFIG.format(port=port), environ=fake)

    def set(self, off: timedelta) -> None:
        self.off = off
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{off.total_seconds():+.0f}")
        fresh.replace(self._file)

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = (line for line in self.gateway.log.read_text().splitlines() if f'"{event}"' in line)
        return [line for line in map(json.loads, lines) if line["event"] == event]

    def step(self, by: timedelta) -> None:
        """Set the clock of the running service, and wait until it has seen it."""
        seen = len(self.logged("clock_stepped"))
        self.set(self.off + by)
        self.gateway.signal(signal.SIGHUP)  # housekeeping looks at once, and not within 15 seconds
        self.gateway.wait(lambda: len(self.logged("clock_stepped")) > seen)
        line = self.logged("clock_stepped")[-1]
        assert line["direction"] == ("forward" if by > timedelta(0) else "back")
        assert abs(line["seconds"] - abs(by.total_seconds())) < 10

    def send(self, count: int) -> None:
        with smtplib.SMTP("127.0.0.1", self.gateway.port, timeout=30) as smtp:
            for number in range(count):
                smtp.sendmail("a@x.org", [f"b{number}@y.org"], f"Subject: {number}\r\n\r\nhello\r\n")

    def tried(self, upstream: Upstream, times: int = MAILS) -> None:
        """Wait until everybody has been put off once more."""
        before = upstream.refused
        self.gateway.wait(lambda: upstream.refused >= before + times)

    def states(self) -> set[str]:
        return {row["state"] for row in self.gateway.messages("limit=1000")}


def test_a_clock_that_is_set_while_mail_waits(tmp_path: Path, upstream: tuple[Upstream, int]) -> None:
    """Six days on, a day back, an hour on: each is said once, every message is tried on, and all of it is delivered."""
    there, port = upstream
    machine = Machine(tmp_path, port)
    with machine.gateway as gateway:
        machine.send(MAILS)
        machine.tried(there)
        for by in (6 * DAY, -DAY, timedelta(hours=1)):
            machine.step(by)
            machine.tried(there)
            assert machine.states() == {"queued"}
        machine.send(1)
        there.open.set()
        gateway.wait(lambda: machine.states() == {"done"})
        assert len(there.taken) == MAILS + 1
        shown = gateway.run("queue", "summary").stdout
        assert "set forward by 6 d" in shown
        assert "set back by 24 h" in shown
        trace = gateway.run("trace", gateway.messages()[-1]["id"]).stdout
        assert "This machine's clock was set forward by 6 days" in trace
        assert len(machine.logged("clock_stepped")) == 3
        assert 'gateway_clock_steps_total{direction="back"} 1.0' in gateway.get("/metrics")[1]
        assert not machine.logged("bug")


@pytest.mark.slow
@pytest.mark.parametrize("years", [2, -56])
def test_a_machine_that_starts_in_another_year(tmp_path: Path, upstream: tuple[Upstream, int], years: int) -> None:
    """No battery: what waits is neither returned nor left lying, nor is history forgotten; then NTP sets it right."""
    there, port = upstream
    machine = Machine(tmp_path, port)
    with machine.gateway as gateway:
        there.open.set()
        machine.send(1)
        gateway.wait(lambda: machine.states() == {"done"})
        there.open.clear()
        machine.send(MAILS)
        machine.tried(there)
        assert gateway.stop() == 0
    machine.set(years * 365 * DAY)
    with machine.gateway as gateway:
        machine.send(1)
        machine.tried(there, 3 * MAILS)
        assert machine.states() == {"queued", "done"}
        machine.step(-machine.off)
        machine.tried(there, 2 * MAILS)
        there.open.set()
        gateway.wait(lambda: machine.states() == {"done"})
        assert len(gateway.messages("limit=1000")) == MAILS + 2
        assert not machine.logged("bug")
