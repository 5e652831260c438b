"""What a person gets when something needs him: which mail, by which backend, how often."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest

from gateway import intake
from gateway.alerts.notice import Notice
from gateway.alerts.watch import Alerts
from gateway.config.models import AlertSettings
from gateway.health.records import Snapshot
from gateway.model import Capabilities, SpoolFull
from gateway.routing import Routing
from tests.builders import BAD_LOGIN, NO_USER
from tests.delivery.kit import House, house, settings
from tests.fakes import SENT, ScriptedBackend, until
from tests.health.test_problems import GOOD, office

LOW = replace(GOOD.disk, free=15 * 10**9)


class Pager:
    """A way that remembers, and fails as often as it is told to."""

    name = "command"

    def __init__(self) -> None:
        self.got: list[Notice] = []
        self.failures: list[str] = []

    async def tell(self, notice: Notice) -> str:
        if self.failures:
            return self.failures.pop(0)
        self.got.append(notice)
        return ""


@dataclass
class Watched:
    """Alerts over a real spool and dispatcher; ``seen`` is what they look at."""

    at: House
    alerts: Alerts
    pager: Pager
    seen: Snapshot

    async def round(self, minutes: float = 0.5, **changes: Any) -> None:
        self.at.clock.advance(60 * minutes)
        self.seen = replace(self.seen, **changes)
        await self.alerts.round()

    @property
    def subjects(self) -> list[str]:
        return [notice.subject for notice in self.pager.got]


@asynccontextmanager
async def watched(
    path: Path,
    *backends: ScriptedBackend,
    mail: bool = False,
    elsewhere: Callable[[str], str | None] = lambda backend: None,
    **changes: Any,
) -> AsyncIterator[Watched]:
    given = {"to": ("admin@example.com",) if mail else (), **changes}
    config = settings(path, *(one.name for one in backends), routes=(backends[0].name,))
    config = config.model_copy(update={"alerts": AlertSettings.model_validate(given)})
    async with house(path, *backends, config=config) as at:

        async def look() -> Snapshot:
            return replace(one.seen, now=at.clock.now())

        routing = Routing(config.routes, {one.name: one.capabilities for one in backends})
        rules = intake.Rules.of(config, routing)
        alerts = Alerts(at.spool, look, at.dispatcher.works, at.events, at.clock, at.ids, elsewhere)
        one = Watched(at, alerts, Pager(), GOOD)
        one.alerts.update(config, rules, [] if mail else [one.pager])
        yield one


async def test_an_alert_never_leaves_by_the_backend_it_is_about(tmp_path: Path) -> None:
    """Although the only route leads there: another that can, takes it."""
    broken, other = ScriptedBackend("office", BAD_LOGIN), ScriptedBackend("smart")
    async with watched(tmp_path, broken, other, mail=True, stopped_for="0") as here:
        await here.at.put("office")
        await until(lambda: here.at.paused_by("office") == "misconfigured")
        await here.round(backends=office("stopped", "misconfigured", waiting=1, said="401 invalid_client"))
        await until(lambda: len(other.calls) == 1)
    message, raw = other.calls[0]
    assert [recipient.address for recipient in message.envelope.recipients] == ["admin@example.com"]
    assert message.pin == "smart"
    mail = message_from_bytes(raw, policy=policy.default)
    assert mail["Subject"].startswith("[relay.example.com] office cannot send")
    assert mail["Auto-Submitted"] == "auto-generated"
    text = mail.get_content()
    for words in ("1 message waits", "To do: ", "Said: 401 invalid_client", "gateway status"):
        assert words in text


async def test_of_a_backend_that_another_instance_works_that_one_tells(tmp_path: Path) -> None:
    """One mail, not as many as there are instances; what was told here before is told to be over here, too."""
    owners: dict[str, str] = {"office": "b"}
    async with watched(tmp_path, ScriptedBackend("office"), stopped_for="0", elsewhere=owners.get) as here:
        await here.round(backends=office("stopped", "misconfigured"))
        assert here.subjects == []
        owners.clear()
        await here.round(backends=office("stopped", "misconfigured"))
        owners["office"] = "b"
        await here.round(backends=office("stopped", "misconfigured"))
        assert len(here.subjects) == 1
        assert [entry.gone for entry in here.alerts.entries] == [None]


async def test_without_another_it_waits_there(tmp_path: Path) -> None:
    """Late is better than never."""
    only = ScriptedBackend("office", BAD_LOGIN, SENT)
    async with watched(tmp_path, only, mail=True, stopped_for="0") as here:
        await here.at.put("office")
        await until(lambda: here.at.paused_by("office") == "misconfigured")
        await here.round(backends=office("stopped", "misconfigured", waiting=1))
        assert [row.client for row in await here.at.spool.find()] == ["gateway", "c"]


async def test_an_alert_that_fails_is_not_bounced(tmp_path: Path) -> None:
    """Nobody is told by mail that an alert was refused: no loop."""
    backend = ScriptedBackend("office", NO_USER)
    async with watched(tmp_path, backend, mail=True) as here:
        await here.round(disk=LOW)
        [row] = await here.at.spool.find()
        await here.at.settled(row.id, "failed")
        assert len(await here.at.spool.find()) == 1


async def test_the_sender_is_one_that_the_backend_may_send_as(tmp_path: Path) -> None:
    """Nobody has to set alerts.from for a mailbox that may send as itself only."""
    backend = ScriptedBackend("office")
    backend.capabilities = Capabilities(35_000_000, senders=("*@sub.example.com", "noreply@example.com"))
    async with watched(tmp_path, backend, mail=True) as here:
        await here.round(disk=LOW)
        await until(lambda: len(backend.calls) == 1)
    assert backend.calls[0][0].envelope.sender == "noreply@example.com"


async def test_several_at_once_are_one_mail(tmp_path: Path) -> None:
    """A disk that fills stops many things, and one mail tells of them."""
    async with watched(tmp_path, ScriptedBackend("office")) as here:
        await here.round(disk=LOW, damaged=3)
        assert len(here.pager.got) == 1
        assert here.subjects[0].startswith("2 things need you: ")
        await here.round(disk=GOOD.disk, damaged=0)
        await here.round(minutes=3)
        assert here.subjects[1].startswith("2 things are over: ")


async def test_at_most_so_many_an_hour(tmp_path: Path) -> None:
    """What comes and goes fills no mailbox: the rest is told together when the hour is over."""
    async with watched(tmp_path, ScriptedBackend("office"), per_hour=3) as here:
        for _ in range(8):
            await here.round(disk=LOW)
            await here.round(disk=GOOD.disk)
            await here.round(minutes=3)
        assert len(here.pager.got) == 3
        await here.round(minutes=61, damaged=1)
        assert len(here.pager.got) == 4


async def test_a_way_that_fails_is_tried_again(tmp_path: Path) -> None:
    """After 1, 5, 15 minutes and then each hour, with what is the case by then; another way does not wait for it."""
    async with watched(tmp_path, ScriptedBackend("office")) as here:
        here.pager.failures = ["no answer"] * 2
        await here.round(disk=LOW)
        await here.round(minutes=0.5)
        assert (here.pager.got, len(here.pager.failures)) == ([], 1)
        await here.round(minutes=1)
        assert (here.pager.got, len(here.pager.failures)) == ([], 0)
        await here.round(minutes=4)
        assert here.pager.got == []
        await here.round(minutes=1.5, damaged=1)
        assert len(here.pager.got[0].news) == 2
        assert [line["ok"] for line in here.at.logged("alert")] == [False, False, True]


async def test_a_restart_tells_nothing_twice(tmp_path: Path) -> None:
    """What was told is kept with the mail."""
    for wanted in (1, 0):
        async with watched(tmp_path, ScriptedBackend("office")) as here:
            await here.round(disk=LOW)
            assert len(here.pager.got) == wanted


async def test_a_full_disk_keeps_no_webhook_from_telling_of_it(tmp_path: Path) -> None:
    """What cannot be written down is told all the same, and only once in this run."""
    async with watched(tmp_path, ScriptedBackend("office")) as here:
        here.at.refuse("keep_alerts", *[SpoolFull("no room")] * 4)
        await here.round(disk=LOW)
        await here.round()
        assert len(here.pager.got) == 1


@pytest.fixture
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The time zone of this machine."""
    with monkeypatch.context() as changed:
        changed.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("in_utc")
@pytest.mark.parametrize("stale", [False, True])
async def test_the_digest_comes_once_a_day(tmp_path: Path, stale: bool) -> None:
    """At its time, and where the service was away then, when it is back."""
    backend = ScriptedBackend("office")
    async with watched(tmp_path, backend, mail=True, daily="13:00") as here:
        await here.round()
        assert backend.calls == []
        for minutes in (24 * 60, 30, 60) if stale else (30, 60, 60):
            await here.round(minutes=minutes)
            await here.round()
        wanted = 2 if stale else 1  # 12:00 is too late for yesterday's, and then comes today's at 13:00
        await until(lambda: len(backend.calls) == wanted)
        assert len(await here.at.spool.find()) == wanted
    text = message_from_bytes(backend.calls[0][1], policy=policy.default).get_content()
    assert "Everything is all right" in text
    assert "0 messages accepted" in text


async def test_a_test_alert_says_which_way_works(tmp_path: Path) -> None:
    """Before something happens."""
    async with watched(tmp_path, ScriptedBackend("office")) as here:
        assert await here.alerts.test() == {"command": ""}
        here.pager.failures = ["no pager"]
        assert await here.alerts.test() == {"command": "no pager"}
        assert here.pager.got[0].subject == "This is a test alert"


async def test_it_looks_every_half_minute_whatever_happens(tmp_path: Path) -> None:
    """A look that fails is a bug in the log, and not the last one."""
    async with watched(tmp_path, ScriptedBackend("office")) as here:
        look: Callable[[], Any] = here.alerts.look
        failing = [ValueError("odd")]

        async def odd() -> Snapshot:
            if failing:
                raise failing.pop()
            found: Snapshot = await look()
            return found

        here.alerts.look = odd
        here.seen = replace(here.seen, disk=LOW)
        here.alerts.start()
        while not here.pager.got:
            here.at.clock.advance(31)
            await asyncio.sleep(0)
        await here.alerts.stop()
        assert len(here.at.logged("bug")) == 1
        assert timedelta(seconds=30) <= here.pager.got[0].at - here.seen.now
