"""How far SQLite's log is written and copied, read from the index beside it: one read, no statement.

The layout is that of https://www.sqlite.org/walformat.html, 2.1 and 2.2.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

FRAME = 24 + 4096  # bytes of one page in the log, with its header
_LAYOUT = struct.Struct("=12xBxHII8x8s8x48xI")


@dataclass(frozen=True, slots=True)
class Log:
    """``frames`` are committed, the first ``copied`` of them stand in the file too, which has ``pages`` then.

    ``salt`` is another each time the log begins anew.
    """

    frames: int = 0
    copied: int = 0
    pages: int = 0
    salt: bytes = bytes(8)


class WalIndex:
    """The file ``-shm`` of an open spool. It exists from the first statement to the last connection."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(f"{path.name}-shm")
        self._file = -1

    def read(self) -> Log:
        """As of the last commit, for who commits; to others it may be a moment old. Raises OSError."""
        if self._file < 0:
            self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        found = os.pread(self._file, _LAYOUT.size, 0)
        if len(found) < _LAYOUT.size:
            return Log()
        initialised, _page, frames, pages, salt, copied = _LAYOUT.unpack(found)
        return Log(frames, copied, pages, salt) if initialised else Log()

    def close(self) -> None:
        """Only when no connection is open: closing any descriptor of a file drops the locks on it (fcntl(2))."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1
