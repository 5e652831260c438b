"""Several gateways on one PostgreSQL, clients that hand in mail all the time, and a server that counts what arrives."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import smtplib
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller

from tests import postgres_kit
from tests.flow.kit import Gateway, free_port
from tests.postgres_kit import Cluster

FAILOVER = 2.0  # seconds
GRACE = 3 * FAILOVER
CONCURRENCY = 5
_WRITTEN = 1.0  # seconds from an answer to its commit, on a machine with a great deal to do


@dataclass
class Sink:
    """Takes all mail, each after ``latency`` seconds; knows when each came and when it was answered, by X-N."""

    latency: float = 0.2
    port: int = field(default_factory=free_port)
    came: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    answered: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        lines = envelope.content.decode().splitlines()
        name = next(line for line in lines if line.startswith("X-N:"))[4:].strip()
        self.came[name].append(time.monotonic())
        await asyncio.sleep(self.latency)
        self.answered[name].append(time.monotonic())
        return "250 taken"

    @property
    def twice(self) -> set[str]:
        return {name for name, times in self.came.items() if len(times) > 1}

    def on_the_wire(self, at: float) -> set[str]:
        """Those whose first answer was still to come then, or had come just before: to be written down takes a
        moment, too."""
        return {name for name, times in self.came.items() if times[0] <= at <= times[0] + self.latency + _WRITTEN}

    def rate(self, since: float, until: float) -> float:
        return sum(since <= one < until for times in self.came.values() for one in times) / (until - since)

    def longest_gap(self) -> float:
        times = sorted(one for each in self.came.values() for one in each)
        return max(later - sooner for sooner, later in itertools.pairwise(times))


@dataclass
class Client(threading.Thread):
    """Hands in one message after the other, at any instance that takes it, until told to stop or ``most`` are in."""

    name_of: str
    ports: Sequence[int]
    most: int = 1_000_000
    pause: float = 0.05
    accepted: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        chosen = random.Random(self.name_of)
        number = 0
        while not self.over.is_set() and len(self.accepted) < self.most:
            number += 1
            name = f"{self.name_of}-{number}"
            body = f"Subject: drill\r\nX-N: {name}\r\n\r\ntext\r\n"
            try:
                with smtplib.SMTP("127.0.0.1", chosen.choice(self.ports), timeout=90) as session:
                    session.sendmail("s@x.example", ["r@box.example" if number % 2 else "r@x.example"], body)
                    self.accepted.append(name)
            except (OSError, smtplib.SMTPException) as error:
                if not self.accepted or self.accepted[-1] != name:  # else only the goodbye failed
                    self.refused.append(f"{name} {error}")
            self.over.wait(self.pause)


@dataclass
class Cast:
    """Everybody in a drill."""

    server: Cluster
    sink: Sink
    gateways: dict[str, Gateway]
    clients: list[Client] = field(default_factory=list)

    def feed(self, count: int = 3, **more: Any) -> None:
        ports = [gateway.port for gateway in self.gateways.values()]
        self.clients += [Client(f"c{n}", ports, **more) for n in range(count)]
        for client in self.clients:
            client.start()

    def owners(self) -> dict[str, str]:
        return dict(self.server.ask("SELECT name, owner FROM backend WHERE owner <> ''", database="spool"))

    def shared_out(self) -> None:
        """Until each backend has an owner, and no two of them the same."""
        self.wait(lambda: len(set(self.owners().values())) == 2)

    def wait(self, condition: Any, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            logs = "\n".join(gateway.log.read_text()[-2000:] for gateway in self.gateways.values())
            assert time.monotonic() < deadline, logs
            time.sleep(0.05)

    def end(self, seconds: float = 90.0) -> set[str]:
        """No more mail; returns what was accepted, once all of it has arrived."""
        for client in self.clients:
            client.over.set()
        for client in self.clients:
            client.join(90)
        accepted = {name for client in self.clients for name in client.accepted}
        self.wait(lambda: accepted <= self.sink.answered.keys(), seconds)
        return accepted

    def logged(self, event: str) -> list[str]:
        """Of all instances."""
        lines = [line for one in self.gateways.values() for line in one.log.read_text().splitlines()]
        return [line for line in lines if f'"event":"{event}"' in line]


@contextmanager
def cast(folder: Path, *names: str, latency: float = 0.2, extra: str = "") -> Iterator[Cast]:
    """Instances of these names on a PostgreSQL of their own, with two backends that lead to one server."""
    key, sink = os.urandom(32), Sink(latency)
    with ExitStack() as stack:
        server = stack.enter_context(postgres_kit.cluster())
        server.create("spool")
        controller = Controller(sink, hostname="127.0.0.1", port=sink.port)
        controller.start()
        stack.callback(controller.stop)
        gateways: dict[str, Gateway] = {}
        for name in names:
            state = folder / name / "state"
            state.mkdir(mode=0o700, parents=True)
            (state / "spool.key").write_bytes(key)
            (state / "spool.key").chmod(0o600)
            if gateways:  # made by the first
                token = (folder / names[0] / "state" / "token.key").read_bytes()
                (state / "token.key").write_bytes(token)
                (state / "token.key").chmod(0o600)
            to = f"{{type: smtp, host: 127.0.0.1, port: {sink.port}, tls: none, concurrency: {CONCURRENCY}{extra}}}"
            gateways[name] = Gateway(
                folder / name,
                f"""
                backends: {{up: {to}, box: {to}}}
                clients: {{local: {{networks: [127.0.0.1], senders: ["*"], recipients: ["*"]}}}}
                routes: [{{recipients: ["*@box.example"], backend: box}}, {{backend: up}}]
                spool: {{url: "{server.url("spool")}", instance: {name}, failover: {FAILOVER:g}s}}
                """,
            )
            stack.enter_context(gateways[name])
        made = Cast(server, sink, gateways)
        stack.callback(lambda: [client.over.set() for client in made.clients])
        yield made
