"""One file that holds many bodies: written at its end, and emptied anywhere (fallocate(2))."""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from gateway.files import sync_folder

BLOCK = 4096
_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # <linux/falloc.h>
_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)  # of the disk; else nobody makes holes here
_STEP = 1_000_000  # octets at a time


@dataclass(frozen=True, slots=True, order=True)
class Extent:
    """Where a body lies: segment 0 is the row itself."""

    segment: int
    start: int
    length: int

    @property
    def end(self) -> int:
        """With the rest of its last block: a hole has whole ones."""
        return up(self.start + self.length)


def up(octets: int) -> int:
    return -(-octets // BLOCK) * BLOCK


class Segment:
    """Open until nobody has it any more: who reads may have it longer than the spool. All of it raises OSError."""

    __slots__ = ("_file", "path")

    def __init__(self, path: Path, *, new: bool = False) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if new else 0), 0o600)
        if new:
            try:
                give_to_owner(path)
            except OSError:
                path.unlink()
                raise

    def __del__(self) -> None:
        if (file := getattr(self, "_file", -1)) >= 0:
            os.close(file)

    def place(self) -> str:
        """What is wrong with its name: missing, moved or replaced, "" for nothing."""
        try:
            own = os.fstat(self._file)
            there = os.stat(self.path)  # noqa: PTH116 - a third of the time of Path.stat
        except (FileNotFoundError, NotADirectoryError):
            return "moved" if own.st_nlink else "missing"
        except OSError:  # the disk fails, which a commit shows
            return ""
        return "" if os.path.samestat(own, there) else "replaced"

    @property
    def size(self) -> int:
        return os.fstat(self._file).st_size

    @property
    def used(self) -> int:
        """Octets of the disk."""
        return os.fstat(self._file).st_blocks * 512

    def read(self, start: int, length: int) -> bytes:
        return os.pread(self._file, length, start)

    def write(self, raw: bytes, start: int) -> None:
        done, view = 0, memoryview(raw)
        while done < len(raw):
            done += os.pwrite(self._file, view[done:], start + done)

    def sync(self) -> None:
        os.fdatasync(self._file)

    def cut(self, size: int) -> None:
        """To no more than that."""
        if self.size > size:
            os.ftruncate(self._file, size)

    def knows_holes(self) -> bool:
        """Whether what is deleted in it gives the disk its room back."""
        try:
            _punch(self._file, 0, BLOCK)
        except OSError as error:
            if error.errno in _TROUBLE:
                raise
            return False
        return True

    def empty(self, start: int, end: int) -> None:
        """The octets between are gone, and the disk has their room."""
        try:
            _punch(self._file, start, end - start)
        except OSError as error:
            if error.errno in _TROUBLE:
                raise
            for at in range(start, end, _STEP):  # moved to a system without holes: nobody has the octets at least
                self.write(bytes(min(_STEP, end - at)), at)

    def write_back(self) -> Segment:
        """The same under its name, where that is gone: whole, holes included, and durable with ``sync_folder``."""
        part = self.path.with_name(f"{self.path.name}.part")
        part.unlink(missing_ok=True)
        try:
            made = Segment(part, new=True)
            _copy(self._file, made._file)
            os.fsync(made._file)
            part.rename(self.path)
        except BaseException:
            part.unlink(missing_ok=True)  # half a copy would keep a full disk full
            raise
        made.path = self.path
        return made


def give_to_owner(path: Path) -> None:
    """A command typed by root must not lock the service out."""
    if os.geteuid() == 0:
        folder = path.parent.stat()
        os.chown(path, folder.st_uid, folder.st_gid)


def make_folder(path: Path) -> None:
    """Durable, and for its owner alone."""
    path.mkdir(mode=0o700)
    give_to_owner(path)
    sync_folder(path.parent)


def _copy(source: int, to: int) -> None:
    size, at = os.fstat(source).st_size, 0
    os.ftruncate(to, size)
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole follows
                return
            raise
        end = os.lseek(source, at, os.SEEK_HOLE)
        while at < end:
            at += os.pwrite(to, os.pread(source, min(_STEP, end - at), at), at)


def _punch(file: int, start: int, length: int) -> None:
    call = _fallocate()
    if call is None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    while call(file, _KEEP_SIZE | _PUNCH_HOLE, start, length):
        if (number := ctypes.get_errno()) != errno.EINTR:
            raise OSError(number, os.strerror(number))


@lru_cache(maxsize=1)
def _fallocate() -> Any:
    """Of the C library, with offsets of 64 bits; None where there is none (macOS)."""
    library = ctypes.CDLL(None, use_errno=True)
    call = getattr(library, "fallocate64", None) or getattr(library, "fallocate", None)  # musl has the one, wide
    if call is not None:
        call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
        call.restype = ctypes.c_int
    return call
