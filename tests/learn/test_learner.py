"""Learn mode keeps what it saw and how long it was told to, is bounded, and is nothing at all while it is off."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.config.models import ListenerSettings
from gateway.events import Events
from gateway.learn.book import PLACES, STRANGERS, Book
from gateway.learn.learner import FILE, Learner
from gateway.learn.seen import KINDS, Seen
from tests.builders import START
from tests.fakes import FakeClock
from tests.learn.kit import hear, settings, stranger

HOUR = timedelta(hours=1)


@asynccontextmanager
async def learner(folder: Path, clock: FakeClock, more: str = "clients: {}\n") -> AsyncIterator[Learner]:
    one = Learner(settings(folder, more), clock, Events(stream=io.StringIO(), clock=clock))
    await one.start()
    try:
        yield one
    finally:
        await one.aclose()


async def past(clock: FakeClock, seconds: float, holds: Callable[[], bool] = lambda: False, tries: int = 500) -> None:
    """Let time pass, and what waits for it happen: until that holds."""
    clock.advance(seconds)
    for _ in range(tries):
        await asyncio.sleep(0.002)
        if holds():
            return


async def test_it_is_off_until_it_is_begun_and_ends_by_itself(tmp_path: Path) -> None:
    """Off, no listener has an ear."""
    clock = FakeClock()
    async with learner(tmp_path, clock) as one:
        assert not one.at
        await one.begin(HOUR, "root", [], [])
        assert set(one.at) == {"lan"}
        await past(clock, 3599, tries=10)
        assert one.at
        await past(clock, 2, lambda: not one.at)
        assert not one.at
        assert one.run is not None
        assert one.run.ended_at is not None


@pytest.mark.parametrize(("away", "on"), [(600, True), (3601, False)])
async def test_a_restart_goes_on_with_what_is_known_and_ends_no_later(tmp_path: Path, away: float, on: bool) -> None:
    """What was seen is there again, to the last number."""
    clock = FakeClock()
    async with learner(tmp_path, clock) as one:
        await one.begin(HOUR, "root", ["lan"], ["192.0.2.0/24"])
        hear(one.book, "192.0.2.4", "a@example.com", "a@example.com", ["b@example.org"], clock)
        one.at["lan"].refused(stranger("192.0.2.5", "\ud800x@example.com"))
        before = [seen.plain() for seen in one.book.all]
    clock.advance(away)
    async with learner(tmp_path, clock) as one:
        await past(clock, 0, lambda: bool(one.at) is on)
        assert bool(one.at) is on
        assert [seen.plain() for seen in one.book.all] == before
        assert one.run is not None
        assert one.run.hear_out == ("192.0.2.0/24",)


async def test_a_crash_keeps_what_was_seen_half_a_minute_before(tmp_path: Path) -> None:
    """Nobody closes anything: the file stands there, whole."""
    clock = FakeClock()
    async with learner(tmp_path, clock) as one:
        await one.begin(HOUR, "root", [], [])
        hear(one.book, "192.0.2.4", "a@example.com", "a@example.com", ["b@example.org"], clock)
        await past(clock, 31, lambda: b"192.0.2.4" in (tmp_path / FILE).read_bytes())
        assert [each["peer"] for each in json.loads((tmp_path / FILE).read_text())["seen"]] == ["192.0.2.4"]


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 2}', '{"format": 1, "run": {}, "others": 0, "seen": []}',
                                  '{"format": 1, "run": null, "others": 0, "seen": [{"peer": 1}]}'])  # fmt: skip
async def test_a_file_that_cannot_be_read_is_put_aside(tmp_path: Path, text: str) -> None:
    """The service starts, and nobody's work is overwritten."""
    (tmp_path / FILE).write_text(text)
    async with learner(tmp_path, FakeClock()) as one:
        assert (one.run, len(one.book)) == (None, 0)
    assert (tmp_path / "learn.json.damaged").read_text() == text


@pytest.mark.parametrize(
    ("lasting", "listeners", "hear_out", "word"),
    [
        (timedelta(days=60), [], [], "31 days"),
        (HOUR, ["wan"], [], "no listener wan; there are lan"),
        (HOUR, [], ["192.0.2"], "no network"),
        (HOUR, [], ["0.0.0.0/0"], "strangers of the Internet"),
        (HOUR, [], ["0.0.0.0/1", "128.0.0.0/1"], "strangers of the Internet"),
    ],
)
async def test_an_order_that_makes_no_sense_is_refused(
    tmp_path: Path, lasting: timedelta, listeners: list[str], hear_out: list[str], word: str
) -> None:
    """With what to write instead, and nothing begins."""
    async with learner(tmp_path, FakeClock()) as one:
        with pytest.raises(ValueError, match=word):
            await one.begin(lasting, "root", listeners, hear_out)
        assert not one.at


async def test_an_order_that_cannot_be_kept_says_so(tmp_path: Path) -> None:
    """A restart would forget it."""
    async with learner(tmp_path, FakeClock()) as one:
        (tmp_path / FILE).mkdir()
        with pytest.raises(OSError, match=FILE):
            await one.begin(HOUR, "root", [], [])
        assert one.fault


async def test_a_listener_learns_always_and_forgets_by_order(tmp_path: Path) -> None:
    """``learn: true`` is not ended by ``stop``; a reload without it ends it."""
    plain = settings(tmp_path)
    learning = {"bind": "127.0.0.1:0", "learn": {"hear_out": ["192.0.2.0/24"]}}
    clock = FakeClock()
    async with learner(tmp_path, clock) as one:
        one.update(plain.model_copy(update={"listeners": {"lan": ListenerSettings.model_validate(learning)}}))
        assert one.at["lan"].hears_out("192.0.2.7")
        assert not one.at["lan"].hears_out("192.0.3.7")
        assert not await one.stop()
        one.at["lan"].connected("192.0.2.7")
        assert await one.forget() == 1
        one.at["lan"].connected("192.0.2.8")
        assert [seen.peer for seen in one.book.all] == ["192.0.2.8"]
        one.update(plain)
        assert not one.at
    assert [each["peer"] for each in json.loads((tmp_path / FILE).read_text())["seen"]] == ["192.0.2.8"]


def test_a_hostile_client_cannot_grow_it() -> None:
    """Whatever he says, and from wherever: numbers grow, texts do not, and our own devices keep their places."""
    clock, book = FakeClock(), Book()
    for n in range(STRANGERS + 50):
        book.of("lan", f"8.8.{n // 250}.{n % 250}", START)
    for n in range(100):
        book.of("lan", f"fd00::{n:x}", START)
    assert len(book) == STRANGERS + 16
    for n in range(PLACES):
        book.of("lan", f"10.0.{n // 250}.{n % 250}", START)
    assert len(book) == PLACES
    assert book.of("lan", "10.9.9.9", START) is None
    for n in range(300):
        text = f"{n}{'x' * 5000}"
        hear(book, "10.0.0.1", f"{text}@example.com", f"{n}@{n}.example", [f"a@{n}.example", text], clock)
        seen = book.of("lan", "10.0.0.1", START)
        assert seen is not None
        seen.refused("mail", 550, f"5.7.{n}", f"r{n}", text)
        seen.logins.add(text)
        seen.helo.add(text)
    assert seen.mails == 300
    assert all(len(getattr(seen, kind).seen) <= most for kind, most in KINDS.items())
    assert len(json.dumps(seen.plain())) < 40_000


def test_the_busiest_minute_is_told_and_a_record_comes_back_whole() -> None:
    """As JSON and out of it again."""
    seen = Seen("lan", "192.0.2.4", START)
    for second in (0, 10, 59, 60, 61, 4000):
        seen.mail(START + timedelta(seconds=second), "a@example.com", recipients=["b@example.org"], known=True)
    assert (seen.minute.most, seen.hour.most, seen.mails) == (3, 5, 6)
    plain: dict[str, Any] = json.loads(json.dumps(seen.plain()))
    assert Seen.of(plain).plain() == seen.plain()
