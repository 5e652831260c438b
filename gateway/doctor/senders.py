"""From addresses against what each backend may send as: by the settings, and by the provider's own word."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from gateway.address import takes_any
from gateway.backends.shared.probe import Probes
from gateway.doctor.finding import Finding, Level, finding
from gateway.doctor.providers import as_finding
from gateway.doctor.subject import Subject
from gateway.doctor.used import Used, used
from gateway.model import Backend

_PART = 20.0  # seconds for one provider
_MANY = 10  # addresses that one provider is asked about
Tell = Callable[[Finding], None]


async def look(subject: Subject, tell: Tell) -> None:
    found = await used(subject)
    for one in [*_refused(found), *_anybody(subject)]:
        tell(one)
    await asyncio.gather(
        *(_asked(name, probes, found, tell) for name, probes in subject.probes(subject.backends).items())
    )


def _refused(found: list[Used]) -> Iterator[Finding]:
    for one in found:
        if one.refused:
            what = f"{one.setting} lets {'everybody' if one.pattern else one.address} send"
            what += f" of {one.address.rpartition('@')[2]}" if one.pattern else ""
            fix = f"no backend takes it: {one.refused}"
            paste = f"{one.setting.rpartition('.')[0]}.rewrite_sender: {{to: ADDRESS-IT-MAY-SEND-AS, when: always}}"
            level: Level = "warn" if one.pattern else "bad"
            paste = paste if one.setting.startswith("clients.") and one.setting.endswith(".senders") else ""
            yield finding("sender_refused", level, what, fix, paste=paste, about=one.setting)
        elif one.setting and one.backends and not one.pattern:
            ways = ", ".join(sorted(one.backends))
            yield finding("sender_good", "good", f"{one.address} may leave by {ways}", about=one.setting)


def _anybody(subject: Subject) -> Iterator[Finding]:
    """Clients that may send as anybody, by backends that may not."""
    choosy = {name: one.capabilities.senders for name, one in _built(subject).items() if one.capabilities.senders}
    for name, client in subject.settings.clients.items():
        if not takes_any(client.senders) or client.rewrite_sender or client.login or not choosy:
            continue
        pin = client.backend or ""
        met = {one: senders for one, senders in choosy.items() if pin in ("", one)}
        for backend, senders in list(met.items())[:1]:
            what = f"clients.{name} may send as anybody, but {backend} sends only as {', '.join(senders[:3])}"
            fix = "mail from other addresses is refused; rewrite them, or name what it sends as"
            paste = f"clients.{name}.rewrite_sender: {{to: {_plain(senders)}, when: always}}"
            yield finding("sender_pattern", "note", what, fix, paste=paste, about=f"clients.{name}")


def _plain(senders: tuple[str, ...]) -> str:
    return next((one for one in senders if "*" not in one), "ADDRESS")


def _built(subject: Subject) -> dict[str, Backend]:
    return {name: one for name, one in subject.backends.items() if not isinstance(one, str)}


async def _asked(name: str, probes: Probes, found: list[Used], tell: Tell) -> None:
    """What the provider says of the addresses that go out by it; whole ones first."""
    mine = sorted((one for one in found if name in one.backends), key=lambda one: one.pattern)
    addresses = list(dict.fromkeys(one.address for one in mine))[:_MANY]
    about = f"backends.{name}"
    try:
        async with asyncio.timeout(_PART):
            for one in await probes.may_send_as(addresses):
                tell(as_finding(one, about))
    except TimeoutError:
        what = f"{name} did not say in {_PART:g} s whom it may send as"
        tell(Finding(key="part_late", area="senders", level="unknown", what=what, fix="try again", about=about))
