"""What the doctor looks at, and by what means: all of it is handed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from gateway.clock import Clock
from gateway.config.loading import Loaded
from gateway.config.models import Settings
from gateway.doctor.host import Host
from gateway.fetch import Fetch
from gateway.model import Backend
from gateway.names import Names
from gateway.spool import Spool


class Signals(Protocol):
    """The part of events.Events that is used."""

    def bug(self, where: str, error: BaseException) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A set-up: a running service, or only its settings.

    ``read`` reads the settings as they stand in the file now and judges them; it blocks, and raises ConfigError.
    ``at_start`` are those that the service was started with, None where none runs. ``backends`` are built, or say why
    that was not possible. ``ports`` are those that each listener has in the running service. ``spool`` is None where it
    is not open here.
    """

    settings: Settings
    read: Callable[[], Loaded]
    clock: Clock
    names: Names
    fetch: Fetch
    signals: Signals
    at_start: Settings | None = None
    backends: Mapping[str, Backend | str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    spool: Spool | None = None
    host: Host = field(default_factory=Host)

    @property
    def runs(self) -> bool:
        return self.at_start is not None
