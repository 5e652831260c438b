"""A backend with those who work for it here."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from gateway.delivery.worker import Worker


@dataclass(frozen=True, slots=True)
class Post:
    """A backend with those who work for it."""

    worker: Worker
    working: asyncio.Task[None]
    tracking: asyncio.Task[None] | None

    async def close(self, seconds: float, *, backend: bool = True) -> None:
        """Once the worker is told to stop: let sends end within ``seconds`` or until cancelled, close the backend."""
        if self.tracking:
            self.tracking.cancel()
            await asyncio.wait({self.tracking})
        try:
            await self.working
            await self.worker.drain(seconds)
        except asyncio.CancelledError:
            await self.worker.drain(0)
            raise
        finally:
            if backend:
                await self.worker.backend.aclose()
