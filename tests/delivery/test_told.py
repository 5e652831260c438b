"""Who works a backend says how it stands; the other instances show that, and go by it, as long as he is there."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.checks import Use
from gateway.delivery.breaker import MISCONFIGURED, OPERATOR, THROTTLED
from gateway.delivery.standing import Heard
from gateway.delivery.told import Told, read
from tests.builders import BAD_LOGIN
from tests.delivery.kit import House, house
from tests.delivery.test_ownership import Owned
from tests.fakes import ScriptedBackend, until

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
FULL = Told(
    asked=3, by=MISCONFIGURED, reason="no such user \u2603", fix="renew it", since=NOON,
    until=NOON + timedelta(minutes=1), in_flight=2, last_success=NOON - timedelta(hours=1),
    heard=Heard(at=NOON, id="M1", verdict=MISCONFIGURED, code=401, enhanced="", detail="no", fix="f", said_by="http"),
    uses=(Use("rate", 3, 20, "messages", 1.0),),
)  # fmt: skip


def gauge(at: House, name: str) -> float:
    (line,) = (
        one for one in at.events.render()[1].decode().splitlines() if one.startswith(f"gateway_backend_{name}{{")
    )
    return float(line.split()[-1])


def test_what_is_said_is_read_as_it_was_meant() -> None:
    assert read(FULL.text()) == FULL
    assert read(Told(asked=0).text()) == Told(asked=0)
    later = FULL.text().replace('{"asked"', '{"colour":"blue","asked"').replace('"most"', '"shape":1,"most"')
    assert read(later) == FULL


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"asked":1,"since":"x"}', '{"asked":1,"heard":{"at":"x"}}']
)
def test_what_cannot_be_understood_is_not_said(text: str) -> None:
    """A row that another version wrote, or nobody."""
    assert read(text) is None


def test_only_what_changes_is_written_down() -> None:
    """Two clocks do not tell a moment alike twice."""
    near, far = timedelta(milliseconds=300), timedelta(seconds=3)
    assert FULL.like(replace(FULL, since=NOON + near))
    assert not FULL.like(replace(FULL, since=NOON + far))
    assert not FULL.like(replace(FULL, since=None))
    assert not FULL.like(replace(FULL, in_flight=3))
    assert not FULL.like(None)


async def test_another_instance_is_shown_as_it_says(tmp_path: Path) -> None:
    """State, cause, cure, since and until when, what was heard and sent last, by this machine's own clock; mail that
    may go two ways does not go there. Once the one who said so is gone nobody knows it any more."""
    backend, own = ScriptedBackend("b"), Owned()
    async with house(tmp_path, backend, ownership=own) as at:
        now = at.spool.now()
        said = replace(FULL, asked=0, since=now - timedelta(minutes=5), until=now + timedelta(minutes=1))
        at.clock.set(timedelta(hours=1))
        at.dispatcher.others.hear({"b": said.text(), "unknown": said.text()})
        one, here = at.dispatcher.status()["b"], at.clock.now()
        assert (one.state, one.paused_by, one.reason, one.fix) == ("stopped", said.by, said.reason, said.fix)
        assert (one.owner, one.in_flight, one.uses) == ("elsewhere", 2, said.uses)
        assert one.since is not None
        assert abs(one.since - (here - timedelta(minutes=5))) < timedelta(seconds=1)
        assert one.heard is not None
        assert one.heard.at - NOON == timedelta(hours=1)
        assert not at.dispatcher.works("b")
        assert gauge(at, "up") == 0
        assert gauge(at, "paused") == 1
        at.dispatcher.others.hear({})
        one = at.dispatcher.status()["b"]
        assert (one.state, one.reason, one.in_flight, one.heard) == ("working", "", 0, None)
        assert at.dispatcher.works("b")
        assert gauge(at, "up") == 1
        assert at.logged("backend_paused") == []


async def test_who_gains_or_loses_it_finds_out_anew(tmp_path: Path) -> None:
    """The gauges do not go on telling what another one said, nor what was so while it was worked here."""
    backend, own = ScriptedBackend("b", BAD_LOGIN), Owned()
    async with house(tmp_path, backend, ownership=own) as at:
        at.dispatcher.others.hear({"b": replace(FULL, asked=0, until=at.spool.now() + timedelta(hours=1)).text()})
        assert (gauge(at, "up"), gauge(at, "paused")) == (0, 1)
        own.names.add("b")
        at.dispatcher.gain("b")
        assert (gauge(at, "up"), gauge(at, "paused"), at.paused_by("b")) == (1, 0, "")
        await at.put("b")
        await at.rounds(lambda: at.paused_by("b"))
        assert (gauge(at, "up"), gauge(at, "paused")) == (0, 1)
        at.dispatcher.others.hear({"b": at.dispatcher.others.text("b")})
        own.names.clear()
        await at.dispatcher.lose("b")
        at.dispatcher.others.hear({})
        assert (gauge(at, "up"), gauge(at, "paused")) == (1, 0)


async def test_who_has_not_heard_of_an_order_does_not_know_better(tmp_path: Path) -> None:
    """Paused here a moment ago, it is paused, whatever its owner said before; what he says once he has obeyed holds."""
    backend, own = ScriptedBackend("b"), Owned()
    async with house(tmp_path, backend, ownership=own) as at:
        others = at.dispatcher.others
        slowed = Told(asked=0, by=THROTTLED, reason="slowly", until=at.spool.now() + timedelta(hours=1))
        others.hear({"b": slowed.text()})
        assert at.dispatcher.status()["b"].state == "slowed_down"
        await at.dispatcher.pause("b", None, "anna")
        others.hear({"b": slowed.text()})
        assert at.dispatcher.status()["b"].who == "anna"
        others.hear({})  # and its owner is gone: the order is in force
        assert at.dispatcher.status()["b"].who == "anna"
        others.hear({"b": Told(asked=1, by=OPERATOR, who="anna", reason="paused by anna").text()})
        assert (at.dispatcher.status()["b"].state, at.dispatcher.status()["b"].paused_until) == ("paused", None)
        await at.dispatcher.resume("b")
        others.hear({"b": Told(asked=1, by=OPERATOR, who="anna", reason="paused by anna").text()})
        assert at.dispatcher.status()["b"].state == "working"
        others.hear({"b": replace(slowed, asked=2).text()})
        assert at.dispatcher.status()["b"].state == "slowed_down"


async def test_who_works_it_says_so_when_it_changes(tmp_path: Path) -> None:
    """Once, and at once where it matters; a pause that was obeyed, too."""
    backend, own = ScriptedBackend("b", BAD_LOGIN), Owned({"b"})
    written: dict[str, Told | None] = {}
    async with house(tmp_path, backend, ownership=own) as at:

        async def stand(texts: dict[str, str]) -> None:
            written.update({name: read(text) for name, text in texts.items()})
            at.dispatcher.others.hear(texts)

        at.spool.stand = stand  # type: ignore[method-assign,assignment]
        others = at.dispatcher.others
        assert await others.say()
        assert written.pop("b") == Told(asked=0)
        assert not await others.say()
        await at.put("b")
        await until(lambda: at.paused_by("b") == MISCONFIGURED)
        at.clock.advance(3)
        assert await others.say()
        told = written.pop("b")
        assert told is not None
        assert (told.by, told.reason, told.heard is not None) == (MISCONFIGURED, BAD_LOGIN.detail, True)
        assert (await others.say(), written) == (False, {})
        await at.spool.pause("b", None, "anna")
        await at.dispatcher.look_at_orders()
        assert own.stirred == 1
        assert await others.say()
        told = written.pop("b")
        assert told is not None
        assert (told.asked, told.by, told.who, told.until) == (1, OPERATOR, "anna", None)
