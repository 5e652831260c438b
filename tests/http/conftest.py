"""One served service for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.http.server import HttpServer
from tests.http.kit import Service, service, serving


@pytest.fixture
async def running() -> AsyncIterator[Service]:
    async with service() as made:
        yield made


@pytest.fixture
async def server(running: Service) -> AsyncIterator[HttpServer]:
    async with serving(running) as made:
        yield made


@pytest.fixture
def admin(running: Service, server: HttpServer) -> Path:
    """The admin socket of the served service."""
    socket: Path = running.settings.http.socket
    return socket
