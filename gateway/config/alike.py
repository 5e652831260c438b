"""Settings that must not differ between instances on one spool: a digest of each part, and which instances differ.

Whatever decides where mail goes, how long it is tried and who is told must not depend on which instance happens to work
a backend or to take mail in. What is of a machine may differ: its name and listeners, folders and files, limits,
log and HTTP. Of a setting that names a file, what the file holds counts where that is read with the settings.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from gateway.config.models import Settings
from gateway.config.section import Section

_WHAT = b"gateway: settings alike at all instances\n"  # another use of the key than any other
_LENGTH = 12  # hexadecimal digits: enough to notice, and a line of the table stays short


@dataclass(frozen=True, slots=True)
class Difference:
    """``part`` of the settings, as its key in the file, and which instances have it alike: the most first."""

    part: str
    alike: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        return f"{self.part}: {' / '.join(', '.join(names) for names in self.alike)}"


def digests(settings: Settings, key: bytes) -> str:
    """For the column ``instance.settings``: who does not have the ``key`` (spool.key) can guess no secret by it."""
    return json.dumps({name: _digest(key, value) for name, value in sorted(_parts(settings))}, separators=(",", ":"))


def differences(rows: Mapping[str, str]) -> list[Difference]:
    """By part: of instances by name, each with its ``digests``. One that has not yet told any does not count."""
    told = {name: found for name, text in sorted(rows.items()) if (found := _read(text))}
    differing = []
    for part in sorted({part for found in told.values() for part in found}):
        groups: dict[str, list[str]] = {}
        for name, found in told.items():
            groups.setdefault(str(found.get(part, "")), []).append(name)
        if len(groups) > 1:
            ordered = sorted(groups.values(), key=lambda names: (-len(names), names))
            differing.append(Difference(part, tuple(map(tuple, ordered))))
    return differing


def _parts(settings: Settings) -> Iterator[tuple[str, Any]]:
    for name, backend in settings.backends.items():
        yield f"backends.{name}", backend
    yield from (("auth", settings.auth), ("clients", settings.clients), ("routes", settings.routes))
    yield from (("retry", settings.retry), ("bounces", settings.bounces), ("retention", settings.retention))


def _digest(key: bytes, value: Any) -> str:
    plain = json.dumps(_plain(value), sort_keys=True).encode()
    return hmac.digest(key, _WHAT + plain, "sha256").hex()[:_LENGTH]


def _plain(value: Any) -> Any:
    """What is as by default does not count: a later version may have settings that an earlier one does not know."""
    if isinstance(value, Section):
        fields = type(value).model_fields
        given = {name: getattr(value, name) for name in fields}
        told = {name: one for name, one in given.items() if not isinstance(one, Path) and one != fields[name].default}
        return {name: plain for name, one in told.items() if (plain := _plain(one)) is not None}
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value if isinstance(value, str | int | float | None) else repr(value)


def _read(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
