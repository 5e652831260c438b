"""Quotas in memory and in their file: who is counted for what, how small it stays, and what a restart leaves of it."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gateway.events import Events
from gateway.events.memory import Memory
from gateway.model import Client, Refusal
from gateway.quota import Quota, Rate
from gateway.quotas import QuotaFile, Quotas, counts
from gateway.quotas.kept import EVERY, NAME
from tests.builders import new_message
from tests.fakes import FakeClock, breathe

MINUTE, HOUR, DAY = (timedelta(seconds=n) for n in (60, 3600, 86400))
THREE = (Rate(3, MINUTE),)
USED_UP = 'Client "pcs" has sent its 3 messages a minute (clients.pcs.quota)'


def client(quota: Quota, name: str = "pcs", login: str = "") -> Client:
    return Client(name=name, login=login, quota=quota)


def send(
    quotas: Quotas, who: Client, *, peer: str = "192.0.2.1", sender: str = "a@x.org", to: int = 1, now: float = 0.0
) -> str:
    """ "" for sent, why it is held, or the reply."""
    try:
        quotas.look(who, peer, sender, now, recipients=to)
        with quotas.taking(who, new_message(peer=peer), sender, to, now) as message:
            return message.held
    except Refusal as refusal:
        return f"{refusal.code} {refusal.enhanced} {refusal.text}"


@pytest.mark.parametrize(
    ("quota", "reply"),
    [
        (Quota(THREE), f"450 4.7.1 {USED_UP}; room again in 61 seconds"),
        (Quota(THREE, over="refuse"),
         f"550 5.7.1 {USED_UP}; room again in 61 seconds"),
        (Quota(THREE, over="hold"), 'Client "pcs" has sent its 3 messages a minute (clients.pcs.quota)'),
        (Quota((Rate(9, MINUTE), Rate(3, DAY))),
         '450 4.7.1 Client "pcs" has sent its 3 messages a day (clients.pcs.quota); room again in 25 hours'),
        (Quota(THREE, per="address"),
         f"450 4.7.1 192.0.2.1 of {USED_UP.replace('C', 'c', 1)}; room again in 61 seconds"),
        (Quota((), (Rate(3, HOUR),)),
         '450 4.7.1 Client "pcs" has sent its 3 recipients an hour (clients.pcs.quota); room again in 61 minutes'),
    ],
)  # fmt: skip
def test_what_becomes_of_one_too_many(quota: Quota, reply: str) -> None:
    """The fourth hears what is used up and when there is room again, and nobody hears it before."""
    quotas = Quotas()
    assert [send(quotas, client(quota)) for _ in range(5)] == ["", "", "", reply, reply]
    period = max(rate.period for rate in (*quota.messages, *quota.recipients)).total_seconds()
    assert send(quotas, client(quota), now=period * 61 / 60) == ""


@pytest.mark.parametrize(
    ("per", "login", "same", "other"),
    [
        ("address", "", {"sender": "x@y.z"}, {"peer": "192.0.2.2"}),
        ("address", "", {"peer": "::ffff:192.0.2.1"}, {"peer": "2001:db8::1"}),
        ("sender", "", {"peer": "192.0.2.2", "sender": "A@X.org"}, {"sender": "b@example.com"}),
        ("sender", "", {"peer": "192.0.2.2"}, {"sender": ""}),
        ("login", "", {"sender": "x@y.z"}, {"peer": "192.0.2.2"}),
        ("login", "ann", {"peer": "192.0.2.2", "sender": "x@y.z"}, None),
        ("client", "", {"peer": "192.0.2.2", "sender": "x@y.z"}, None),
    ],
)
def test_for_whom_it_counts(per: Any, login: str, same: dict[str, Any], other: dict[str, Any] | None) -> None:
    """One infected machine of a network uses up its own quota, and nobody else's; another client's never."""
    quotas, who = Quotas(), client(Quota((Rate(1, MINUTE),), per=per), login=login)
    assert send(quotas, who) == ""
    assert send(quotas, who, **same).startswith("450")
    if other is not None:
        assert send(quotas, who, **other) == ""
    assert send(quotas, client(Quota((Rate(1, MINUTE),), per=per), "others", login)) == ""
    if login:
        assert send(quotas, client(Quota((Rate(1, MINUTE),), per=per), login="bob")) == ""


def test_addresses_of_ipv6_count_by_their_network() -> None:
    """A host there has 2**64 addresses."""
    quotas, who = Quotas(), client(Quota((Rate(1, MINUTE),), per="address"))
    assert send(quotas, who, peer="2001:db8::1") == ""
    assert send(quotas, who, peer="2001:db8::2:1").startswith("450")


def test_what_cannot_be_stored_was_not_sent() -> None:
    """A full disk costs nobody his quota."""
    quotas, who = Quotas(), client(Quota(THREE, (Rate(9, DAY),)))
    for _ in range(5):
        with pytest.raises(OSError, match="full"), quotas.taking(who, new_message(), "a@b.c", 3, 0.0):
            raise OSError("full")
    assert [one.used for one in quotas.used("pcs", who.quota or Quota(), 0.0)] == [0, 0]


def test_more_recipients_than_there_ever_is_room_for() -> None:
    """Those beyond it are deferred and come in another message; nobody is told to wait in vain."""
    quotas, who = Quotas(), client(Quota((), (Rate(3, MINUTE),)))
    assert send(quotas, who, to=4).endswith("room again never for so many at once")
    assert send(quotas, who, to=3) == ""


def test_what_is_held_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """An infected machine fills nobody's disk: after so many messages or octets held in an hour it is deferred."""
    monkeypatch.setattr(counts, "HELD", 2)
    quotas, who = Quotas(), client(Quota((Rate(1, DAY),), over="hold"))
    assert send(quotas, who) == ""
    assert [bool(send(quotas, who)[:6] == "Client") for _ in range(3)] == [True, True, False]
    reply = send(quotas, who)
    assert reply.startswith("450 4.7.1")
    assert "enough of it is held; room again" in reply
    assert send(quotas, who, now=3700.0)[:6] == "Client"
    monkeypatch.setattr(counts, "HELD_KB", 0)
    assert send(quotas, who, now=3700.0).startswith("450 4.7.1")


def test_hostile_senders_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ever new senders of one client make it forget only those of its own that were longest silent."""
    monkeypatch.setattr(counts, "KEYS", 10)
    quotas, who = Quotas(), client(Quota((Rate(1, MINUTE),), per="sender"))
    other = client(Quota((Rate(1, MINUTE),), per="sender"), "others")
    assert send(quotas, other) == ""
    for number in range(50):
        assert send(quotas, who, sender=f"{number}@example.com") == ""
    assert sum(1 for _ in quotas.rings()) == 11
    assert send(quotas, who, sender="49@example.com").startswith("450")
    assert send(quotas, other).startswith("450")


def test_who_used_most_is_shown() -> None:
    """For each number, and a storm names those who were too many most often; an hour later it is over."""
    clock = FakeClock()
    memory, quotas = Memory(clock), Quotas()
    quotas.on_over = memory.over_quota
    quota = Quota(THREE, (Rate(9, DAY),), per="address", over="hold")
    for peer, times in (("192.0.2.1", 1), ("192.0.2.2", 6), ("192.0.2.3", 4)):
        for _ in range(times):
            send(quotas, client(quota), peer=peer, to=2)
    assert [(one.what, one.used, one.who) for one in quotas.used("pcs", quota, 0.0)] == [
        ("messages", 3, "192.0.2.3"), ("recipients", 6, "192.0.2.3"),
    ]  # fmt: skip
    clock.advance(60.0)
    (storm,) = memory.storms
    assert (storm.client, storm.count, storm.held, storm.who) == ("pcs", 4, 4, ("192.0.2.2", "192.0.2.3"))
    assert storm.since == clock.now() - timedelta(seconds=60)
    clock.advance(3600.0)
    assert memory.storms == ()


# -- the file ----------------------------------------------------------------------------------------------------------


class House:
    """A process with its file; ``again`` is the next one."""

    def __init__(self, folder: Path, clock: FakeClock) -> None:
        self.folder, self.clock = folder, clock
        self.log = io.StringIO()
        self.registry = CollectorRegistry()
        self.events = Events(self.registry, "json", "debug", clock=clock, stream=self.log)
        self.quotas = Quotas()

    async def begin(self) -> House:
        self.file = await QuotaFile.begin(self.quotas, self.folder, self.clock, self.events)
        await breathe()
        return self

    async def again(self, clock: FakeClock) -> House:
        await self.file.aclose()
        self.events.close()
        return await House(self.folder, clock).begin()

    def logged(self) -> list[str]:
        self.events.flush()
        return [json.loads(line)["event"] for line in self.log.getvalue().splitlines()]


QUOTA = Quota((Rate(3, MINUTE), Rate(9, DAY)), per="address")


@pytest.mark.parametrize(
    ("away", "step", "used"),
    [
        (10.0, 0.0, [3, 3]),
        (120.0, 0.0, [0, 3]),
        (90_000.0, 0.0, [0, 0]),
        (10.0, -7200.0, [3, 3]),  # somebody set the clock back
        (10.0, -90_000.0, [3, 3]),
        (10.0, 7200.0, [0, 3]),  # ... or forward: nobody knows that it was not as long
    ],
)
async def test_a_restart_leaves_what_was_counted(tmp_path: Path, away: float, step: float, used: list[int]) -> None:
    """Also in another process, whose monotonic time has nothing to do with that of the first."""
    clock = FakeClock()
    clock.advance(5000.0)
    house = await House(tmp_path, clock).begin()
    for _ in range(3):
        assert send(house.quotas, client(QUOTA), now=clock.monotonic()) == ""
    house.quotas.allow(Client("pcs", rate=Rate(5, DAY)), clock.monotonic())
    later = FakeClock(clock.now() + timedelta(seconds=away + step))
    later.advance(7.0)
    house = await house.again(later)
    assert [one.used for one in house.quotas.used("pcs", QUOTA, later.monotonic())] == used
    assert house.quotas.rates.used("pcs", Rate(5, DAY), later.monotonic()) == (away < 86400)
    assert (send(house.quotas, client(QUOTA), now=later.monotonic()) == "") is (used[0] == 0)
    await house.file.aclose()
    house.events.close()


async def test_it_is_written_now_and_then(tmp_path: Path) -> None:
    """What a kill takes along are the last seconds; who sends nothing has nothing written; and metrics say how much."""
    clock = FakeClock()
    house = await House(tmp_path, clock).begin()
    assert not (tmp_path / NAME).exists()
    send(house.quotas, client(QUOTA))
    await house.file.flush()
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
    before = (tmp_path / NAME).stat().st_mtime_ns
    clock.advance(EVERY)
    await breathe()
    assert (tmp_path / NAME).stat().st_mtime_ns == before
    house.file.measure()
    assert house.registry.get_sample_value("gateway_quota_used_ratio", {"client": "pcs"}) == pytest.approx(1 / 3)
    await house.file.aclose()
    house.events.close()


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[]", b"null", b"\xff", b'{"version": 2}', b'{"version": 1, "at": 5, "spent": []}',
        b'{"version": 1, "at": "2026-11-20T12:00:00+00:00", "spent": [["a"]]}',
        b'{"version": 1, "at": "2026-11-20T12:00:00+00:00", "spent": [["a", "", "messages", 0, [[0, 1]]]]}',
        b'{"version": 1, "at": "2026-11-20T12:00:00+00:00", "spent": [["a", "", "messages", 60, [[0, -1]]]]}',
        b'{"version": 1, "at": "2026-11-20T12:00:00+00:00", "spent": [["a", "", "messages", 1e999, [[0, 1]]]]}',
        b'{"version": 1, "at": "2026-11-20T12:00:00", "spent": []}',
    ],
)  # fmt: skip
async def test_a_damaged_file_keeps_no_mail_out(tmp_path: Path, text: bytes) -> None:
    """It is said, and counting begins anew."""
    (tmp_path / NAME).write_bytes(text)
    house = await House(tmp_path, FakeClock()).begin()
    assert send(house.quotas, client(QUOTA)) == ""
    await house.file.aclose()
    assert house.logged() == ["quotas_unread"]
    assert json.loads((tmp_path / NAME).read_bytes())["version"] == 1
    house.events.close()


async def test_a_folder_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    """And counted it is all the same; later it is written."""
    folder = tmp_path / "state"
    house = await House(folder, FakeClock()).begin()
    for _ in range(3):
        send(house.quotas, client(QUOTA))
        await house.file.flush()
    assert house.logged() == ["quotas_unwritten"]
    folder.mkdir()
    await house.file.aclose()
    assert (folder / NAME).exists()
    house.events.close()
