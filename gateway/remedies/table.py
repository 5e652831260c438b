"""A remedy for each reason for which somebody can be turned away."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.config.models import Settings
from gateway.spool import RefusalRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """``why`` is the plain reason and ``fix`` what to do. ``yaml`` are lines of settings to paste, ``command`` what
    applies them, or does it without any; "" for none."""

    why: str
    fix: str
    yaml: str = ""
    command: str = ""


def remedy(row: RefusalRow, settings: Settings) -> Remedy:
    """Never raises: of a row that an older version wrote it says what the row says."""
    return Remedy(why=row.text or row.reason, fix="")
