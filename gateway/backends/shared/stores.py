"""Where a sign-in is kept that its provider changes now and then: a file, or what all instances on a spool share.

All of it blocks and belongs into a thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Protocol

from gateway.files import write_whole

_WRITING = Lock()  # between looking what is there and putting something else in its place


class Unreadable(Exception):
    """There is something, and a person has to put it right: as it is it will never be read. Says what it is."""


class Unkept(Exception):
    """It cannot be read or written now. Says why; ``fix`` is what to do if that lasts."""

    def __init__(self, text: str, fix: str) -> None:
        super().__init__(text)
        self.fix = fix


class Store(Protocol):
    """Of one value. ``shown``: where that is, for people."""

    @property
    def shown(self) -> str: ...

    def read(self) -> bytes | None:
        """None: there is none yet. Raises Unreadable, Unkept."""

    def write(self, value: bytes, before: bytes | None) -> bool:
        """Put it in the place of ``before``, which was read. False where by now something else is there: that is newer,
        and stays. Raises Unkept."""

    def put(self, value: bytes) -> None:
        """What a person has just brought, whatever was there. Raises Unkept."""


# By a name: what all instances on a spool share.
Shared = Callable[[str], Store]


@dataclass(frozen=True, slots=True)
class FileStore:
    """A file of its own."""

    path: Path

    @property
    def shown(self) -> str:
        return str(self.path)

    def read(self) -> bytes | None:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unreadable(f"{self.path}: {error.strerror}") from None

    def write(self, value: bytes, before: bytes | None) -> bool:
        with _WRITING:
            try:
                if self.read() != before:
                    return False
            except Unreadable:
                return False
            self.put(value)
            return True

    def put(self, value: bytes) -> None:
        try:
            write_whole(self.path, value)
        except OSError as error:
            raise Unkept(f"{self.path}: {error.strerror}", f"see that the service can write {self.path}") from None


@dataclass(frozen=True, slots=True)
class Adopting:
    """What is shared. Where there is none yet, that in the file: the service had it before it shared a spool."""

    shared: Store
    file: FileStore

    @property
    def shown(self) -> str:
        return self.shared.shown

    def read(self) -> bytes | None:
        found = self.shared.read()
        if found is not None or (own := self.file.read()) is None:
            return found
        return own if self.shared.write(own, None) else self.shared.read()

    def write(self, value: bytes, before: bytes | None) -> bool:
        return self.shared.write(value, before)

    def put(self, value: bytes) -> None:
        self.shared.put(value)


def sign_in_of(backend: str, file: Path, shared: Shared | None) -> Store:
    """Where its sign-in is kept: in the file, where this instance is alone."""
    return kept_as(f"sign-in:{backend}", file, shared)


def kept_as(name: str, file: Path, shared: Shared | None) -> Store:
    """Under this name, where it is shared; else in the file."""
    own = FileStore(file)
    return Adopting(shared(name), own) if shared else own
