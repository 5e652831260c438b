"""What one worker has taken from the queue and not yet settled."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from gateway.model import SpoolTrouble
from gateway.spool import Claim, Spool

LEASE = timedelta(minutes=30)  # how long a claimed delivery stays out of reach; a send is cut off before that
EAGER_BODY = 256 * 1024  # bodies up to this size are read together with their claims


async def give_back(spool: Spool, claims: Sequence[Claim]) -> None:
    """What is not settled of these never reached the network: as if it had not been claimed."""
    with suppress(SpoolTrouble):  # a full disk: they are shown as interrupted
        await spool.release_claims(claims)


class Claims:
    """No more than will be sent soon, for a crash interrupts all of them. A claim is busy until ``ended``, even if its
    lease runs out."""

    def __init__(self, backend: str, spool: Spool) -> None:
        self._backend = backend
        self._spool = spool
        self._ready: deque[tuple[Claim, bytes | None]] = deque()
        self._busy: set[int] = set()
        self.due: datetime | None = None  # spool.Taken, of the last time

    def __len__(self) -> int:
        """How many wait for a free place."""
        return len(self._ready)

    async def take(self, limit: int) -> int:
        """Claim what is due; returns how many there were. Raises SpoolTrouble."""
        now, busy = self._spool.now(), sorted(self._busy)
        taken = await self._spool.claim(self._backend, now=now, lease=LEASE, limit=limit, busy=busy, eager=EAGER_BODY)
        for claim in taken.claims:
            self._ready.append((claim, taken.bodies.get(claim.message.id)))
            self._busy.add(claim.delivery_id)
        self.due = taken.due
        return len(taken.claims)

    def pop(self) -> tuple[Claim, bytes | None]:
        """The next to send; a large body is read when it is sent. IndexError when none waits."""
        return self._ready.popleft()

    def ended(self, claim: Claim) -> None:
        self._busy.discard(claim.delivery_id)

    def unstarted(self) -> list[Claim]:
        """Those that wait for a free place, no longer ours: for the caller to release."""
        claims = [claim for claim, _ in self._ready]
        self._ready.clear()
        self._busy -= {claim.delivery_id for claim in claims}
        return claims
