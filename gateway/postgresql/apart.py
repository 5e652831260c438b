"""Secrets of the spool for a command, which is no instance: on a connection of its own, beside those that run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from gateway.postgresql import schema, starting
from gateway.postgresql.link import Link, writing
from gateway.postgresql.server import Server
from gateway.spool import agreed, spelling, vault
from gateway.spool.engine import Row
from gateway.spool.records import SpoolError

T = TypeVar("T")
_NOW = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT) AS now"


@dataclass(frozen=True, slots=True)
class Steps:
    """Within a transaction (secrets.Steps)."""

    now: int
    vault: vault.Vault
    link: Link

    def all(self, statement: str, **values: Any) -> Sequence[Row]:
        return self.link.all(spelling.postgresql(statement), values)


class _Nobody:
    """What cannot be opened is said by whoever asked for it."""

    def warning(self, event: str, **fields: object) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Apart:
    """``folder`` is where spool.key lies, as at the instances. Blocks."""

    server: Server
    folder: Path

    def __call__(self, step: Callable[[Steps], T]) -> T:
        """In a transaction of its own. Raises SpoolError."""
        key = self._key()
        try:
            with closing(writing(self.server)) as link:
                if schema.current(link) is None:
                    raise SpoolError(f"there is no spool in {self.server.shown} yet; start the service once")
                with link.begin():
                    agreed.check(link, spelling.postgresql, agreed.HeldKey(self.folder / vault.FILE, key))
                    return step(Steps(link.all(_NOW)[0]["now"], vault.Vault(key, _Nobody()), link))
        except psycopg.Error as error:
            raise starting.refused(self.server, error) from error

    def _key(self) -> bytes:
        """A command makes none: it would not be that of the instances."""
        path = self.folder / vault.FILE
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise SpoolError(f"there is no {path}; start the service once, or bring that of another instance") from None
        except OSError as error:
            raise SpoolError(f"{path} cannot be read: {error.strerror}") from None
