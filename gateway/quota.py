"""How much a client may send: the nouns, without any counting."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

Per = Literal["client", "address", "login", "sender"]
Over = Literal["hold", "defer", "refuse"]


@dataclass(frozen=True, slots=True)
class Rate:
    """At most ``count`` in any ``period``."""

    count: int
    period: timedelta


@dataclass(frozen=True, slots=True)
class Quota:
    """At most so many ``messages`` and ``recipients``, for each ``per``; ``over`` is what becomes of the rest."""

    messages: tuple[Rate, ...] = ()
    recipients: tuple[Rate, ...] = ()
    per: Per = "client"
    over: Over = "defer"
