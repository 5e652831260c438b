"""What is looked at, at one moment: frozen records, so that what needs somebody can be computed and tested alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.config.inforce import FailedReload
from gateway.events.memory import Happened, Storm

STEPS = (30, 14, 7, 1, 0)  # days before the end of a secret or certificate at which it is worth a word


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendNow:
    """A backend: ``state`` is working, slowed_down, paused, stopped, or "" where no service runs.

    ``by`` is the cause as in delivery.breaker, ``who`` paused it, ``said`` what the other side said last of it.
    ``waiting`` and ``held`` count deliveries, ``oldest`` is since when the first of those that wait does.
    """

    name: str
    type: str
    title: str
    state: str
    by: str = ""
    who: str = ""
    since: datetime | None = None
    until: datetime | None = None
    said: str = ""
    fix: str = ""
    waiting: int = 0
    held: int = 0
    oldest: datetime | None = None
    in_flight: int = 0
    last_success: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stuck:
    """What has waited longest for a backend that works: its message, what was said of it last, and what helps."""

    backend: str
    since: datetime
    id: str
    attempts: int
    said: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pile:
    """So many deliveries, the oldest of them since then: held in doubt, or of a backend that nobody knows."""

    backend: str
    count: int
    since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """What is good until ``ends_at``. ``key`` is the setting's name or the token's id and stays the same.

    ``kind`` is certificate, secret, sign_in, key or token; ``of`` is whose it is, as "backend office". ``renews``: by
    itself, 30 days before; ``trouble`` is what hinders that, "" for nothing, ``fix`` what helps.
    """

    key: str
    kind: str
    what: str
    of: str
    ends_at: datetime
    renews: bool = False
    trouble: str = ""
    fix: str = ""

    def step(self, now: datetime) -> int | None:
        """The least of ``STEPS`` that it is within, in days; 0: it has ended. None: there is time."""
        left = self.ends_at - now
        if left <= timedelta(0):
            return 0
        steps = STEPS[1:] if self.renews else STEPS  # at the first it only begins to renew itself
        return min((days for days in steps if days and left <= timedelta(days=days)), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerNow:
    name: str
    bind: str
    tls: str
    auth: str
    port: int
    accepting: bool
    connections: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskNow:
    """Octets. ``reserve`` is kept free of new mail; ``shut`` says why none is taken, or is "", ``fix`` what helps.

    ``database`` is the name of the one that the spool is in; of its disk nothing is known (0), and ``room`` only where
    limits.spool_size bounds it, else None.
    """

    used: int
    free: int
    total: int
    reserve: int
    room: int | None
    database: str = ""
    shut: str = ""
    fix: str = ""
    since: datetime | None = None
    writable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class StepNow:
    """The machine's clock was set from ``was_at`` to ``now_at``."""

    was_at: datetime
    now_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PickupNow:
    """A folder that mail is taken from and that cannot be read, and why."""

    name: str
    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadNow:
    """A backend that cannot look for mail that came back: since when, what was said, what to do."""

    backend: str
    since: datetime
    said: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadNow:
    """An address to which mail of a backend keeps coming back."""

    backend: str
    address: str
    count: int
    since: datetime
    said: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A gateway at ``now``. Where no service runs (``running`` is False) only the spool is known.

    ``descriptors`` says why this process may open too few files, or is "". ``delivering``: nobody at work has died.
    ``differing``: parts of the settings that are not the same at all instances, and who has them alike.
    """

    now: datetime
    running: bool
    disk: DiskNow
    started_at: datetime | None = None
    draining: bool = False
    delivering: bool = True
    backends: tuple[BackendNow, ...] = ()
    doubts: tuple[Pile, ...] = ()
    orphans: tuple[Pile, ...] = ()
    stuck: tuple[Stuck, ...] = ()
    damaged: int = 0
    damaged_id: str = ""
    ends: tuple[Ends, ...] = ()
    listeners: tuple[ListenerNow, ...] = ()
    reload: FailedReload | None = None
    differing: tuple[str, ...] = ()
    steps: tuple[StepNow, ...] = ()
    bugs: Happened | None = None
    log_ins: Happened | None = None
    storms: tuple[Storm, ...] = ()
    descriptors: str = ""
    pickups: tuple[PickupNow, ...] = ()
    unread: tuple[UnreadNow, ...] = ()
    dead: tuple[DeadNow, ...] = ()
