"""What instances on one database share, for commands that work without a service: sign-ins of backends."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.backends.shared.stores import Shared
    from gateway.config.models import Settings


def shared(settings: Settings) -> Shared | None:
    """None where the queue is in a file of this machine: then so are sign-ins. Whether a service runs is no matter."""
    spool = settings.spool
    if spool.url is None:
        return None
    from gateway.postgresql.apart import Apart
    from gateway.postgresql.server import Server
    from gateway.sealed import DirectStore

    password = spool.password.get_secret_value() if spool.password else ""
    server = Server(spool.url, spool.instance, spool.failover, password)
    return partial(DirectStore, run=Apart(server, settings.state_dir))
