"""One service for all tests of a file, for none of them minds what the others did; and a browser that is signed in.
Which of them run on both engines."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.http.kit import Service, service
from tests.http.pages.kit import Browser
from tests.spool_kit import engine_of_file as engine_of_file  # noqa: PLC0414 - a fixture
from tests.spool_kit import on_both

_ON_BOTH = {"test_counts.py", "test_entry.py", "test_manners.py", "test_messages.py", "test_orders.py", "test_whole.py"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    on_both(metafunc, _ON_BOTH)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(engine: str) -> AsyncIterator[Service]:
    async with service() as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def browser(running: Service) -> Browser:
    return await Browser(running).sign_in()
