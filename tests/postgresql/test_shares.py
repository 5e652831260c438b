"""Shares of the backends: everybody works out the same, nothing is left over, and nothing moves to and fro."""

from __future__ import annotations

from contextlib import closing
from unittest.mock import create_autospec

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import SystemClock
from gateway.events import Events
from gateway.postgresql.holding import Holding
from gateway.postgresql.seats import Survey
from gateway.postgresql.session import Session
from gateway.postgresql.shares import share

ALL = ("w", "x", "y", "z")


@pytest.mark.parametrize(
    ("held", "may", "take", "give", "leave"),
    [
        ({}, {"a": ALL}, ALL, (), ()),
        ({}, {"a": ALL, "b": ALL}, ("w", "y"), (), ()),
        ({}, {"a": (), "b": ALL}, (), (), ()),
        ({"w": "a", "x": "a", "y": "a", "z": "a"}, {"a": ALL, "b": ALL}, (), ("w", "x"), ()),
        ({"w": "a", "x": "a", "y": "b"}, {"a": ALL, "b": ALL}, (), (), ()),
        ({"w": "a", "x": "a", "y": "a"}, {"a": ALL, "b": ALL}, (), ("w",), ()),  # z is for b, too
        ({"w": "a", "x": "a"}, {"a": ("w",), "b": ("x",)}, (), (), ("x",)),
        ({"w": "a", "x": "a"}, {"a": (), "b": ()}, (), (), ("w", "x")),
        ({"w": "a", "x": "a", "y": "a"}, {"a": ALL[:3], "b": ("z",)}, (), (), ()),  # b can have none of them
        ({"w": "b", "x": "b"}, {"a": ALL[:3], "b": ALL}, ("y",), (), ()),
    ],
)
def test_shares(
    held: dict[str, str],
    may: dict[str, tuple[str, ...]],
    take: tuple[str, ...],
    give: tuple[str, ...],
    leave: tuple[str, ...],
) -> None:
    found = share("a", held, may)
    assert (found.take, found.give, found.leave) == (take, give, leave)


_MAY = st.dictionaries(st.sampled_from("abcde"), st.frozensets(st.sampled_from("pqrstuvwxyz")), min_size=1)


@given(may=_MAY, data=st.data())
def test_they_even_out_whoever_held_what(may: dict[str, frozenset[str]], data: st.DataObject) -> None:
    """Each, one after another, takes what is for it and gives one back: in the end all that can be is worked, and
    nobody has two more than another who could have one of them."""
    backends = sorted(frozenset().union(*may.values()))
    held = {name: data.draw(st.sampled_from(sorted(may))) for name in backends if data.draw(st.booleans())}
    for _ in range(2 * len(backends) + 2):
        for me in sorted(may):
            found = share(me, held, may)
            assert not set(found.take) & held.keys()
            for backend in (*found.leave, *found.give[:1]):
                assert held.pop(backend) == me
            held |= dict.fromkeys(found.take, me)
    before = dict(held)
    for me in may:
        found = share(me, held, may)
        assert (found.take, found.give, found.leave) == ((), (), ())
    assert held == before
    assert held.keys() == set(backends)
    has = {me: sum(holder == me for holder in held.values()) for me in may}
    for backend, holder in held.items():
        assert backend in may[holder]
        assert all(has[holder] - has[other] <= 1 for other in may if backend in may[other])


def test_a_thousand_even_out_over_twenty() -> None:
    backends = [f"b{n:03}" for n in range(1000)]
    may = {f"i{n:02}": backends for n in range(20)}
    found = share("i00", dict.fromkeys(backends, "i00"), may)
    assert (len(found.give), found.give[0]) == (950, "b000")


async def test_a_backend_that_has_no_number_yet_is_taken_later() -> None:
    """Others add theirs at the same moment, and it may have to be tried again: the rest is worked all the same."""

    async def lose(backend: str) -> None: ...

    with closing(Events(level="error")) as events:
        told = {"gain": print, "lose": lose, "stir": print, "patience": 1.0, "clock": SystemClock(), "events": events}
        holding = Holding("a", **told)  # type: ignore[arg-type]
        session = create_autospec(Session, instance=True)
        session.ask.return_value = [(True,)]
        await holding.balance(session, Survey(numbers={"y": 1}), {"a": ["x", "y"]})
        assert holding.owned == {"y"}
