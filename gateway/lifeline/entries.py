"""The life of a message as a list of entries, oldest first; the last one is always now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from gateway.config.models import Settings
from gateway.delivery import BackendStatus
from gateway.lifeline import words
from gateway.lifeline.afterwards import acts, clock, events, rests, told, untold
from gateway.lifeline.arrival import accepted, decided
from gateway.lifeline.entry import Entry
from gateway.lifeline.now import end
from gateway.spool import MessageDetail
from gateway.spool.records import AttemptRow
from gateway.telling import people
from gateway.visible import LONGEST, visible

ATTEMPTS, EDGE = 30, 10  # of more tries than these the first and last ten are told

__all__ = ["ATTEMPTS", "EDGE", "Entry", "Life", "life"]


@dataclass(frozen=True, slots=True)
class Life:
    """``state`` is a key of telling.STATES. ``kept_until``: when the text goes; None where it has gone or waits."""

    state: str
    entries: tuple[Entry, ...]
    kept_until: datetime | None


def life(
    detail: MessageDetail, settings: Settings, now: datetime, backends: Mapping[str, BackendStatus] | None,
    *, whole: bool = False,
) -> Life:  # fmt: skip
    """``now`` is what the machine's clock shows; ``backends`` is None while no service runs.

    Unless ``whole``, long texts of strangers are cut, and of many tries only the first and last are told.
    """
    state, kept = words.shown(detail), kept_until(detail, settings)
    entries = [accepted(detail), *decided(detail)]
    entries += _between(detail, settings, now, whole=whole)
    entries += end(detail, state, now, kept, settings, backends)
    most = None if whole else LONGEST
    return Life(state, tuple(_fit(entry, most) for entry in entries), kept)


def kept_until(detail: MessageDetail, settings: Settings) -> datetime | None:
    """When the bytes of a message that has ended go."""
    message, kept = detail.message, settings.retention
    if not message.has_body or message.finished_at is None:
        return None
    return message.finished_at + (kept.sent_body if message.state == "done" else kept.failed_body)


def _between(detail: MessageDetail, settings: Settings, now: datetime, *, whole: bool) -> list[Entry]:
    """In the order in which it happened. Those of one moment stay in the order of their kinds."""
    tries = list(_attempts(detail, whole=whole))
    steps = list(clock(detail))
    beside = [*rests(detail), *events(detail), *told(detail, settings), *untold(detail), *acts(detail)]
    if not steps:
        return sorted([*tries, *beside], key=lambda entry: entry.at or now)
    line = _with_steps(detail, tries, steps)  # times of a clock that was set order nothing
    found: list[list[Entry]] = [[] for _ in range(len(line) + 1)]
    for entry in sorted(beside, key=lambda entry: entry.at or now):
        place = max((n for n, one in enumerate(line, 1) if (one.at or now) <= (entry.at or now)), default=0)
        found[place].append(entry)
    behind = [[one, *found[n]] for n, one in enumerate(line, 1)]
    return [*found[0], *(entry for some in behind for entry in some)]


def _with_steps(detail: MessageDetail, tries: Sequence[Entry], steps: Sequence[Entry]) -> list[Entry]:
    """Each step of the clock in front of the first try that came after it."""
    left, line = list(zip(detail.clock_steps, steps, strict=True)), list[Entry]()
    begun = [row.started_at for row in detail.attempts]
    for entry in tries:
        number = begun.index(entry.at) if entry.at in begun else len(begun)
        while left and left[0][0].after <= number:
            line.append(left.pop(0)[1])
        line.append(entry)
    return [*line, *(step for _, step in left)]


def _attempts(detail: MessageDetail, *, whole: bool) -> Iterator[Entry]:
    rows = detail.attempts
    left = range(EDGE, len(rows) - EDGE) if len(rows) > ATTEMPTS and not whole else range(0)
    for number, row in enumerate(rows):
        if number == left.start and left:
            yield Entry(at=row.started_at, kind="more", title=f"{len(left)} more tries", note="Show all to see them.")
        if number in left:
            continue
        before = rows[:number]
        if moved := _moved(detail, row, before):
            yield moved
        yield _attempt(row, before, len(detail.recipients))


def _moved(detail: MessageDetail, row: AttemptRow, before: Sequence[AttemptRow]) -> Entry | None:
    """The first try by a backend that others were chosen before."""
    if row.backend in {one.backend for one in before}:
        return None
    first = {str(way[2]) for way in words.decided_ways(detail)}
    mine = [one for one in before if set(one.recipients) & set(row.recipients)]
    if row.backend in first or not (first or mine):
        return None
    idle = sorted(first - {one.backend for one in before}) or sorted(first)
    why = f"{mine[-1].backend} did not take it." if mine else f"{', '.join(idle)} did not work."
    note = f"{why} The route allows it."
    since = mine[-1].started_at if mine else detail.message.received_at
    for act in detail.acts:
        if act.verb == "reroute" and since <= act.made_at <= row.started_at:
            note = f"{act.name or 'Somebody'} ordered that."  # no route may lead there
    return Entry(
        at=row.started_at, kind="moved", title=f"{row.backend} has it now", note=note,
        backend=row.backend,
    )  # fmt: skip


_TITLES: Mapping[str, str] = {
    "": "{by} is at it",
    "sent": "{by} took it",
    "rejected": "{by} refused it for good",
    "deferred": "{by}: not yet",
    "throttled": "{by}: not yet, asked to slow down",
    "misconfigured": "{by} does not accept us",
    "in_doubt": "{by}: no usable answer came",
    "interrupted": "{by}: interrupted",
    "corrupt": "{by}: not tried, the message is damaged on the disk",
}
_SET_UP = "{by}: not as it is set up"  # one message, and the backend works
_OURS = {
    "4.4.7": "Given up: its time is over",
    "5.0.0": "Given up by order",
}


def _attempt(row: AttemptRow, before: Sequence[AttemptRow], recipients: int) -> Entry:
    code, said = words.answer(row)
    whom = f", for {people(row.recipients)}" if len(row.recipients) < recipients else ""
    by = row.backend or "the gateway"
    ours = row.said_by == "gateway" and row.verdict == "rejected"
    title = _OURS.get(row.enhanced, "") if ours else ""
    took = (row.ended_at - row.started_at) if row.ended_at else None
    doubted = [one for one in before if one.backend == row.backend and set(one.recipients) & set(row.recipients)]
    return Entry(
        at=row.started_at,
        kind=row.verdict or "under_way",
        title=(title or _title(row).format(by=by)) + whom,
        said="" if row.verdict in ("interrupted", "corrupt") else said,  # the note says it
        said_by=row.said_by,
        code=code,
        meaning=words.meaning(row),
        fix=" ".join(row.fix.split()),
        note=" ".join(filter(None, (words.consequence(row), _after_doubt(row, doubted)))),
        backend=row.backend,
        remote_id=row.remote_id,
        seconds=took.total_seconds() if took is not None else None,
    )


def _title(row: AttemptRow) -> str:
    if row.verdict == "misconfigured" and row.scope == "message":
        return _SET_UP
    return _TITLES.get(row.verdict, "{by}: " + row.verdict)


def _after_doubt(row: AttemptRow, before: Sequence[AttemptRow]) -> str:
    """What came of a try that nobody knew the end of."""
    if row.verdict != "sent" or not before or before[-1].verdict not in ("in_doubt", "interrupted"):
        return ""
    if row.said_by == "gateway" and "earlier attempt" in row.detail:
        return "It was looked for and found: the try before this one had been taken, so nothing was sent twice."
    return "The try before this one may have been taken as well: it can have arrived twice."


def _fit(entry: Entry, most: int | None) -> Entry:
    """Nothing in it steers a terminal or a page; ``cut`` says that there is more of it."""
    strangers = (entry.title, entry.said, entry.code, entry.meaning, entry.fix, entry.note, entry.remote_id)
    title, said, code, meaning, fix, note, remote_id = (visible(text, most) for text in strangers)
    facts = tuple((name, visible(text, most)) for name, text in entry.facts)
    long = (*strangers, *(text for _, text in entry.facts))
    cut = most is not None and any(len(" ".join(text.split())) > most for text in long)
    return replace(
        entry, title=title, said=said, code=code, meaning=meaning, fix=fix, note=note, remote_id=remote_id,
        facts=facts, cut=cut,
    )  # fmt: skip
