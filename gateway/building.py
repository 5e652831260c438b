"""From settings to what obeys them: backends, who lets in, and the rules of the door. What has not changed is kept."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from dataclasses import dataclass

from gateway import auth, backends, intake
from gateway.alerts.ways import Way, outside
from gateway.backends.shared.stores import Shared
from gateway.clock import Clock
from gateway.config.models import Settings
from gateway.events import Events
from gateway.fetch import Fetch
from gateway.lastuse import LastUse
from gateway.model import Backend, Verifies
from gateway.names import Names
from gateway.routing import Routing


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What it is made with, the same at every reload."""

    clock: Clock
    fetch: Fetch
    rng: random.Random
    events: Events
    names: Names
    revocations: auth.Revocations
    guesses: auth.Guesses
    uses: LastUse
    shared: Shared | None = None  # where this is not the only instance


@dataclass(frozen=True, slots=True)
class Built:
    """What was made of ``settings``, or kept because they are the same as before."""

    settings: Settings
    backends: dict[str, Backend]
    auth: auth.Authenticator
    rules: intake.Rules
    ways: tuple[Way, ...]  # by which alerts go out, mail excepted

    async def discard(self, before: Built) -> None:
        """These settings are not taken: close what was made for them."""
        await self.auth.aclose()
        for name, backend in self.backends.items():
            if before.backends.get(name) is not backend:
                await backend.aclose()


async def build(settings: Settings, means: Means, before: Built | None) -> Built:
    """Raises ValueError, OSError: the new backends are closed."""
    context = backends.Context(
        settings.hostname, settings.state_dir, means.clock, means.fetch, means.rng, means.events, means.names,
        means.shared,
    )  # fmt: skip
    built = dict[str, Backend]()
    async with AsyncExitStack() as new:
        for name, section in settings.backends.items():
            if before and name in before.backends and _same(settings, before.settings, name):
                built[name] = before.backends[name]
                continue
            means.events.memory.ends.pop(("credential", name), None)
            built[name] = backends.build(name, section, context)
            new.push_async_callback(built[name].aclose)
        ways = outside(settings.alerts, means.fetch)
        providers = {name: backend for name, backend in built.items() if isinstance(backend, Verifies)}
        made = auth.Authenticator(
            settings, means.clock, means.fetch, means.events, means.revocations, providers, means.guesses, means.uses
        )
        if before:
            made.take_over(before.auth)
        new.pop_all()
    routing = Routing(settings.routes, {name: backend.capabilities for name, backend in built.items()})
    return Built(settings, built, made, intake.Rules.of(settings, routing), ways)


def _same(one: Settings, other: Settings, name: str) -> bool:
    return one.hostname == other.hostname and one.backends[name] == other.backends.get(name)


def declare(events: Events, settings: Settings) -> None:
    """The names that metrics have."""
    events.declare(
        listeners=settings.listeners,
        backends=settings.backends,
        clients=settings.clients,
        quotas=[name for name, client in settings.clients.items() if client.quota is not None],
        keys=[name for name, key in settings.auth.keys.items() if key.jwks_url is not None],
        oauth=[name for name, section in settings.backends.items() if section.oauth],
    )
