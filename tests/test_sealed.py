"""What instances on one spool keep for their backends: the same at all of them, and for commands beside them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from gateway.backends.microsoft.graph import Graph
from gateway.backends.shared.stores import Shared, Store, Unkept, Unreadable
from gateway.clock import SystemClock
from gateway.events import Events
from gateway.postgresql.apart import Apart
from gateway.postgresql.engine import Postgres
from gateway.sealed import DirectStore, sealed
from gateway.spool import Spool
from gateway.spool.agreed import HeldKey, HeldKeys, agree
from tests import postgres_kit
from tests.backends.entra_keys_fake import FIRST, open_keys
from tests.postgresql.test_engine import server_of
from tests.spool_kit import opened

NAME = "sign-in:office"


async def uses(store: Store) -> None:
    """As a backend does, in a thread."""
    await asyncio.to_thread(store.put, b"zero")
    assert await asyncio.to_thread(store.write, b"one", b"zero")
    assert not await asyncio.to_thread(store.write, b"two", b"zero")
    assert await asyncio.to_thread(store.read) == b"one"


async def test_a_backend_asks_from_a_thread(tmp_path: Path) -> None:
    """While the loop goes on. A spool that has gone is said, at once."""
    async with opened(tmp_path) as at:
        store = sealed(at.spool.secrets, asyncio.get_running_loop())(NAME)
        assert await asyncio.to_thread(store.read) is None
        await uses(store)
    with pytest.raises(Unkept, match=f"{NAME} in the spool"):
        await asyncio.to_thread(store.read)


@asynccontextmanager
async def instance(url: str, name: str, folder: Path) -> AsyncIterator[Shared]:
    events = Events(level="error")
    folder.mkdir(exist_ok=True)
    engine = Postgres(server_of(url, name))
    spool = await Spool.open(folder, SystemClock(), engine=engine, events=events, reserve=0.1)
    try:
        yield sealed(spool.secrets, asyncio.get_running_loop())
    finally:
        await spool.aclose()
        events.close()


@contextmanager
def agreed_on(engine: Postgres, folder: Path) -> Iterator[None]:
    """As an instance does at its start."""
    link = engine.open()
    key = HeldKey(folder / "spool.key", (folder / "spool.key").read_bytes())
    with link.begin():
        agree(link, engine.render, HeldKeys(key, {}), me=engine.owner, now=1)
    yield
    link.close()


async def test_instances_and_a_command_see_the_same(tmp_path: Path) -> None:
    """With the same spool.key; another one opens nothing, and a command with another, or none, writes nothing."""
    with postgres_kit.database() as url:
        run = Apart(server_of(url, "command"), tmp_path / "a")
        command = DirectStore(NAME, run)
        with pytest.raises(Unkept, match=r"no .*/a/spool\.key; start the service once"):
            await asyncio.to_thread(command.read)
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "spool.key").write_bytes(bytes(32))
        with pytest.raises(Unkept, match=r"no spool in .* start the service once"):
            await asyncio.to_thread(command.put, b"")
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        async with instance(url, "a", tmp_path / "a") as a, instance(url, "b", tmp_path / "b") as b:
            with agreed_on(Postgres(server_of(url, "c")), tmp_path / "a"):
                pass
            await uses(a(NAME))
            await uses(b(NAME))
            assert await asyncio.to_thread(command.read) == b"one"
            await uses(command)
            await asyncio.to_thread(command.put, b"by a person")
            assert not await asyncio.to_thread(b(NAME).write, b"older", b"one")
            assert await asyncio.to_thread(a(NAME).read) == b"by a person"
        (tmp_path / "b" / "spool.key").write_bytes(b"x" * 32)
        async with instance(url, "b", tmp_path / "b") as b:
            with pytest.raises(Unreadable, match="bring that of another instance"):
                await asyncio.to_thread(b(NAME).read)
        with pytest.raises(Unkept, match=r"copy spool\.key from instance"):
            await asyncio.to_thread(DirectStore(NAME, Apart(run.server, tmp_path / "b")).put, b"")
    with pytest.raises(Unkept, match="cannot be used"):
        await asyncio.to_thread(command.read)


async def test_of_instances_that_write_at_once_one_wins(tmp_path: Path) -> None:
    """Also where there was nothing yet, and no row to lock."""
    with postgres_kit.database() as url:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "spool.key").write_bytes(bytes(32))
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        async with instance(url, "a", tmp_path / "a") as a, instance(url, "b", tmp_path / "b") as b:
            before: bytes | None = None
            for n in range(10):
                values = [f"{n}{m}".encode() for m in range(6)]
                writes = [partial((a, b)[m % 2](NAME).write, value, before) for m, value in enumerate(values)]
                won = await asyncio.gather(*map(asyncio.to_thread, writes))
                assert won.count(True) == 1
                before = values[won.index(True)]
                assert await asyncio.to_thread(a(NAME).read) == before


async def test_instances_renew_a_certificate_once_for_all(tmp_path: Path) -> None:
    """Both look at the same moment: one asks, both use the new key, which no row shows and no file holds."""
    with postgres_kit.database() as url:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "spool.key").write_bytes(bytes(32))
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        async with (
            instance(url, "a", tmp_path / "a") as a,
            instance(url, "b", tmp_path / "b") as b,
            open_keys(tmp_path, shared=a) as keys,
        ):
            keys.clock.advance(336 * 86400)
            other = Graph("office", keys.settings, replace(keys.context, state_dir=tmp_path / "b", shared=b))
            found = await asyncio.gather(keys.backend.renew(), other.renew())
            assert sorted(one.result for one in found if one) == ["kept", "renewed"]
            assert keys.fake.calls.count("addKey") == 1
            del keys.fake.keys[FIRST]
            assert await keys.sends()
            check = await other.check()
            assert (check.ok, "in the spool" in check.facts["certificate kept in"]) == (True, True)
            await other.aclose()
        assert not list(tmp_path.rglob("certificate-*.json"))
