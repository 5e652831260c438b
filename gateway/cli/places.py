"""Where a queue may be: a folder, or a database. What ``gateway spool`` is given, or what the settings say."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from gateway.clock import Clock
from gateway.config.database import is_database, parse_database
from gateway.config.models import SpoolSettings
from gateway.postgresql.examining import examine
from gateway.spool import movefile
from gateway.spool.inspecting import Looked
from gateway.spool.moving import Source, Target

_PATIENCE = timedelta(seconds=60)  # a database that is busy with a large copy may be silent for a while
_WE = "command"  # in the place of an instance's name, in the database's own list of sessions


class Place(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def directory(self) -> Path | None:
        """None: it is a database."""

    def look(self) -> AbstractContextManager[Looked]: ...

    def wrong(self) -> Sequence[str]:
        """What is wrong with it beside messages. Raises SpoolError."""

    def source(self, clock: Clock) -> AbstractContextManager[Source]: ...

    def target(self, now: int, clock: Clock) -> AbstractContextManager[Target]: ...


@dataclass(frozen=True)
class Folder:
    directory: Path

    @property
    def name(self) -> str:
        return str(self.directory)

    def look(self) -> AbstractContextManager[Looked]:
        return movefile.looking(self.directory)

    def wrong(self) -> Sequence[str]:
        with movefile.looking(self.directory) as side:
            return side.damage()

    def source(self, clock: Clock) -> AbstractContextManager[Source]:
        return movefile.source(self.directory, clock)

    def target(self, now: int, clock: Clock) -> AbstractContextManager[Target]:
        return movefile.target(self.directory, now, clock)


class Database:
    """psycopg is loaded for this only. Raises ValueError where it is not installed, or does not take the URL."""

    directory: Path | None = None

    def __init__(self, url: str, password: str) -> None:
        for found in examine(SpoolSettings(url=parse_database(url))):
            raise ValueError(f"{url}: {found.text}")
        from gateway.postgresql import moving, starting
        from gateway.postgresql.server import Server

        self._moving, self._starting = moving, starting
        self._server = Server(url.strip(), _WE, _PATIENCE, password)
        self.name = self._server.shown

    def look(self) -> AbstractContextManager[Looked]:
        return self._moving.looking(self._server)

    def wrong(self) -> Sequence[str]:
        self._starting.check(self._server)
        return ()

    def source(self, clock: Clock) -> AbstractContextManager[Source]:
        return self._moving.source(self._server)

    def target(self, now: int, clock: Clock) -> AbstractContextManager[Target]:
        return self._moving.target(self._server)


def find(given: str | None, password_file: Path | None, file: Path | None) -> Place:
    """What is ``given``, else that of the settings in ``file``. Raises ValueError."""
    if given is not None and not is_database(given) and "://" not in given:
        return Folder(Path(given).absolute())
    if given is not None:
        return Database(given, _read(password_file) if password_file else _known(given, file))
    from gateway.cli import local

    settings = local.settings(file, spared=("backends",)).settings
    if (spool := getattr(settings, "spool", None)) is None or spool.url is None:
        return Folder(settings.state_dir)
    return Database(spool.url, _read(password_file) if password_file else _secret(spool.password))


def _read(file: Path) -> str:
    try:
        found = file.read_text().rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read: {getattr(error, 'strerror', '') or 'it is no text'}") from None
    if not found:
        raise ValueError(f"{file} is empty")
    return found


def _known(url: str, file: Path | None) -> str:
    """The password in the settings, if they mean the same database."""
    from gateway.cli import local
    from gateway.config import ConfigError

    try:
        spool: Any = getattr(local.load(file, spared=("backends",)).settings, "spool", None)
    except (ConfigError, OSError):
        return ""
    return _secret(spool.password) if spool is not None and spool.url == url.strip() else ""


def _secret(password: Any) -> str:
    return str(password.get_secret_value()) if password is not None else ""
