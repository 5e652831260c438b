"""Mail by the hour or day as bars: numbers in, the coordinates of an SVG and a sentence for readers out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gateway.http.pages.text import Times, count
from gateway.spool import Flow, Point

WIDTH, HEIGHT = 330, 60  # of the bars, in the units of the drawing
_GAP = 3
_STEPS = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)


@dataclass(frozen=True, slots=True)
class Bar:
    """``running``: its hour is not over. A bar that is there is never too low to be seen."""

    x: float
    y: float
    width: float
    height: float
    running: bool


@dataclass(frozen=True, slots=True)
class Tick:
    x: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """``word`` is what is counted, ``now`` how much of it in the running hour, ``top`` the number at the upper line."""

    total: int
    word: str
    now: int
    label: str
    tone: str
    top: int
    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]


def charts(flow: Flow, times: Times) -> list[Chart]:
    """Accepted and handed over share one scale, or they could not be compared."""
    accepted = [point.accepted for point in flow.points]
    sent = [point.sent for point in flow.points]
    lost = [point.refused + point.failed for point in flow.points]
    top = nice(max(*accepted, *sent))
    return [
        _chart(accepted, "accepted", "message", top, flow, times),
        _chart(sent, "handed over", "message", top, flow, times),
        _chart(lost, "refused or failed", "time", nice(max(lost)), flow, times, "bad"),
    ]


def nice(most: int) -> int:
    """A round number that is not less, and at least 5."""
    scale = 1
    while most > 10 * scale:
        scale *= 10
    return max(5, next(int(step * scale) for step in _STEPS if step * scale >= most and (step * scale) % 1 == 0))


def _chart(values: Sequence[int], word: str, noun: str, top: int, flow: Flow, times: Times, tone: str = "") -> Chart:
    total, unit, running = sum(values), flow.step, values[-1]
    label = f"{count(total, noun)} {word} in the last {count(len(values), unit)}, {running:,} of them now."
    if total:
        most = max(range(len(values)), key=values.__getitem__)
        label += f" Most, {values[most]:,}, in the {unit} from {times.text(flow.points[most].at, seconds=False)}."
    bars = tuple(_bars(values, top))
    ticks = tuple(_ticks(flow.points, times))
    return Chart(total=total, word=word, now=running, label=label, tone=tone, top=top, bars=bars, ticks=ticks)


def _bars(values: Sequence[int], top: int) -> Iterator[Bar]:
    slot = WIDTH / len(values)
    for n, value in enumerate(values):
        if value:
            high = max(HEIGHT * value / top, 1.5)
            left, above, width = (round(x, 1) for x in (n * slot, HEIGHT - high, slot - _GAP))
            yield Bar(left, above, width, round(high, 1), running=n + 1 == len(values))


def _ticks(points: Sequence[Point], times: Times) -> list[Tick]:
    """Every six hours by the clock that the page goes by; the last is now."""
    slot = WIDTH / len(points)
    hours = [(n, times.here(point.at)) for n, point in enumerate(points[:-2])]
    found = [Tick(round((n + 0.5) * slot, 1), f"{here:%H:%M}") for n, here in hours if here.hour % 6 == 0]
    return [*found, Tick(round(WIDTH - slot / 2, 1), "now")]
