"""The disk under the spool: what is set aside on it, what is left, and what is wrong with it. All of it blocks."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.spool.records import SpoolError

_PARTS = 4  # files, so that giving them up also frees inodes for what a start has to make
_LARGEST = 16_000_000
_SMALLEST = 64 * 1024
PROBE = ".spool.probe"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_UNABLE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV)  # posix_fallocate(3) where the file system has no such thing


@dataclass(frozen=True, slots=True)
class Shares:
    """What of a disk is set aside, in bytes: the size that the log may keep, and the ballast.

    Measured on volumes of 40 to 1000 MB that others filled to the last byte, with the whole queue still to deliver: a
    checkpoint and the next log need about twice the log that triggers a checkpoint (test_full_disk).
    """

    log: int
    ballast: int

    @classmethod
    def of(cls, capacity: int, reserve: int) -> Shares:
        """Of so many bytes, on a disk of which so many are kept free: the ballast is a part of these."""
        log = max(1_000_000, min(capacity // 32, _LARGEST))
        ballast = min(capacity // 16, reserve, _LARGEST)
        return cls(log, ballast if ballast >= _SMALLEST else 0)


class Ballast:
    """Files with real blocks and nothing in them. They are given up when the disk is full, for what must go on."""

    def __init__(self, directory: Path) -> None:
        self.size = 0
        self._files = [directory / f"spool.ballast.{n}" for n in range(_PARTS)]
        self._one = threading.Lock()  # a filler and a releaser must not meet

    @property
    def held(self) -> int:
        found = 0
        for file in self._files:
            with suppress(FileNotFoundError):
                found += file.stat().st_size
        return found

    def fill(self) -> int:
        """Make what is missing. Returns 0, or the errno that says why it cannot be had now."""
        with self._one:
            for file in self._files:
                if why := _allocate(file, self.size // _PARTS):
                    if why in _UNABLE:
                        self.size = 0
                        return 0
                    return why
        return 0

    def release(self) -> int:
        """Returns how many bytes that gave."""
        with self._one:
            given = self.held
            for file in self._files:
                with suppress(OSError):
                    file.unlink(missing_ok=True)
            return given


def _allocate(file: Path, size: int) -> int:
    try:
        if not hasattr(os, "posix_fallocate"):  # macOS
            return errno.EOPNOTSUPP
        if size == 0 or (file.exists() and file.stat().st_size == size):
            return 0
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
        finally:
            os.close(descriptor)
    except OSError as error:
        with suppress(OSError):
            file.unlink(missing_ok=True)
        return error.errno or errno.EIO
    return 0


def why(directory: Path) -> int:
    """The errno of what hinders a small new file there, 0 where nothing does: SQLite keeps it to itself."""
    probe = directory / PROBE
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(descriptor, bytes(_SMALLEST))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            probe.unlink(missing_ok=True)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def size(file: Path) -> int:
    """0 where it is not there."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def check_access(path: Path, folder: Path | None = None) -> None:
    """Where this user may not write to it, if it is there, what to type: for all in ``folder``, or for it alone.

    Raises SpoolError.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    needed = os.R_OK | os.W_OK | (os.X_OK if path.is_dir() else 0)
    if os.access(path, needed):
        return
    user, who = os.geteuid(), f"-R {{}} {folder}" if folder else f"{{}} {path}"
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        raise SpoolError(f"{path} lies on a file system that is read-only: mount -o remount,rw it, and see dmesg")
    if found.st_uid == user:
        raise SpoolError(f"{path} belongs to user id {user}, who may not write to it: chmod {who.format('u+rwX')}")
    text = f"{path} belongs to user id {found.st_uid}, and user id {user} may not write to it"
    raise SpoolError(f"{text}: chown {who.format(user)}")
