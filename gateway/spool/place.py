"""Whether the files of an open spool are where the next start will look for them; asked at every commit."""

from __future__ import annotations

import os
from pathlib import Path

_BESIDE = ("-wal", "-shm")
Identity = tuple[int, int]


class Place:
    """A spool's file, held open; and the two beside it, as long as any connection is.

    A name that is gone changes nothing for who has the file open: SQLite goes on, and all of it ends with the process.
    """

    def __init__(self, path: Path) -> None:
        self._names = [str(path), *(f"{path}{ending}" for ending in _BESIDE)]
        self._own: list[Identity | None] = []
        self.file = -1

    def open(self) -> None:
        """Raises OSError."""
        self.file = os.open(self._names[0], os.O_RDONLY | os.O_CLOEXEC)
        self._own = []

    def close(self) -> None:
        """Only when no connection is open: closing any descriptor of a file drops the locks on it (fcntl(2))."""
        if self.file >= 0:
            os.close(self.file)
        self.file = -1

    def forget(self) -> None:
        """What is beside it was made anew."""
        self._own = []

    def in_place(self) -> bool:
        """Whether its own name is, for every commit: one call."""
        return bool(self._own) and _identity(self._names[0]) == self._own[0]

    def astray(self) -> str:
        """What is wrong with it: missing, moved, replaced, or log where only what is beside it is; "" for nothing."""
        if None in self._own or not self._own:
            self._own = [_identity(name) for name in self._names]
        try:
            own, there = os.fstat(self.file), _identity(self._names[0])
        except OSError:  # it is just being opened anew, or the disk fails, which a commit shows
            return ""
        if there is None:
            return "moved" if own.st_nlink else "missing"
        if there != (own.st_dev, own.st_ino):
            return "replaced"
        beside = zip(self._names, self._own, strict=True)
        return "" if all(known in (None, _identity(name)) for name, known in beside) else "log"

    def clear(self) -> None:
        """Take away the names beside it: what comes into its place must not meet the log of another."""
        for name in self._names[1:]:
            Path(name).unlink(missing_ok=True)


def _identity(name: str) -> Identity | None:
    try:
        found = os.stat(name)  # noqa: PTH116 - a third of the time of Path.stat
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino
