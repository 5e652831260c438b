"""Files written whole or not at all, and folders that take them."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def write_whole(
    path: Path, data: bytes, *, replace: bool = True, mode: int = 0o600, owner: tuple[int, int] | None = None
) -> None:
    """All of it or nothing, on disk before the return. Blocks. Its owner is ``owner``, else that of its folder, where
    root writes it: a command typed by root must not lock the service out.

    Without ``replace`` a file that is there stays as it is, also one that another process makes at this moment.
    Raises OSError; the old file is then untouched.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if os.geteuid() == 0:
                folder = path.parent.stat()
                os.fchown(handle, *(owner or (folder.st_uid, folder.st_gid)))
            os.fchmod(handle, mode)
            os.fsync(handle)
        if replace:
            Path(name).replace(path)
        else:
            with suppress(FileExistsError):
                os.link(name, path)  # unlike a rename it never replaces
            Path(name).unlink()
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in it durable (fsync(2): a file's own sync says nothing of its entry). Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unwritable(folder: Path, *, made: bool = False) -> str:
    """Why this user cannot put files there, "" where he can. ``made``: what is missing of its path will be made."""
    if made:
        folder = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if os.access(f"{folder}/.", os.W_OK | os.X_OK):
        return ""
    return f"{folder} is not a directory, or user id {os.geteuid()} may not write to it"
