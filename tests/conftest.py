"""For every test: hypothesis judges what comes out, never how long it took on a busy machine; and what is collected
stays to the end, so that the garbage collector need not look through it again and again."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Callable, Generator, Mapping

import pytest
from hypothesis import settings

from tests import postgres_kit

try:
    import uvloop
except ImportError:
    uvloop = None
# Where it matters what a loop does with sockets, TLS and the order of things: these run on both that can be set.
_BOTH = {
    "test_session.py",
    "test_tls.py",
    "test_life.py",
    "test_introduced.py",
    "test_smtp_tls.py",
    "test_smtp_login.py",
}

# Hundreds of processes load the same modules: where nothing compiled may be kept, half of all the time goes there.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

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


@pytest.hookimpl
def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if uvloop is not None and item.path.name in _BOTH:
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.hookimpl
def pytest_sessionfinish() -> None:
    postgres_kit.end()
