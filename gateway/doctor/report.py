"""What one run of the doctor came to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from gateway.doctor.finding import LEVELS, Finding, Level


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """``findings`` stand worst first. ``service``: a running service was looked at. ``by`` is who asked for it."""

    at: datetime
    by: str
    seconds: float
    service: bool
    areas: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def counts(self) -> Mapping[Level, int]:
        """How many findings of each level."""
        found = Counter(one.level for one in self.findings)
        return {level: found[level] for level in LEVELS}

    @property
    def worst(self) -> Level:
        return self.findings[0].level if self.findings else "good"

    @property
    def verdict(self) -> str:
        """The first line of the report, on a terminal and on the page."""
        bad, warn, unknown = (self.counts[level] for level in LEVELS[:3])
        parts = [
            f"{_many(bad, 'thing')} {'is' if bad == 1 else 'are'} wrong" if bad else "",
            f"{warn} to look at" if warn else "",
            f"{unknown} could not be seen from here" if unknown else "",
        ]
        if not any(parts[:2]):
            return "Nothing is wrong" + (f", {parts[2]}." if parts[2] else ".")
        return ", ".join(filter(None, parts)) + "."

    @property
    def all_right(self) -> str:
        """What is good, in one line: how much of each area."""
        found = Counter(one.area for one in self.findings if one.level == "good")
        return ", ".join(f"{area} ({found[area]})" for area in self.areas if found[area])


def _many(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
