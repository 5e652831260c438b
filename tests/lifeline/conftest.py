"""Lives are told from both engines."""

from __future__ import annotations

import pytest

from tests.spool_kit import engine as engine  # noqa: PLC0414 - a fixture
from tests.spool_kit import on_both


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    on_both(metafunc, {"test_life.py"})
