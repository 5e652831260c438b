"""One served service for each test, and which of them run on both engines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.http.server import HttpServer
from tests.http.kit import Service, service, serving
from tests.spool_kit import engine as engine  # noqa: PLC0414 - a fixture
from tests.spool_kit import on_both

_ON_BOTH = {
    "test_access.py", "test_acts.py", "test_api.py", "test_client.py", "test_clients.py", "test_doctor.py",
    "test_health.py", "test_hooks.py", "test_hostile.py", "test_server.py", "test_status.py",
    "test_tenants.py", "test_work.py",
}  # fmt: skip


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    on_both(metafunc, _ON_BOTH)


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
