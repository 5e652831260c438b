"""Another way for what waits: all deliveries of a backend, however many, a page at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from gateway.spool import Delivery, DeliveryId, Spool

PAGE = 500  # deliveries routed at a time, so that the loop is free in between


async def reroute(spool: Spool, backend: str, target: Callable[[Delivery], str]) -> AsyncIterator[int]:
    """Move each delivery that waits for ``backend`` to its target, due now; "" leaves it.

    Yields after each page how many of it were left, so that the caller can end it between two pages.
    """
    async for page in spool.deliveries(backend, limit=PAGE):
        by_target: dict[str, list[DeliveryId]] = {}
        for delivery in page:
            by_target.setdefault(target(delivery), []).append(delivery.delivery_id)
        left = len(by_target.pop("", ()))
        for name, ids in by_target.items():
            await spool.move(ids, name, spool.now())
        yield left
