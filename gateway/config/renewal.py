"""Secrets of one backend that have changed on disk: they can be taken alone, without the rest of the settings."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import SecretStr

from gateway.config.models import BackendSettings


@dataclass(frozen=True, slots=True)
class Renewal:
    """What the settings on disk say otherwise: ``taken`` are secrets that are in force now, ``differs`` waits for a
    reload, both by their keys; ``errors`` are those of the settings, where they cannot be read."""

    taken: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


def renewed(before: BackendSettings, there: BackendSettings | None) -> tuple[BackendSettings, Renewal]:
    """``before`` with the secrets of ``there``, the settings on disk; None: they know no such backend."""
    if there is None or type(there) is not type(before):
        return before, Renewal(differs=("type",) if there else ("",))
    names = type(before).model_fields
    changed = {name: getattr(there, name) for name in names if getattr(there, name) != getattr(before, name)}
    secrets = {name: value for name, value in changed.items() if isinstance(value, SecretStr)}
    if there.verifies != before.verifies:  # then it is another kind of backend
        secrets = {}
    others = tuple(name for name in changed if name not in secrets)
    return before.model_copy(update=secrets), Renewal(tuple(secrets), others)
