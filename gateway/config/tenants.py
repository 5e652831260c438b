"""Who belongs to whom: clients and backends of tenants, and what must not lead from one to another. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from gateway.config.document import Keys, hint
from gateway.config.models import Settings

Findings = Iterator[tuple[Keys, str]]


def tenant_of(settings: Settings, kind: str, name: str) -> str:
    """Whose this is, of the ``kind`` clients, backends or users; "" for nobody's in particular."""
    return next((tenant for tenant, one in settings.tenants.items() if name in getattr(one, kind)), "")


def within_reach(settings: Settings, tenant: str) -> tuple[str, ...]:
    """The backends by which mail of a tenant may leave: its own, and those of nobody that its routes lead to."""
    own = settings.tenants[tenant]
    lines = (line for line in settings.routes if not line.clients or set(line.clients) & set(own.clients))
    led_to = {name for line in lines for name in line.backend}
    known = [settings.clients[name] for name in own.clients if name in settings.clients]
    led_to |= {name for client in known for name in (client.backend, client.login) if name}
    return tuple(
        name
        for name in settings.backends
        if name in own.backends or (name in led_to and not tenant_of(settings, "backends", name))
    )


def findings(settings: Settings, names: Mapping[str, Collection[str]]) -> Findings:
    """What is not there, what two tenants claim, and what leads to somebody else's backend."""
    for kind in ("clients", "backends", "users"):
        taken: dict[str, str] = {}
        for tenant, one in settings.tenants.items():
            here: Keys = ("tenants", tenant, kind)
            for name in getattr(one, kind):
                if kind != "users" and name not in names[kind]:
                    yield here, f'there is no {kind.removesuffix("s")} "{name}"{hint(name, names[kind])}'
                if (other := taken.setdefault(name, tenant)) != tenant:
                    yield here, f'"{name}" belongs to tenants.{other} already, and can have one tenant only'
    if settings.tenants:
        yield from _ways(settings)


def _ways(settings: Settings) -> Findings:
    whose = {name: tenant for tenant, one in settings.tenants.items() for name in one.backends}
    for index, line in enumerate(settings.routes):
        for backend in line.backend:
            for other in line.clients or settings.clients:
                if backend in whose and other not in settings.tenants[whose[backend]].clients:
                    text = f'backend "{backend}" belongs to tenants.{whose[backend]}, and client "{other}" does not'
                    own = ", ".join(settings.tenants[whose[backend]].clients)
                    yield ("routes", index, "backend"), f"{text}; write clients: [{own}] into this line"
                    break
    for name, client in settings.clients.items():
        for key in ("backend", "login"):
            backend = getattr(client, key) or ""
            if backend in whose and name not in settings.tenants[whose[backend]].clients:
                text = f'backend "{backend}" belongs to tenants.{whose[backend]}, and this client does not'
                yield ("clients", name, key), f"{text}; add it there (clients), or take another backend"
    if (backend := settings.bounces.backend or "") in whose:
        text = f'backend "{backend}" belongs to tenants.{whose[backend]}, and bounces are about mail of everybody'
        yield ("bounces", "backend"), f"{text}; take one that belongs to no tenant"
