"""What a spool's log must still hold after a kill: written beside it with every commit, and looked at before a start.

It is never synced by itself: a kill leaves it whole, a power cut leaves an older one, and that asks for less. To
SQLite a log that somebody removed or cut is one that had no more in it (https://www.sqlite.org/walformat.html, 4.4).
"""

from __future__ import annotations

import os
import sqlite3
import struct
import zlib
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gateway.spool import clean
from gateway.spool.records import SpoolError
from gateway.spool.walindex import FRAME, Log, WalIndex

_HEADER = (24, 76)  # of the file: from its change counter to the end, which differ after nearly every checkpoint
_LAYOUT = struct.Struct("<8s16s8sIIqq76s")
_MAGIC = b"gwmark01"
_SIZE = _LAYOUT.size + 4  # with its checksum; behind it what clean.record says
_PAGES, _VERSION = slice(4, 8), slice(36, 40)  # of that header: see https://www.sqlite.org/fileformat.html, 1.3
_PAGE = 4096
_LATER = 10_000  # times that a log may have begun anew since an old mark reached the disk
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Mark:
    """Of the log with this ``salt``: ``frames`` were committed, ``copied`` of them stood in the file, which begins with
    ``header`` (zeros: there was none). ``since`` is when all was copied last, ``last`` the last commit, in microseconds
    since 1970."""

    boot: bytes = bytes(16)
    salt: bytes = bytes(8)
    frames: int = 0
    copied: int = 0
    since: int = 0
    last: int = 0
    header: bytes = bytes(76)


def boot() -> bytes:
    """Another one after each start of the machine; zeros where that is not told."""
    try:
        return bytes.fromhex(_BOOT.read_text().strip().replace("-", ""))
    except (OSError, ValueError):
        return bytes(16)


class MarkFile:
    """``spool.mark``, open while the spool is. Without frames it asks for nothing."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._path = mark_path(spool)
        self._boot = boot()
        self._file = -1
        self._since = self._last = 0
        self._copied: tuple[bytes, int] | None = None
        self._header = b""

    def open(self) -> None:
        """One that asks for nothing, durable. Raises OSError."""
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._file, _SIZE)  # whatever ends without a word is no clean stop
        self._write(Mark(self._boot, header=_header_of(self._spool)))
        os.fsync(self._file)

    def note(self, log: Log, spool: int, now: int) -> None:
        """After a commit at ``now``, 0 for none; ``spool`` is its open file, which changes when the log is copied."""
        if (copied := (log.salt, log.copied)) != self._copied or not self._header:
            self._copied, self._header = copied, _header(spool)
        now = self._last = now or self._last
        if log.copied == log.frames or not self._since:
            self._since = now
        self._write(Mark(self._boot, log.salt, log.frames, log.copied, self._since, now, self._header))

    def forget(self, spool: int) -> None:
        """The log is in the file, and is about to go: durable, for its name may be gone from the disk first."""
        self._write(Mark(self._boot, header=_header(spool)))
        with suppress(OSError):
            os.fsync(self._file)

    def stopped(self, spool: Path, file: int) -> None:
        """No connection is left, and all that was written is in the ``file``: what ``untouched`` asks for later."""
        with suppress(OSError):
            if os.path.samestat(spool.lstat(), os.fstat(file)):  # nobody has put another in its place
                os.pwrite(self._file, clean.record(spool, self._boot), _SIZE)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _write(self, mark: Mark) -> None:
        data = _LAYOUT.pack(_MAGIC, mark.boot, mark.salt, mark.frames, mark.copied, mark.since, mark.last, mark.header)
        with suppress(OSError):  # a full disk: an older one asks for less
            os.pwrite(self._file, data + struct.pack("<I", zlib.crc32(data)), 0)


def mark_path(spool: Path) -> Path:
    return spool.with_name("spool.mark")


def _header(file: int) -> bytes:
    return os.pread(file, _HEADER[1], _HEADER[0])


def _header_of(spool: Path) -> bytes:
    """Zeros where there is none. Raises OSError."""
    with suppress(FileNotFoundError), spool.open("rb") as file:
        return _header(file.fileno()).ljust(_HEADER[1], b"\0")
    return bytes(_HEADER[1])


def _read(spool: Path) -> Mark | None:
    try:
        data = mark_path(spool).read_bytes()
    except OSError:
        return None
    body, checksum = data[: _LAYOUT.size], data[_LAYOUT.size : _SIZE]
    if len(checksum) < 4 or not body.startswith(_MAGIC) or struct.unpack("<I", checksum)[0] != zlib.crc32(body):
        return None
    return Mark(*_LAYOUT.unpack(body)[1:])


def untouched(spool: Path) -> bool:
    """Whether a clean stop closed it, whole, and nobody has changed it nor started the machine anew since."""
    try:
        mark = _read(spool)
        return mark is not None and not mark.frames and clean.same(spool, mark_path(spool).read_bytes()[_SIZE:], boot())
    except OSError:
        return False


def left_open(spool: Path) -> bool:
    """Whether no clean stop closed it, and what ``examine`` lets pass is the very file that was in use: a start that
    was refused or cut off leaves a mark that asks for nothing, and somebody may have put a backup in its place."""
    mark = _read(spool)
    if mark is None or not any(mark.header) or not spool.exists() or len(mark_path(spool).read_bytes()) != _SIZE:
        return False
    if mark.boot != boot():  # the mark may be older than the file, but not younger
        return 0 <= _raised(mark, _header_of(spool)) <= _LATER
    return bool(mark.frames) or _header_of(spool) == mark.header


def examine(spool: Path) -> None:
    """Whether the log holds what it must, without changing anything. Raises SpoolError with the ways out. Blocks."""
    mark = _read(spool)
    if mark is None or not mark.frames or not spool.exists():
        return
    log = spool.with_name(f"{spool.name}-wal")
    start = _start(log)
    if len(start) < 32:
        if _copied_since(spool, mark):
            return
        if mark.copied < mark.frames:
            raise _lost(spool, mark, f"its log {log.name} is missing or empty")
    elif start[16:24] == mark.salt:
        found = _recovered(spool)
        if found is not None and found.frames < mark.frames:
            what = f"its log {log.name} is cut or damaged: {found.frames} of {mark.frames} pages are left"
            raise _lost(spool, mark, what, log if found.frames < mark.copied else None)
    elif not 0 < int.from_bytes(start[16:20], "big") - int.from_bytes(mark.salt[:4], "big") & 0xFFFFFFFF <= _LATER:
        raise _lost(spool, mark, f"its log {log.name} belongs to another file, or to an older copy", log)
    if mark.boot == boot() and mark.boot != bytes(16) and not _belongs(spool, log, mark):
        text = f"{spool} is not the file that was in use when the service was killed, but another or an older copy"
        raise SpoolError(f"{text}. Put that file back; {_way_out(spool, log)}")


def _copied_since(spool: Path, mark: Mark) -> bool:
    """Another program was the last to close the file: it copied the log into it and removed that, as SQLite does.

    Then the file's version is higher than it was, and no page is missing; that of an older copy is not.
    """
    with spool.open("rb") as file:
        size, header = os.fstat(file.fileno()).st_size, _header(file.fileno())
    return 0 < _raised(mark, header) <= _LATER and size == int.from_bytes(header[_PAGES], "big") * _PAGE


def _raised(mark: Mark, header: bytes) -> int:
    """By how much the version of a file that begins with ``header`` is higher than it was."""
    before, now = (int.from_bytes(each[_VERSION], "big") for each in (mark.header, header))
    return now - before


def _start(log: Path) -> bytes:
    try:
        with log.open("rb") as file:
            return file.read(32)
    except FileNotFoundError:
        return b""


def _recovered(spool: Path) -> Log | None:
    """What SQLite finds whole in the log; None where it finds no database, which others explain better."""
    index = WalIndex(spool)
    try:
        with closing(sqlite3.connect(f"{spool.resolve().as_uri()}?mode=ro", uri=True)) as looking:
            looking.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
            return index.read()
    except (sqlite3.Error, OSError):
        return None
    finally:
        index.close()


def _belongs(spool: Path, log: Path, mark: Mark) -> bool:
    """The file begins as it did, or as a page in the log says: a checkpoint came after the last commit."""
    with spool.open("rb") as file:
        header = _header(file.fileno())
    if header == mark.header:
        return True
    with suppress(FileNotFoundError), log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        for place in range(32, size - FRAME + 1, FRAME):
            file.seek(place)
            if file.read(4) == b"\0\0\0\1":
                file.seek(place + 24 + _HEADER[0])
                if file.read(_HEADER[1]) == header:
                    return True
    return False


def _lost(spool: Path, mark: Mark, what: str, log: Path | None = None) -> SpoolError:
    since, last = (
        f"{datetime.fromtimestamp(at // 1_000_000, UTC):%Y-%m-%d %H:%M:%SZ}" for at in (mark.since, mark.last)
    )
    text = (
        f"spool {spool} was in use when the service was killed, and {what}. Without it what was written from {since} "
    )
    text += f"to {last} is lost, also mail that was answered with 250. Put it back"
    return SpoolError(f"{text}; {_way_out(spool, log)}")


def _way_out(spool: Path, log: Path | None) -> str:
    files = " and ".join(str(file) for file in (mark_path(spool), log) if file is not None)
    return f"or, to accept the loss, move {files} away and start again"
