"""Secrets of one backend that have changed on disk: they can be taken alone, without the rest of the settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from pydantic import SecretStr

from gateway.config.models import BackendSettings
from gateway.config.section import Section

T = TypeVar("T", bound=Section)


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
    taken, found, others = _secrets(before, there)
    if there.verifies != before.verifies:  # then it is another kind of backend
        return before, Renewal(differs=(*found, *others))
    return taken, Renewal(found, others)


def _secrets(before: T, there: T, above: str = "") -> tuple[T, tuple[str, ...], tuple[str, ...]]:
    """``before`` with the secrets of ``there``, also of sections within; which those are, and what else differs."""
    update: dict[str, object] = {}
    secrets: list[str] = []
    others: list[str] = []
    for name in type(before).model_fields:
        old, new = getattr(before, name), getattr(there, name)
        if old == new:
            continue
        if isinstance(old, Section) and type(old) is type(new):
            update[name], inner, rest = _secrets(old, new, f"{above}{name}.")
            secrets += inner
            others += rest
        elif isinstance(new, SecretStr):
            update[name] = new
            secrets.append(above + name)
        else:
            others.append(above + name)
    return before.model_copy(update=update), tuple(secrets), tuple(others)
