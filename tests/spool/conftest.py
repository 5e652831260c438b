"""The open spool of most tests, and which of them run on both engines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.spool_kit import At, blank, on_both, opened
from tests.spool_kit import engine as engine  # noqa: PLC0414 - a fixture

# What is not about the file of SQLite, its disk, its damage, its plans, its count of statements, or the clock of this
# machine, which a shared spool does not go by.
_ON_BOTH = {
    "test_acts.py", "test_checked.py", "test_doorbook.py", "test_find.py", "test_handover.py",
    "test_mail.py", "test_moments.py", "test_operator.py", "test_sets.py", "test_tally.py", "test_tracking.py",
}  # fmt: skip
# Nor tests that use these: they see what SQLite's own connections do, or get at its file behind the spool's back.
_OF_SQLITE = {"statements", "foreign_lock", "made", "sqlite3"}
# They copy the file (pg_dump does that for a database), or put rows into it by statements of SQLite.
_OF_THE_FILE = {
    "test_a_backup_is_a_whole_spool",
    "test_a_backup_that_fails_leaves_nothing_behind",
    "test_a_flood_is_bounded",
    "test_bodies_do_not_wait_behind_names_and_tokens",
    "test_readers_see_the_past_and_never_hold_up_the_writer",
    "test_sweeping_goes_on_until_all_is_swept",  # counts the rows of each step as SQLite comes to them
    "test_however_much_came_early_all_of_it_is_given_to_its_message",
}
_ALWAYS = {"test_mail.py", "test_tally.py"}  # the way of mail itself


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if not _OF_SQLITE.intersection(metafunc.function.__code__.co_names):
        on_both(metafunc, _ON_BOTH, _OF_THE_FILE, _ALWAYS)


@pytest_asyncio.fixture
async def at(engine: str, tmp_path: Path) -> AsyncIterator[At]:
    async with opened(blank(tmp_path)) as made:
        yield made
