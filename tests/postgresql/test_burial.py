"""Who is taken for dead, and when: by beats that stand still while the observer's own session stands."""

from __future__ import annotations

from tests import postgres_kit
from tests.fakes import until
from tests.postgresql.member_kit import BACKENDS, Ticking, cluster


async def test_what_an_ended_session_held_moves_at_once_but_it_is_buried_only_when_it_stays_away() -> None:
    """A free lock says nothing about death: its sends go on."""
    async with cluster(Ticking()) as here:
        first = await here.join("a", clock=(standing := Ticking()))
        await here.settled(a=BACKENDS)
        second = await here.join("b")
        await here.settled(a=2, b=2)
        await until(first.member.keeps_house)
        here.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gateway a member'")
        await until(lambda: not first.member.valid())
        await until(lambda: len(first.lost) == 4)  # two of them when the other came
        await here.beat()
        await here.settled(a=0, b=BACKENDS)
        await here.beat()
        assert second.member.keeps_house()
        beats = next(peer.beats for peer in second.member.peers if peer.name == "a")
        await here.beat(12)
        assert second.buried == []
        await here.beat()
        await until(lambda: second.buried == [("a", beats)])
        assert second.logged("instance_buried")[0]["instance"] == "a"
        standing.advance(1)
        await here.settled(a=2, b=2)
        await until(lambda: ("anew", "") in first.heard)


async def test_who_comes_back_in_time_is_not_buried() -> None:
    async with cluster(Ticking()) as here:
        first = await here.join("a", clock=(standing := Ticking()))
        second = await here.join("b")
        await here.settled(a=2, b=2)
        for _ in range(2):
            here.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ 'gateway a'")
            await until(lambda: not first.member.valid())
            await here.beat(12)
            await until(lambda: standing.waiting == 1)
            standing.advance(1)
            await until(first.member.valid)
        await here.beat(12)
        assert second.buried == []


async def test_the_observer_counts_only_while_its_own_session_stands() -> None:
    async with cluster(Ticking()) as here:
        await here.join("a", clock=Ticking())
        second = await here.join("b")
        await here.settled(a=2, b=2)
        postgres_kit.shared().cut(here.database)
        await until(lambda: not second.member.valid())
        assert here.clock is not None
        await here.rest(1)
        here.clock.advance(1000)
        await here.settled(a=0, b=BACKENDS)
        await here.beat(14)
        assert second.buried == []
        await here.beat(2)
        await until(lambda: [name for name, _ in second.buried] == ["a"])


async def test_who_was_taken_for_dead_joins_anew() -> None:
    async with cluster(Ticking()) as here:
        one = await here.join("a")
        await here.settled(a=BACKENDS)
        here.ask("DELETE FROM instance")
        here.ask("INSERT INTO instance (name, number, backends, settings, version, started_at)"
                 " VALUES ('z', 0, '[]', '', '', 0)")  # fmt: skip
        assert here.clock is not None
        await here.rest(1)
        here.clock.advance(12)
        await until(lambda: len(one.lost) == len(BACKENDS))
        await here.rest(1)
        here.clock.advance(1)
        await here.settled(a=BACKENDS)
        assert one.member.number == 1
        assert "taken for dead" in one.logged("session_lost")[0]["detail"]
