"""What loading gives: the settings, and where each of them stands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.config.document import Keys, Place, find_place, in_order
from gateway.config.finding import Finding
from gateway.config.models import Settings


@dataclass(frozen=True)
class Loaded:
    """Settings in effect, and for each dotted key where it comes from: default, file:line, variable, command line.

    ``places`` are those of everything that was given, by its keys.
    """

    settings: Settings
    origins: Mapping[str, str]
    path: Path | None
    warnings: tuple[str, ...]
    places: Mapping[Keys, Place]

    def lines(self, findings: Iterable[Finding]) -> list[str]:
        """``file:line:column: dotted.key: text`` in the order of the file; the place is that of what was given."""
        nowhere = Place(str(self.path or "settings"))
        return in_order((find_place(self.places, one.keys, nowhere), one.keys, one.text) for one in findings)
