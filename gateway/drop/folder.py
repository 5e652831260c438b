"""Folders into which programs put mail, as files. All of it blocks; nothing here judges mail.

``new`` is where files come in, ``taken`` holds what is being worked on, under the queue id it will have, ``corrupt``
what is no mail, for a person to look at. Postfix's postdrop and pickup are the model.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.files import sync_folder

MAILDROP = "maildrop"
_PUBLIC = 0o1733  # anybody may put a file there; nobody sees what is there, or touches what others put there
_TAKEN = re.compile(r"[0-9A-HJKMNP-TV-Z]{13}~", re.ASCII)
_UNFINISHED = (".tmp", ".part", ".filepart", "~")
_CANNOT = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK)  # said by network shares that have no such thing
_LONGEST = 200  # octets of a name that are kept, of 255


@dataclass(frozen=True, slots=True)
class Places:
    new: Path
    taken: Path
    corrupt: Path


@dataclass(frozen=True, slots=True)
class File:
    """``name`` in its folder, ``ident`` the queue id in it, "" while it is not taken; ``modified`` since 1970."""

    path: Path
    ident: str
    size: int
    modified: float
    owner: int

    @property
    def name(self) -> str:
        """For people."""
        name = self.path.name.partition("~")[2] if self.ident else self.path.name
        return "".join(char if char.isprintable() else "?" for char in name)


class Unreadable(Exception):
    """No plain file, or none that we may read; the text says which."""


def maildrop(state_dir: Path) -> Places:
    folder = state_dir / MAILDROP
    return Places(folder / "new", folder / "taken", folder / "corrupt")


def pickup(directory: Path) -> Places:
    return Places(directory, directory / "taken", directory / "corrupt")


def make_maildrop(places: Places) -> None:
    """Its folders, open for all users to put mail into ``new``, as far as they reach it. Raises OSError.

    With the set-group-ID bit what they put there belongs to our group, so that nobody else can read it.
    """
    places.new.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    try:
        places.new.mkdir(mode=0o700)
    except FileExistsError:
        return  # whoever may write there now is for the operator to say
    places.new.parent.chmod(0o711)  # whatever the umask
    places.new.chmod(_PUBLIC)
    with suppress(PermissionError):  # systemd's RestrictSUIDSGID
        places.new.chmod(_PUBLIC | 0o2000)


def drop(places: Places, data: bytes) -> None:
    """A file in the maildrop, whole or not at all, and on disk when this returns. Raises OSError.

    Its name cannot be guessed, for that is all that keeps others from it where the folder gives no group.
    """
    into = places.new.stat()
    handle = os.open(partial := places.new / f".{secrets.token_hex(16)}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if os.geteuid() == 0:
                os.fchown(handle, into.st_uid, into.st_gid)
            elif os.geteuid() != into.st_uid:
                os.fchmod(handle, 0o640 if os.fstat(handle).st_gid == into.st_gid else 0o644)
            os.fsync(handle)
            partial.rename(partial.with_name(partial.name[1:]))
            os.fsync(handle)  # where nobody else may open the folder, this has to make the name durable as well
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    with suppress(PermissionError):
        sync_folder(places.new)


def lock(places: Places) -> int | None:
    """A descriptor: until it is closed nobody else is at work there. None: somebody is. Makes what is missing.

    Raises OSError.
    """
    for folder in (places.taken, places.corrupt):
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise PermissionError(f"{folder} is there, and is no folder of user id {os.geteuid()}")
    descriptor = os.open(places.taken, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        if error.errno not in _CANNOT:
            os.close(descriptor)
            raise
    return descriptor


def taken(places: Places) -> list[File]:
    """What was taken and is not done with, the oldest first. Raises OSError."""
    return [file for file in _files(places.taken) if file.ident]


def waiting(places: Places) -> list[File]:
    """What has come in, the oldest first. Raises OSError."""
    return _files(places.new)


def corrupt(places: Places) -> int:
    """How many. Raises OSError."""
    return sum(1 for _ in places.corrupt.iterdir()) if places.corrupt.exists() else 0


def _files(folder: Path) -> list[File]:
    """Not folders, nor what is still being written by its name."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower().endswith(_UNFINISHED):
                continue
            with suppress(FileNotFoundError):
                if not stat.S_ISDIR((at := entry.stat(follow_symlinks=False)).st_mode):
                    ident = entry.name[:13] if _TAKEN.match(entry.name) else ""
                    found.append(File(Path(entry.path), ident, at.st_size, at.st_mtime, at.st_uid))
    return sorted(found, key=lambda file: (file.modified, file.path.name))


def take(places: Places, files: Iterable[tuple[File, str]]) -> tuple[list[File], list[tuple[File, OSError]]]:
    """Move these, each with the queue id it is to have: durable, so that whoever looks later knows what it was.

    Also what could not be moved, and why; a file that vanished is in neither. Raises OSError.
    """
    moved, left = [], []
    for file, ident in files:
        name = os.fsdecode(os.fsencode(file.path.name)[:_LONGEST])
        try:
            file.path.rename(path := places.taken / f"{ident}~{name}")
        except FileNotFoundError:
            continue
        except OSError as error:
            left.append((file, error))
        else:
            moved.append(File(path, ident, file.size, file.modified, file.owner))
    if moved:
        _sync(places.taken)
        _sync(places.new)
    return moved, left


def _sync(folder: Path) -> None:
    try:
        sync_folder(folder)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise


def content(file: File, most: int, head: int) -> tuple[bytes, int]:
    """Its octets, or the first ``head`` of more than ``most``, and how many there are.

    Raises Unreadable for what is no plain file with one name, or not ours to read: a second name would let a user post
    what he may not read (hard links), and of FIFOs and devices nothing is opened.
    """
    try:
        if not stat.S_ISREG(file.path.lstat().st_mode):
            raise Unreadable("it is no plain file")
        handle = os.open(file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as opened:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
                raise Unreadable("it is no plain file, or has a second name (hard link)")
            data = opened.read(head if found.st_size > most else most + 1)
            return data, max(len(data), found.st_size)
    except OSError as error:
        raise Unreadable(f"it cannot be read: {error.strerror}") from None


def done(files: Sequence[File]) -> None:
    """Gone. What is missing already does not matter. Raises OSError."""
    for file in files:
        file.path.unlink(missing_ok=True)


def put_aside(places: Places, file: File) -> Path:
    """For a person to look at. Raises OSError."""
    to = places.corrupt / file.path.name
    with suppress(FileNotFoundError):
        file.path.rename(to)
    return to


def sweep(places: Places, before: float) -> None:
    """Away with what a writer that was killed left half done before then (seconds since 1970). Raises OSError."""
    with os.scandir(places.new) as entries:
        for entry in entries:
            with suppress(FileNotFoundError, IsADirectoryError):
                if entry.name.startswith(".") and entry.stat(follow_symlinks=False).st_mtime < before:
                    Path(entry.path).unlink()
