"""What became of mail after a provider took it: what providers say, and what came back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from gateway.model import DeliveryEvent
from gateway.spool import returned, tracking
from gateway.spool.members import Sharing
from gateway.spool.records import Poll, micros


@dataclass(eq=False, repr=False)
class Afterwards(Sharing):
    """Kept beside the history of a message; nothing here changes its state."""

    async def add_events(self, backend: str, said: Sequence[DeliveryEvent], source: str) -> None:
        """Keep what a provider says of mail it took; on disk when this returns. Said twice, it counts once."""
        for each in said:
            self._tell(await self._writer.submit(partial(tracking.add, backend=backend, said=each, source=source)))

    def _tell(self, new: Sequence[tracking.NewEvent]) -> None:
        for each in new:
            self._events.delivery_event(*each)

    async def poll_again(self, poll: Poll, at: datetime | None) -> None:
        """Count the question as asked; None: it is not asked again."""
        await self._writer.submit(partial(tracking.poll_again, poll=poll, next_at=None if at is None else micros(at)))

    async def handed_over(
        self, backend: str, named: Sequence[str], remote_id: str, since: datetime
    ) -> list[returned.HandedOver]:
        """What this backend has sent since then by one of these Message-IDs, in their order, or by the provider's."""
        async with self._moments.reading() as reader:
            return await returned.find(reader, backend, named, remote_id, micros(since))

    async def come_back(self, back: returned.Back) -> int:
        """Keep that it came back, with what its sender is told; returns of how many recipients that was new.

        Raises SpoolFull where there is no room for new mail: then nothing of it is kept.
        """
        with self.room.taking(back.bounces):
            new = await self._writer.submit(lambda tx: returned.come_back(tx, back), late=True, fresh=True)
        self._tell(new)
        return len(new)
