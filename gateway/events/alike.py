"""Outcomes that say the same, told once for all who got them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from gateway.model import Outcome


def alike(outcomes: Mapping[str, Outcome]) -> Collection[tuple[Outcome, list[str]]]:
    """Who got the same."""
    if len(outcomes) == 1:  # of nearly every message
        return [(outcome, [address]) for address, outcome in outcomes.items()]
    groups: dict[Outcome, list[str]] = {}
    for address, outcome in outcomes.items():
        groups.setdefault(outcome, []).append(address)
    return groups.items()
