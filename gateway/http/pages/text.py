"""Texts on a page: what strangers wrote made harmless and visible; times, spans, sizes and numbers for people."""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from urllib.parse import quote, urlencode

from markupsafe import Markup, escape

LONGEST = 300  # characters of a stranger's text
_STAMP = re.compile(r"(?:(\d{4}-\d\d-\d\d) )?(\d\d:\d\d(:\d\d)?)Z")
_UNITS = (("day", 86400), ("h", 3600), ("min", 60))


class Whole(str):
    """A text that is printed as it is (escaped all the same): an address within the pages, the value of a field."""

    __slots__ = ()


def visible(text: str) -> str:
    """Control, bidi and other invisible characters as \\u202e; line breaks and tabs stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\u{ord(c):04x}" for c in text)


def finalize(value: object) -> object:
    """What a template prints goes through here, so that no page can forget it."""
    if isinstance(value, Markup | Whole) or not isinstance(value, str):
        return value
    return visible(value if len(value) <= LONGEST else value[:LONGEST] + "…")


def url(path: str, /, **query: object) -> Whole:
    """An address within the pages: names in it quoted, empty values of the query left out."""
    given = [(name.rstrip("_"), value) for name, value in query.items() if value not in ("", None)]
    return Whole(quote(path, safe="/") + (f"?{urlencode(given, errors='replace')}" if given else ""))


def number(count: int) -> str:
    return f"{count:,}"


def short(count: int) -> str:
    """150k, 1.5M: where there is no room for more."""
    for unit, scale in (("M", 1_000_000), ("k", 1000)):
        if count >= 10 * scale or (count >= scale and unit == "M"):
            return f"{count / scale:g}{unit}"
    return f"{count:,}"


def size(count: int) -> str:
    for unit, scale in (("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1000)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"


def span(seconds: float) -> str:
    """About how long, in one unit: 40 s, 4 min, 3 h, 12 days."""
    for unit, length in _UNITS:
        if seconds >= 2 * length or (unit == "day" and seconds >= length):
            n = round(seconds / length)
            return f"{n} {unit}{'s' if unit == 'day' and n > 1 else ''}"
    return f"{max(seconds, 0):.0f} s"


def count(n: int, noun: str, plural: str = "") -> str:
    """1 message, 2,000 messages"""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


class Times:
    """Times as this page shows them: in the zone of the machine or in UTC, as seen from ``now``."""

    def __init__(self, now: datetime, *, utc: bool) -> None:
        self.utc = utc
        self._zone: tzinfo | None = UTC if utc else None  # None: the machine's own
        self.now = now
        self._here = now.astimezone(self._zone)

    @property
    def zone(self) -> str:
        """Europe/Berlin (UTC+1), or UTC."""
        if self.utc:
            return "UTC"
        offset = self._here.utcoffset()
        minutes = int(offset.total_seconds() // 60) if offset else 0
        shown = f"UTC{minutes / 60:+g}" if minutes else "UTC"
        name = _zone_name() or self._here.tzname() or ""
        return shown if name in ("", "UTC", "Etc/UTC") else f"{name} ({shown})"

    def here(self, at: datetime) -> datetime:
        """In the zone that this page goes by."""
        return at.astimezone(self._zone)

    def text(self, at: datetime, *, seconds: bool = True) -> str:
        """10:41:52 today, Sun 16:44 in this week, else 9 Dec 11:02, and the year where it is another."""
        here = at.astimezone(self._zone)
        days = (self._here.date() - here.date()).days
        clock = f"{here:%H:%M:%S}" if seconds and not days else f"{here:%H:%M}"
        if not days:
            return clock
        if 0 < days < 7:
            return f"{here:%a} {clock}"
        year = f" {here.year}" if here.year != self._here.year else ""
        return f"{here.day} {here:%b}{year} {clock}"

    def time(self, at: datetime | None, seconds: bool = True) -> object:
        """As an element whose ``datetime`` programs read, and which says UTC to who points at it."""
        return "-" if at is None else self._element(at, self.text(at, seconds=seconds))

    def time_of_day(self, at: datetime) -> object:
        """Where the day stands above it."""
        return self._element(at, f"{at.astimezone(self._zone):%H:%M:%S}")

    def told(self, text: str) -> str:
        """A sentence of our own, its times in UTC as commands tell them, by this page's clock."""
        return _STAMP.sub(self._retold, text)

    def _retold(self, found: re.Match[str]) -> str:
        day = found[1] or f"{self.now.astimezone(UTC):%Y-%m-%d}"
        try:
            at = datetime.fromisoformat(f"{day} {found[2]}+00:00")
            return self.text(at, seconds=bool(found[3])) if found[1] else f"{at.astimezone(self._zone):%H:%M:%S}"
        except (
            ValueError,
            OverflowError,
        ):  # no time, or not in this zone: strangers may write it
            return found[0]

    def hour(self, at: datetime | None) -> object:
        """Without the seconds."""
        return self.time(at, False)

    def today(self, at: datetime) -> bool:
        return at.astimezone(self._zone).date() == self._here.date()

    @property
    def local_is_utc(self) -> bool:
        """There is nothing to switch."""
        return not self.now.astimezone().utcoffset()

    def day_text(self, at: datetime) -> str:
        here = at.astimezone(self._zone)
        days = (self._here.date() - here.date()).days
        year = f" {here.year}" if here.year != self._here.year else ""
        named = {0: "Today, ", 1: "Yesterday, "}.get(days, f"{here:%A}, ")
        return f"{named}{here.day} {here:%B}{year}"

    def day(self, at: datetime | None) -> object:
        """30 December, with the year where it is another."""
        if at is None:
            return "-"
        here = at.astimezone(self._zone)
        year = f" {here.year}" if here.year != self._here.year else ""
        return self._element(at, f"{here.day} {here:%B}{year}")

    def ago(self, at: datetime | None) -> object:
        """4 min ago, in 21 min"""
        if at is None:
            return "-"
        seconds = (at - self.now).total_seconds()
        return self._element(at, f"in {span(seconds)}" if seconds > 0 else f"{span(-seconds)} ago")

    @staticmethod
    def _element(at: datetime, words: str) -> Markup:
        stamp = at.astimezone(UTC)
        return Markup('<time datetime="{}" title="{}">{}</time>').format(
            f"{stamp:%Y-%m-%dT%H:%M:%SZ}", f"{stamp:%Y-%m-%d %H:%M:%S} UTC", words
        )


def _zone_name() -> str:
    """What the machine's time zone is called, "" where that cannot be seen."""
    try:
        target = str(Path("/etc/localtime").readlink())
    except OSError:
        return ""
    return target.partition("zoneinfo/")[2]


__all__ = [
    "Markup",
    "Times",
    "Whole",
    "count",
    "escape",
    "finalize",
    "number",
    "short",
    "size",
    "span",
    "url",
    "visible",
]
