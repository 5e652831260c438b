"""Looks at each area at the same time as at the others, and never for longer than it may."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from gateway.doctor import certificates, listeners, machine, providers, queue, relay, senders, settings
from gateway.doctor.dns import domains
from gateway.doctor.finding import AREAS, Finding, worst_first
from gateway.doctor.subject import Subject
from gateway.model import SpoolTrouble

AT_MOST = 45.0  # seconds for everything
Tell = Callable[[Finding], None]
Look = Callable[[Subject, Tell], Awaitable[None]]

# Each tells what it finds as soon as it is found, so that nothing of it is lost when its time is over.
LOOKS: dict[str, Look] = {
    "settings": settings.look,
    "listeners": listeners.look,
    "certificates": certificates.look,
    "backends": providers.look,
    "senders": senders.look,
    "dns": domains.look,
    "machine": machine.look,
    "spool": queue.look,
    "relay": relay.look,
}


async def examine(
    subject: Subject,
    areas: Sequence[str] = (),
    *,
    seconds: float = AT_MOST,
    done: Callable[[str], None] = lambda area: None,
) -> tuple[Finding, ...]:
    """Everything that there is to say of these areas, () for all, worst first. ``done`` is told each area's end."""
    found: list[Finding] = []

    async def one(area: str) -> None:
        try:
            async with asyncio.timeout(seconds):
                await LOOKS[area](subject, found.append)
        except TimeoutError:
            found.append(late(area, f"not all of {area} was looked at within {seconds:g} s"))
        except SpoolTrouble as trouble:  # which is a state of the disk or the database, and said at its own place
            found.append(late(area, f"{area} could not be looked at: {trouble.text}"))
        except Exception as error:
            subject.signals.bug(f"doctor.{area}", error)
            found.append(failed(area))
        done(area)

    await asyncio.gather(*(one(area) for area in areas or AREAS if area in LOOKS))
    return worst_first(dict.fromkeys(found))


def late(area: str, what: str) -> Finding:
    fix = "run it again for this area alone; if that does not end either, what it asks does not answer"
    return Finding(
        key="part_late", area=area, level="unknown", what=what, fix=fix, paste=f"gateway doctor --area {area}"
    )  # fmt: skip


def failed(area: str) -> Finding:
    fix = "this is a fault of the gateway: please report the line event=bug in its log"
    what = f"looking at {area} failed"
    return Finding(key="part_failed", area=area, level="unknown", what=what, fix=fix)
