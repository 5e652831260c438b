"""A run of the doctor: bounded, one at a time, worst first, and never silent about what it did not see."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from gateway.cli.doctor import doctor as command
from gateway.doctor import AREAS, Busy, Doctor, Finding, Report, Subject
from gateway.doctor.examine import LOOKS, examine
from gateway.doctor.finding import EVERYWHERE, KEYS, LEVELS, Level, finding, worst_first
from gateway.model import SpoolUnavailable
from tests.builders import START
from tests.doctor.kit import Bugs, found, levels, of, settings, subject
from tests.packaging.kit import ROOT, rows

Tell = Callable[[Finding], None]


def test_keys_are_those_of_the_page() -> None:
    """docs/doctor.md explains every key in the table of its area, says what to do, and knows no other."""
    documented: dict[str, list[str]] = {}
    page = (ROOT / "docs" / "doctor.md").read_text()
    for head, body in re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL):
        documented[head] = [
            key for line in re.findall(r"^\| (`.*?) \|", body, re.MULTILINE) for key in re.findall(r"`(\w+)`", line)
        ]
    assert documented == {area: list(keys) for area, keys in AREAS.items()}
    everywhere = [cells[0].strip("`") for cells in rows(ROOT / "docs" / "doctor.md", "finding")]
    assert everywhere[: len(EVERYWHERE)] == list(EVERYWHERE)
    for key, meaning, fix in (cells for cells in rows(ROOT / "docs" / "doctor.md", "finding")):
        assert meaning, key
        assert (
            fix or "_good" in key or key in ("`port_free`", "`backend_reached`", "`relay_local`", "`relay_refused`")
        ), key


def test_a_key_belongs_to_one_area() -> None:
    """So that it can be looked up, and that a slip shows where it is made."""
    assert len(KEYS) == sum(map(len, AREAS.values()))
    with pytest.raises(ValueError, match="no key of dns"):
        Finding(key="relay_open", area="dns", level="bad", what="")
    with pytest.raises(KeyError):
        finding("nonsense", "bad", "")


def test_every_area_is_looked_at() -> None:
    """An area in the list that nobody looks at would be all right for ever."""
    assert list(LOOKS) == list(AREAS)
    [option] = [one for one in command.params if one.name == "areas"]
    assert isinstance(option.type, click.Choice)
    assert list(option.type.choices) == list(AREAS)


def report(*given: Level) -> Report:
    made = worst_first(finding("settings_doubtful", level, f"number {n}") for n, level in enumerate(given))
    return Report(at=START, by="ann", seconds=1.0, service=True, areas=tuple(AREAS), findings=made)


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        ([], "Nothing is wrong."),
        (["good", "note"], "Nothing is wrong."),
        (["unknown"], "Nothing is wrong, 1 could not be seen from here."),
        (["good", "bad"], "1 thing is wrong."),
        (["bad", "warn", "bad", "unknown"], "2 things are wrong, 1 to look at, 1 could not be seen from here."),
        (["warn"], "1 to look at."),
    ],
)
def test_the_first_line_is_the_verdict(given: list[Level], verdict: str) -> None:
    """Nobody has to add up. The worst stands first."""
    made = report(*given)
    assert made.verdict == verdict
    assert [one.level for one in made.findings] == sorted(given, key=LEVELS.index)
    assert made.worst == (made.findings[0].level if given else "good")
    assert made.all_right == ("settings (1)" if "good" in given else "")


async def stuck(_subject: Subject, tell: Tell) -> None:
    tell(finding("mx_good", "good", "as far as it came"))
    await asyncio.Event().wait()


async def broken(_subject: Subject, tell: Tell) -> None:
    tell(finding("disk_good", "good", "as far as it came"))
    raise RuntimeError("no such thing")


async def quick(_subject: Subject, tell: Tell) -> None:
    tell(finding("relay_local", "good", "done"))


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three areas that end as they like."""
    for area in list(LOOKS):
        monkeypatch.delitem(LOOKS, area)
    for area, look in (("dns", stuck), ("machine", broken), ("relay", quick)):
        monkeypatch.setitem(LOOKS, area, look)


async def test_one_area_delays_no_other(tmp_path: Path, looks: None) -> None:
    """What hangs is cut off and what breaks is a bug; what both found before counts, and the others end."""
    looked_at, done = subject(settings(tmp_path)), list[str]()
    result = await examine(looked_at, seconds=0.05, done=done.append)
    assert levels(result) == {
        "part_late": "unknown",
        "part_failed": "unknown",
        "mx_good": "good",
        "disk_good": "good",
        "relay_local": "good",
    }
    assert (of(result, "part_late").area, of(result, "part_failed").area) == ("dns", "machine")
    assert sorted(done) == ["dns", "machine", "relay"]
    assert isinstance(looked_at.signals, Bugs)
    assert looked_at.signals.found == [("doctor.machine", "no such thing")]


async def test_a_spool_that_cannot_be_read_is_no_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is away, or rights are gone: it is said, and nobody is sent to report a fault of ours."""

    async def unread(_subject: Subject, _tell: Tell) -> None:
        raise SpoolUnavailable("the database cannot be read: see why")

    monkeypatch.setitem(LOOKS, "spool", unread)
    looked_at = subject(settings(tmp_path))
    (one,) = await examine(looked_at, ["spool"])
    assert (one.key, one.what) == ("part_late", "spool could not be looked at: the database cannot be read: see why")
    assert isinstance(looked_at.signals, Bugs)
    assert looked_at.signals.found == []


async def test_one_run_at_a_time(tmp_path: Path, looks: None) -> None:
    """A second is told whose is under way; who asked may leave; the report is kept; the end of the service ends it."""
    looked_at = subject(settings(tmp_path))
    doctor = Doctor(lambda: looked_at)
    asker = asyncio.create_task(doctor.run("ann", ["relay", "dns"]))
    while not (doctor.under_way and doctor.under_way.done):
        await asyncio.sleep(0)
    assert (doctor.under_way.by, doctor.under_way.areas, doctor.under_way.done) == ("ann", ("dns", "relay"), ("relay",))
    with pytest.raises(Busy, match="ann asked for"):
        doctor.start("bob")
    asker.cancel()
    await asyncio.wait([asker])
    assert doctor.under_way is not None
    await doctor.aclose()
    assert (doctor.under_way, doctor.last) == (None, None)
    with pytest.raises(Busy, match="is stopping"):
        doctor.start("bob")
    doctor = Doctor(lambda: looked_at)
    made = await doctor.run("bob", ["relay"])
    assert (made.by, made.areas, made.at, made.service) == ("bob", ("relay",), looked_at.clock.now(), False)
    assert doctor.last is made
    with pytest.raises(ValueError, match="no area nonsense; there are settings, "):
        doctor.start("bob", ["nonsense"])


async def test_settings_with_errors(tmp_path: Path) -> None:
    """Each is named with its place; a running service goes on with the old ones, which is said."""
    read = settings(tmp_path)
    looked_at = subject(read, at_start=read().settings)
    settings(tmp_path, "hostnam: x\nlimits: {idle: never}\n")
    result = await found(looked_at, "settings")
    assert levels(result) == {"settings_wrong hostnam": "bad", "settings_wrong limits.idle": "bad"}
    assert "a restart would not come up" in result[0].fix


async def test_settings_that_are_not_in_force(tmp_path: Path) -> None:
    """What a reload would bring is told apart from what needs a restart."""
    read = settings(tmp_path)
    looked_at = subject(read, at_start=read().settings)
    more = "backends: {box: {type: capture, directory: x}, y: {type: capture, directory: y}}\n"
    settings(tmp_path, f"hostname: other.example.com\nstate_dir: {tmp_path}/other\n{more}routes: [{{backend: box}}]\n")
    result = await found(looked_at, "settings")
    assert {"settings_waiting", "settings_restart", "settings_doubtful backends.y", "settings_good"} == set(
        levels(result)
    )
    assert "hostname" in of(result, "settings_waiting").what
    assert of(result, "settings_waiting").paste == "gateway reload"
    assert "state_dir" in of(result, "settings_restart").what
