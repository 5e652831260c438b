"""May this configuration run? The one answer, for check-config, for a reload and for the start."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from gateway import auth, backends, policy
from gateway.config import ConfigError
from gateway.config.files import unusable_places
from gateway.config.finding import Ending, Finding
from gateway.config.loading import Loaded
from gateway.routing import Routing
from gateway.smtp import tls

SOON = timedelta(days=30)  # before its end a certificate or secret is warned of


def ready(loaded: Loaded, now: datetime) -> Loaded:
    """The same with all warnings. Raises ConfigError with all that is wrong: with that nothing may run.

    Reads every key, certificate and file of credentials that the settings name. Blocks; asks nobody.
    What has ended at ``now`` is only warned of: a service that ran must come up again, whatever the date.
    """
    settings = loaded.settings
    of_backends, capabilities = backends.examine(settings)
    examined: list[Finding | Ending] = [*unusable_places(settings), *tls.examine(settings.listeners, settings.hostname)]
    examined += [*auth.examine(settings), *of_backends]
    found = [one for each in examined for one in ([each] if isinstance(each, Finding) else _dated(each, now))]
    if len(capabilities) == len(settings.backends):
        routing = Routing(settings.routes, capabilities)
        if silent := policy.no_bounces(settings.bounces, settings.hostname, routing):
            found.append(Finding(("bounces",), silent, fatal=False))
    if errors := loaded.lines(one for one in found if one.fatal):
        raise ConfigError(errors)
    return replace(loaded, warnings=(*loaded.warnings, *loaded.lines(found)))


def _dated(one: Ending, now: datetime) -> list[Finding]:
    day = f"{one.ends:%Y-%m-%d}"
    if one.ends <= now:
        text = f"{one.what} HAS ENDED on {day}: replace it now"
    elif one.begins is not None and now < one.begins:
        text = f"{one.what} is good only from {one.begins:%Y-%m-%d %H:%M:%SZ}: is this machine's clock right?"
    elif one.ends - now <= SOON:
        text = f"{one.what} ends on {day}, in {(one.ends - now).days} days: replace it in time"
    else:
        return []
    return [Finding(one.keys, text, fatal=False)]
