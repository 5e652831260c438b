"""The one session of an instance that stands as long as the instance works: its locks, and what others tell it.

The server itself ends it where nothing is heard from it for as long as ``failover``
(https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-IDLE-SESSION-TIMEOUT): a lock says nothing about
a process that is frozen, whose connection the kernel keeps up.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg

from gateway.clock import Clock, wait_for
from gateway.postgresql.server import Server
from gateway.postgresql.terms import TERMS

CHANNEL = "gateway"
_CONNECT = 60.0  # seconds, for the names and for all the hosts of the url, one after another


class Lost(Exception):
    """The session is over, was given up, or cannot be had; says why."""


class Session:
    """Of one task at a time. ``heard`` is called with what others notified, in the order of their commits."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], heard: Callable[[str], None]) -> None:
        self._connection = connection
        self._heard = heard
        self._late = False
        self._last_words = ""
        connection.add_notify_handler(self._notified)
        connection.add_notice_handler(self._noticed)

    @classmethod
    async def open(
        cls, server: Server, heard: Callable[[str], None], seconds: float, *, connect: float = _CONNECT
    ) -> Session:
        """Raises Lost where it cannot be had within ``connect``, and made ready within ``seconds``."""
        lease = int(server.failover.total_seconds() * 1000)
        made: Session | None = None
        try:
            async with asyncio.timeout(connect):
                connection = await psycopg.AsyncConnection.connect(
                    server.conninfo("member"), autocommit=True, prepare_threshold=None
                )
            made = cls(connection, heard)
            with made.within(seconds):
                await made.ask(TERMS)
                await made.ask(f"SET idle_session_timeout = {lease}")
                await made.ask(f"SET idle_in_transaction_session_timeout = {lease}")
                await made.ask(f"SET lock_timeout = {lease // 10}")  # of rows: somebody who hangs holds them
                await made.ask("SET synchronous_commit = off")  # what it writes is of no worth to another server
                await made.ask(f"LISTEN {CHANNEL}")
        except (psycopg.Error, OSError, TimeoutError) as error:
            if made is not None:
                await made.close()
            raise Lost(_said(error) or f"no answer within {connect:g} seconds") from error
        except BaseException:
            if made is not None:
                await made.close()
            raise
        return made

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """What is asked in here is answered by then, or the session is given up. Raises Lost."""
        timer = asyncio.get_running_loop().call_later(seconds, self._cut)
        try:
            yield
        except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError, OSError) as error:
            reason = f"no answer within {seconds:g} seconds" if self._late else self._last_words or _said(error)
            raise Lost(reason) from error
        finally:
            timer.cancel()

    def _cut(self) -> None:
        """Whoever waits for it hears of that at once. To cancel him would have psycopg ask the server to."""
        self._late = True
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self._connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)

    async def ask(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Raises psycopg.Error, which is Lost ``within`` where the connection is no good any more."""
        cursor = await self._connection.execute(statement.encode(), values or None)
        return await cursor.fetchall() if cursor.description is not None else []

    async def wait(self, news: asyncio.Event, clock: Clock, seconds: float) -> None:
        """Until the server says something, ``news`` is set or the seconds are over. Raises Lost."""
        loop, line = asyncio.get_running_loop(), self._connection.fileno()
        said = False

        def readable() -> None:
            nonlocal said
            said = True
            news.set()
            loop.remove_reader(line)  # of one that nobody reads it would be called again and again

        loop.add_reader(line, readable)
        try:
            await wait_for(news, clock, seconds)
        finally:
            loop.remove_reader(line)
        if said:
            self._read()

    def _read(self) -> None:
        """What is there already."""
        line = self._connection.pgconn
        try:
            line.consume_input()
            while (one := line.notifies()) is not None:
                self._pass_on(one.be_pid, one.extra.decode("utf-8", "replace"))
            line.is_busy()  # takes in what ended the session
        except (psycopg.Error, OSError) as error:
            raise Lost(self._last_words or _said(error)) from error

    def _noticed(self, said: psycopg.errors.Diagnostic) -> None:
        """While nothing is asked, the server says so why it ends the session."""
        if said.severity_nonlocalized in ("FATAL", "PANIC"):
            self._last_words = said.message_primary or ""

    def _notified(self, one: psycopg.Notify) -> None:
        self._pass_on(one.pid, one.payload)

    def _pass_on(self, sender: int, payload: str) -> None:
        if sender != self._connection.info.backend_pid:
            self._heard(payload)

    async def close(self) -> None:
        with suppress(psycopg.Error, OSError):
            await self._connection.close()


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())
