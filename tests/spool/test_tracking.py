"""What providers said later: kept once with the message, bounded, told; what is still to be asked goes with it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.config.models import RetentionSettings
from gateway.model import DeliveryEvent, Outcome, SpoolUnavailable, Verdict
from gateway.spool.records import micros
from tests.builders import SENT
from tests.fakes import START, FakeClock
from tests.spool_kit import DEFERRED, REJECTED, At, of, opened, peer, settlement

SOON = START + timedelta(seconds=30)
KEEP = RetentionSettings()


async def sent(at: At, *addresses: str, remote_id: str = "r1", **more: Any) -> str:
    ident = await at.put(*addresses)
    (claim,) = [one for one in await at.claim() if one.message.id == ident]
    outcome = Outcome(Verdict.SENT, 200, "2.0.0", "", remote_id)
    await at.spool.settle(settlement(claim, outcome, **{"poll_at": SOON, **more}))
    return ident


async def told(at: At, ident: str) -> list[tuple[str, str, str, str, str]]:
    detail = await at.show(ident)
    return [(row.backend, row.address, row.state, row.detail, row.source) for row in detail.events]


def counted(at: At, state: str) -> float:
    _, text = at.events.render()
    lines = [line for line in text.decode().splitlines() if f'state="{state}"' in line and "delivery_events" in line]
    return sum(float(line.split()[-1]) for line in lines)


async def test_the_hand_over_asks_for_a_poll(at: At) -> None:
    """One for each remote id among what was sent, in the same commit; none where nothing is to be asked."""
    addresses = [f"{name}@x.org" for name in "abcdef"]
    ident = await at.put(*addresses)
    (claim,) = await at.claim()
    outcomes = [Outcome(Verdict.SENT, remote_id=name) for name in ("r1", "r1", "r2", "")] + [DEFERRED, REJECTED]
    await at.spool.settle(settlement(claim, dict(zip(addresses, outcomes, strict=True)), poll_at=SOON))
    found = [(each.message_id, each.remote_id, each.next_at, each.asked) for each in await at.spool.polls("b", 9)]
    assert sorted(found) == [(ident, "r1", SOON, 0), (ident, "r2", SOON, 0)]
    assert await at.spool.polls("other", 9) == []
    await sent(at, remote_id="r3", poll_at=None)
    assert len(await at.spool.polls("b", 9)) == 2


async def test_nothing_is_asked_about_what_was_deleted_meanwhile(at: At) -> None:
    """As nothing else is written of it."""
    ident = await at.put()
    (claim,) = await at.claim()
    await at.spool.delete(of(ident), START)
    await at.spool.settle(settlement(claim, poll_at=SOON))
    assert await at.spool.polls("b", 9) == []


@pytest.mark.parametrize(
    ("state", "final"), [("queued", False), ("delivered", True), ("bounced", True), ("failed", True)]
)
async def test_an_event_is_kept_and_told(at: At, state: str, final: bool) -> None:
    """With the message, in the log and counted; a final one ends the polls; the message's own state stays."""
    ident = await sent(at)
    await at.spool.add_events("b", [DeliveryEvent("r1", state, "words", "a@example.org", "k1")], "webhook")
    assert await told(at, ident) == [("b", "a@example.org", state, "words", "webhook")]
    assert (await at.spool.polls("b", 9) == []) is final
    assert (await at.states(ident))[0] == "done"
    (line,) = at.logged("delivery_event")
    assert line["level"] == ("warning" if state in ("bounced", "failed") else "info")
    assert (line["id"], line["backend"], line["remote_id"], line["source"]) == (ident, "b", "r1", "webhook")
    assert counted(at, state) == 1


async def test_an_event_counts_once(at: At) -> None:
    """The same key again is no news, also without a key where all is the same; another backend's key is its own."""
    ident = await sent(at)
    for _ in range(3):
        await at.spool.add_events(
            "b", [DeliveryEvent("r1", "bounced", "full", key="k1"), DeliveryEvent("r1", "queued")], "webhook"
        )
    await at.spool.add_events("b", [DeliveryEvent("r1", "bounced", "full", key="k2")], "webhook")
    await at.spool.add_events("other", [DeliveryEvent("r1", "bounced", "full", key="k3")], "webhook")
    assert [row[2] for row in await told(at, ident)] == ["bounced", "queued", "bounced"]
    assert (counted(at, "bounced"), counted(at, "unknown"), len(at.logged("delivery_event"))) == (2, 1, 3)


def flood(directory: Path, ident: str, remote_id: str, number: int) -> None:
    """So many events as if they had come; ``ident`` "" is early."""
    peer(
        directory,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?3) INSERT INTO event "
        "SELECT NULL, ?1, 'b', i || '@x.org', ?2, 'queued', '', ?4, i, 'webhook' FROM n",
        *(ident, remote_id, number, micros(START)),
    )


async def test_a_flood_is_bounded(tmp_path: Path, at: At) -> None:
    """Of one hand-over 1,000 are kept, of what nobody sent 10,000 of each backend, and no text is kept whole."""
    ident, other = await sent(at), await sent(at, remote_id="r2")
    flood(tmp_path, ident, "r1", 997)
    flood(tmp_path, "", "nobody's", 9_996)
    for n in range(5):
        for remote_id in ("r1", "r2", "nobody's", ""):
            one = DeliveryEvent(remote_id, "queued", "x" * 5000, f"{n}@y.org" + "y" * 5000, "k" * 5000 + str(n))
            await at.spool.add_events("b", [one], "webhook")
    for each, kept in ((ident, 1000), (other, 5), ("", 10_000)):
        rows = peer(tmp_path, "SELECT length(address), length(detail) FROM event WHERE message_id = ?", each)
        assert (len(rows), max(rows)) == (kept, (500, 500))


async def test_what_comes_before_the_hand_over_is_written_down_is_not_lost(tmp_path: Path) -> None:
    """A send of many calls takes minutes: what a provider says of the first waits; it ends the poll, too."""
    clock = FakeClock()
    async with opened(tmp_path, clock=clock) as at:
        ident = await at.put()
        (claim,) = await at.claim()
        for _ in range(2):
            await at.spool.add_events("b", [DeliveryEvent("r1", "bounced", "full", key="k1")], "webhook")
        await at.spool.add_events("b", [DeliveryEvent("never sent", "bounced", key="k1")], "webhook")
        await at.spool.sweep(clock.now(), KEEP)
        assert await told(at, ident) == []
        clock.advance(100)
        await at.spool.settle(settlement(claim, SENT, poll_at=SOON))
        await at.spool.sweep(clock.now(), KEEP)
        assert await told(at, ident) == [("b", "", "bounced", "full", "webhook")]
        assert await at.spool.polls("b", 9) == []
        # The provider's next try:
        await at.spool.add_events("b", [DeliveryEvent("r1", "bounced", "full", key="k1")], "webhook")
        assert (len(await told(at, ident)), counted(at, "bounced")) == (1, 1)
        detail = await at.show(ident)
        assert detail.events[0].reported_at == START
        clock.advance(3600)
        await at.spool.sweep(clock.now(), KEEP)
        assert len(peer(tmp_path, "SELECT * FROM event")) == 1


async def test_what_is_early_waits_in_silence(at: At) -> None:
    """Counted when it comes, not at every sweep; also what is of no remote id, beside an attempt that has none yet."""
    await at.put()
    await at.claim()
    await at.spool.add_events("b", [DeliveryEvent("", "bounced"), DeliveryEvent("r1", "bounced")], "webhook")
    for _ in range(3):
        await at.spool.sweep(START, KEEP)
    assert counted(at, "unknown") == 2


async def test_however_much_came_early_all_of_it_is_given_to_its_message(tmp_path: Path) -> None:
    """More than one sweep takes, written down when it was old already."""
    clock = FakeClock()
    async with opened(tmp_path, clock=clock) as at:
        ident = await at.put("a@x.org", "b@x.org")
        for remote_id in ("r1", "r2", "never sent"):
            flood(tmp_path, "", remote_id, 600)
        clock.advance(2 * 3600)
        await at.settle({"a@x.org": replace(SENT, remote_id="r1"), "b@x.org": replace(SENT, remote_id="r2")})
        for _ in range(3):
            await at.spool.sweep(clock.now(), KEEP)
        assert peer(tmp_path, "SELECT message_id, count(*) FROM event GROUP BY 1") == [(ident, 1200)]


@pytest.mark.parametrize("way", ["delete", "history"])
async def test_all_goes_with_the_message(tmp_path: Path, way: str) -> None:
    """Deleted by hand or by retention, nothing of it stays and nobody is asked."""
    clock = FakeClock()
    async with opened(tmp_path, clock=clock) as at:
        ident, other = await sent(at), await sent(at, remote_id="r2")
        await at.spool.add_events("b", [DeliveryEvent("r1", "queued", "still waiting")], "poll")
        if way == "delete":
            await at.spool.delete(of(ident, other), START)
        else:
            clock.advance(91 * 86400)
            await at.spool.sweep(clock.now(), KEEP)
        for table in ("event", "poll", "message"):
            assert peer(tmp_path, f"SELECT * FROM {table}") == []


async def test_polls_survive_a_restart_and_are_put_off(tmp_path: Path) -> None:
    """The first due first, as many as wanted; asked again later, or never again; a poll that is gone stays gone."""
    async with opened(tmp_path) as at:
        for n, remote_id in enumerate(("r3", "r1", "r2")):
            await sent(at, remote_id=remote_id, poll_at=SOON + timedelta(seconds=n))
    async with opened(tmp_path) as at:
        assert [each.remote_id for each in await at.spool.polls("b", 2)] == ["r3", "r1"]
        first, second = await at.spool.polls("b", 2)
        await at.spool.poll_again(first, SOON + timedelta(hours=1))
        await at.spool.poll_again(second, None)
        found = [(each.remote_id, each.asked) for each in await at.spool.polls("b", 9)]
        assert found == [("r2", 0), ("r3", 1)]
        await at.spool.add_events("b", [DeliveryEvent("r3", "delivered")], "webhook")
        await at.spool.poll_again(first, SOON)
        assert [each.remote_id for each in await at.spool.polls("b", 9)] == ["r2"]


async def test_an_unknown_state_is_refused_whole(at: At) -> None:
    """A backend's mistake is a bug in the log, and the file stays sound."""
    await sent(at)
    with pytest.raises(SpoolUnavailable, match="cannot be written"):
        await at.spool.add_events("b", [DeliveryEvent("r1", "teleported")], "poll")
    assert len(at.logged("bug")) == 1
    await sent(at, remote_id="r2")
