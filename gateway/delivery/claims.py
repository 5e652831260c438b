"""What one worker has taken from the queue and not yet settled."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from gateway.model import SpoolTrouble
from gateway.spool import Claim, DeliveryId, Offer, Spool

LEASE = timedelta(minutes=30)  # how long a claimed delivery stays out of reach; a send is cut off before that
EAGER_BODY = 256 * 1024  # bodies up to this size are read together with their claims


async def give_back(spool: Spool, claims: Sequence[Claim]) -> bool:
    """What is not settled of these never reached the network: as if it had not been claimed.

    False where the disk refuses: they are shown as interrupted when their lease ends, or at the next start.
    """
    with suppress(SpoolTrouble):
        await spool.release_claims(claims)
        return True
    return False


class Claims:
    """No more than will be sent soon, for a crash interrupts all of them. A claim is busy until ``ended``, even if its
    lease runs out; it has one of the places for what is sent at once until it has to ``leave`` it."""

    def __init__(self, backend: str, spool: Spool) -> None:
        self._backend = backend
        self._spool = spool
        self._ready: deque[tuple[Claim, bytes | None]] = deque()
        self._busy: dict[DeliveryId, int] = {}  # with the number of the attempt
        self._placed: set[DeliveryId] = set()
        self.expected = 0  # on their way in, and offered to be taken at once
        # spool.Taken, of the last time; what is due while it is asked for is not known
        self.due: datetime | None = None

    def __len__(self) -> int:
        """How many wait for a free place."""
        return len(self._ready)

    @property
    def placed(self) -> int:
        """How many are being sent."""
        return len(self._placed)

    @property
    def in_hand(self) -> Collection[int]:
        """The numbers of their attempts."""
        return self._busy.values()

    @property
    def held(self) -> int:
        """How many are being sent, will be, or are on their way in."""
        return len(self._placed) + len(self._ready) + self.expected

    def offer(self, wanted: Callable[[], bool], ended: Callable[[], None]) -> Offer:
        """To take one on its way in, if it is ``wanted`` then; ``ended`` is called when it waits here, or when nothing
        came of it."""

        def taken(claim: Claim | None, raw: bytes) -> bool:
            self.expected -= 1
            keep = claim is not None and wanted()
            if claim is not None and keep:
                self._add(claim, raw if len(raw) <= EAGER_BODY else None)
            ended()
            return keep

        self.expected += 1
        return Offer(LEASE, taken)

    async def take(self, limit: int) -> int:
        """Claim what is due; returns how many there were. Raises SpoolTrouble."""
        self.due = now = self._spool.now()
        busy = sorted(self._busy)
        taken = await self._spool.claim(self._backend, now=now, lease=LEASE, limit=limit, busy=busy, eager=EAGER_BODY)
        for claim in taken.claims:
            self._add(claim, taken.bodies.get(claim.message.id))
        self.due = taken.due
        return len(taken.claims)

    def _add(self, claim: Claim, raw: bytes | None) -> None:
        self._ready.append((claim, raw))
        self._busy[claim.delivery_id] = claim.attempt_id

    def pop(self) -> tuple[Claim, bytes | None]:
        """The next to send; a large body is read when it is sent. IndexError when none waits."""
        claim, raw = self._ready.popleft()
        self._placed.add(claim.delivery_id)
        return claim, raw

    def leave(self, claim: Claim) -> None:
        """Its place may be another's, while what became of it is written down."""
        self._placed.discard(claim.delivery_id)

    def ended(self, claim: Claim) -> None:
        self.leave(claim)
        self._busy.pop(claim.delivery_id, None)

    def unstarted(self) -> list[Claim]:
        """Those that wait for a free place, no longer ours: for the caller to release."""
        claims = [claim for claim, _ in self._ready]
        self._ready.clear()
        for claim in claims:
            self._busy.pop(claim.delivery_id, None)
        return claims
