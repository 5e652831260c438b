"""The event loop that the service runs on, chosen once, before anything is made that belongs to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

ADD = "install uvloop where the gateway is, and restart; or set event_loop: asyncio"


@dataclass(frozen=True, slots=True)
class Loop:
    """``name`` is asyncio or uvloop with its version; ``lacking`` says why it is not the one that was asked for."""

    name: str
    make: Callable[[], asyncio.AbstractEventLoop]
    lacking: str = ""


ASYNCIO = Loop("asyncio", asyncio.new_event_loop)


def choose(wanted: str) -> Loop:
    """The loop of this name; asyncio's where that cannot be had: mail goes on, a little slower."""
    if wanted == "uvloop":
        try:
            import uvloop  # noqa: PLC0415 - an extra
        except ImportError as error:
            return Loop("asyncio", asyncio.new_event_loop, f"event_loop: uvloop cannot be had here ({error}): {ADD}")
        return Loop(f"uvloop {version('uvloop')}", uvloop.new_event_loop)
    return ASYNCIO


def running() -> str:
    """The name of the loop that we are in, without its version."""
    return "uvloop" if type(asyncio.get_running_loop()).__module__.startswith("uvloop") else "asyncio"
