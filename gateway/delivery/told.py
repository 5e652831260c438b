"""How a backend stands, as the instance that works it tells the others: text for a row. Times are the spool's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any

from gateway.checks import Use
from gateway.delivery.standing import BackendStatus, Heard
from gateway.spool.records import micros, moment

_LONGEST = 2000  # characters of what a provider said
_NEAR = timedelta(seconds=1)  # clocks of two kinds do not tell one moment alike twice


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """``asked`` is the last order that it has obeyed (pauses.Ordered). ``by`` "": it works; ``until`` None is for
    ever."""

    asked: int
    by: str = ""
    reason: str = ""
    fix: str = ""
    who: str = ""
    since: datetime | None = None
    until: datetime | None = None
    in_flight: int = 0
    last_success: datetime | None = None
    heard: Heard | None = None
    uses: tuple[Use, ...] = ()

    @property
    def condition(self) -> tuple[int, str, str]:
        """What others want to hear of at once."""
        return self.asked, self.by, self.reason

    def like(self, other: Told | None) -> bool:
        """Whether the other says the same, but for moments that are told a little otherwise."""
        if other is None:
            return False
        return self._bare() == other._bare() and all(
            mine == theirs or (mine and theirs and abs(mine - theirs) < _NEAR)
            for mine, theirs in zip(self._times(), other._times(), strict=True)
        )

    def _times(self) -> tuple[datetime | None, ...]:
        return self.since, self.until, self.last_success, self.heard.at if self.heard else None

    def _bare(self) -> Told:
        heard = replace(self.heard, at=moment(0)) if self.heard else None
        return replace(self, since=None, until=None, last_success=None, heard=heard)

    def text(self) -> str:
        """For the column ``backend.standing``."""
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        return json.dumps(given, default=_plain, separators=(",", ":"))


def told_of(status: BackendStatus, asked: int, shift: timedelta) -> Told:
    """``shift`` is what makes the spool's time of what this machine's clock shows."""
    heard = status.heard
    return Told(
        asked=asked,
        by=status.paused_by,
        reason=status.reason[:_LONGEST],
        fix=status.fix[:_LONGEST],
        who=status.who,
        since=_moved(status.since, shift),
        until=_moved(status.paused_until, shift),
        in_flight=status.in_flight,
        last_success=_moved(status.last_success, shift),
        heard=replace(heard, at=heard.at + shift, detail=heard.detail[:_LONGEST], fix=heard.fix[:_LONGEST])
        if heard
        else None,
        uses=status.uses,
    )


def read(text: str) -> Told | None:
    """None where nothing was said, or nothing that this version understands."""
    try:
        found = json.loads(text)
        heard, times = found.get("heard"), {name: _time(found.get(name)) for name in ("since", "until", "last_success")}
        given: dict[str, Any] = {
            **_known(Told, found),
            **times,
            "heard": Heard(**{**_known(Heard, heard), "at": moment(heard["at"])}) if heard else None,
            "uses": tuple(Use(**_known(Use, use)) for use in found.get("uses", ())),
        }
        return Told(**given)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None


def _known(kind: Callable[..., object], found: Mapping[str, Any]) -> dict[str, Any]:
    """A later version may say more."""
    names = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    return {name: value for name, value in found.items() if name in names}


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return micros(value)
    return {each.name: getattr(value, each.name) for each in fields(value)}  # type: ignore[arg-type]


def _time(value: Any) -> datetime | None:
    return None if value is None else moment(value)


def _moved(at: datetime | None, shift: timedelta) -> datetime | None:
    return None if at is None else at + shift
