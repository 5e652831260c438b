"""The settings that a service goes by: what differs from the defaults, where it comes from, when it was read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import SecretStr

from gateway.config.document import Keys, dotted
from gateway.config.loading import Loaded
from gateway.config.section import Section, flatten

DEFAULT = "default"
_NONE: Any = ...  # has no default


@dataclass(frozen=True, slots=True)
class FailedReload:
    """The last try to read the settings again, if it came to nothing: when, and every error with its place."""

    at: datetime
    errors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InForce:
    """What was ``loaded`` at ``read_at``, and the reload that failed since, None where none did."""

    loaded: Loaded
    read_at: datetime
    failed: FailedReload | None = None

    def after_failure(self, at: datetime, errors: Sequence[str]) -> InForce:
        return replace(self, failed=FailedReload(at, tuple(errors)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """``value`` and ``default`` in the notation of the file, None where there is none; of a ``secret`` neither is told.

    ``origin`` is file:line, a variable, the command line or "default"; ``changed``: other than the default.
    """

    key: str
    value: Any
    default: Any
    origin: str
    secret: bool
    changed: bool


def rows(loaded: Loaded) -> list[Setting]:
    """Every single setting, in the order of the sections."""
    plain = loaded.settings.model_dump(mode="json", by_alias=True)
    found = []
    for keys, value in flatten(loaded.settings):
        default, secret = _default(loaded.settings, keys), isinstance(value, SecretStr)
        origin = loaded.origins[dotted(keys)]
        written = None if default is _NONE else _written(loaded.settings, keys, default)
        found.append(
            Setting(
                key=dotted(keys),
                value=None if secret else _at(plain, keys),
                default=None if secret else written,
                origin=origin,
                secret=secret,
                changed=origin != DEFAULT and (default is _NONE or value != default),
            )
        )
    return found


def _at(value: Any, keys: Keys) -> Any:
    for key in keys:
        value = value[key]
    return value


def _holder(settings: Section, keys: Keys) -> tuple[Any, str]:
    """The section that holds the last of the keys, and the field's name in it."""
    here: Any = settings
    for key in keys[:-1]:
        here = getattr(here, _field(here, key)) if isinstance(here, Section) else here[key]
    return here, _field(here, keys[-1]) if isinstance(here, Section) else ""


def _field(section: Section, key: str | int) -> str:
    fields = type(section).model_fields.items()
    return next(name for name, field in fields if (field.alias or name) == key)


def _default(settings: Section, keys: Keys) -> Any:
    holder, name = _holder(settings, keys)
    if not isinstance(holder, Section) or name == "type":  # which is chosen for each backend
        return _NONE
    if (field := type(holder).model_fields[name]).is_required():
        return _NONE
    return field.get_default(call_default_factory=True)


def _written(settings: Section, keys: Keys, default: Any) -> Any:
    """As the file would say it."""
    holder, name = _holder(settings, keys)
    return holder.model_copy(update={name: default}).model_dump(mode="json", by_alias=True, include={name})[keys[-1]]
