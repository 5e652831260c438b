"""Group commit: one task takes all that has arrived, commits it in one transaction and answers everyone at once."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from gateway.clock import Clock
from gateway.events import Events
from gateway.model import SpoolFull, SpoolTrouble, SpoolUnavailable
from gateway.spool.engine import OUT_OF_ORDER, Connection, Engine, Trouble, Unreadable
from gateway.spool.records import micros
from gateway.spool.steady import SpoolTime
from gateway.spool.transaction import Transaction
from gateway.spool.vault import Vault

T = TypeVar("T")
GROUP = 256  # operations in one transaction, so that nobody waits for too many others


@dataclass(slots=True, eq=False)
class Operation(Generic[T]):
    """``run`` is called in the writer's thread. ``ids`` are the messages whose states it may change.

    A ``late`` one runs after the others of its group, when all states are right (claims). A ``fresh`` one brings new
    mail, for which the last of a full disk is not there. ``then`` is told what came of it, whoever else waits.
    """

    run: Callable[[Transaction], T]
    future: asyncio.Future[T]
    ids: Sequence[str]
    late: bool
    fresh: bool
    then: Callable[[T | BaseException], None] | None

    def end(self, answer: T | BaseException, refusal: SpoolTrouble | None = None) -> None:
        """``refusal``: what its caller is told instead."""
        if self.future.done():
            return  # its caller has gone
        if isinstance(told := refusal or answer, BaseException):
            self.future.set_exception(told)
        else:
            self.future.set_result(told)


@dataclass(slots=True)
class Applied:
    """What a group came to: a value or an error for each operation, and what changed."""

    answers: list[tuple[Operation[Any], Any]]
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    woken: set[str] = field(default_factory=set)
    damaged: list[str] = field(default_factory=list)
    full: str = ""  # what was, on the way: disk or quota
    astray: str = ""  # what is wrong with the place of it all
    refusal: SpoolTrouble | None = None  # for those who bring new mail, though it is written down
    rescued: bool = False  # and was put right

    def __iadd__(self, other: Applied) -> Applied:
        self.answers += other.answers
        self.counts.update(other.counts)
        self.woken |= other.woken
        self.damaged += other.damaged
        self.full = self.full or other.full
        self.astray = self.astray or other.astray
        self.refusal = self.refusal or other.refusal
        self.rescued |= other.rescued
        return self


_SHRINK_EVERY = 300.0  # seconds
_TRIES = 3  # of one group
NO_SPACE = "not enough space in the spool, try again later"


class Writer:
    """Owns the writing connection. ``drop_sent``: bodies go when all recipients are served.
    ``on_trouble`` is called with the cause why nobody should bring new mail from then on, ``after_rescue`` when readers
    have to open the file anew.

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
        self.on_trouble: Callable[[str], None] = lambda cause: None
        self.after_rescue: Callable[[], Awaitable[None]] | None = None
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
        self._broken = False  # the connection
        self._made: Applied | None = None  # what the group under way came to, once only its commit is missing
        self._astray = ""  # as it was told
        self._shrink_at = 0.0  # monotonic seconds
        self._task = asyncio.create_task(self._run(), name="spool-writer")
        self._task.add_done_callback(self._ended)

    @property
    def alive(self) -> bool:
        return not self._closing and not self._task.done()

    def submit(
        self,
        run: Callable[[Transaction], T],
        ids: Sequence[str] = (),
        *,
        late: bool = False,
        fresh: bool = False,
        then: Callable[[T | BaseException], None] | None = None,
    ) -> asyncio.Future[T]:
        """Take part in the next group. The future may be cancelled or forgotten: the operation is carried out anyway.

        Raises SpoolUnavailable when the writer is gone; the future ends with one when the disk refuses.
        """
        if self._task.done():
            raise SpoolUnavailable(OUT_OF_ORDER)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.append(Operation(run, future, ids, late, fresh, then))
        self._arrived.set()
        return future

    async def heal(self, *, astray: bool = False) -> None:
        """After trouble: see whether the disk takes writes again, for nobody may have anything to write."""
        if self.alive and (astray or not self.healthy):
            with suppress(SpoolTrouble):
                await self.submit(lambda tx: tx.probe())

    async def shrink(self) -> None:
        """Give the disk back what is not used, when nothing is queued, and not again and again."""

        def run() -> None:
            try:
                if not self._broken and (freed := self._engine.shrink(self._connection)):
                    self._events.info("spool_shrunk", bytes=freed)
            except Exception as error:  # then it stays as it is
                self._events.warning("spool_not_shrunk", detail=self._engine.explain(error))

        busy = any(state == "queued" for _, state in self._engine.counts())
        if self.alive and not busy and self._clock.monotonic() >= self._shrink_at:
            self._shrink_at = self._clock.monotonic() + _SHRINK_EVERY
            await asyncio.get_running_loop().run_in_executor(self._thread, run)

    async def aclose(self) -> None:
        """Carry out what is waiting, then close the file."""
        self._closing = True
        self._engine.hasten()
        self._arrived.set()
        await asyncio.wait({self._task})
        await asyncio.get_running_loop().run_in_executor(self._thread, self._engine.finish, self._connection)

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
            if applied.rescued and self.after_rescue is not None:
                await self.after_rescue()  # before anybody looks because of an answer
            self._answer(applied)
            del applied  # and with it the bytes of every message of the group

    def _answer(self, applied: Applied) -> None:
        self._engine.count(applied.counts)
        if cause := applied.astray or applied.full:
            self.on_trouble(cause)
        for operation, answer in applied.answers:
            operation.end(answer, applied.refusal if operation.fresh else None)
        self._group = []
        self._tell(applied.answers)
        if applied.damaged:
            self._engine.distrust()
        for identifier in applied.damaged:
            self._events.warning("corrupt", id=identifier, detail="damaged in the spool: not sent, kept")
        for backend in applied.woken:
            self._wake(backend)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None:
            return
        self._events.bug("spool.writer", task.exception() or RuntimeError())
        gone, left = SpoolUnavailable(OUT_OF_ORDER), (*self._group, *self._queue)
        for operation in left:
            operation.end(gone)
        self._queue.clear()
        self._tell([(operation, gone) for operation in left])

    def _tell(self, ended: Sequence[tuple[Operation[Any], Any]]) -> None:
        """All have their answer by now: a mistake of one who hears of it costs nobody else his own."""
        for operation, answer in ended:
            try:
                if operation.then is not None:
                    operation.then(answer)
            except Exception as error:
                self._events.bug("spool.then", error)

    # -- in the writer's thread ----------------------------------------------------------------------------------

    def _apply(self, group: Sequence[Operation[Any]], *, relieved: bool = False, before: int = 0) -> Applied:
        """One transaction for all; if that fails, one for each, so that nobody pays for a neighbour. ``before``: how
        often it was tried without a fault of its own."""
        if self._broken and not self._reopened():
            return _refused(group, Trouble.BROKEN)
        try:
            applied = self._commit(group)
        except Exception as error:
            if isinstance(error, Unreadable) and len(group) == 1:
                return Applied([(group[0], error)])
            return self._failed(group, error, relieved=relieved, before=before)
        self.healthy = True
        if self._engine.lengthy():  # before the next group, but behind the answers
            self._thread.submit(self._shorten)
        return applied

    def _failed(self, group: Sequence[Operation[Any]], error: Exception, *, relieved: bool, before: int) -> Applied:
        """What comes of them instead."""
        trouble = self._engine.classify(error)
        if trouble is Trouble.FULL and not relieved:
            return self._make_room(group)
        if trouble is Trouble.AGAIN and before < _TRIES:
            return self._apply(group, relieved=relieved, before=before + 1)
        if trouble is Trouble.BROKEN:
            self._broken = True
            if self._engine.shared and before < _TRIES:
                return self._resumed(group, error, relieved=relieved, before=before + 1)
        elif len(group) > 1 and trouble not in (Trouble.BUSY, Trouble.AGAIN):
            whole = Applied([])
            for operation in group:
                lost = self._broken and self._engine.shared  # whoever else tries now waits as long
                whole += _refused([operation], trouble) if lost else self._apply([operation], relieved=relieved)
            return whole
        self._note(error, trouble)
        return _refused(group, trouble)

    def _shorten(self) -> None:
        if not self._broken:
            self._engine.shorten(self._connection)

    def _resumed(self, group: Sequence[Operation[Any]], error: Exception, *, relieved: bool, before: int) -> Applied:
        """By another connection. Where the answer to COMMIT was lost, what it committed must not be done twice."""
        made = self._made
        self._note(error, Trouble.BROKEN)
        try:
            self._connection.close()
            self._connection, took_place = self._engine.resume(made=made is not None)
        except Exception as again:
            self._note(again, Trouble.BROKEN)
            return _refused(group, Trouble.BROKEN)
        self._broken = False
        if made is None or not took_place:
            return self._apply(group, relieved=relieved, before=before)
        self.healthy = True
        return made

    def _make_room(self, group: Sequence[Operation[Any]]) -> Applied:
        """The disk is full: what was set aside goes to those who do not bring new mail."""
        what = self._engine.relieve(self._connection)
        found = _refused([one for one in group if one.fresh], Trouble.FULL)
        if others := [one for one in group if not one.fresh]:
            found += self._apply(others, relieved=True)
        found.full = what
        return found

    def _commit(self, group: Sequence[Operation[Any]]) -> Applied:
        ids = list({identifier for operation in group for identifier in operation.ids})
        seen = self._time.seen()
        times = micros(seen.spool), micros(seen.wall)
        self._made = None
        with self._connection.begin():
            transaction = Transaction(
                self._connection, self._engine, *times, vault=self._vault, drop_sent=self.drop_sent
            )
            with transaction.changing(ids):
                answers = [(operation, operation.run(transaction)) for operation in group if not operation.late]
            answers += [(operation, operation.run(transaction)) for operation in group if operation.late]
            transaction.finish()
            self._engine.announce(self._connection, transaction.woken)
            applied = self._made = Applied(answers, transaction.counts, transaction.woken, transaction.damaged)
        astray = self._engine.committed(self._connection, micros(seen.wall))
        return self._brought_back(applied, astray) if astray else applied

    def _brought_back(self, applied: Applied, astray: str) -> Applied:
        """What is committed is not where it belongs: before anybody is told that it is safe, it has to be."""
        try:
            self._connection = self._engine.rescue(self._connection)
        except Exception as error:
            if self._astray != astray:
                self._events.error("spool_astray", cause=astray, detail=self._engine.explain(error))
            self._astray = applied.astray = astray
            applied.refusal = SpoolUnavailable(OUT_OF_ORDER)
            return applied
        self._astray = ""
        self._events.error("spool_rescued", cause=astray, path=self._engine.name)
        applied.rescued = True
        return applied

    def _note(self, error: Exception, trouble: Trouble) -> None:
        if trouble is Trouble.OURS:
            self._events.bug("spool", error)
        else:
            self.healthy = False
            self._events.warning("spool_error", detail=self._engine.explain(error))

    def _reopened(self) -> bool:
        """After a failed fsync a later one proves nothing (the kernel may have dropped the pages): start anew."""
        try:
            self._connection.close()
            self._connection = self._engine.reopen()
        except Exception as error:  # tried again with the next group
            self._note(error, Trouble.BROKEN)
            return False
        self._broken = False
        return True


def _refused(group: Sequence[Operation[Any]], trouble: Trouble) -> Applied:
    full = trouble is Trouble.FULL
    return Applied([(one, SpoolFull(NO_SPACE) if full else SpoolUnavailable(OUT_OF_ORDER)) for one in group])
