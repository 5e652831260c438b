"""Settings and their secrets put in place: all of it, or nothing."""

from __future__ import annotations

import os
import pwd
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from gateway.config import locate
from gateway.config.writing import replace_file
from gateway.files import sync_folder, write_whole

_USER = "gateway"  # of systemd/gateway.sysusers


class Taken(ValueError):
    """A file of this name is there, and holds something else."""


def service_owner(file: Path, environ: Mapping[str, str]) -> tuple[int, int] | None:
    """Whom the service of this file runs as, who must read its secrets; None: as whoever asks."""
    if os.geteuid() != 0:
        return None
    for folder in locate.state_dirs(file, environ):
        with suppress(OSError):
            found = folder.stat()
            return found.st_uid, found.st_gid
    with suppress(KeyError):
        if locate.machine_state_dir(file) is not None:
            user = pwd.getpwnam(_USER)
            return user.pw_uid, user.pw_gid
    return None


@contextmanager
def stored(folder: Path, secrets: Mapping[str, bytes], owner: tuple[int, int] | None) -> Iterator[None]:
    """The secrets as files (0600) in ``folder``; whatever goes wrong within, those that were made are gone again.

    One that is there already with the same content stays. Raises Taken, OSError.
    """
    made: list[Path] = []
    try:
        for name, content in secrets.items():
            path = folder / name
            if path.exists() and path.read_bytes() == content:
                continue
            if os.path.lexists(path):
                raise Taken(f"{path} is there already and holds something else: move it away, or give another --name")
            write_whole(path, content, replace=False, owner=owner)
            made.append(path)
        yield
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        raise


@contextmanager
def candidate(file: Path, text: str) -> Iterator[Path]:
    """The settings beside where they will stand, to be judged there: names in them mean the same."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=".yaml")
    path = Path(name)
    try:
        with os.fdopen(handle, "wb") as writing:
            writing.write(text.encode())
        yield path
    finally:
        path.unlink(missing_ok=True)


def put(file: Path, text: str, now: datetime) -> Path | None:
    """The settings in place; where the old ones are kept. Raises OSError."""
    backup = replace_file(file, text, now)
    sync_folder(file.parent)
    return backup
