"""Deliberately broken set-ups in one real gateway: a message goes in at the door for each, and all that a person could
read about it is collected half an hour later, in every place where it is told.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import smtplib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from gateway.app import App
from gateway.backends import settings_types
from gateway.config.loading import load
from gateway.names import Address, Names
from tests.backends.kit import Handler, Web, http
from tests.fakes import FakeClock
from tests.http.kit import ask
from tests.http.pages.kit import Browser
from tests.names_kit import HERE

SENDER = "a@corp.example"
HALF_AN_HOUR = 31 * 60.0  # seconds, and a little: what waits so long is worth a word
WAITS = r"waits?\b|wait for it|not lost|nothing is lost"


class Ends(Enum):
    """What has to come of a fault."""

    STOPPED = "the backend cannot send"
    SLOWED = "the backend waits as long as it is asked to"
    WAITS = "this message waits, other mail goes on"
    REFUSED = "this message goes back to its sender, other mail goes on"


@dataclass
class Lab:
    """Where strangers are put up. ``known`` are their addresses here, and by what name the world knows them."""

    folder: Path
    stack: AsyncExitStack
    clock: FakeClock
    known: dict[str, str] = field(default_factory=dict)
    hosts: dict[str, str] = field(default_factory=dict)  # by backend
    host: str = ""

    async def web(self, handler: Handler, host: str, tls: Any = None) -> Web:
        """An HTTP server in the place of ``host``."""
        return await self.server(Web(handler, tls), host)

    async def server(self, server: Any, host: str) -> Any:
        await self.stack.enter_async_context(server)
        self.host = host
        self.known[f"127.0.0.1:{server.port}"] = host
        self.known[f"{host}:{server.port}"] = host
        return server

    def file(self, name: str, content: str | bytes) -> str:
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(0o600)
        return name

    def plain(self, text: str, backend: str, called: str) -> str:
        """Without what differs from run to run: ports, folders; and with the name that a backend would have."""
        for here, host in sorted(self.known.items(), reverse=True):
            text = text.replace(f"http://{here}", f"https://{host}") if here.startswith("127.") else text
            text = text.replace(here, host)
        text = text.replace(f"{self.folder}/", "/etc/gateway/")
        text = re.sub(r"; client-request-id [\w-]+|OU=Testing CA #[\w-]+,(?=O=)", "", text)
        return re.sub(rf"\b{backend}\b", called, text)


Settings = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One fault: how it is made, what has to come of it, and which words name it (``named``) and cure it (``cure``).

    ``never`` are words that would send somebody to the wrong place. ``doctor``: what the doctor says of it, "" where it
    cannot see it without sending, which it has to say then.
    """

    provider: str
    key: str
    cause: str
    set_up: Callable[[Lab], Awaitable[Settings]]
    named: str
    cure: str
    ends: Ends = Ends.STOPPED
    never: str = ""
    doctor: str = "same"
    sender: str = SENDER
    slow: bool = False

    @property
    def name(self) -> str:
        """Of its backend."""
        return f"{self.provider}_{self.key}"

    @property
    def domain(self) -> str:
        """Of its recipient."""
        return f"{self.name.replace('_', '-')}.test"


@dataclass(frozen=True)
class Place:
    """What one place says: a heading, the other side's words, what to do; ``cost`` is what is not lost."""

    what: str = ""
    said: str = ""
    fix: str = ""
    cost: str = ""
    meaning: str = ""

    @property
    def text(self) -> str:
        return " ".join(filter(None, (self.what, self.said, self.meaning, self.cost)))

    def __bool__(self) -> bool:
        return bool(self.what)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """All that is told of one case. ``state`` is the backend's, ``until`` when it goes on."""

    case: Case
    state: str
    until: str
    status: Place
    doctor: tuple[Place, ...]
    unseen: str  # what the doctor says that only a message shows
    tried: Place  # the last attempt in the life line
    now: Place  # its last entry but what is kept
    life: str
    overview: str
    page: str
    alert: Place


def resolve(host: str) -> Sequence[Address]:
    """Every name is this machine's, but for those that are spelled wrong."""
    return () if "wrong" in host else (HERE,)


@asynccontextmanager
async def gateway(lab: Lab, backends: Mapping[str, Settings], alerts: str) -> AsyncIterator[App]:
    """Each recipient's domain says by which backend."""
    routes = [{"recipients": [f"*@{name.replace('_', '-')}.test"], "backend": name} for name in backends]
    settings = {
        "hostname": "relay.example.com",
        "state_dir": str(lab.folder / "state"),
        "listeners": {"local": {"bind": "127.0.0.1:0"}},
        "http": {"bind": "127.0.0.1:0"},
        "log": {"level": "error"},
        "retry": {"jitter": 0},
        "bounces": {"from": "postmaster@corp.example"},
        "alerts": {"webhook": {"url": alerts, "secret_file": lab.file("alerts.secret", "x" * 40)}},
        "backends": {**backends, "box": {"type": "capture", "directory": str(lab.folder / "box")}},
        "routes": [*routes, {"backend": "box"}],
    }
    file = lab.folder / "config.yaml"
    file.write_text(yaml.safe_dump(settings, sort_keys=False))
    loaded = load(file, {}, settings_types())
    app = App(loaded, lambda: loaded, clock=lab.clock, rng=random.Random(1), names=Names(resolve))
    try:
        await app.start()
        yield app
    finally:
        await app.stop(0)


def hand_in(port: int, cases: Sequence[Case]) -> None:
    """At the door, as a program does."""
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        for case in cases:
            to = f"max@{case.domain}"
            lines = f"From: {case.sender}", f"To: {to}", "Subject: Scan", f"Message-ID: <{case.name}@corp.example>"
            client.sendmail(case.sender, [to], "\r\n".join((*lines, "", "hello", "")))


async def settled(app: App, names: Collection[str]) -> None:
    """Until each of these has had a try that began no sooner than now, and its end is written down."""
    assert app.dispatcher is not None
    left, now = set(names), app.clock.now()
    while left:
        await asyncio.sleep(0.01)
        stand = app.dispatcher.status()
        left = {one for one in left if stand[one].in_flight or (heard := stand[one].heard) is None or heard.at < now}


async def due(app: App, names: Collection[str], seconds: float) -> list[str]:
    """Those of which something is to be tried again within so long."""
    until = app.clock.now() + timedelta(seconds=seconds)
    found = {name: await app.spool.due(name) for name in names}
    return [name for name, at in found.items() if at is not None and at <= until]


async def look(cases: Sequence[Case], folder: Path) -> dict[str, Seen]:
    """Everything about all of them, by the name of their backend."""
    folder.mkdir(exist_ok=True)
    notices: list[dict[str, Any]] = []

    def pager(request: Any) -> bytes:
        notices.append(json.loads(request.body))
        return http(200)

    async with AsyncExitStack() as stack:
        lab = Lab(folder, stack, FakeClock())
        backends = {}
        for case in cases:
            backends[case.name] = await case.set_up(lab)
            lab.hosts[case.name] = lab.host
        hook = await lab.web(pager, "alerts.example.com")
        app = await stack.enter_async_context(gateway(lab, backends, hook.url))
        await app.alerts.stop()  # by itself it would look when the clock moves, before the next try
        await asyncio.to_thread(hand_in, app.listeners["local"].port, cases)
        await settled(app, backends)
        await app.alerts.round()
        again = await due(app, backends, HALF_AN_HOUR)
        lab.clock.advance(HALF_AN_HOUR)
        await settled(app, again)
        await app.alerts.round()
        return await _read(app, lab, cases, [one for notice in notices for one in notice["alerts"]])


async def _read(app: App, lab: Lab, cases: Sequence[Case], alerts: Sequence[Mapping[str, Any]]) -> dict[str, Seen]:
    socket = app.settings.http.socket
    status = (await ask(socket, "GET", "/api/v1/status")).json
    report = (await ask(socket, "POST", "/api/v1/doctor", {"areas": ["backends", "senders", "spool"]})).json
    browser = await Browser(app).sign_in()  # type: ignore[arg-type]
    overview = (await browser.get("/ui/")).text
    found = {}
    for case in cases:
        [row] = (await ask(socket, "GET", f"/api/v1/trace?what=%3C{case.name}%40corp.example%3E")).json["messages"]
        life = (await ask(socket, "GET", f"/api/v1/messages/{row['id']}")).json["life"]
        page = (await browser.get(f"/ui/messages/{row['id']}")).text
        found[case.name] = _seen(case, lab, status, report["findings"], life, overview, page, alerts)
    return found


def _seen(
    case: Case, lab: Lab, status: Any, findings: Any, life: Any, overview: str, page: str, alerts: Any
) -> Seen:  # fmt: skip
    called, host = CALLED[case.provider], lab.hosts[case.name]

    def text(given: str) -> str:
        return " ".join(lab.plain(given, case.name, called).replace("127.0.0.1", host).split())

    def place(one: Mapping[str, Any], what: str = "what", cost: str = "cost") -> Place:
        parts = [one.get(name) or "" for name in (what, "said", "fix", cost, "meaning")]
        parts[1] = f"{one.get('code') or ''} {parts[1]}"
        return Place(*map(text, parts))

    backend = status["backends"][case.name]
    problem = next((one for one in status["problems"] if one["backend"] == case.name), {})
    told = next((one for one in reversed(alerts) if one["backend"] == case.name), {})
    about = [one for one in findings if one["about"] == f"backends.{case.name}"]
    tries = [one for one in life if one["backend"] == case.name and one["at"] and one["kind"] in VERDICTS]
    ends = [one for one in life if one["kind"] == "now"]
    tried = tries[-1] if tries else {}
    return Seen(
        case=case,
        state=backend["state"],
        until=backend["paused_until"] or "",
        status=place(problem),
        doctor=tuple(place(one) for one in about if one["level"] in ("bad", "warn", "unknown")),
        unseen=" ".join(text(one["what"]) for one in about if one["level"] in ("note", "good")),
        tried=place(tried, "title", "note"),
        now=place(ends[0], "title", "note"),
        life=text(" ".join(f"{one['title']} {one['note']}" for one in life)),
        overview=text(overview),
        page=text(page),
        alert=place(told),
    )


VERDICTS = ("sent", "rejected", "deferred", "throttled", "misconfigured", "in_doubt")
CALLED = {
    "graph": "office", "gmail": "google", "smtp": "smarthost", "smtp2go": "smtp2go", "js2mail": "js2mail",
    "justemails": "justemails", "mailpass": "mailpass", "temp_mail": "temp_mail",
}  # fmt: skip
