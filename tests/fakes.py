"""Stand-ins shared by the suites: a clock that only moves when told, a backend that follows a script."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from gateway.checks import Check
from gateway.model import Capabilities, Outcome, Progress, SpooledMessage, same_for_all
from tests.builders import SENT, START


class FakeClock:
    """Time stands still until ``advance``; sleepers wake in the order of their times."""

    def __init__(self, start: datetime = START) -> None:
        self._start = start
        self._elapsed = self._slept = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None], asyncio.Task[object] | None]] = []

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed + self._slept)

    def monotonic(self) -> float:
        return self._elapsed

    def uptime(self) -> float:
        return self._elapsed + self._slept

    def set(self, by: timedelta) -> None:
        """As somebody who sets the machine's clock."""
        self._start += by

    def suspend(self, seconds: float) -> None:
        """As a machine that sleeps: no timer runs meanwhile."""
        self._slept += seconds

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._elapsed + seconds, future, asyncio.current_task()))
        await future

    @property
    def sleepers(self) -> int:
        """How many wait for time to pass."""
        return len(self._sleepers)

    def asleep(self, name: str) -> bool:
        """Whether all tasks with this in their name wait for time to pass."""
        sleepers = {task for _, future, task in self._sleepers if not future.done()}
        return all(task in sleepers for task in asyncio.all_tasks() if name in task.get_name())

    def advance(self, seconds: float) -> None:
        """Move time and wake everyone whose time has come."""
        self._elapsed += seconds
        due = sorted((s for s in self._sleepers if s[0] <= self._elapsed), key=lambda s: s[0])
        self._sleepers = [s for s in self._sleepers if s[0] > self._elapsed and not s[1].done()]
        for _, future, _ in due:
            if not future.done():
                future.set_result(None)


async def breathe() -> None:
    """Before asking again: what is waited for is often a thread's work, which asking at full speed would slow down."""
    await asyncio.sleep(0.001)


async def until(true: Callable[[], bool]) -> None:
    """Let the loop run until the condition holds; the test's own time limit ends a wait in vain."""
    while not true():
        await breathe()


class ScriptedBackend:
    """Answers each send by the next line of its script (the last one repeats) and remembers what it got."""

    def __init__(self, name: str, *script: Outcome | Mapping[str, Outcome] | BaseException) -> None:
        self.name = name
        self.capabilities = Capabilities(max_bytes=35_000_000)
        self.script = list(script) or [SENT]
        self.calls: list[tuple[SpooledMessage, bytes]] = []
        self.closed = False
        self.gate: asyncio.Event | None = None
        self.running = 0
        self.most_running = 0
        self.checked = Check(True, "scripted")

    async def send(
        self, message: SpooledMessage, raw: bytes, progress: Progress | None = None
    ) -> Mapping[str, Outcome]:
        self.calls.append((message, raw))
        line = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if self.gate is not None:
                await self.gate.wait()
        finally:
            self.running -= 1
        if isinstance(line, BaseException):
            raise line
        return same_for_all(message, line) if isinstance(line, Outcome) else line

    async def check(self) -> Check:
        return self.checked

    async def aclose(self) -> None:
        self.closed = True
