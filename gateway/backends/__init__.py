"""The registry of backends. A new one is a file here and a line in BACKENDS; the contract tests then find it."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from random import Random
from typing import Any

from gateway.backends.shared.base import Context, tells_of_trust
from gateway.backends.shared.over_http import OverHttpSettings
from gateway.clock import SystemClock
from gateway.config.finding import Ending, Finding, Unfit, below
from gateway.config.models import BackendSettings, Settings
from gateway.model import Backend, Capabilities

__all__ = ["BACKENDS", "Context", "build", "examine", "settings_types"]

# type name: where the class is that is built from (name, settings, context); its settings' class stands beside it.
# Only what the settings name is imported: their libraries take longer to load than most commands to run.
BACKENDS: Mapping[str, str] = {
    "capture": "capture.Capture",
    "gmail": "google.gmail.Gmail",
    "graph": "microsoft.graph.Graph",
    "js2mail": "json.js2mail.Js2mail",
    "justemails": "json.justemails.Justemails",
    "mailpass": "json.mailpass.Mailpass",
    "smtp": "smtp.smarthost.Smtp",
    "smtp2go": "smtp2go.Smtp2go",
    "temp_mail": "json.temp_mail.TempMail",
}


def _load(kind: str, suffix: str = "") -> Any:
    module, _, name = BACKENDS[kind].rpartition(".")
    return getattr(import_module(f"{__name__}.{module}"), name + suffix)


class _SettingsTypes(UserDict[str, Any]):
    """Imports a backend's file when its settings are asked for."""

    def __getitem__(self, kind: str) -> Any:
        return _load(kind, "Settings")


def settings_types() -> Mapping[str, type[BackendSettings]]:
    """The settings class of each ``type``, for the configuration loader."""
    return _SettingsTypes(BACKENDS)


def examine(settings: Settings) -> tuple[list[Finding | Ending], dict[str, Capabilities]]:
    """What each backend says of the files in its settings, and the capabilities of those that can be built.

    Reads files; asks nobody. Who is missing among the capabilities has a fatal finding.
    """
    examined: list[Finding | Ending] = []
    capabilities = {}
    nowhere: Any = None  # nobody is asked
    context = Context(settings.hostname, settings.state_dir, SystemClock(), nowhere, Random(0))  # noqa: S311 - unused
    for name, section in settings.backends.items():
        if section.calls:
            import_module("gateway.calling")  # now that it is judged whether all is there, and not when mail waits
        own = list(below(("backends", name), section.examine(name, settings.state_dir)))
        if settings.spool.url is not None:  # which knows who has signed in, and which key counts, and is not asked
            own = [one for one in own if one.keys[-1] not in ("device_login", "certificate_renew")]
        examined += own
        try:
            if not any(isinstance(one, Finding) and one.fatal for one in own):
                capabilities[name] = build(name, section, context).capabilities
        except Unfit as error:
            examined.append(error.finding)
        except (ValueError, OSError) as error:
            examined.append(Finding(("backends", name), str(error)))
    return examined, capabilities


def build(name: str, settings: BackendSettings, context: Context) -> Backend:
    """The backend called ``name``. Raises OSError for a file named in the settings that cannot be read."""
    if isinstance(settings, OverHttpSettings) and context.fetch:  # nobody is asked where there is none
        context = replace(context, fetch=settings.way(context.fetch, tells_of_trust(context.signals, name)))
    made: Backend = _load(settings.type)(name, settings, context)
    return made
