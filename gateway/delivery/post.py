"""A backend with those who work for it here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.delivery.returned import Comebacks
from gateway.delivery.worker import Worker


@dataclass(frozen=True, slots=True)
class Post:
    """A backend with those who work for it."""

    worker: Worker
    working: asyncio.Task[None]
    asking: Sequence[asyncio.Task[None]]  # what became of mail that is gone
    comebacks: Comebacks | None

    async def close(self, seconds: float, *, backend: bool = True) -> None:
        """Once the worker is told to stop: let sends end within ``seconds`` or until cancelled, close the backend."""
        for task in self.asking:
            task.cancel()
        if self.asking:
            await asyncio.wait(self.asking)
        try:
            await self.working
            await self.worker.drain(seconds)
        except asyncio.CancelledError:
            await self.worker.drain(0)
            raise
        finally:
            if backend:
                await self.worker.backend.aclose()
