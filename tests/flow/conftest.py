"""Runs the flow tests on both engines: a file in the state directory, and a PostgreSQL as it comes, durable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flow import kit
from tests.postgres_kit import Cluster, cluster

_FILES = {
    "test_afterwards.py",
    "test_backends.py",
    "test_clock.py",
    "test_clouds.py",
    "test_crash.py",
    "test_loop.py",
    "test_main_job.py",
    "test_names.py",
    "test_pauses.py",
    "test_reload.py",
    "test_temp_mail.py",
}
_OF_A_FILE = {
    "test_a_lost_key_bounces_nothing_and_put_back_delivers",  # with a database it is refused at the start
    "test_limits",  # of the disk, among others
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    name = metafunc.function.__name__
    if Path(metafunc.definition.path).name in _FILES and name not in _OF_A_FILE:
        engines = ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)]  # all of them take minutes
        metafunc.parametrize("engine", engines, indirect=True, scope="module")


@pytest.fixture(scope="session")
def durable() -> Iterator[Cluster]:
    with cluster() as made:
        yield made


@pytest.fixture(autouse=True, scope="module")
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """On which the gateways of a module's test are."""
    name = getattr(request, "param", "sqlite")
    with kit.on(request.getfixturevalue("durable") if name == "postgresql" else None):
        yield name
