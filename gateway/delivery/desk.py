"""What stands between a lane and its owner: what the lane shows, and what it asks."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from gateway.config.models import RetrySettings
from gateway.delivery.retry import Decision
from gateway.model import NewMessage, SpooledMessage


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """What ``backend list`` shows of one lane."""

    name: str
    type: str
    queued: int
    in_flight: int
    paused_until: datetime | None
    paused_by: str
    reason: str
    last_success: datetime | None


class Desk(Protocol):
    """What a lane asks of its owner: the way of a message, and the reports its fate calls for."""

    @property
    def retry(self) -> RetrySettings: ...

    def candidates(self, message: SpooledMessage, addresses: Sequence[str]) -> tuple[str, ...]: ...

    def resting(self, lane: str) -> bool: ...

    def fails_over(self, lane: str) -> bool: ...

    @property
    def rng(self) -> random.Random: ...

    def reports(
        self, message: SpooledMessage, raw: bytes, backend: str, decision: Decision, now: datetime
    ) -> tuple[tuple[NewMessage, ...], bool]: ...
