"""The registry of backends. A new one is a file here and a line in BACKENDS; the contract tests then find it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from gateway.backends._base import Context
from gateway.backends.capture import Capture, CaptureSettings
from gateway.backends.smtp import Smtp, SmtpSettings
from gateway.backends.smtp2go import Smtp2go, Smtp2goSettings
from gateway.config.models import BackendSettings
from gateway.model import Backend

__all__ = ["BACKENDS", "Context", "build", "settings_types"]

# type name: its settings, and what builds it from (name, settings, context)
BACKENDS: Mapping[str, tuple[type[BackendSettings], Callable[[str, Any, Context], Backend]]] = MappingProxyType(
    {
        "capture": (CaptureSettings, Capture),
        "smtp": (SmtpSettings, Smtp),
        "smtp2go": (Smtp2goSettings, Smtp2go),
    }
)


def settings_types() -> Mapping[str, type[BackendSettings]]:
    """The settings class of each ``type``, for the configuration loader."""
    return {kind: settings for kind, (settings, _) in BACKENDS.items()}


def build(name: str, settings: BackendSettings, context: Context) -> Backend:
    """The backend called ``name``. Raises OSError for a file named in the settings that cannot be read."""
    _, make = BACKENDS[settings.type]
    return make(name, settings, context)
