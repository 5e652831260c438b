"""Which tests of delivery run on both engines."""

from __future__ import annotations

import pytest

from tests.spool_kit import engine as engine  # noqa: PLC0414 - a fixture
from tests.spool_kit import on_both

_ON_BOTH = {
    "test_again.py", "test_bounces.py", "test_breaker.py", "test_digests.py", "test_dispatcher.py", "test_failover.py",
    "test_handover.py", "test_notices.py", "test_ownership.py", "test_pauses.py", "test_retry.py", "test_returned.py",
    "test_tracking.py", "test_upkeep.py", "test_worker.py",
}  # fmt: skip
# They count statements of SQLite's connections, or change rows by statements of its own.
_OF_THE_FILE = {
    "test_copies_are_all_or_none_for_a_step_and_a_full_disk_ends_it",
    "test_damaged_mail_is_not_said_to_be_returned",
    "test_everybody_hears_while_the_backend_rests",
    "test_failed_mail_by_the_thousand",
}
_ALWAYS = {"test_failover.py"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    on_both(metafunc, _ON_BOTH, _OF_THE_FILE, _ALWAYS)
