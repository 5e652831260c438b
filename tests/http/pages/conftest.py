"""One service for all tests of a file, for none of them minds what the others did; and a browser that is signed in."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.http.kit import Service, service
from tests.http.pages.kit import Browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[Service]:
    async with service() as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def browser(running: Service) -> Browser:
    return await Browser(running).sign_in()
