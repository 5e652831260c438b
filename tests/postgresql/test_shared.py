"""What instances on one database know together: last uses, whoever noted them."""

from __future__ import annotations

import random
from datetime import timedelta

from gateway.lastuse import Use, joined
from tests import postgres_kit
from tests.fakes import START
from tests.postgresql.test_engine import opened


async def test_last_uses_are_those_at_all_instances() -> None:
    """Neither writes over what the other noted: the later one counts, and the days of both; each learns of them."""
    rng = random.Random(1)
    noted = {}
    with postgres_kit.database() as url:
        async with opened(url, "a") as a, opened(url, "b") as b:
            for n in range(40):
                at = [START + timedelta(days=rng.choice([0, 0, 1, 3, 30, 31, 90]), seconds=n) for _ in "ab"]
                uses = [Use(moment, name, rng.getrandbits(31)) for name, moment in zip("ab", at, strict=True)]
                for spool, use in zip((a, b), uses, strict=True):
                    spool.uses.learn([("client", f"c{n}", use)])
                    spool.uses.give_back([("client", f"c{n}", use)])
                if at[0] != at[1]:
                    noted[f"c{n}"] = joined(*uses)
            a.uses.note("password", "copier", START, "192.0.2.1")
            await a.uses.write()
            await b.uses.write()
            assert {name: b.uses.of("client", name) for name in noted} == noted
            assert b.uses.of("password", "copier") == Use(START, "192.0.2.1")
        async with opened(url, "c") as c:
            assert {name: c.uses.of("client", name) for name in noted} == noted
