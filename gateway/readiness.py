"""May this configuration run? The one answer, for check-config, for a reload and for the start."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from gateway import auth, backends, policy
from gateway.alerts import ways as alerts
from gateway.clock import Clock
from gateway.config import ConfigError
from gateway.config.files import unusable_places
from gateway.config.finding import Ending, Finding
from gateway.config.loading import Loaded
from gateway.config.models import Settings
from gateway.model import Capabilities
from gateway.pools import read_files
from gateway.postgresql import examining
from gateway.routing import Routing
from gateway.smtp import tls

SOON = timedelta(days=30)  # before its end a certificate or secret is warned of
LATE = timedelta(days=14)  # ... and one that should have renewed itself
_AGAIN = 300.0  # seconds until files are looked at again for when they end
_PATIENCE = 2.0  # seconds


def ready(loaded: Loaded, now: datetime) -> Loaded:
    """The same with all warnings. Raises ConfigError with all that is wrong: with that nothing may run.

    Reads every key, certificate and file of credentials that the settings name. Blocks; asks nobody.
    What has ended at ``now`` is only warned of: a service that ran must come up again, whatever the date.
    """
    settings = loaded.settings
    examined, capabilities = _examine(settings)
    examined = [*unusable_places(settings), *examining.examine(settings.spool), *examined]
    found = [one for each in examined for one in ([each] if isinstance(each, Finding) else _dated(each, now))]
    if len(capabilities) == len(settings.backends):
        routing = Routing(settings.routes, capabilities)
        if silent := policy.no_bounces(settings.bounces, settings.hostname, routing):
            found.append(Finding(("bounces",), silent, fatal=False))
    if errors := loaded.lines(one for one in found if one.fatal):
        raise ConfigError(errors)
    return replace(loaded, warnings=(*loaded.warnings, *loaded.lines(found)))


def _examine(settings: Settings) -> tuple[list[Finding | Ending], Mapping[str, Capabilities]]:
    of_backends, capabilities = backends.examine(settings)
    found = [*tls.examine(settings.listeners, settings.hostname), *auth.examine(settings), *of_backends]
    return [*found, *alerts.examine(settings.alerts)], capabilities


class Endings:
    """What ends of the files that settings name: looked at again now and then, for files are renewed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: tuple[Ending, ...] = ()
        self._of: Settings | None = None
        self._until = 0.0
        self._looking: asyncio.Task[tuple[Ending, ...]] | None = None

    async def of(self, settings: Settings) -> tuple[Ending, ...]:
        """As far as they are known: a disk that does not answer holds up nobody for longer than 2 seconds."""
        if (settings is not self._of or self._clock.monotonic() >= self._until) and self._looking is None:
            self._of, self._until = settings, self._clock.monotonic() + _AGAIN
            looking = read_files(lambda: tuple(one for one in _examine(settings)[0] if isinstance(one, Ending)))
            self._looking = asyncio.create_task(looking, name="endings")
        if (task := self._looking) is not None and (await asyncio.wait({task}, timeout=_PATIENCE))[0]:
            self._looking = None
            self._known = task.result()
        return self._known


def _dated(one: Ending, now: datetime) -> list[Finding]:
    day = f"{one.ends:%Y-%m-%d}"
    if one.ends <= now:
        text = f"{one.what} HAS ENDED on {day}: replace it now"
    elif one.begins is not None and now < one.begins:
        text = f"{one.what} is good only from {one.begins:%Y-%m-%d %H:%M:%SZ}: is this machine's clock right?"
    elif one.renews and one.ends - now <= LATE:
        text = f"{one.what} ends on {day}, in {(one.ends - now).days} days, and should have renewed itself: see the log"
    elif not one.renews and one.ends - now <= SOON:
        text = f"{one.what} ends on {day}, in {(one.ends - now).days} days: replace it in time"
    else:
        return []
    return [Finding(one.keys, text, fatal=False)]
