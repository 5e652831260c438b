"""The doctor without a service: what of a set-up can be looked at before it runs, or while it does not."""

from __future__ import annotations

import asyncio
import os
import pwd
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from random import SystemRandom
from typing import Any

from gateway import backends
from gateway.cli import local
from gateway.cli.errors import Failed
from gateway.cli.plain import say
from gateway.cli.shared import shared
from gateway.clock import SystemClock
from gateway.config import ConfigError
from gateway.config.loading import Loaded
from gateway.doctor import AREAS, Report, Subject
from gateway.doctor.examine import examine
from gateway.doctor.finding import finding, worst_first
from gateway.fetch import Fetch
from gateway.http.doctor import report
from gateway.model import Backend
from gateway.names import Names
from gateway.readiness import ready

Progress = Callable[[Sequence[str], Sequence[str]], None]


class _Signals:
    """A bug is told at once, where somebody sits."""

    def bug(self, where: str, error: BaseException) -> None:
        say(f"bug in {where}: {type(error).__name__}: {error}", err=True)


def diagnose(file: Path | None, areas: Sequence[str], progress: Progress) -> Any:
    """As the service's own report."""
    chosen = tuple(area for area in AREAS if area in areas) or tuple(AREAS)
    clock = SystemClock()
    try:
        loaded = local.load(file)
    except ConfigError as error:  # without settings there is nothing else to look at
        wrong = [finding("settings_wrong", "bad", line, "correct that place") for line in error.lines]
        made = Report(
            at=clock.now(), by="you", seconds=0.0, service=False, areas=("settings",), findings=worst_first(wrong)
        )  # fmt: skip
        return _plain(made)
    _as_the_service(loaded.settings.state_dir)
    return _plain(asyncio.run(_examine(loaded, file, chosen, clock, progress)))


def _as_the_service(state: Path) -> None:
    """What is written meanwhile, a new token of a sign-in, must stay the service's own. Raises Failed."""
    if os.geteuid() == 0 and state.exists() and (owner := state.stat().st_uid) != 0:
        try:
            user = pwd.getpwuid(owner).pw_name
        except KeyError:
            user = f"#{owner}"
        raise Failed(
            f"no service is running, and {state} belongs to {user}: sudo -u {shlex.quote(user)} gateway doctor"
        )


async def _examine(
    loaded: Loaded, file: Path | None, areas: tuple[str, ...], clock: SystemClock, progress: Progress
) -> Report:
    names, settings = Names(), loaded.settings
    fetch = Fetch(names=names)
    context = backends.Context(
        settings.hostname, settings.state_dir, clock, fetch, SystemRandom(), names=names, shared=shared(settings)
    )
    built: dict[str, Backend | str] = {}
    for name, section in settings.backends.items():
        try:
            built[name] = backends.build(name, section, context)
        except (ValueError, OSError) as error:
            built[name] = str(error)
    subject = Subject(
        settings=settings,
        read=lambda: ready(local.load(file), clock.now()),
        clock=clock,
        names=names,
        fetch=fetch,
        signals=_Signals(),
        backends=built,
    )
    at, began = clock.now(), clock.monotonic()
    done: list[str] = []

    def ended(area: str) -> None:
        done.append(area)
        progress(areas, done)

    progress(areas, done)
    try:
        found = await examine(subject, areas, done=ended)
    finally:
        for one in built.values():
            if not isinstance(one, str):
                await one.aclose()
        await fetch.aclose()
    took = round(clock.monotonic() - began, 1)
    return Report(at=at, by="you", seconds=took, service=False, areas=areas, findings=found)


def _plain(made: Report) -> Any:
    """As it comes by HTTP, so that both print the same."""
    import json

    from gateway.http.problem import answer

    return json.loads(bytes(answer(report(made)).body))
