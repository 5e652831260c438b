"""A gateway as a service: signals, systemd, exit codes."""

from __future__ import annotations

import asyncio
import resource
import signal
from collections.abc import Callable
from contextlib import suppress

from gateway import __version__
from gateway.actor import Actor, Order
from gateway.app import App, Load
from gateway.config import ConfigError
from gateway.config.loading import Loaded
from gateway.health.descriptors import lacking
from gateway.health.gather import gather
from gateway.health.problems import problems, verdict
from gateway.model import Fault, SpoolUnavailable
from gateway.runtime import ASYNCIO, Loop
from gateway.spool import SpoolError
from gateway.systemd import listens, notify, watchdog_interval

EX_CONFIG = 78  # sysexits.h
_EVERY = 30.0  # seconds between lines for systemctl status
_PATIENCE = 3600.0  # seconds for a start, of which a new version takes many when the spool is large


async def serve(
    loaded: Loaded, *, load: Load, on_ready: Callable[[App], None] | None = None, runs_on: Loop = ASYNCIO
) -> int:
    """Run until SIGTERM or SIGINT; SIGHUP reloads. Returns the exit code: 0, 1, or 78 for what the settings caused.

    ``loaded`` should have passed ``readiness.ready``; its warnings are logged. ``load`` reads the settings again for a
    reload. ``runs_on`` is the loop that this runs on.
    """
    app = App(loaded, load)
    if runs_on.lacking:
        app.events.warning("event_loop_missing", detail=runs_on.lacking)
    for warning in loaded.warnings:
        app.events.warning("settings_doubtful", detail=warning)
    starting = asyncio.create_task(_ask_patience(app))
    try:
        await app.start()
    except (SpoolError, OSError, ValueError, Fault) as error:
        app.events.error("start_failed", detail=str(error))
        await app.stop(0)
        return EX_CONFIG if isinstance(error, ValueError) else 1
    finally:
        starting.cancel()
    _raise_descriptor_limit(app)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, stop.set)
    reloads: set[asyncio.Task[None]] = set()

    def on_hangup() -> None:
        if len(reloads) < 2:  # one reads the file perhaps already; the next will see what has changed since
            task = loop.create_task(_reload(app))
            reloads.add(task)
            task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, on_hangup)
    tellers = [loop.create_task(_watchdog(app)), loop.create_task(_tell(app))]
    backends = sorted(app.settings.backends)
    app.events.info("started", version=__version__, loop=runs_on.name, listeners=_listening(app), backends=backends)
    notify("READY=1", _status(app))
    if on_ready:
        on_ready(app)
    await stop.wait()
    notify("STOPPING=1")
    for task in tellers:
        task.cancel()
    return 0 if await _stop(app, loop) else 1


def _listening(app: App) -> list[str]:
    return [f"{name} {app.settings.listeners[name].bind}" for name in app.listeners]


def _status(app: App) -> str:
    return "STATUS=listening on " + ", ".join(_listening(app))


def _raise_descriptor_limit(app: App) -> None:
    """Every connection costs a descriptor: take all that we may have, and say when that is too little."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS says "unlimited" and means less
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if text := lacking(app.settings):
        app.events.warning("few_descriptors", detail=text)


async def _stop(app: App, loop: asyncio.AbstractEventLoop) -> bool:
    """Drain; a second signal cuts it short. False when it went wrong."""
    stopping = loop.create_task(app.stop())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.cancel)
    await asyncio.wait({stopping})
    if not stopping.cancelled() and (error := stopping.exception()):
        app.events.bug("stop", error)
        return False
    return True


async def _reload(app: App) -> None:
    notify("RELOADING=1", f"MONOTONIC_USEC={int(app.clock.monotonic() * 1_000_000)}")
    try:
        changes = await app.reload()
        await app.spool.act(Order(Actor("SIGHUP", "signal"), "reload", "; ".join(changes) or "nothing has changed"))
    except (ConfigError, SpoolUnavailable):
        pass  # it has said why, or the service stops
    except Exception as error:
        app.events.bug("reload", error)
    else:
        _raise_descriptor_limit(app)
    notify("READY=1", _status(app))


async def _ask_patience(app: App) -> None:
    """A start that is cut off begins anew, and would never end where the spool is large and has to be upgraded."""
    begun = app.clock.monotonic()
    while app.clock.monotonic() - begun < _PATIENCE:
        notify(f"EXTEND_TIMEOUT_USEC={int(4 * _EVERY * 1_000_000)}")
        await app.clock.sleep(_EVERY)


async def _tell(app: App) -> None:
    """The line of ``systemctl status`` is the verdict of ``gateway status``."""
    while listens():
        try:
            seen = await gather(app)
            notify(f"STATUS={verdict(seen, problems(seen))}")
        except Exception as error:
            app.events.bug("status", error)
        await app.clock.sleep(_EVERY)


async def _watchdog(app: App) -> None:
    """Tell systemd we live, but only while the spool takes writes and mail is worked off."""
    if (interval := watchdog_interval()) is None:
        return
    while True:
        if app.dispatcher and app.dispatcher.alive and app.spool.alive:
            notify("WATCHDOG=1")
        await app.clock.sleep(interval)
