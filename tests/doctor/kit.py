"""What the doctor looks at, made of whatever a test has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.backends import settings_types
from gateway.clock import Clock
from gateway.config.loading import Loaded, load
from gateway.doctor import Finding, Subject
from gateway.doctor.examine import examine
from gateway.fetch import Fetch
from gateway.names import Names
from tests.fakes import FakeClock


@dataclass
class Bugs:
    """What went wrong that should not."""

    found: list[tuple[str, str]] = field(default_factory=list)

    def bug(self, where: str, error: BaseException) -> None:
        self.found.append((where, str(error)))


def settings(folder: Path, text: str = "") -> Callable[[], Loaded]:
    """Reads these settings, which may be written anew meanwhile."""
    file = folder / "config.yaml"
    head = "" if "state_dir:" in text else f"state_dir: {folder / 'state'}\n"
    file.write_text(head + text)
    return lambda: load(file, {}, settings_types())


def subject(read: Callable[[], Loaded], clock: Clock | None = None, **more: Any) -> Subject:
    names = Names()
    given = {"settings": more.pop("settings", None) or read().settings, "read": read, "clock": clock or FakeClock()}
    return Subject(**given, names=names, fetch=Fetch(names=names), signals=Bugs(), **more)


async def found(looked_at: Subject, area: str) -> Sequence[Finding]:
    """What there is to say of one area."""
    try:
        return await examine(looked_at, (area,))
    finally:
        await looked_at.fetch.aclose()


def levels(findings: Sequence[Finding]) -> Mapping[str, str]:
    """By key, and by what it is about where that is said."""
    return {f"{one.key} {one.about}".strip(): one.level for one in findings}


def of(findings: Sequence[Finding], key: str) -> Finding:
    [one] = [one for one in findings if one.key == key]
    return one
