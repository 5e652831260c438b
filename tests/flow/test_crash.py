"""The first promise under kill -9: what was acknowledged is delivered, whatever the moment of the crash."""

from __future__ import annotations

import json
import os
import random
import smtplib
import threading
from pathlib import Path

import pytest

from gateway.drop import folder, letter
from gateway.model import Envelope, Recipient
from tests.flow.kit import Gateway

CLIENTS = 8
PLACES = 10  # the backend's concurrency as shipped
MOST_UNDER_WAY = 4 * PLACES + 3 * PLACES  # answered and not yet written down, and claimed ahead
CRASHES = int(os.environ.get("GATEWAY_CRASHES", "20"))


class Ledger:
    """What the clients sent and which of it got a 250."""

    def __init__(self) -> None:
        self.acknowledged: set[str] = set()
        self._lock = threading.Lock()
        self._count = 0

    def next(self) -> str:
        with self._lock:
            self._count += 1
            return f"m{self._count:06d}"

    def acknowledge(self, mark: str) -> None:
        with self._lock:
            self.acknowledged.add(mark)


def text(mark: str) -> str:
    """1 KiB to 1 MiB, another for each; a tenth of them is large."""
    rng = random.Random(mark)
    lines = 16 << rng.randrange(11) if rng.random() < 0.1 else 16
    return f"{mark} {rng.randbytes(28).hex()}\r\n" * lines


def client(port: int, ledger: Ledger) -> None:
    """Send until the connection breaks; note each 250."""
    try:
        with smtplib.SMTP("127.0.0.1", port, timeout=10) as smtp:
            while True:
                mark = ledger.next()
                smtp.sendmail("app@x.org", ["to@x.org"], f"Subject: {mark}\r\nX-Mark: {mark}\r\n\r\n{text(mark)}")
                ledger.acknowledge(mark)
    except (OSError, smtplib.SMTPException):
        return


def captured(gateway: Gateway) -> list[str]:
    """The mark of every message that was delivered byte for byte."""
    files = (gateway.directory / "state" / "captured").glob("*.eml")
    found = [file.read_bytes().split(b"\r\n\r\n", 1) for file in files]
    marks = [
        (line.removeprefix(b"X-Mark: ").decode(), body)
        for header, body in found
        for line in header.split(b"\r\n")
        if line.startswith(b"X-Mark: ")
    ]
    return [mark for mark, body in marks if body == text(mark).encode()]


def interrupted(gateway: Gateway, starts: int) -> int:
    """How many attempts the last of so many starts found cut off."""

    def opened() -> list[str]:
        return [line for line in gateway.log.read_text().splitlines() if '"spool_opened"' in line]

    gateway.wait(lambda: len(opened()) >= starts)  # the log is written by a thread of its own
    found = json.loads(opened()[-1])["interrupted"]
    assert isinstance(found, int)
    return found


def crash_loop(directory: Path, cycles: int, most: int) -> None:
    """``most``: messages between a start and a kill."""
    rng = random.Random(cycles)
    ledger = Ledger()
    gateway = Gateway(directory)
    for cycle in range(cycles):
        gateway.start()
        assert interrupted(gateway, cycle + 1) <= MOST_UNDER_WAY
        before = len(ledger.acknowledged)
        threads = [threading.Thread(target=client, args=(gateway.port, ledger)) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        target = before + rng.randint(50, most)
        gateway.wait(lambda target=target: len(ledger.acknowledged) >= target)
        gateway.kill()
        for thread in threads:
            thread.join()
    with gateway:
        # Interrupted more than once, a message waits a minute for each time: it might be what kills us.
        assert gateway.run("queue", "retry", "--all", "--yes").returncode == 0
        gateway.wait(lambda: ledger.acknowledged <= set(captured(gateway)))
        gateway.wait(lambda: gateway.messages("state=queued") == [])
        assert gateway.stop() == 0


def test_kill_in_mid_load(tmp_path: Path) -> None:
    """Three kills under load: no acknowledged message is missing."""
    crash_loop(tmp_path, 3, 200)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kill_in_mid_load_many_times(tmp_path: Path) -> None:
    """Kill after kill under load: no acknowledged message is missing, and no more were under way than there is room."""
    crash_loop(tmp_path, CRASHES, 400)


@pytest.mark.slow
def test_kill_while_the_maildrop_is_worked_off(tmp_path: Path) -> None:
    """Each file becomes one message, however often the service dies between its steps."""
    rng, gateway, count = random.Random(9), Gateway(tmp_path), 600
    places = folder.maildrop(tmp_path / "state")
    folder.make_maildrop(places)
    for n in range(count):
        envelope = Envelope(f"s{n}@example.com", (Recipient("a@example.com"),))
        (places.new / f"{n:03}").write_bytes(letter.write(envelope, b"Subject: x\r\n\r\nx\r\n"))
    left = count
    while left:
        gateway.start()
        goal = max(0, left - rng.randint(1, 120))
        gateway.wait(lambda goal=goal: len(list(places.new.iterdir())) <= goal)
        left = len(list(places.new.iterdir()))
        gateway.kill()
    with gateway:
        gateway.wait(lambda: list(places.taken.iterdir()) == [])
        rows = gateway.messages("limit=1000")
        assert sorted(row["sender"] for row in rows) == sorted(f"s{n}@example.com" for n in range(count))
        assert list(places.corrupt.iterdir()) == []
