"""What the doctor looks at, and by what means: all of it is handed in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from gateway.backends.shared.probe import Probed, Probes
from gateway.clock import Clock
from gateway.config.loading import Loaded
from gateway.config.models import Settings
from gateway.delivery import BackendStatus
from gateway.doctor.host import Host
from gateway.fetch import Fetch
from gateway.model import Backend
from gateway.names import Names
from gateway.spool import Spool

if TYPE_CHECKING:
    from gateway.doctor.dns.resolver import Resolver


def _resolver() -> Resolver:
    from gateway.doctor.dns.resolver import Resolver  # noqa: PLC0415 - dnspython, only where somebody looks

    return Resolver()


class Signals(Protocol):
    """The part of events.Events that is used."""

    def bug(self, where: str, error: BaseException) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A set-up: a running service, or only its settings.

    ``read`` reads the settings as they stand in the file now and judges them; it blocks, and raises ConfigError.
    ``at_start`` are those that the service was started with, None where none runs. ``backends`` are built, or say why
    that was not possible. ``ports`` are those that each listener has in the running service. ``spool`` is None where it
    is not open here. ``before`` is how much waited for each backend at the last run, and ``standing`` how the running
    service gets on with each.
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
    before: Mapping[str, int] = field(default_factory=dict)
    standing: Mapping[str, BackendStatus] = field(default_factory=dict)
    resolver: Callable[[], Resolver] = _resolver

    @property
    def runs(self) -> bool:
        return self.at_start is not None

    def probes(self, names: Iterable[str]) -> dict[str, Probes]:
        """Of those of these backends that have any."""
        found: dict[str, Probes] = {}
        for name in names:
            one: object = self.backends.get(name)
            if isinstance(one, Probed):
                found[name] = one.probes()
        return found
