"""Asking the backends of the configuration as it now stands in the file whether they could send."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from random import SystemRandom

from gateway import backends
from gateway.checks import Check
from gateway.cli.backend_words import checked
from gateway.cli.plain import say, show_json
from gateway.cli.shared import shared
from gateway.clock import SystemClock
from gateway.config.models import Settings
from gateway.fetch import Fetch


def show_checks(settings: Settings, names: Sequence[str], as_json: bool = False) -> None:
    """Build and check these backends. Exit code 1 if one fails."""
    checks = check_all(settings, names)
    found = {name: asdict(one) for name, one in checks.items()}
    show_json(found) if as_json else say("\n".join(line for name in names for line in checked(name, found[name])))
    if not all(one.ok for one in checks.values()):
        raise SystemExit(1)


def check_all(settings: Settings, names: Sequence[str]) -> dict[str, Check]:
    """What each of these backends says."""
    return dict(zip(names, asyncio.run(_check_all(settings, names)), strict=True))


async def _check_all(settings: Settings, names: Sequence[str]) -> list[Check]:
    client = Fetch()
    context = backends.Context(
        settings.hostname, settings.state_dir, SystemClock(), client, SystemRandom(), shared=shared(settings)
    )

    async def check(name: str) -> Check:
        try:
            built = backends.build(name, settings.backends[name], context)
        except (ValueError, OSError) as error:
            return Check(False, str(error), fix=f"correct backends.{name}")
        try:
            return await built.check()
        finally:
            await built.aclose()

    try:
        return await asyncio.gather(*map(check, names))
    finally:
        await client.aclose()
