"""For every test: hypothesis judges what comes out, never how long it took on a busy machine; and what is collected
stays to the end, so that the garbage collector need not look through it again and again."""

from __future__ import annotations

import gc
from collections.abc import Generator

import pytest
from hypothesis import settings

settings.register_profile("gateway", deadline=None)
settings.load_profile("gateway")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
