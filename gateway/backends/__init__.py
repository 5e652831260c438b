"""The registry of backends. A new one is a file here and a line in BACKENDS; the contract tests then find it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType
from typing import Any, cast

from gateway.backends.capture import Capture, CaptureSettings
from gateway.backends.google.gmail import Gmail, GmailSettings
from gateway.backends.json.js2mail import Js2mail, Js2mailSettings
from gateway.backends.json.justemails import Justemails, JustemailsSettings
from gateway.backends.json.mailpass import Mailpass, MailpassSettings
from gateway.backends.json.temp_mail import TempMail, TempMailSettings
from gateway.backends.microsoft.graph import Graph, GraphSettings
from gateway.backends.shared.base import Context
from gateway.backends.smtp.smarthost import Smtp, SmtpSettings
from gateway.backends.smtp2go import Smtp2go, Smtp2goSettings
from gateway.clock import SystemClock
from gateway.config.finding import Ending, Finding, Unfit, below
from gateway.config.models import BackendSettings, Settings
from gateway.fetch import Fetch
from gateway.model import Backend, Capabilities

__all__ = ["BACKENDS", "Context", "build", "examine", "settings_types"]

# type name: its settings, and what builds it from (name, settings, context)
BACKENDS: Mapping[str, tuple[type[BackendSettings], Callable[[str, Any, Context], Backend]]] = MappingProxyType(
    {
        "capture": (CaptureSettings, Capture),
        "gmail": (GmailSettings, Gmail),
        "graph": (GraphSettings, Graph),
        "js2mail": (Js2mailSettings, Js2mail),
        "justemails": (JustemailsSettings, Justemails),
        "mailpass": (MailpassSettings, Mailpass),
        "smtp": (SmtpSettings, Smtp),
        "smtp2go": (Smtp2goSettings, Smtp2go),
        "temp_mail": (TempMailSettings, TempMail),
    }
)


def settings_types() -> Mapping[str, type[BackendSettings]]:
    """The settings class of each ``type``, for the configuration loader."""
    return {kind: settings for kind, (settings, _) in BACKENDS.items()}


def examine(settings: Settings) -> tuple[list[Finding | Ending], dict[str, Capabilities]]:
    """What each backend says of the files in its settings, and the capabilities of those that can be built.

    Reads files; asks nobody. Who is missing among the capabilities has a fatal finding.
    """
    examined: list[Finding | Ending] = []
    capabilities = {}
    nowhere = cast(Fetch, None)
    context = Context(settings.hostname, settings.state_dir, SystemClock(), nowhere, Random(0))  # noqa: S311 - unused
    for name, section in settings.backends.items():
        own = list(below(("backends", name), section.examine(name, settings.state_dir)))
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
    _, make = BACKENDS[settings.type]
    return make(name, settings, context)
