"""Broken set-ups of each provider: every place names the true cause, contradicts no other, and helps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.broken.judge import faults
from tests.broken.kit import Case, Place, Seen, look
from tests.broken.table import CASES, PAGE, SHOWN, row, rows_of

# In each run; all of them by the marker slow.
OFTEN: Mapping[str, str] = {
    "graph": "secret_ended mailbox send_as proxy portal early",
    "gmail": "sign_in busy clock",
    "smtp": "disabled sender large name",
    "smtp2go": "key sender",
    "js2mail": "quota",
    "justemails": "permission",
    "mailpass": "provider",
    "temp_mail": "token",
}


def chosen() -> list[Case]:
    return [case for case in SHOWN if case.key in OFTEN[case.provider].split()]


def found(seen: Mapping[str, Seen]) -> list[str]:
    return [f"{one.case.name}: {fault}" for one in seen.values() for fault in faults(one)]


async def test_each_place_says_what_is_wrong(tmp_path: Path) -> None:
    """Status, doctor, life line, page and alert of the faults that come most; and the page in docs/ has their words."""
    cases = chosen()
    seen = await look(cases, tmp_path)
    assert found(seen) == []
    for case, line in rows_of(PAGE.read_text(), cases):
        assert line == row(seen[case.name]), "make it anew: python -m tests.broken"


def test_the_page_has_every_case() -> None:
    """And no other."""
    text = PAGE.read_text()
    assert [case.name for case, line in rows_of(text, SHOWN) if not line] == []
    cells = [line for line in text.partition("\n## ")[2].splitlines() if line.startswith("| ")]
    assert len([line for line in cells if not line.startswith(("| what", "| ---"))]) == len(SHOWN)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(3))
async def test_every_fault_of_every_provider(tmp_path: Path, part: int) -> None:
    """Also what stands between, with each of them."""
    cases: Sequence[Case] = CASES[part::3]
    seen = await look(cases, tmp_path)
    assert found(seen) == []
    for case, line in rows_of(PAGE.read_text(), [case for case in cases if not case.slow]):
        assert line == row(seen[case.name])


def test_silence_is_seen() -> None:
    """The judge finds fault with places that say nothing."""
    nothing = Place()
    known = next(one for one in SHOWN if one.name == "graph_secret_ended")
    places = {"status": nothing, "tried": nothing, "now": nothing, "alert": nothing}
    texts = dict.fromkeys(("until", "unseen", "life", "overview", "page"), "")
    blank = Seen(case=known, state="working", doctor=(), **places, **texts)
    assert {fault.partition(":")[0] for fault in faults(blank)} >= {"life", "status", "doctor"}
