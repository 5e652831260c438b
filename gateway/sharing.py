"""Which spool the settings name: a file of ours alone, or a database where this is one of several instances."""

from __future__ import annotations

import random
from typing import Protocol

from gateway import auth
from gateway.backends.shared.stores import Shared
from gateway.clock import Clock
from gateway.config.models import Settings
from gateway.delivery import Dispatcher, ownership
from gateway.delivery.ownership import Ownership
from gateway.events import Events
from gateway.spool import Spool
from gateway.spool.engine import Engine


class Sharing(Ownership, Protocol):
    """The place of this service among the instances on its spool."""

    @property
    def engine(self) -> Engine | None:
        """None: the file in state_dir."""

    def number(self, chance: random.Random) -> int:
        """What stands in queue ids, so that no two instances give the same: 0 to 1023."""

    def know(self, spool: Spool, revocations: auth.Revocations) -> None:
        """Once the spool is open."""

    def stores(self) -> Shared | None:
        """Where sign-ins are kept that all instances use; None: in files of ours."""

    def serve(self, dispatcher: Dispatcher) -> None:
        """From now on work a share of the backends; after a reload: of those that are configured now."""

    def revoked(self) -> None:
        """Something was revoked here."""

    async def aclose(self) -> None:
        """Once the dispatcher has ended and the spool is closed."""


class Alone(ownership.Alone):
    """There are no others."""

    engine = None

    def number(self, chance: random.Random) -> int:
        return chance.getrandbits(10)

    def know(self, spool: Spool, revocations: auth.Revocations) -> None:
        pass

    def stores(self) -> Shared | None:
        return None

    def serve(self, dispatcher: Dispatcher) -> None:
        pass

    def revoked(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


async def join(settings: Settings, clock: Clock, events: Events) -> Sharing:
    """Raises SpoolError."""
    if settings.spool.url is None:
        return Alone()
    from gateway.instance import Instance  # noqa: PLC0415 - psycopg, which not everybody has

    return await Instance.begin(settings, clock, events)
