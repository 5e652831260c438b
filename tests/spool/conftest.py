"""The open spool of most tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.spool_kit import At, opened


@pytest_asyncio.fixture
async def at(tmp_path: Path) -> AsyncIterator[At]:
    async with opened(tmp_path) as made:
        yield made
