"""Secrets that every instance on one spool needs, such as sign-ins: sealed in the table ``secret``, by name.

Providers rotate them, and a command may bring a new one at the same time. So who writes says what he read before: what
is there by then is never replaced by something older.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Protocol, TypeVar

from gateway.spool.engine import Row
from gateway.spool.transaction import Transaction
from gateway.spool.vault import Vault

T = TypeVar("T")
_GET = "SELECT sealed FROM secret WHERE name = :name"
_FIRST = """
INSERT INTO secret (name, sealed, changed_at) VALUES (:name, :sealed, :now) ON CONFLICT (name) DO NOTHING
RETURNING name"""
_NEXT = """
UPDATE secret SET sealed = :sealed, changed_at = :now WHERE name = :name AND sealed = :known RETURNING name"""
_WHATEVER = """
INSERT INTO secret (name, sealed, changed_at) VALUES (:name, :sealed, :now)
ON CONFLICT (name) DO UPDATE SET sealed = excluded.sealed, changed_at = excluded.changed_at"""
_DELETE = "DELETE FROM secret WHERE name = :name RETURNING name"


class _Whatever(Enum):
    IS_THERE = "is there"


WHATEVER = _Whatever.IS_THERE  # in place of what was read: a person has given it anew
Expected = bytes | None | _Whatever


class Sealed(Exception):
    """It is there, and this machine's spool.key does not open it."""


class Steps(Protocol):
    """As much of a Transaction as is needed: commands have none of the service's."""

    @property
    def now(self) -> int: ...
    @property
    def vault(self) -> Vault: ...
    def all(self, statement: str, **values: Any) -> Sequence[Row]: ...


def get(tx: Steps, name: str) -> bytes | Sealed | None:
    """None: nobody has given one."""
    found = tx.all(_GET, name=name)
    if not found:
        return None
    if (value := tx.vault.disclose(name, _bytes(found[0]))) is None:
        return Sealed(f"{name} was sealed with another spool.key")  # raised here it would be the group's fault
    return value


def put(tx: Steps, name: str, value: bytes, *, expected: Expected) -> bool:
    """False where something else than ``expected`` (None: nothing) is there, which stays."""
    given: Mapping[str, Any] = {"name": name, "sealed": tx.vault.enclose(name, value), "now": tx.now}
    if expected is WHATEVER:
        tx.all(_WHATEVER, **given)
        return True
    if expected is None:
        return bool(tx.all(_FIRST, **given))
    found = tx.all(_GET, name=name)
    known = _bytes(found[0]) if found else b""
    if not found or tx.vault.disclose(name, known) != expected:
        return False
    return bool(tx.all(_NEXT, **given, known=known))  # no two sealings are alike, so this is the one that was opened


def delete(tx: Steps, name: str) -> bool:
    """Whether there was one."""
    return bool(tx.all(_DELETE, name=name))


def _bytes(row: Row) -> bytes:
    sealed: Any = row["sealed"]
    return bytes(sealed) if isinstance(sealed, bytes | memoryview) else b""  # a damaged value may be of any type


class Submit(Protocol):
    def __call__(self, run: Callable[[Transaction], T], /) -> asyncio.Future[T]: ...


class Secrets:
    """The same for the service, each in the next group that is committed. Raises SpoolTrouble."""

    def __init__(self, submit: Submit) -> None:
        self._submit = submit

    async def get(self, name: str) -> bytes | None:
        """Raises Sealed."""
        if isinstance(found := await self._submit(lambda tx: get(tx, name)), Sealed):
            raise found
        return found

    async def put(self, name: str, value: bytes, *, expected: Expected) -> bool:
        return await self._submit(lambda tx: put(tx, name, value, expected=expected))

    async def delete(self, name: str) -> bool:
        return await self._submit(lambda tx: delete(tx, name))
