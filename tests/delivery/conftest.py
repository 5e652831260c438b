"""Which tests of delivery run on both engines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.spool_kit import on

_ON_BOTH = {
    "test_again.py", "test_bounces.py", "test_breaker.py", "test_digests.py", "test_dispatcher.py", "test_failover.py",
    "test_handover.py", "test_notices.py", "test_retry.py", "test_tracking.py", "test_upkeep.py", "test_worker.py",
}  # fmt: skip
# They count statements of SQLite's connections, or change rows by statements of its own.
_OF_THE_FILE = {
    "test_copies_are_all_or_none_for_a_step_and_a_full_disk_ends_it",
    "test_damaged_mail_is_not_said_to_be_returned",
    "test_everybody_hears_while_the_backend_rests",
    "test_failed_mail_by_the_thousand",
}
_ALWAYS = {"test_failover.py"}  # all the others on PostgreSQL take a minute


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    name = Path(metafunc.definition.path).name
    if name in _ON_BOTH and metafunc.function.__name__ not in _OF_THE_FILE:
        other = pytest.param("postgresql", marks=() if name in _ALWAYS else pytest.mark.slow)
        metafunc.parametrize("engine", ["sqlite", other], indirect=True)


@pytest.fixture(autouse=True)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    kind = getattr(request, "param", "sqlite")
    with on(kind):
        yield kind
