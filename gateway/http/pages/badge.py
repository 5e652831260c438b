"""The number at Overview: how many things need somebody, on every page."""

from __future__ import annotations

from gateway.health.gather import gather
from gateway.health.problems import problems
from gateway.http.pages.visit import Desk
from gateway.http.service import Service

_FRESH = 5.0  # seconds for which it is not counted again: that takes more than a list of messages


async def things_to_do(service: Service, desk: Desk) -> int:
    """It may be a few seconds old, though never older than what was done here last."""
    at = service.clock.monotonic()
    if desk.badge is None or at - desk.badge[0] >= _FRESH:
        desk.badge = at, len(problems(await gather(service)))
    return desk.badge[1]
