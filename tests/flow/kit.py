"""A real gateway process for the flow tests: started, waited for, killed, started again on the same spool."""

from __future__ import annotations

import getpass
import http.client
import json
import os
import random
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import textwrap
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from tests.postgres_kit import Cluster

READY_WITHIN = 60.0
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PORTS = cycle(random.sample(range(20_000 + _WORKER % 32, 32_000, 32), 375))  # each worker its own


def free_port() -> int:
    """A port that nobody listens at, nor will: the system gives none below 32768 to a connection or to who asks for
    any (ip(7), ip_local_port_range), and no other call has this one for a long time."""
    while True:
        port = next(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


_servers: list[Cluster] = []  # of the test that runs; without any, a gateway's queue is a file in its state directory


@contextmanager
def on(server: Cluster | None) -> Iterator[None]:
    """Each folder's gateway has a database of its own there, if its settings name none."""
    if server is None:
        yield
        return
    _servers.append(server)
    try:
        yield
    finally:
        _servers.remove(server)


def _database(directory: Path) -> str:
    """That of this folder, the same each time."""
    name = f"f{zlib.crc32(str(directory.resolve()).encode()):x}"
    if not _servers[-1].ask("SELECT 1 FROM pg_database WHERE datname = %s", name):
        _servers[-1].create(name)
    return _servers[-1].url(name)


@dataclass
class Gateway:
    """``gateway serve`` on free ports. ``config`` is YAML for everything but listener, HTTP and state directory."""

    directory: Path
    config: str = ""
    port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    python: str = sys.executable  # or a program that becomes it
    environ: dict[str, str] = field(default_factory=dict)
    spool: str = field(default="", init=False)  # where the settings of this kit name a database

    def __post_init__(self) -> None:
        if "listeners:" not in self.config:
            self.config = f'listeners:\n  local: {{bind: "127.0.0.1:{self.port}"}}\n' + textwrap.dedent(self.config)
        head = f"hostname: relay.test\nstate_dir: {self.directory / 'state'}\n"
        head += f'http: {{bind: "127.0.0.1:{self.http_port}"}}\n'
        if _servers and "spool:" not in self.config:
            self.spool = f'{{url: "{_database(self.directory)}", instance: one, failover: 2s}}'
            head += f"spool: {self.spool}\n"
        self.file.write_text(head + textwrap.dedent(self.config))

    @property
    def file(self) -> Path:
        return self.directory / "config.yaml"

    @property
    def log(self) -> Path:
        return self.directory / "gateway.log"

    def start(self, path: str = "/readyz", within: float = READY_WITHIN) -> Gateway:
        """Until ``path`` answers 200."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.python, "-m", "gateway.cli", "--config", str(self.file), "serve"],
                stderr=log,
                stdout=log,
                env=os.environ | {"GATEWAY_CONFIG": ""} | self.environ,
            )
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                if self.get(path)[0] == 200:
                    return self
            except OSError:
                time.sleep(0.02)
        self.kill()
        raise AssertionError(f"not ready:\n{self.log.read_text()}")

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def listening(self) -> bool:
        """Whether mail can be brought: the page answers before that."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 10):
            return True
        return False

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """As the power switch would: no goodbye."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> int:
        """SIGTERM and the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=60)

    def run(self, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """A command of the same configuration, as an operator types it."""
        return subprocess.run(
            [sys.executable, "-m", "gateway.cli", "--config", str(self.file), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            input=text,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def messages(self, query: str = "") -> list[dict[str, Any]]:
        """The queue by HTTP, which costs no process."""
        status, text = self.get(f"/api/v1/messages?{query}")
        assert status == 200, text
        found: list[dict[str, Any]] = json.loads(text)["messages"]
        return found

    def wait(self, condition: Any, seconds: float = 30.0) -> None:
        """Asks less often the longer it takes: to answer costs a process more than what it is waited for."""
        began, pause = time.monotonic(), 0.02
        while not condition():
            assert time.monotonic() - began < seconds, f"waited in vain:\n{self.log.read_text()[-4000:]}"
            time.sleep(pause)
            pause = max(pause, (time.monotonic() - began) / 8)

    def __enter__(self) -> Gateway:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()


@contextmanager
def smtp_sink(directory: Path, port: int) -> Iterator[None]:
    """Postfix's own test server, writing each message with its envelope into a file."""
    if not (program := shutil.which("smtp-sink", path="/usr/sbin:/usr/bin")):
        pytest.skip("smtp-sink (Debian package postfix) is not installed")
    directory.mkdir(exist_ok=True)
    command = [program, "-u", getpass.getuser(), "-d", f"{directory}/%Y.", f"127.0.0.1:{port}", "100"]
    sink = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                smtplib.SMTP("127.0.0.1", port, timeout=1).quit()
                break
            except OSError:
                time.sleep(0.02)
        yield
    finally:
        sink.kill()
        sink.wait()


def sunk(directory: Path) -> list[str]:
    """Messages in the sink's files: those that reached DATA."""
    return [text for file in directory.glob("*") if "X-Rcpt-Args" in (text := file.read_text(errors="replace"))]
