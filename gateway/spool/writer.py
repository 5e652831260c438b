"""Group commit: one task takes all that has arrived, commits it in one transaction and answers everyone at once."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection

from gateway.clock import Clock
from gateway.events import Events
from gateway.model import SpoolFull, SpoolUnavailable
from gateway.spool.engine import Engine, Trouble
from gateway.spool.records import micros
from gateway.spool.steady import SpoolTime
from gateway.spool.transaction import Transaction
from gateway.spool.vault import Vault

T = TypeVar("T")
GROUP = 256  # operations in one transaction, so that nobody waits for too many others


@dataclass(slots=True, eq=False)
class Operation(Generic[T]):
    """``run`` is called in the writer's thread. ``ids`` are the messages whose states it may change.

    A ``late`` one runs after the others of its group, when all states are right (claims).
    """

    run: Callable[[Transaction], T]
    future: asyncio.Future[T]
    ids: Sequence[str]
    late: bool


@dataclass(slots=True)
class Applied:
    """What a group came to: a value or an error for each operation, and what changed."""

    answers: list[tuple[Operation[Any], Any]]
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    woken: set[str] = field(default_factory=set)
    damaged: list[str] = field(default_factory=list)

    def __iadd__(self, other: Applied) -> Applied:
        self.answers += other.answers
        self.counts.update(other.counts)
        self.woken |= other.woken
        self.damaged += other.damaged
        return self


NO_SPACE = "not enough space in the spool, try again later"
OUT_OF_ORDER = "the spool cannot be written, try again later"


class Writer:
    """Owns the writing connection. ``drop_sent``: bodies go when all recipients are served.

    When its task dies it says so in ``alive``; all who wait are refused, and so is everyone who comes later.
    """

    def __init__(
        self,
        engine: Engine,
        connection: Connection,
        thread: Executor,
        *,
        clock: Clock,
        time: SpoolTime,
        events: Events,
        wake: Callable[[str], None],
        vault: Vault,
    ) -> None:
        self.drop_sent = False
        self.healthy = True
        self._engine = engine
        self._connection = connection
        self._thread = thread
        self._clock = clock
        self._time = time
        self._events = events
        self._wake = wake
        self._vault = vault
        self._queue: deque[Operation[Any]] = deque()
        self._group: list[Operation[Any]] = []
        self._arrived = asyncio.Event()
        self._closing = False
        self._task = asyncio.create_task(self._run(), name="spool-writer")
        self._task.add_done_callback(self._ended)

    @property
    def alive(self) -> bool:
        return not self._closing and not self._task.done()

    def submit(
        self, run: Callable[[Transaction], T], ids: Sequence[str] = (), *, late: bool = False
    ) -> asyncio.Future[T]:
        """Take part in the next group. The future may be cancelled or forgotten: the operation is carried out anyway.

        Raises SpoolUnavailable when the writer is gone; the future ends with one when the disk refuses.
        """
        if not self.alive:
            raise SpoolUnavailable(OUT_OF_ORDER)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.append(Operation(run, future, ids, late))
        self._arrived.set()
        return future

    async def aclose(self) -> None:
        """Carry out what is waiting, then close the file."""
        self._closing = True
        self._arrived.set()
        await asyncio.wait({self._task})
        await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._queue or not self._closing:
            if not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            self._group = [self._queue.popleft() for _ in range(min(GROUP, len(self._queue)))]
            started = self._clock.monotonic()
            applied = await loop.run_in_executor(self._thread, self._apply, self._group)
            self._events.spool_written(self._clock.monotonic() - started)
            self._answer(applied)
            del applied  # and with it the bytes of every message of the group

    def _answer(self, applied: Applied) -> None:
        self._engine.committed(applied.counts)
        for operation, answer in applied.answers:
            if operation.future.done():
                continue  # its caller has gone
            if isinstance(answer, BaseException):
                operation.future.set_exception(answer)
            else:
                operation.future.set_result(answer)
        self._group = []
        for identifier in applied.damaged:
            self._events.warning("corrupt", id=identifier, detail="damaged in the spool: not sent, kept")
        for backend in applied.woken:
            self._wake(backend)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None:
            return
        self._events.bug("spool.writer", task.exception() or RuntimeError())
        for operation in (*self._group, *self._queue):
            if not operation.future.done():
                operation.future.set_exception(SpoolUnavailable(OUT_OF_ORDER))
        self._queue.clear()

    # -- in the writer's thread ----------------------------------------------------------------------------------

    def _apply(self, group: Sequence[Operation[Any]]) -> Applied:
        """One transaction for all; if that fails, one for each, so that nobody pays for a neighbour."""
        try:
            applied = self._commit(group)
        except Exception as error:
            trouble = self._engine.classify(error)
            if trouble is Trouble.BROKEN:
                self._reopen()
            elif len(group) > 1 and trouble is not Trouble.BUSY:
                whole = Applied([])
                for operation in group:
                    whole += self._apply([operation])
                return whole
            self._note(error, trouble)
            full = trouble is Trouble.FULL
            return Applied(
                [(operation, SpoolFull(NO_SPACE) if full else SpoolUnavailable(OUT_OF_ORDER)) for operation in group]
            )
        self.healthy = True
        return applied

    def _commit(self, group: Sequence[Operation[Any]]) -> Applied:
        ids = list({identifier for operation in group for identifier in operation.ids})
        seen = self._time.seen()
        times = micros(seen.spool), micros(seen.wall)
        with self._connection.begin():
            transaction = Transaction(
                self._connection, self._engine, *times, vault=self._vault, drop_sent=self.drop_sent
            )
            with transaction.changing(ids):
                answers = [(operation, operation.run(transaction)) for operation in group if not operation.late]
            answers += [(operation, operation.run(transaction)) for operation in group if operation.late]
            transaction.flush()
        return Applied(answers, transaction.counts, transaction.woken, transaction.damaged)

    def _note(self, error: Exception, trouble: Trouble) -> None:
        if trouble is Trouble.OURS:
            self._events.bug("spool", error)
        else:
            self.healthy = False
            self._events.warning("spool_error", detail=str(getattr(error, "orig", error)))

    def _reopen(self) -> None:
        """After a failed fsync a later one proves nothing (the kernel may have dropped the pages): start anew."""
        self._connection.invalidate()
        self._connection.close()
        self._connection = self._engine.reopen()
