"""What backends share that can look for mail that came back (gateway.returned)."""

from __future__ import annotations

from typing import ClassVar, Protocol

from gateway.backends.shared.base import NoAnswer
from gateway.model import Outcome
from gateway.returned import Look, Wanted


class Place(Protocol):
    """Where it is looked for. ``source`` is report or trace."""

    source: ClassVar[str]

    async def look(self, place: str, wanted: Wanted) -> Look:
        """Raises NoAnswer."""


class Returning:
    """``_place_of_returns`` is None where nobody wants to know."""

    _place_of_returns: Place | None = None

    @property
    def returns(self) -> str:
        return self._place_of_returns.source if self._place_of_returns else ""

    async def returned(self, place: str, wanted: Wanted) -> Look | Outcome:
        assert self._place_of_returns is not None
        try:
            return await self._place_of_returns.look(place, wanted)
        except NoAnswer as error:
            return error.outcome
