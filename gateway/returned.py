"""Mail that came back after a provider had taken it, as a report or a trace tells it: nobody vouches for either.

What is told here counts only for a message that the spool knows by its Message-ID (spool.returned).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from gateway.model import Outcome


@dataclass(frozen=True, slots=True)
class Failed:
    """A recipient who will not get it. ``addresses``: as the sender knew him first, then what became of that.

    ``enhanced`` (RFC 3463) is "" where nothing was said; ``detail`` is a stranger's words on one line.
    """

    addresses: tuple[str, ...]
    enhanced: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Returned:
    """Who failed of one message. ``named``: the Message-IDs that it may have, the surest first.

    ``remote_id``: what the provider called it, where that is known. ``told``: who has heard of it from the provider.
    ``subject`` is that of the original, as it came back.
    """

    named: tuple[str, ...]
    failed: tuple[Failed, ...]
    remote_id: str = ""
    told: str = ""
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look has found. ``place``: where the next goes on. ``more``: it did not come to the end.

    ``others``: mail that was looked at and told of no failure.
    """

    found: tuple[Returned, ...]
    place: str
    more: bool = False
    others: int = 0


# Whether this is of mail of ours, of which it is not known yet: before more is asked about it.
Wanted = Callable[[Returned], Awaitable[bool]]


@runtime_checkable
class Returns(Protocol):
    """A backend that can look for mail that came back. ``returns``: where it looks (report, trace), "" for nowhere."""

    @property
    def returns(self) -> str: ...

    async def returned(self, place: str, wanted: Wanted) -> Look | Outcome:
        """``place`` is that of the last look, "" at first. An Outcome where there was no usable answer.

        Bounded: a few dozen calls. Nothing is changed or deleted there.
        """
