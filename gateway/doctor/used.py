"""The addresses that mail is sent from: those of the settings, and those that were really used of late."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.doctor.subject import Subject
from gateway.model import Backend, CannotCarry, Capabilities
from gateway.policy import BOUNCES
from gateway.routing import Freight, Routing, obstacle

# What clients wrote is pasted into shells and zone files by whoever follows the report: nothing odd gets that far.
_PLAIN = re.compile(r"[A-Za-z0-9._+=-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
ANYBODY = "anybody"  # stands for a local part where a pattern takes every one


@dataclass(frozen=True, slots=True)
class Used:
    """``setting`` is where it stands, "" for one that was seen in the spool. ``backends`` may carry it.

    ``refused``: why none can that a route leads to. ``pattern``: it stands for all of its domain.
    """

    address: str
    setting: str
    backends: frozenset[str]
    refused: str = ""
    pattern: bool = False


async def used(subject: Subject) -> list[Used]:
    """Those of the settings first."""
    routing = Routing(subject.settings.routes, _capabilities(subject))
    found = list(_of_settings(subject, routing))
    known = {(one.address.lower(), one.backends) for one in found}
    for row in await subject.spool.senders() if subject.spool is not None else ():
        one = Used(row.address, "", frozenset((row.backend,)))
        if (
            _PLAIN.fullmatch(row.address)
            and (row.address.lower(), one.backends) not in known
            and row.backend in subject.backends
        ):
            found.append(one)
    return found


def _capabilities(subject: Subject) -> dict[str, Capabilities]:
    built: dict[str, Backend] = {name: one for name, one in subject.backends.items() if not isinstance(one, str)}
    return {name: one.capabilities for name, one in built.items()}


def _of_settings(subject: Subject, routing: Routing) -> Iterator[Used]:
    settings = subject.settings
    for name, client in settings.clients.items():
        pin = client.backend or client.login or ""
        if client.login:
            continue  # the provider says who that is
        for pattern in (one for one in client.senders if not one.startswith("!")):
            local, _, domain = pattern.rpartition("@")
            if "*" in domain or "{" in pattern or not domain or pattern == "*":
                continue
            address = f"{ANYBODY}@{domain}" if "*" in local else pattern
            yield _used(address, f"clients.{name}.senders", name, pin, routing, pattern="*" in local)
        if client.rewrite_sender is not None:
            yield _used(client.rewrite_sender.to, f"clients.{name}.rewrite_sender", name, pin, routing)
    if settings.bounces.sender and settings.bounces.mode != "off":
        yield _used(settings.bounces.sender, "bounces.from", BOUNCES, settings.bounces.backend or "", routing)


def _used(address: str, setting: str, client: str, pin: str, routing: Routing, *, pattern: bool = False) -> Used:
    freight = Freight(client=client, sender=address, size=1, pin=pin, authors=(address,))
    ways = frozenset(name for names in routing.reachable(freight) for name in names)
    refused = ""
    if not ways:
        asked = [pin] if pin else [name for line in routing.routes for name in line.backend]
        refused = next((why for why in (_why(routing, freight, name) for name in asked) if why), "")
    return Used(address, setting, ways, refused, pattern)


def _why(routing: Routing, freight: Freight, name: str) -> str:
    found: CannotCarry | None = obstacle(name, routing.capabilities.get(name), freight)
    return found.text if found is not None and found.kind == "sender" else ""
