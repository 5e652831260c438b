"""Search: whatever is rare or frequent, together or apart, in any order and page by page, what fits is found."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, CursorResult

from gateway.clock import QueueIds, first_id
from gateway.spool import Cut, Filter
from gateway.spool.connecting import connect
from gateway.spool.filters import behind, question
from gateway.spool.keys import key_of, keys_of
from gateway.spool.queries import Reader
from gateway.spool.search import Search
from gateway.spool.sqlite import SQLite
from tests.builders import envelope
from tests.fakes import START, FakeClock
from tests.spool_kit import At, message

DOMAINS = (
    "x.example",
    "sub.x.example",
    "deep.sub.x.example",
    "x-y.example",
    "xx.example",
    "münchen.example",
    "localhost",
)
LOCALS = ("ann", "Bob", "bob.smith", "inv1", "inv2", '"a b"', '"at@home"', "root")


@pytest.mark.parametrize(
    ("pattern", "address", "meant"),
    [
        ("ann@x.example", "ANN@X.example", True),
        ("ann@x.example", "ann@sub.x.example", False),
        ("x.example", "ann@x.example", True),
        ("x.example", "ann@sub.x.example", False),
        ("x.example", "ann@xx.example", False),
        ("x.example", "ann@x.example.org", False),
        ("*@X.example", "ann@x.example", True),
        ("@x.example", "ann@x.example", True),
        ("*@*.x.example", "ann@sub.x.example", True),
        ("*.x.example", "ann@deep.sub.x.example", True),
        ("*.x.example", "ann@x.example", False),
        ("*.x.example", "ann@xx.example", False),
        ("ann@*.x.example", "ann@sub.x.example", False),
        ("ann", "ann@x.example", True),
        ("ann", "ann@[192.0.2.1]", True),
        ("ann", "joann@x.example", False),
        ("localhost", "ann@localhost", True),
        ("ann@*", "ann@x.example", True),
        ("in*@*", "inv1@x.example", True),
        ("in*@x.example", "inv1@x.example", True),
        ("in*@x.example", "inv1@sub.x.example", False),
        ("in*", "inv1@sub.x.example", True),
        ("bob.smith", "bob.smith@x.example", False),  # with a dot it is a domain
        ("bob.smith", "bob.smith", True),  # or what had none
        ("bob.smith@*", "bob.smith@x.example", True),
        ("root", "root", True),
        ("münchen.example", "ann@xn--mnchen-3ya.example", True),
        ("*@MÜNCHEN.example", "ann@münchen.example", True),
        ('"a b"@x.example', '"a b"@x.example', True),
        ("[192.0.2.1]", "ann@[192.0.2.1]", True),
        ("home", '"at@home"@x.example', False),
        ("*", "ann@x.example", True),
        ("*", "", False),
        ("<>", "", True),
        ("<>", "ann@x.example", False),
        (" <Ann@x.example> ", "ann@x.example", True),
        ("%", "ann@x.example", False),
        ("a_n@x.example", "ann@x.example", False),
        ("a*n@x.example", "ann@x.example", False),
    ],
)
def test_what_is_meant_by_a_pattern(pattern: str, address: str, meant: bool) -> None:
    """Addresses, domains, all below a domain, and the part before the @; nothing else is a wild card."""
    assert fits(pattern, address) is meant


@cache
def fits(pattern: str, address: str) -> bool:
    key = key_of(address)
    local = key[key.find("@") :] if "@" in key else key
    return any(
        (local.startswith(f"@{keys.local}") if keys.begins else local == f"@{keys.local}")
        if keys.local or keys.begins
        else (keys.low <= key < keys.high if keys.high else key == keys.low)
        for keys in keys_of(pattern)
    )


def test_ids_lie_between_the_times_they_were_made_at() -> None:
    """The first id of a time is behind all that were made before, and before all that are made from then on."""
    clock = FakeClock()
    ids, made = QueueIds(clock, random.Random(1)), []
    for _ in range(50):
        made.append((ids(), clock.now()))
        clock.advance(0.001)
    for ident, at in made:
        assert [one for one, _ in made if one < first_id(at)] == [one for one, then in made if then < at]
        assert first_id(at) <= ident
        assert len(first_id(at)) == len(ident)


def test_no_two_instances_ever_give_the_same_id() -> None:
    """Whatever their clocks show: each has a number of its own. They look as ever, and go on when it changes."""
    clock, numbers = FakeClock(), [0, 1, 512, 1023]
    givers = [QueueIds(clock, random.Random(1), lambda n=n: numbers[n]) for n in range(4)]  # type: ignore[misc]
    made = [[giver() for giver in givers] for _ in range(500)]
    numbers[0] = 7  # it was buried, and has joined again
    made += [[giver() for giver in givers] for _ in range(500)]
    assert len({ident for each in made for ident in each}) == 4000
    assert [each[0] for each in made] == sorted(each[0] for each in made)
    assert {len(ident) for each in made for ident in each} == {len(QueueIds(clock, random.Random(1))())}
    assert all(first_id(clock.now()) <= ident for each in made for ident in each)


class Life:
    """Messages of which everything is known, put into a spool."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.rows: list[dict[str, str]] = []
        self.to: list[tuple[str, ...]] = []

    async def fill(self, at: At, number: int) -> None:
        pick, put = self.rng.choice, []
        for n in range(number):
            address = lambda: f"{pick(LOCALS)}@{pick(DOMAINS[: 2 + n % 6])}"  # noqa: E731, B023
            row = {"client": pick(("a", "a", "a", f"c{n % 40}")), "peer": f"192.0.2.{self.rng.randrange(9)}"}
            row |= {"sender": pick(("", address())), "original": pick(("", "", "root", address()))}
            to = tuple({address() for _ in range(self.rng.randrange(1, 4))})
            backend = pick(("b", "b", "other"))
            ident = f"M{n:04d}"
            put.append(
                message(
                    *to, ident=ident, backend=backend, client=row["client"], peer=row["peer"],
                    envelope=envelope(*to, sender=row["sender"], original=row["original"]),
                )
            )  # fmt: skip
            self.rows.append({"id": ident, "backend": backend, "state": "queued"} | row)
            self.to.append(to)
        await at.spool.put(*put)
        held = self.rng.sample(self.rows, number // 3)
        for row in held:
            row["state"] = "held"
        assert await at.spool.hold(Filter(ids=tuple(row["id"] for row in held)), START) == len(held)

    def expected(self, which: Filter) -> list[str]:
        """In the order of ids."""
        found = []
        for row, to in zip(self.rows, self.to, strict=True):
            same = all(getattr(which, name) in ("", row[name]) for name in ("client", "peer", "backend"))
            senders = [row["sender"], *filter(None, [row["original"]])]
            in_state = which.state in ("", "unfinished", row["state"])
            whom: dict[str, list[str]] = {"sender": senders, "recipient": list(to), "address": [*senders, *to]}
            named = all(
                not getattr(which, name) or any(fits(getattr(which, name), one) for one in addresses)
                for name, addresses in whom.items()
            )
            if same and in_state and named and (not which.upto or row["id"] <= which.upto):
                found.append(row["id"])
        return found

    def question(self) -> Filter:
        pick = self.rng.choice
        patterns = (
            "x.example",
            "*.x.example",
            "root",
            "ann@*",
            "inv*@x.example",
            "Bob@x.example",
            "nix.example",
            "<>",
            "in*",
        )
        given = {
            "client": pick(("a", "c3", "nix")), "peer": pick(("192.0.2.1", "192.0.2.99")), "upto": "M0150",
            "state": pick(("queued", "held", "unfinished", "failed")), "backend": pick(("b", "other", "nix")),
            "sender": pick(patterns), "recipient": pick(patterns), "address": pick(patterns),
        }  # fmt: skip
        names = self.rng.sample(sorted(given), self.rng.randrange(4))
        return Filter(**{name: given[name] for name in names})


class Here:
    """A connection of this very thread: thousands of short statements are asked, and the way to another is long."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def exec_driver_sql(self, statement: str, given: dict[str, Any]) -> CursorResult[Any]:
        return self._connection.exec_driver_sql(statement, given)


async def collected(search: Callable[[str], Search], limit: int) -> list[str]:
    """All, from search to search; each gives no more than was asked for."""
    found: list[str] = []
    last, more = "", True
    while more:
        one = await search(last).find(limit)
        assert len(one.ids) <= limit
        found += one.ids
        assert not one.more or one.last != last  # it gets on
        last, more = one.last, one.more
    return found


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_is_asked_it_finds_what_fits(tmp_path: Path, at: At, seed: int) -> None:
    """Of 120 questions of every kind, as if a handful were many: the same as looking at every message, once each and in
    order, from either end. A page with its count is what both are apart."""
    life = Life(seed)
    await life.fill(at, 300)
    engine = SQLite(tmp_path)
    with connect(engine.path) as connection:
        reader = Reader(Here(connection), engine)  # type: ignore[arg-type]
        for n in range(120):
            which, oldest, thorough = life.question(), n % 2 == 0, n % 3 == 0
            asked = question(which)
            base = Search(reader.all, asked, oldest, thorough, rare=7, looked=30)

            def go_on(last: str, base: Search = base, oldest: bool = oldest) -> Search:
                rest = base.asked.within(low=behind(last)) if oldest else base.asked.within(high=last)
                return replace(base, asked=rest) if last else base

            expected = life.expected(which)[:: 1 if oldest else -1]
            for limit in (1, 10, 1000) if n < 30 else (25,):
                assert await collected(go_on, limit) == expected, (which, limit, oldest)
            number, more = await base.total(1000)
            assert (number <= len(expected), more or number == len(expected)) == (True, True), which
            cut = Cut(limit=10, oldest=oldest)
            both = await at.spool.page(which, cut), await at.spool.total(which, 1000)
            assert await at.spool.counted_page(which, cut, 1000) == both, which


async def test_what_comes_to_others_later_hides_nothing(tmp_path: Path, at: At) -> None:
    """Thousands of reports to everybody: of what is frequent as much is looked at, whatever came in after it."""
    wanted = [await at.put(f"a{n}@x.example") for n in range(20)]
    for n in range(40):
        await at.put(f"a{n}@elsewhere.example", client="gateway")
    readers = SQLite(tmp_path).readers()
    async with readers.connect() as connection:
        reader = Reader(connection, SQLite(tmp_path))
        for which in (Filter(state="unfinished", recipient="x.example"), Filter(untold=False, address="a*@x.example")):
            found = await Search(reader.all, question(which), rare=7, looked=30).find(50)
            assert (found.ids, found.more) == (wanted[::-1], False)
    await readers.dispose()


async def test_pages_lead_on_and_back(at: At) -> None:
    """Through all of them in either order, and the same pages on the way back; at the ends nothing goes on."""
    ids = [await at.put() for _ in range(7)]
    for oldest in (False, True):
        order = ids if oldest else ids[::-1]
        on, back = ("after", "before") if oldest else ("before", "after")
        page, seen = await at.spool.page(Filter(), Cut(limit=3, oldest=oldest)), []
        while True:
            seen.append([row.id for row in page.messages])
            if not page.next:
                break
            page = await at.spool.page(Filter(), Cut(limit=3, oldest=oldest, **{on: page.next}))
        assert seen == [order[0:3], order[3:6], order[6:7]]
        page = await at.spool.page(Filter(), Cut(limit=3, oldest=oldest, **{back: page.previous}))
        assert [row.id for row in page.messages] == order[3:6]
        page = await at.spool.page(Filter(), Cut(limit=3, oldest=oldest, **{back: page.previous}))
        assert ([row.id for row in page.messages], page.previous, page.next) == (order[:3], "", order[2])


async def test_what_comes_in_later_is_on_no_page_behind(at: At) -> None:
    """With ``upto`` neither a page nor an act meets it."""
    seen = [await at.put() for _ in range(3)]
    which = Filter(sender="s@example.com", upto=seen[-1])
    await at.put()
    assert [row.id for row in await at.spool.find(which)] == seen[::-1]
    assert await at.spool.hold(which, START) == 3
    assert (await at.spool.total(Filter())).number == 4


async def test_an_unknown_state_is_no_wider_question(at: At) -> None:
    """It is refused, by whatever way it comes."""
    await at.put()
    for ask in (at.spool.find, at.spool.count, lambda which: at.spool.hold(which, START)):
        with pytest.raises(ValueError, match="no state sending; there are queued"):
            await ask(Filter(state="sending"))
