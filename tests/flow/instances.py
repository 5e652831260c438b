"""Several gateways on one PostgreSQL, clients that hand in mail all the time, and a server that counts what arrives."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import smtplib
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller

from tests import postgres_kit
from tests.flow.kit import Gateway, free_port
from tests.postgres_kit import Cluster
from tests.postgresql.proxy import Proxy, proxy

FAILOVER = 2.0  # seconds; the documented default is 10
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
        moment, too, and so does to look at what has come."""
        spans = {name: (times[0] - _WRITTEN, times[0] + self.latency + _WRITTEN) for name, times in self.came.items()}
        return {name for name, (since, until) in spans.items() if since <= at <= until}

    def rate(self, since: float, until: float) -> float:
        return sum(since <= one < until for times in self.came.values() for one in times) / (until - since)

    def gap(self, backend: str = "", since: float = 0.0) -> float:
        """The longest time after ``since`` in which nothing came by that backend, or by any."""
        names = [name for name in self.came if not backend or backend_of(name) == backend]
        times = sorted(one for name in names for one in self.came[name])
        return max((later - sooner for sooner, later in itertools.pairwise(times) if later > since), default=0.0)


def backend_of(name: str) -> str:
    return "box" if int(name.rpartition("-")[2]) % 2 else "up"


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
                    session.sendmail("s@x.example", [f"r@{backend_of(name)}.example"], body)
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
    failover: float
    gateways: dict[str, Gateway] = field(default_factory=dict)
    proxies: dict[str, Proxy] = field(default_factory=dict)
    clients: list[Client] = field(default_factory=list)

    @property
    def grace(self) -> float:
        """After so long a silent instance is buried."""
        return 3 * self.failover

    def feed(self, count: int = 3, at: Sequence[str] = (), **more: Any) -> None:
        """Clients who bring mail to these instances, or to any."""
        ports = [self.gateways[name].port for name in at or self.gateways]
        made = [Client(f"c{len(self.clients) + n}", ports, **more) for n in range(count)]
        self.clients += made
        for client in made:
            client.start()

    def owners(self) -> dict[str, str]:
        return dict(self.server.ask("SELECT name, owner FROM backend WHERE owner <> ''", database="spool"))

    def shared_out(self) -> None:
        """Until each backend has an owner, and no two of them the same."""
        self.wait(lambda: len(set(self.owners().values())) == 2)

    def moved_from(self, name: str) -> bool:
        return name not in self.owners().values() and len(self.owners()) == 2

    def unfinished(self) -> int:
        ((count,),) = self.server.ask("SELECT count(*) FROM message WHERE state = 'queued'", database="spool")
        return int(count)

    def wait(self, condition: Any, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            logs = "\n".join(gateway.log.read_text()[-2000:] for gateway in self.gateways.values())
            assert time.monotonic() < deadline, logs
            time.sleep(0.05)

    def end(self, seconds: float = 90.0) -> set[str]:
        """No more mail; returns what was accepted, once all of it has arrived and none is in the queue any more."""
        for client in self.clients:
            client.over.set()
        for client in self.clients:
            client.join(90)
        accepted = {name for client in self.clients for name in client.accepted}
        self.wait(lambda: accepted <= self.sink.answered.keys(), seconds)
        self.wait(lambda: not self.unfinished(), seconds)
        return accepted

    def logged(self, event: str) -> list[str]:
        """Of all instances."""
        lines = [line for one in self.gateways.values() for line in one.log.read_text().splitlines()]
        return [line for line in lines if f'"event":"{event}"' in line]


@contextmanager
def cast(
    folder: Path,
    *names: str,
    latency: float = 0.2,
    extra: str = "",
    failover: float = FAILOVER,
    proxied: bool = False,
    environ: Mapping[str, Mapping[str, str]] | None = None,
) -> Iterator[Cast]:
    """Instances of these names on a PostgreSQL of their own, with two backends that lead to one server; ``proxied``
    each reaches the database by a way of its own, that can be broken."""
    key, sink = os.urandom(32), Sink(latency)
    with ExitStack() as stack:
        made = Cast(stack.enter_context(postgres_kit.cluster()), sink, failover)
        made.server.create("spool")
        controller = Controller(sink, hostname="127.0.0.1", port=sink.port)
        controller.start()
        stack.callback(controller.stop)
        for name in names:
            url = made.server.url("spool")
            if proxied:
                way = Path(stack.enter_context(tempfile.TemporaryDirectory()))  # a socket's path is a short one
                made.proxies[name] = stack.enter_context(proxy(way, made.server.folder))
                url = url.replace(str(made.server.folder), str(way))
            first = made.gateways[names[0]] if made.gateways else None
            _keys(folder / name / "state", key, first and first.directory / "state")
            to = f"{{type: smtp, host: 127.0.0.1, port: {sink.port}, tls: none, concurrency: {CONCURRENCY}{extra}}}"
            made.gateways[name] = Gateway(
                folder / name,
                f"""
                backends: {{up: {to}, box: {to}}}
                clients: {{local: {{networks: [127.0.0.1], senders: ["*"], recipients: ["*"]}}}}
                routes: [{{recipients: ["*@box.example"], backend: box}}, {{backend: up}}]
                spool: {{url: "{url}", instance: {name}, failover: {failover:g}s}}
                """,
                environ=dict((environ or {}).get(name, {})),
            )
            stack.enter_context(made.gateways[name])
        stack.callback(lambda: [client.over.set() for client in made.clients])
        yield made


def _keys(state: Path, key: bytes, first: Path | None) -> None:
    """That of the spool is given to all, that of tokens is made by the first."""
    state.mkdir(mode=0o700, parents=True)
    given = {"spool.key": key} | ({"token.key": (first / "token.key").read_bytes()} if first else {})
    for name, content in given.items():
        (state / name).write_bytes(content)
        (state / name).chmod(0o600)
