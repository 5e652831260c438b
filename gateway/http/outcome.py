"""What an order about messages came to: the records that the acts answer with, and work once it has ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """Why nothing was done to ``count`` messages, the first 20 of which have these ``ids``."""

    why: str
    count: int
    ids: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """``changed`` is the number of messages, ``unchanged`` are those of the given ids that nothing happened to, ``why``
    says for what reasons."""

    changed: int
    unchanged: list[str]
    why: list[Why]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried(Changed):
    """``told``: of failed messages, those whose sender had been told that it failed."""

    told: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resent(Changed):
    """``copies``: by queue id that of the new message, at most 1,000."""

    copies: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted(Changed):
    """``bounces``: those that were on their way to tell of a failure."""

    bounces: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounced(Changed):
    """``told``: those whose sender gets a bounce. ``left``: what a filter never bounces, for nobody would be told."""

    told: int
    left: int
