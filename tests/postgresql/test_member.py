"""Instances on one queue: each backend is worked by one that lives, and shares even out. Time is a fake clock's, but
that by which the server ends a session."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import pytest

from gateway.spool import SpoolError
from tests import postgres_kit
from tests.fakes import START, until
from tests.postgresql.member_kit import BACKENDS, Party, Ticking, cluster

_OPEN = """
INSERT INTO delivery (message_id, backend, n, state, next_attempt_at, received_at, attempts, sticky, in_doubt,
    attempt_id, started_at, addresses, owner) VALUES ('M', 'up1', 0, 'queued', 0, 0, 1, FALSE, 0, 1, 0, '[]', %s)"""


async def test_one_instance_works_all_and_keeps_house() -> None:
    async with cluster(Ticking()) as here:
        one = await here.join("a", share=False)
        await here.beat(2)
        assert (one.gained, one.member.keeps_house(), one.member.valid()) == ([], False, True)
        one.member.share()
        await here.settled(a=BACKENDS)
        await until(one.member.keeps_house)
        assert one.gained == sorted(BACKENDS)
        assert here.ask("SELECT DISTINCT owner FROM backend") == [("a",)]
        assert here.ask("SELECT count(DISTINCT number) FROM backend") == [(4,)]
        assert one.member.alive


async def test_two_and_three_share_and_even_out_again() -> None:
    async with cluster(Ticking()) as here:
        one = await here.join("a")
        await here.settled(a=BACKENDS)
        await here.join("b")
        await here.settled(a=2, b=2)
        await here.join("c")
        await until(lambda: sorted(map(len, here.owners().values())) == [1, 1, 2])
        assert [party.member.number for party in here.parties.values()] == [0, 1, 2]
        await one.member.aclose()
        await here.settled(a=0, b=2, c=2)
        await until(lambda: ("bye", "a") in here.parties["b"].heard)
        again = await here.join("d")
        assert again.member.number == 0  # of who went


async def test_what_is_said_of_a_backend_is_heard_while_who_says_it_works_it() -> None:
    """Not of one that gave it back or is gone, and never of another one than said it."""
    async with cluster(Ticking()) as here:
        one = await here.join("a", backends=["up1"])
        await here.settled(a=["up1"])
        two = await here.join("b", backends=["up1"])
        here.ask("UPDATE backend SET standing = 'stopped' WHERE name = 'up1' AND owner = 'a'")
        await here.beat(2)
        assert (one.said, two.said) == ({"up1": "stopped"},) * 2
        here.ask("UPDATE backend SET owner = 'b' WHERE name = 'up1'")
        await here.beat(2)
        assert (one.said, two.said) == ({}, {})
        here.ask("UPDATE backend SET owner = 'a' WHERE name = 'up1'")
        await one.member.aclose()
        await here.settled(b=["up1"])
        await here.beat(2) if here.parties.pop("a") else None
        assert two.said == {}
        assert here.ask("SELECT owner, standing FROM backend WHERE name = 'up1'") == [("b", "")]


async def test_a_backend_is_worked_only_by_who_has_it_and_a_reload_is_followed() -> None:
    async with cluster(Ticking()) as here:
        one = await here.join("a", backends=["up1"])
        two = await here.join("b", backends=["up1", "up2"])
        await here.settled(a=["up1"], b=["up2"])
        one.backends, two.backends = ["up3"], ["up1", "up2", "up3"]
        await here.beat(2)
        await here.settled(a=["up3"], b=["up1", "up2"])
        assert (one.member.owns("up3"), one.member.owns("up1")) == (True, False)
        assert one.member.declared() == {"up1", "up2", "up3"}
        assert one.lost == ["up1"]


@pytest.mark.parametrize("at_rest", [True, False])
async def test_what_is_given_back_is_anothers_once_it_is_at_rest_or_failover_is_over(at_rest: bool) -> None:
    """Nothing more is claimed meanwhile, and the session goes on; one send that hangs does not keep back the others."""
    async with cluster(Ticking()) as here:
        one = await here.join("a", backends=["up1", "up2"])
        await here.settled(a=["up1", "up2"])
        one.gate = asyncio.Event()
        await here.join("b", backends=["up1", "up2"])
        await until(lambda: one.lost == ["up1"])
        await here.beat(4)
        assert here.owners() == {"a": ["up2"], "b": []}
        assert one.member.workers == {"up1": "a", "up2": "a"}
        if at_rest:
            one.gate.set()
        else:
            await here.beat()
        await here.settled(a=["up2"], b=["up1"])
        one.gate.set()


async def test_a_mistake_in_what_it_asks_for_is_reported_and_costs_only_the_session() -> None:
    async with cluster(Ticking()) as here:
        one = await here.join("a")
        await here.settled(a=BACKENDS)
        one.backends = None  # type: ignore[assignment] - so that it raises
        await here.rest(1)
        assert here.clock is not None
        here.clock.advance(12)
        await until(lambda: [line["where"] for line in one.logged("bug")] == ["member"])
        assert (one.member.alive, one.member.valid(), sorted(one.lost)) == (True, False, sorted(BACKENDS))
        one.backends = list(BACKENDS)
        await here.rest(1)
        here.clock.advance(1)
        await here.settled(a=BACKENDS)


async def test_a_second_of_one_name_is_refused() -> None:
    async with cluster(Ticking()) as here:
        one = await here.join("a")
        await here.settled(a=BACKENDS)
        joining = asyncio.create_task(here.join("a", clock=(later := Ticking())))
        while not joining.done():
            later.advance(1)
            await asyncio.sleep(0.005)
        with pytest.raises(SpoolError, match=r"instance a runs already, connected from .*spool\.instance"):
            await joining
        assert later.monotonic() > 60
        assert one.member.owned() == set(BACKENDS)


async def test_a_name_goes_to_the_next_when_the_session_of_the_first_has_ended() -> None:
    """Who had it hears that somebody else has it, and works nothing any more."""
    async with cluster(Ticking()) as here:
        first = await here.join("a", clock=(standing := Ticking()))
        await here.settled(a=BACKENDS)
        joining = asyncio.create_task(here.join("a"))
        await until(lambda: here.clock is not None and here.clock.sleepers > 0)
        postgres_kit.shared().cut(here.database)
        await until(lambda: len(first.lost) == len(BACKENDS))
        while not joining.done():
            assert here.clock is not None
            here.clock.advance(1)
            await asyncio.sleep(0.005)
        second = await joining
        await here.settled(a=BACKENDS)
        assert second.member.number == first.member.number == 0
        assert second.member.started_at != first.member.started_at
        for _ in range(3):
            await until(lambda: standing.sleepers > 0)
            standing.advance(1)
        await until(lambda: "runs elsewhere" in str(first.logged("session_lost")))
        assert (first.member.owned(), first.member.valid()) == (frozenset(), False)


async def test_beats_go_on_while_a_group_is_being_committed() -> None:
    """A commit may wait long for a replica: that is no reason to lose everything."""
    async with cluster(Ticking(), failover=timedelta(seconds=10)) as here:
        one = await here.join("a")
        await here.settled(a=BACKENDS)
        with postgres_kit.shared().connect(here.database) as writer:
            writer.execute("BEGIN")
            writer.execute("UPDATE instance SET groups = 1 WHERE name = 'a'")
            assert here.clock is not None
            for _ in range(2):
                await here.rest(1)
                here.clock.advance(2)
            await here.rest(1)
            assert one.member.valid()
            writer.execute("COMMIT")
        assert one.lost == []
        await here.beat()


async def test_a_member_that_commits_all_the_time_is_seen_by_the_others() -> None:
    """One group follows another without a gap: what it could work and that it beats is written down all the same."""
    async with cluster(Ticking()) as here:
        await here.join("a")
        await here.settled(a=BACKENDS)
        await here.join("b", share=False)
        busy = threading.Event()

        def commit() -> None:
            with postgres_kit.shared().connect(here.database) as writer:
                while not busy.is_set():
                    writer.execute("BEGIN; UPDATE instance SET groups = groups + 1 WHERE name = 'b'")
                    writer.execute("SELECT pg_sleep(0.02)")
                    writer.execute("COMMIT")

        committing = asyncio.create_task(asyncio.to_thread(commit))
        here.parties["b"].member.share()
        await here.settled(a=2, b=2)
        await here.beat(3)
        busy.set()
        await committing


async def test_a_backend_that_a_group_claims_of_is_taken_once_that_is_committed() -> None:
    """Nothing else is lost for it."""
    async with cluster(Ticking(), failover=timedelta(seconds=20)) as here:
        one = await here.join("a")
        await here.settled(a=BACKENDS)
        with postgres_kit.shared().connect(here.database) as writer:
            writer.execute("BEGIN")
            writer.execute("SELECT owner FROM backend WHERE name = 'up1' FOR SHARE")
            two = await here.join("b")
            await until(lambda: one.lost == ["up1"])
            await until(lambda: here.clock is not None and here.clock.waiting == 2)
            assert one.member.valid()
            assert two.member.owned() == set()
            writer.execute("COMMIT")
        await here.beat()
        await here.settled(a=2, b=2)


async def test_what_is_told_is_heard_by_the_others_once_and_in_order() -> None:
    async with cluster(Ticking()) as here:
        one, two = await here.join("a"), await here.join("b")
        await here.settled(a=2, b=2)
        for what in ("up1", "up2", "up1"):
            one.member.tell("order", what)
        one.member.tell("revoked")
        await until(lambda: ("revoked", "") in two.heard)
        assert [said for said in two.heard if said[0] in ("order", "revoked")] == [
            ("order", "up1"), ("order", "up2"), ("revoked", "")
        ]  # fmt: skip
        assert not [said for said in one.heard if said[0] == "revoked"]
        here.ask("SELECT pg_notify('gateway', 'wake up 3')")
        await until(lambda: ("wake", "up 3") in one.heard and ("wake", "up 3") in two.heard)


async def test_clocks_apart_do_no_harm() -> None:
    """Ten minutes early and late: nobody is taken for dead, and each knows what time it is in the database."""
    ten = timedelta(minutes=10)
    early, late = Ticking(START - ten), Ticking(START + ten)
    async with cluster() as here:
        one, two = await here.join("a", clock=early), await here.join("b", clock=late)
        await here.settled(a=2, b=2)
        for _ in range(16):
            await here.beat(clock=early)
            await here.beat(clock=late)
        assert (one.buried, two.buried, one.lost + two.lost) == ([], [], one.lost)
        apart = one.member.offset - two.member.offset
        assert abs(apart - 2 * ten) < timedelta(seconds=5)
        assert len(one.logged("clock_differs")) == len(two.logged("clock_differs")) == 1


async def test_a_machine_that_slept_has_nothing_until_it_has_beaten_again() -> None:
    async with cluster(Ticking()) as here:
        one = await here.join("a")
        await here.settled(a=BACKENDS)
        assert here.clock is not None
        here.clock.suspend(100)
        assert (one.member.valid(), one.member.owned(), one.member.keeps_house()) == (False, frozenset(), False)
        await here.beat()
        await here.settled(a=BACKENDS)


async def test_a_mistake_of_who_is_told_costs_nothing_else() -> None:
    async with cluster(Ticking()) as here:
        one = await here.join("a", share=False)
        one.breaks = 2
        one.heard = None  # type: ignore[assignment] - so that it raises
        one.member.share()
        await here.beat(2)
        here.ask("SELECT pg_notify('gateway', 'wake up1')")
        await here.settled(a=BACKENDS)
        await until(lambda: {line["where"] for line in one.logged("bug")} == {"member.gain", "member.heard"})
        assert one.member.alive
        assert here.ask("SELECT DISTINCT owner FROM backend") == [("a",)]


async def test_settings_that_differ_are_said_once() -> None:
    async with cluster(Ticking()) as here:
        one, two = await here.join("a"), await here.join("b")
        await here.settled(a=2, b=2)
        two.settings = '{"routes":"other"}'
        await here.beat(4)
        assert "routes: a / b" in str(one.logged("settings_differ")[0]["differences"])
        assert len(one.logged("settings_differ")) == len(two.logged("settings_differ")) == 1


@pytest.mark.parametrize(("owner", "rows"), [("b", [("b",)]), ("a", [("a",), ("b",)])])
async def test_who_goes_with_something_under_way_leaves_it_to_the_others_to_bury(
    owner: str, rows: list[tuple[str]]
) -> None:
    async with cluster(Ticking()) as here:
        one, two = await here.join("a"), await here.join("b")
        await here.settled(a=2, b=2)
        here.ask(_OPEN, owner)
        await one.member.aclose()
        assert here.ask("SELECT name FROM instance ORDER BY name") == rows
        assert len(one.lost) >= 2
        await here.settled(a=0, b=BACKENDS)
        del here.parties["a"]
        await here.beat()
        await until(two.member.keeps_house)


def test_a_member_that_never_began_has_nothing() -> None:
    party = Party("postgresql://nobody@127.0.0.1:1/x", "a", Ticking())
    assert (party.member.valid(), party.member.owned(), party.member.alive) == (False, frozenset(), False)
    party.events.close()
