"""Once a day by mail: is all well, what went through, what waits, what ends."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from gateway.alerts.notice import Notice
from gateway.health.problems import problems, verdict
from gateway.health.records import Snapshot
from gateway.health.words import lasting, number, octets
from gateway.spool import Flow


def digest(ident: str, seen: Snapshot, hostname: str, flow: Flow) -> Notice:
    """``flow`` are the last 24 hours."""
    found = problems(seen)
    title = verdict(seen, found)
    return Notice(
        id=ident, at=seen.now, hostname=hostname, title=f"{seen.now:%Y-%m-%d}: {title.rstrip('.')}",
        words=(title, "", *_words(seen, flow), ""),
    )  # fmt: skip


def _words(seen: Snapshot, flow: Flow) -> Iterator[str]:
    for one in problems(seen):
        yield from wrap(f"- {one.what} {one.fix}", 76, subsequent_indent="  ", break_long_words=False)
    total = flow.total
    yield "In the last 24 hours:"
    yield f"  {number(total.accepted, 'message')} accepted, {total.sent} handed over, {total.failed} failed"
    yield f"  {total.refused} refused at the door, {total.deferred} attempts put off"
    yield "Now:"
    for backend in seen.backends:
        oldest = f", the oldest for {lasting(seen.now - backend.oldest)}" if backend.oldest else ""
        held = f", {backend.held} held" if backend.held else ""
        yield f"  {backend.name}: {backend.state.replace('_', ' ')}, {backend.waiting} waiting{oldest}{held}"
    if seen.disk.database:
        yield f"  database: {octets(seen.disk.used)} in {seen.disk.database}"
    elif seen.disk.total:
        yield f"  disk: {octets(seen.disk.free)} of {octets(seen.disk.total)} free"
    if soon := [end for end in seen.ends if end.step(seen.now) is not None]:
        yield "What ends soon:"
        yield from (f"  {end.ends_at:%Y-%m-%d}  {end.what} of {end.of}" for end in soon)
