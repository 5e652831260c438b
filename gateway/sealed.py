"""Sign-ins that all instances on a spool share: as backends ask for them, sealed in its table of secrets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from gateway.backends.shared.stores import Shared, Unkept, Unreadable
from gateway.model import SpoolTrouble
from gateway.spool import SpoolError, secrets

T = TypeVar("T")
_PATIENCE = 30.0  # seconds for the spool to answer
_WAIT = "see the log: the spool does not take it now"
_KEY = "this machine's spool.key does not open it: bring that of another instance, or"


@dataclass(frozen=True, slots=True)
class SealedStore:
    """One of them, for a thread other than the loop's."""

    name: str
    secrets: secrets.Secrets
    loop: asyncio.AbstractEventLoop

    @property
    def shown(self) -> str:
        return f"{self.name} in the spool"

    def read(self) -> bytes | None:
        try:
            return self._wait(self.secrets.get(self.name))
        except secrets.Sealed:
            raise Unreadable(f"{self.shown}: {_KEY}") from None

    def write(self, value: bytes, before: bytes | None) -> bool:
        return self._wait(self.secrets.put(self.name, value, expected=before))

    def put(self, value: bytes) -> None:
        self._wait(self.secrets.put(self.name, value, expected=secrets.WHATEVER))

    def _wait(self, asked: Coroutine[Any, Any, T]) -> T:
        try:
            return asyncio.run_coroutine_threadsafe(asked, self.loop).result(_PATIENCE)
        except (SpoolTrouble, TimeoutError, CancelledError) as error:
            raise Unkept(f"{self.shown}: {error or 'no answer'}", _WAIT) from None
        finally:
            asked.close()  # where the loop is closed it was never begun


def sealed(kept: secrets.Secrets, loop: asyncio.AbstractEventLoop) -> Shared:
    """For backends.Context, where the spool is shared."""
    return partial(SealedStore, secrets=kept, loop=loop)


# Runs a step in a transaction of its own. Raises SpoolError.
Run = Callable[[Callable[[secrets.Steps], Any]], Any]


@dataclass(frozen=True, slots=True)
class DirectStore:
    """The same for a command, which has no service behind it: whether one runs or not, they see each other's."""

    name: str
    run: Run

    @property
    def shown(self) -> str:
        return f"{self.name} in the spool"

    def read(self) -> bytes | None:
        found = self._run(lambda tx: secrets.get(tx, self.name))
        if isinstance(found, secrets.Sealed):
            raise Unreadable(f"{self.shown}: {_KEY}")
        return None if found is None else bytes(found)

    def write(self, value: bytes, before: bytes | None) -> bool:
        return bool(self._run(lambda tx: secrets.put(tx, self.name, value, expected=before)))

    def put(self, value: bytes) -> None:
        self._run(lambda tx: secrets.put(tx, self.name, value, expected=secrets.WHATEVER))

    def _run(self, step: Callable[[secrets.Steps], Any]) -> Any:
        try:
            return self.run(step)
        except SpoolError as error:
            raise Unkept(str(error), "") from None
