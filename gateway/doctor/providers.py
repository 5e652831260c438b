"""Backends: are they reached, do they take us as we are, and is what the settings need granted?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.backends.shared.over_http import OverHttpSettings
from gateway.backends.shared.probe import Observed, Probes
from gateway.checks import Check
from gateway.delivery import BackendStatus
from gateway.doctor.finding import Finding, finding
from gateway.doctor.reach import Way, reach
from gateway.doctor.subject import Subject
from gateway.model import Backend

PART = 25.0  # seconds for one backend
_RESTS = ("stopped", "slowed_down")
Tell = Callable[[Finding], None]


async def look(subject: Subject, tell: Tell) -> None:
    await asyncio.gather(*(_one(subject, name, one, tell) for name, one in subject.backends.items()))


async def _one(subject: Subject, name: str, built: Backend | str, tell: Tell) -> None:
    about = f"backends.{name}"
    if isinstance(built, str):
        tell(finding("backend_unbuilt", "bad", built, f"correct {about}", about=about))
        return
    probes = subject.probes([name]).get(name) or Probes()
    closed: list[Finding] = []  # a way that leads nowhere: what the check says of it need not be said again

    def on_the_way(one: Finding) -> None:
        closed.extend([one] if one.level == "bad" else [])
        tell(one)

    try:
        async with asyncio.timeout(PART):
            await _reached(subject, name, probes, on_the_way)
            await _checked(
                subject, name, built, probes, lambda one: None if closed and one.level == "bad" else tell(one)
            )
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        what, fix = f"{name} was replaced while it was looked at: the settings were reloaded", "run the doctor again"
        tell(Finding(key="part_late", area="backends", level="unknown", what=what, fix=fix, about=about))
    except TimeoutError:
        what = f"not all of {name} was looked at within {PART:g} s"
        fix = "what it asks does not answer; see whether this machine reaches it"
        paste = f"gateway backend check {name}"
        tell(Finding(key="part_late", area="backends", level="unknown", what=what, fix=fix, paste=paste, about=about))


async def _reached(subject: Subject, name: str, probes: Probes, tell: Tell) -> None:
    section = subject.settings.backends[name]
    ca_file, proxy = None, None
    if isinstance(section, OverHttpSettings):
        ca_file, proxy = section.ca_file, section.proxy.get_secret_value() if section.proxy else None
    way = Way(f"backends.{name}", subject.names, ca_file, proxy)
    await asyncio.gather(*(reach(url, way, tell) for url in dict.fromkeys(probes.urls)))


async def _checked(subject: Subject, name: str, built: Backend, probes: Probes, tell: Tell) -> None:
    about, made = f"backends.{name}", await built.check()
    if not made.ok:
        tell(
            finding(
                "backend_fails",
                "bad",
                made.summary,
                made.fix,
                said=_said(made),
                paste=_again(subject, name),
                about=about,
            )
        )
        return
    if (stands := subject.standing.get(name)) is not None and stands.state in _RESTS:
        tell(_rests(stands, about))
    tell(finding("backend_good", "good", f"{name}: {made.summary}", made.fix, about=about))
    for one in await probes.permissions(subject.settings.limits.max_size):
        tell(as_finding(one, about))


def _rests(stands: BackendStatus, about: str) -> Finding:
    """What only mail shows: a check that is good does not make it work."""
    name, until = stands.name, f" until {stands.paused_until:%Y-%m-%d %H:%MZ}" if stands.paused_until else ""
    if stands.state == "stopped":
        what = f"nothing is wrong that can be seen without sending, but {name} does not take mail: {stands.reason}"
        fix, paste = stands.fix or "see what it says, and try again", f"gateway backend resume {name}"
        return finding("backend_rests", "bad", what, fix, said=stands.reason, paste=paste, about=about)
    what = f"{name} was asked to slow down and waits{until}: {stands.reason}"
    fix = (
        stands.fix or "nothing, it goes on by itself; if this comes often, send less at once or ask for a higher limit"
    )
    return finding("backend_rests", "warn", what, fix, said=stands.reason, about=about)


def _said(made: Check) -> str:
    """The other side's words, of the step that went wrong."""
    return next((step.said for step in made.steps if step.result == "wrong" and step.said), "")


def _again(subject: Subject, name: str) -> str:
    return f"gateway backend check {name}" + (f"\ngateway backend resume {name}" if subject.runs else "")


def as_finding(one: Observed, about: str) -> Finding:
    return finding(one.key, one.level, one.what, one.fix, said=one.said, paste=one.paste, about=about)
