"""The first page: what is wrong, whether mail flows, where it waits."""

from __future__ import annotations

from gateway.http.pages.visit import View, Visit


async def page(visit: Visit) -> View:
    counts = visit.service.spool.counts()
    waiting = sum(count for (_, state), count in counts.items() if state == "queued")
    held = sum(count for (_, state), count in counts.items() if state == "held")
    return View(template="overview.html", values={"section": "overview", "waiting": waiting, "held": held})
