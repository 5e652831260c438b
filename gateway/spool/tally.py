"""How much came in and went out in each hour: counted in the transaction in which it happens. Times in microseconds.

A message comes in once (accepted), or again after its end; it goes out as sent, failed or deleted. So what waits is
always the difference, whatever is killed when.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import add

from gateway.spool.counting import COLUMNS, GROWS, HOUR, ROW
from gateway.spool.queries import Reader
from gateway.spool.records import micros, moment
from gateway.spool.scope import Scope
from gateway.spool.sql import IN_STATE, QUEUED
from gateway.spool.transaction import Transaction

KEPT = timedelta(days=90)
_BY_HOUR = timedelta(days=9)  # two more than can be asked for by the hour
_DAY = 24 * HOUR
FADE = "DELETE FROM tally WHERE hour_at < :before"
# What was counted while the clock was ahead goes into the running hour: else it would be of now for ever.
_RECALL = f"""
INSERT INTO tally ({", ".join(ROW)})
SELECT :hour, listener, client, backend, {", ".join(f"sum({name})" for name in COLUMNS)}
FROM tally WHERE hour_at > :hour GROUP BY 2, 3, 4 {GROWS}"""  # noqa: S608 - of constants of ours
_HOURS = "SELECT hour_at FROM tally WHERE hour_at < :before AND hour_at % :day <> 0 ORDER BY hour_at LIMIT 1"
_OF_DAY = "FROM tally WHERE hour_at > :first AND hour_at < :first + :day"
_FOLD = f"""
INSERT INTO tally ({", ".join(ROW)})
SELECT :first, listener, client, backend, {", ".join(f"sum({name})" for name in COLUMNS)}
{_OF_DAY} GROUP BY 2, 3, 4 {GROWS}"""
_FOLDED = f"DELETE {_OF_DAY}"
_GONE = "DELETE FROM tally WHERE hour_at > :hour"
# The same until then: what it called the future counts as now.
_SINCE = f"""
SELECT @least(hour_at / :size * :size, :last) AS at, listener, client, backend,
    {", ".join(f"sum({name}) AS {name}" for name in COLUMNS)}
FROM tally WHERE hour_at >= :since AND {{}} GROUP BY 1, 2, 3, 4"""  # noqa: S608 - of constants of ours
_DEFERRED = COLUMNS.index("deferred")
# By an index, and no more than is queued is looked at.
_WAITING = " UNION ALL ".join(
    f"SELECT '{state}' AS state, count(*) AS n FROM {rows}"  # noqa: S608 - of constants of ours
    for state, rows in (("queued", QUEUED), ("held", IN_STATE.format("held")), ("corrupt", IN_STATE.format("corrupt")))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Messages; of a backend recipients. ``deferred`` are recipients put off, ``refused`` refusals at the door."""

    accepted: int = 0
    again: int = 0
    sent: int = 0
    failed: int = 0
    deleted: int = 0
    deferred: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Point(Counts):
    """One bar: the hour or day that begins ``at``."""

    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What came and went from ``since`` on, in whole hours or days (UTC) of which the last is running.

    before + accepted + again = sent + failed + deleted + all that is ``waiting`` (by state: queued, held, corrupt), at
    one moment. The reports that this gateway writes itself are in it, as the client "gateway". ``running`` are the
    backends in the running step.
    """

    since: datetime
    step: str
    points: tuple[Point, ...]
    total: Counts
    waiting: Mapping[str, int]
    before: int
    listeners: Mapping[str, Counts]
    clients: Mapping[str, Counts]
    backends: Mapping[str, Counts]
    running: Mapping[str, Counts]


def recall(tx: Transaction, latest: int) -> None:
    """No hour that was counted is later than that of ``latest``."""
    hour = latest // HOUR * HOUR
    tx.all(_RECALL, hour=hour)
    tx.all(_GONE, hour=hour)


def fold(tx: Transaction, now: int) -> bool:
    """Put the hours of the oldest day that nobody asks for by the hour any more into its first one, so that 90 days of
    many clients are soon summed. Whether there was such a day."""
    old = tx.all(_HOURS, before=(now - _BY_HOUR // timedelta(microseconds=1)) // _DAY * _DAY, day=_DAY)
    if not old:
        return False
    given = {"first": old[0]["hour_at"] // _DAY * _DAY, "day": _DAY}
    tx.all(_FOLD, **given)
    tx.all(_FOLDED, **given)
    return True


# The same of one tenant's.
_WAITING_OF = """
SELECT 'queued' AS state, count(*) AS n FROM message @by(message_open)
WHERE message.finished_at IS NULL AND message.state = 'queued' AND {0}
UNION ALL SELECT 'held', count(*) FROM message WHERE message.state = 'held' AND message.state <> 'queued' AND {0}
UNION ALL SELECT 'corrupt', count(*) FROM message
WHERE message.state = 'corrupt' AND message.state <> 'queued' AND {0}"""


async def flow(reader: Reader, now: datetime, count: int, step: timedelta, scope: Scope | None = None) -> Flow:
    """``count`` steps of one hour or one day, of all or of what a tenant may see. Everything is read at one moment."""
    size = micros(now) - micros(now - step)
    last = micros(now) // size * size
    since = last - (count - 1) * size
    hours, values = scope.hours() if scope else ("TRUE", {})
    rows = await reader.all(_SINCE.format(hours), since=since, size=size, last=last, **values)
    ours, values = scope.meets() if scope else ("", {})
    found = await reader.all(_WAITING_OF.format(ours) if scope else _WAITING, **values)
    waiting = {row["state"]: row["n"] for row in found}
    bars = {at: [0] * len(COLUMNS) for at in range(since, last + 1, size)}
    listeners: dict[str, list[int]] = {}
    clients: dict[str, list[int]] = {}
    backends: dict[str, list[int]] = {}
    running: dict[str, list[int]] = {}
    for row in rows:
        counts = [row[name] for name in COLUMNS]
        if backend := row["backend"]:
            bars[row["at"]][_DEFERRED] += counts[_DEFERRED]
            _add(backends, backend, counts)
        else:
            bars[row["at"]] = [*map(add, bars[row["at"]], counts)]
            _add(listeners, row["listener"], counts)
            _add(clients, row["client"], counts)
        if backend and row["at"] == last:
            _add(running, backend, counts)
    total = _counts(map(sum, zip(*bars.values(), strict=True)))
    return Flow(
        since=moment(since),
        step="hour" if step == timedelta(hours=1) else "day",
        points=tuple(Point(at=moment(at), **dict(zip(COLUMNS, bar, strict=True))) for at, bar in bars.items()),
        total=total,
        waiting=waiting,
        before=sum(waiting.values()) + total.sent + total.failed + total.deleted - total.accepted - total.again,
        listeners=_named(listeners),
        clients=_named(clients),
        backends=_named(backends),
        running=_named(running),
    )


def _add(to: dict[str, list[int]], name: str, counts: list[int]) -> None:
    to[name] = [*map(add, to[name], counts)] if name in to else counts


def _counts(values: Iterable[int]) -> Counts:
    return Counts(**dict(zip(COLUMNS, values, strict=True)))


def _named(group: Mapping[str, list[int]]) -> dict[str, Counts]:
    return {name: _counts(group[name]) for name in sorted(group)}
