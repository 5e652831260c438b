"""The quota of a client as settings, and what does not make sense in one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BeforeValidator

from gateway.config import values
from gateway.config.section import Section
from gateway.quota import Quota, Rate

_one_or_more = BeforeValidator(
    lambda given: given if isinstance(given, (list, tuple)) else (given,),
    values.RateLimit | tuple[values.RateLimit, ...],
)
Rates = Annotated[tuple[values.RateLimit, ...], _one_or_more]


class QuotaSettings(Section):
    """How many ``messages`` and ``recipients`` in a minute, an hour, a day: one rate or several, each of them holds.

    They are counted for the client as a whole, or for each ``address``, ``login`` or ``sender`` of it. Who is over it
    is told to try again, or refused, or the message is taken and held until somebody releases it.
    """

    messages: Rates = ()
    recipients: Rates = ()
    per: Literal["client", "address", "login", "sender"] = "client"
    over: Literal["hold", "defer", "refuse"] = "defer"

    @property
    def quota(self) -> Quota:
        return Quota(self.messages, self.recipients, self.per, self.over)


def faults(quota: QuotaSettings, *, logs_in: bool) -> Iterator[tuple[tuple[str, ...], str]]:
    """The key within it, () for the whole, and what is wrong."""
    if not quota.messages and not quota.recipients:
        yield (), "says no number: write for example messages: [60/minute, 500/day]"
    for name in ("messages", "recipients"):
        yield from (((name,), text) for text in _senseless(getattr(quota, name)))
    if quota.per == "login" and not logs_in:
        yield ("per",), "nobody logs in as this client, write per: address"
    for few in quota.recipients:
        for many in quota.messages:
            if few.period == many.period and few.count < many.count:
                text = f"{values.format_rate(few)} is fewer than messages {values.format_rate(many)}"
                yield ("recipients",), f"{text}, and every message has a recipient"


def _senseless(rates: Sequence[Rate]) -> Iterator[str]:
    """Of two rates the one with the longer period must allow more, and in less than so many of the shorter ones."""
    for short, long in pairwise(sorted(rates, key=lambda rate: rate.period)):
        one, other = values.format_rate(short), values.format_rate(long)
        if short.period == long.period:
            yield f"{one} and {other} are for the same time, leave one of them out"
        elif long.count < short.count:
            yield f"{other} is less than {one}, which could never be reached"
        elif long.count > short.count * (long.period / short.period):
            yield f"{other} could never be reached with {one}"
