"""The number at Overview: how many things need somebody, on every page."""

from __future__ import annotations

from gateway.health.gather import gather
from gateway.health.problems import problems
from gateway.http.service import Service


async def things_to_do(service: Service) -> int:
    return len(problems(await gather(service)))
