"""The open spool of most tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.spool_kit import At, blank, opened


@pytest_asyncio.fixture
async def at(tmp_path: Path) -> AsyncIterator[At]:
    async with opened(blank(tmp_path)) as made:
        yield made
