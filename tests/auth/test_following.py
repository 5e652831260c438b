"""Revocations where several instances share a spool: what one has revoked holds at all of them."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path

from gateway import auth
from gateway.auth import Revocations
from gateway.model import LoginToken, SpoolUnavailable
from tests.auth.kit import NOW, House, at, token
from tests.auth.test_claims import login
from tests.fakes import until


class Spool:
    """What all instances have revoked so far; where ``held``, what was read is on its way for as long."""

    def __init__(self) -> None:
        self.jtis, self.subjects = set[str](), dict[str, datetime]()
        self.faults: list[Exception] = []
        self.asked = asyncio.Semaphore(0)
        self.held = asyncio.Event()
        self.held.set()

    async def read(self) -> tuple[set[str], dict[str, datetime]]:
        found = set(self.jtis), dict(self.subjects)
        self.asked.release()
        if self.faults:
            raise self.faults.pop()
        await self.held.wait()
        return found


def test_all_revocations_may_be_replaced() -> None:
    known = Revocations({"a", "b"}, {"billing": at(0)})
    known.replace({"b"}, {"staff": at(0)})
    revoked = [LoginToken("app", who, jti, at(-1), None) for who, jti in (("x", "b"), ("staff", ""))]
    assert all(map(known.is_revoked, revoked))
    for who, jti in (("x", "a"), ("billing", "")):
        assert not known.is_revoked(LoginToken("app", who, jti, at(-1), None))


async def test_what_another_instance_revokes_holds_here(tmp_path: Path) -> None:
    """At once when it is heard, in new and open sessions; where nothing is heard after 30 s, and where it cannot be
    read as soon as it can."""
    house, spool = House(tmp_path), Spool()
    following = auth.Following(house.revocations, spool.read, house.clock, house.events)
    await spool.asked.acquire()
    client = await house.auth.login("jwt", token(jti="a"), "192.0.2.1")
    spool.jtis.add("a")
    assert house.auth.still_valid(client)
    following.heard()
    await spool.asked.acquire()
    assert not house.auth.still_valid(client)
    assert await login(house, token(jti="a")) == "token_revoked"
    spool.subjects["billing"] = at(0)
    spool.faults = [SpoolUnavailable("down"), OSError("a mistake")]
    for waiting, seconds in ((2, 30), (1, 30), (1, 2)):  # one more has waited for nothing when it was heard
        await until(lambda count=waiting: house.clock.sleepers == count)  # type: ignore[misc]
        house.clock.advance(seconds)
        await spool.asked.acquire()
    await until(lambda: house.clock.sleepers == 1)
    assert await login(house, token(jti="b", iat=NOW - 10)) == "token_revoked"
    await following.aclose()


async def test_what_is_revoked_here_is_not_forgotten_by_a_look_that_began_before() -> None:
    known, spool = Revocations(), Spool()
    spool.held.clear()
    look = asyncio.create_task(known.load(spool.read))
    await spool.asked.acquire()
    known.revoke_jti("a")
    known.revoke_subject("billing", at(0))
    dead = [LoginToken("app", "x", "a", at(0), None), LoginToken("app", "billing", "", at(-1), None)]
    assert all(map(known.is_revoked, dead))
    spool.held.set()
    await look
    assert all(map(known.is_revoked, dead))
