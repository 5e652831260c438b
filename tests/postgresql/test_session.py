"""The session of a member: what others say comes at once, and whatever happens to its connection is noticed in time."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio

from gateway.clock import SystemClock
from gateway.postgresql.server import Server
from gateway.postgresql.session import Lost, Session
from tests import postgres_kit
from tests.fakes import until
from tests.postgresql.proxy import Proxy, proxy

SECONDS = 10.0


class Line:
    """A session through a proxy, and what it heard."""

    def __init__(self, session: Session, broken: Proxy, heard: list[str], url: str) -> None:
        self.session, self.broken, self.heard, self.url = session, broken, heard, url

    async def wait(self, seconds: float = SECONDS) -> None:
        await self.session.wait(asyncio.Event(), SystemClock(), seconds)

    async def end(self) -> None:
        while True:
            await self.wait()

    def ask(self, statement: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as other:
            other.execute(statement.encode())


@pytest_asyncio.fixture
async def line() -> AsyncIterator[Line]:
    own = postgres_kit.shared().folder
    async with AsyncExitStack() as parts:
        url = parts.enter_context(postgres_kit.database())
        folder = parts.enter_context(tempfile.TemporaryDirectory())
        broken = parts.enter_context(proxy(Path(folder), own))
        heard: list[str] = []
        server = Server(url.replace(str(own), folder), "a", timedelta(seconds=1), durable=False)
        session = await Session.open(server, heard.append, SECONDS)
        parts.push_async_callback(session.close)
        yield Line(session, broken, heard, url)


async def test_what_others_notify_is_heard_while_it_waits_and_while_it_asks(line: Line) -> None:
    line.ask("NOTIFY gateway, 'one'")
    await line.wait()
    assert line.heard == ["one"]
    line.ask("NOTIFY gateway, 'two'")
    await line.session.ask("NOTIFY gateway, 'own'")
    await line.session.ask("SELECT 1")
    assert line.heard == ["one", "two"]
    line.ask("NOTIFY elsewhere, 'three'")
    await line.wait(0.1)
    assert line.heard == ["one", "two"]


async def test_a_connection_that_ends_is_noticed_while_it_waits(line: Line) -> None:
    postgres_kit.shared().cut(line.url.split("/")[3].partition("?")[0])
    with pytest.raises(Lost, match="administrator command"):
        await line.end()


async def test_the_server_ends_one_of_which_nothing_is_heard(line: Line) -> None:
    with pytest.raises(Lost, match="idle-session timeout"):
        await line.end()


async def test_an_answer_that_does_not_come_ends_the_wait_for_it(line: Line) -> None:
    """Also where the line is swallowed, so that the server cannot be asked to stop, and who waits is not cancelled."""
    line.broken.swallows = True
    with pytest.raises(Lost, match=r"no answer within 0\.2 seconds"), line.session.within(0.2):
        await line.session.ask("SELECT 1")
    with pytest.raises(Lost):
        await Session.open(
            Server(f"postgresql:///x?host={line.broken.folder}", "a", timedelta(1)), print, 9, connect=0.2
        )


async def test_a_refusal_of_the_server_is_no_loss(line: Line) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable), line.session.within(SECONDS):
        await line.session.ask("SELECT * FROM nowhere")
    assert await line.session.ask("SELECT %s::int, %s::text", 1, "x") == [(1, "x")]


async def test_news_ends_the_wait(line: Line) -> None:
    news, done = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        await line.session.wait(news, SystemClock(), 60)
        done.set()

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    news.set()
    await until(done.is_set)
    await waiting
