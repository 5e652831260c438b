"""A real gateway on small volumes: filled to the brim by real clients, killed there, robbed of the rest, and emptied.

Whatever happens, as many arrive as were answered with 250, and the door opens again by itself.
"""

from __future__ import annotations

import os
import re
import smtplib
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from tests.flow.kit import Gateway, free_port, smtp_sink, sunk

CONFIG = """
backends: {{smart: {{type: smtp, host: 127.0.0.1, port: {port}, tls: none, concurrency: 20}}}}
routes: [{{backend: smart}}]
retry: {{delays: [1s]}}
{more}
"""
NUMBER = re.compile(r"^X-Number: (\d+)", re.MULTILINE)


@contextmanager
def volume(where: Path, megabytes: int) -> Iterator[Path]:
    """A file system of that size, gone at the end."""
    where.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(where)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a tmpfs here")
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", where], check=True)


class Senders:
    """Four clients at once. What was answered with 250, and where what other replies came."""

    def __init__(self, port: int, octets: int) -> None:
        self.accepted: set[int] = set()
        self.refused: Counter[str] = Counter()
        self._port = port
        self._body = (b"0123456789" * 7 + b"\r\n") * (octets // 72)
        self._numbers = count()

    def _send(self, number: int, *, say_size: bool) -> bool:
        raw = f"From: a@example.com\r\nX-Number: {number}\r\nSubject: full\r\n\r\n".encode() + self._body
        with smtplib.SMTP("127.0.0.1", self._port, timeout=60) as smtp:
            smtp.ehlo()
            size = f" SIZE={len(raw)}" if say_size else ""
            for verb in (f"MAIL FROM:<a@example.com>{size}", "RCPT TO:<b@example.org>", "DATA"):
                code, text = smtp.docmd(verb)
                if code not in (250, 354):
                    self.refused[f"{verb[:4]} {code} {text[:5].decode()}"] += 1
                    return False
            smtp.send(raw + b".\r\n")
            code, text = smtp.getreply()
            if code != 250:
                self.refused[f"end {code} {text[:5].decode()}"] += 1
                return False
        self.accepted.add(number)
        return True

    def fill(self, at_most: int = 1_000_000, *, say_size: bool = True) -> int:
        """Until each was refused or has sent so many; returns how many were taken."""
        before = len(self.accepted)

        def work(_: int) -> None:
            for _ in range(at_most):
                if not self._send(next(self._numbers), say_size=say_size):
                    return

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        return len(self.accepted) - before


def arrived(sink: Path) -> Counter[int]:
    return Counter(int(number) for text in sunk(sink) for number in NUMBER.findall(text))


@contextmanager
def eater(where: Path) -> Iterator[None]:
    """Somebody else takes all there is."""
    path = where / "eater"
    with path.open("wb") as file:
        while (found := os.statvfs(where)).f_bavail:
            os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), found.f_bavail * found.f_frsize)
    try:
        yield
    finally:
        path.unlink()


def emptied(gateway: Gateway) -> bool:
    return 'gateway_queue_messages{backend="smart",state="queued"} 0.0' in gateway.get("/metrics")[1]


def ready(gateway: Gateway) -> bool:
    return gateway.get("/readyz")[0] == 200


def logged(gateway: Gateway, event: str) -> bool:
    """By now: the log is written by a thread of its own."""
    return f'"event":"{event}"' in gateway.log.read_text()


LARGER = [
    pytest.param(mb, octets, marks=pytest.mark.slow) for mb, octets in [(40, 1500), (200, 1_000_000), (1000, 4_000_000)]
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("megabytes", "octets"), [(40, 200_000), *LARGER])
def test_a_full_disk_loses_nothing_and_the_door_opens_again(tmp_path: Path, megabytes: int, octets: int) -> None:
    """Full, killed, robbed of the last byte, started there, emptied, and open again when there is room.

    Refused is with 452 4.3.1, and before the upload.
    """
    port, sink = free_port(), tmp_path / "sink"
    with volume(tmp_path / "state", megabytes) as small:
        gateway = Gateway(tmp_path, CONFIG.format(port=port, more=""))
        senders = Senders(gateway.port, octets)
        try:
            gateway.start()
            assert senders.fill() * octets > 0.5 * megabytes * 1e6 * min(1, octets / 5000)
            assert set(senders.refused) <= {"MAIL 452 4.3.1", "DATA 452 4.3.1"}
            gateway.kill()
            with eater(small):
                gateway.start("/healthz")
                gateway.wait(gateway.listening)
                assert "delete something else on this disk" in gateway.get("/readyz")[1]
                assert senders.fill() == 0
                with smtp_sink(sink, port):
                    gateway.run("backend", "resume", "smart")
                    gateway.wait(lambda: emptied(gateway), 120)
                assert arrived(sink) == Counter(senders.accepted)
            gateway.wait(lambda: ready(gateway))
            gateway.wait(lambda: senders.fill(1) == 4)
            gateway.wait(lambda: logged(gateway, "spool_open"))
            assert gateway.stop() == 0
            gateway.start()
            with smtp_sink(sink, port):
                gateway.run("queue", "retry", "--backend", "smart", "--yes")
                gateway.wait(lambda: emptied(gateway))
            assert arrived(sink) == Counter(senders.accepted)
            assert not logged(gateway, "bug")
        finally:
            gateway.kill()
