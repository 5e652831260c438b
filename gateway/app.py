"""The wiring: settings in, a running gateway out. Starts spool, dispatcher, listeners, HTTP; stops in reverse."""

from __future__ import annotations

import asyncio
import random
import resource
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from gateway import __version__, auth, backends, intake
from gateway.clock import Clock, QueueIds, SystemClock
from gateway.config import ConfigError, Loaded, diff, restart_keys
from gateway.delivery import Dispatcher
from gateway.events import Events
from gateway.fetch import Fetch
from gateway.http import HttpServer
from gateway.model import Backend, Client, Envelope, Fault, Recipient, Verifies
from gateway.routing import Routing
from gateway.smtp import Listener, Shared
from gateway.smtp.tls import certificate_errors
from gateway.spool import Spool, SpoolError
from gateway.systemd import notify, watchdog_interval

DESCRIPTORS = 200  # open files besides client connections: spool, HTTP, upstream
EX_CONFIG = 78  # sysexits.h
DRAIN = 30.0  # seconds for sessions and sends under way at a stop
Load = Callable[[], Loaded]


class App:
    """A gateway: its parts by name, and what the operator may ask of the whole."""

    def __init__(self, loaded: Loaded, load: Load, clock: Clock, rng: random.Random) -> None:
        self._loaded = loaded
        self._load = load
        self._rng = rng
        self.clock = clock
        self.settings = self._at_start = loaded.settings
        self.events = Events(format=self.settings.log.format, level=self.settings.log.level, clock=clock)
        self.ids = QueueIds(clock, rng)
        self.fetch = Fetch()
        self.draining = False
        self.listeners: dict[str, Listener] = {}
        self.spool: Spool
        self.authenticator: auth.Authenticator | None = None
        self.dispatcher: Dispatcher | None = None
        self._backends: dict[str, Backend] = {}
        self._routing = Routing((), {})
        self._patience = DRAIN
        self._parts = AsyncExitStack()
        self._parts.callback(self.events.close)
        self._parts.push_async_callback(self.fetch.aclose)
        self._revocations = auth.Revocations()

    # -- start and stop --------------------------------------------------------------------------------------------

    async def open_spool(self) -> None:
        """Raises SpoolError with a text for the operator."""
        settings = self.settings
        self.spool = await Spool.open(
            settings.state_dir,
            self.clock,
            events=self.events,
            wake=self._wake,
            reserve=settings.limits.spool_free,
            retention=settings.retention,
        )
        self._parts.push_async_callback(self.spool.aclose)
        self._revocations = auth.Revocations(*await self.spool.revocations())

    async def start(self) -> None:
        """Open everything in order; ``stop`` closes what is open, also after an error in the middle."""
        auth.ensure_own_key(self.settings)
        self._declare()
        self.events.capture_libraries()
        self._parts.callback(self.events.info, "stopped")
        await self.open_spool()
        self._backends = {name: self._new_backend(name) for name in self.settings.backends}
        self._route()
        self.authenticator = self._new_authenticator(self._loaded, self._backends)
        self._parts.push_async_callback(self._close_authenticator)
        http = HttpServer(self, self.settings.http)
        self._parts.push_async_callback(http.stop)
        await http.start()
        self.dispatcher = Dispatcher(
            self.spool,
            self.settings,
            self._routing,
            events=self.events,
            clock=self.clock,
            ids=self.ids,
            rng=self._rng,
        )
        self._parts.push_async_callback(self._drain_dispatcher)
        await self.dispatcher.start(self._backends)
        await self._open_listeners()

    async def _open_listeners(self) -> None:
        assert self.authenticator is not None
        rules, shared = self._rules(), Shared()
        for name, listener in self.settings.listeners.items():
            self.listeners[name] = Listener(
                name,
                listener,
                rules,
                auth=self.authenticator,
                put=self.spool.put,
                events=self.events,
                clock=self.clock,
                ids=self.ids,
                shared=shared,
            )
        self._parts.push_async_callback(self._drain_listeners)
        for door in self.listeners.values():
            await door.start()

    async def stop(self, seconds: float = DRAIN) -> None:
        """Stop accepting, let sessions and then sends end within ``seconds`` each, close in reverse order."""
        self.draining, self._patience = True, seconds
        await self._parts.aclose()

    async def _drain_listeners(self) -> None:
        await asyncio.gather(*(door.drain(self._patience) for door in self.listeners.values()))

    async def _drain_dispatcher(self) -> None:
        if self.dispatcher:
            await self.dispatcher.drain(self._patience)

    async def _close_authenticator(self) -> None:
        if self.authenticator:  # not always the one it was at start: a reload makes a new one
            await self.authenticator.aclose()

    def _wake(self, backend: str) -> None:
        if self.dispatcher:
            self.dispatcher.wake(backend)

    def _declare(self) -> None:
        settings = self.settings
        self.events.declare(
            listeners=settings.listeners,
            backends=settings.backends,
            clients=settings.clients,
            keys=settings.auth.keys,
            oauth=[name for name, section in settings.backends.items() if section.oauth],
        )

    def _new_authenticator(self, loaded: Loaded, built: Mapping[str, Backend]) -> auth.Authenticator:
        providers = {name: backend for name, backend in built.items() if isinstance(backend, Verifies)}
        return auth.Authenticator(loaded.settings, self.clock, self.fetch, self.events, self._revocations, providers)

    def _new_backend(self, name: str, loaded: Loaded | None = None) -> Backend:
        settings = (loaded or self._loaded).settings
        context = backends.Context(
            settings.hostname, settings.state_dir, self.clock, self.fetch, self._rng, self.events
        )
        return backends.build(name, settings.backends[name], context)

    def _route(self) -> None:
        """From now on by the present settings and backends."""
        capabilities = {name: backend.capabilities for name, backend in self._backends.items()}
        self._routing = Routing(self.settings.routes, capabilities)

    def _rules(self) -> intake.Rules:
        return intake.Rules.of(self.settings, self._routing)

    # -- what the operator asks ------------------------------------------------------------------------------------

    async def reload(self) -> list[str]:
        """Read the configuration again: all or nothing. Returns what changed, in words; raises ConfigError.

        What needs a restart is named at every reload until there was one.
        """
        try:
            loaded = self._load()
            if errors := certificate_errors(loaded.settings.listeners):
                raise ConfigError(errors)
            auth.ensure_own_key(loaded.settings)
            changed = diff(self.settings, loaded.settings)
            built = {
                name: self._backends[name]
                if self.settings.backends.get(name) == section and self.settings.hostname == loaded.settings.hostname
                else self._new_backend(name, loaded)
                for name, section in loaded.settings.backends.items()
            }
            authenticator = self._new_authenticator(loaded, built)
        except (ConfigError, ValueError, OSError) as error:
            self.events.reloaded(False, str(error))
            raise error if isinstance(error, ConfigError) else ConfigError([str(error)]) from error
        old, self.authenticator = self.authenticator, authenticator
        self._loaded, self.settings, self._backends = loaded, loaded.settings, built
        self._route()
        self._declare()
        for name, listener in self.listeners.items():
            listener.update(self.settings.listeners.get(name), self._rules(), authenticator)
        assert self.dispatcher is not None
        await self.dispatcher.update(self.settings, self._routing, built)
        if old:
            await old.aclose()
        later = restart_keys(diff(self._at_start, self.settings))
        lines = [f"{key}: {how}" for key, how in changed.items() if key not in later] + [
            f"{key}: needs a restart" for key in later
        ]
        self.events.reloaded(True, "; ".join(lines))
        return lines

    async def submit(self, sender: str, recipients: Sequence[str], raw: bytes, *, client: str, pin: str = "") -> str:
        """Accept a message from inside (send-test). Returns the queue id; raises Refusal or Fault."""
        envelope = Envelope(sender, tuple(Recipient(address) for address in recipients))
        who = Client(name=client, backend=pin)
        arrival = intake.Arrival(self.ids(), self.clock.now(), listener="", peer="", helo="", protocol="local")
        message = intake.prepare(raw, envelope, who, arrival, self._rules())
        await self.spool.put(message)
        self.events.accepted(message, 0.0)
        return message.id

    async def bounce(self, ids: Sequence[str]) -> list[str]:
        """Return these messages to their senders; while no service runs there is nobody to write the report."""
        if self.dispatcher is None:
            raise ConnectionError("the service is not running")
        return await self.dispatcher.bounce(ids)

    async def revoke(self, *, jti: str, subject: str) -> None:
        """Revoke a token by id, or all of a subject up to now; effective at once, also in open connections."""
        now = self.clock.now()
        await self.spool.revoke(jti=jti, subject=subject, now=now)
        if jti:
            self._revocations.revoke_jti(jti)
        if subject:
            self._revocations.revoke_subject(subject, now)


async def serve(
    loaded: Loaded,
    *,
    load: Load,
    on_ready: Callable[[App], None] | None = None,
    clock: Clock | None = None,
    rng: random.Random | None = None,
) -> int:
    """Run until SIGTERM or SIGINT; SIGHUP reloads. Returns the exit code."""
    app = App(loaded, load, clock or SystemClock(), rng or random.Random())  # noqa: S311 - delays and names, no secrets
    try:
        await app.start()
    except (SpoolError, OSError, ValueError, Fault) as error:
        app.events.error("start_failed", detail=str(error))
        await app.stop(0)
        return EX_CONFIG if isinstance(error, ValueError) else 1
    _raise_descriptor_limit(app)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, stop.set)
    reloads: set[asyncio.Task[None]] = set()

    def on_hangup() -> None:
        task = loop.create_task(_reload(app))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, on_hangup)
    watchdog = loop.create_task(_watchdog(app))
    listening = [f"{name} {app.settings.listeners[name].bind}" for name in app.listeners]
    app.events.info("started", version=__version__, listeners=listening, backends=sorted(app.settings.backends))
    notify("READY=1", "STATUS=listening on " + ", ".join(listening))
    if on_ready:
        on_ready(app)
    await stop.wait()
    notify("STOPPING=1")
    watchdog.cancel()
    return 0 if await _stop(app, loop) else 1


def _raise_descriptor_limit(app: App) -> None:
    """Every connection costs a descriptor: take all that we may have, and say when that is too little."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    needed = app.settings.limits.connections + DESCRIPTORS
    if hard != resource.RLIM_INFINITY and hard < needed:
        text = f"limits.connections needs {needed} open files, this process may have {hard} (ulimit -n)"
        app.events.warning("few_descriptors", detail=text)


async def _stop(app: App, loop: asyncio.AbstractEventLoop) -> bool:
    """Drain; a second signal cuts it short. False when it went wrong."""
    hurry = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, hurry.set)
    stopping = asyncio.ensure_future(app.stop())
    hurried = asyncio.ensure_future(hurry.wait())
    await asyncio.wait({stopping, hurried}, return_when=asyncio.FIRST_COMPLETED)
    if not stopping.done():
        stopping.cancel()
        await asyncio.wait({stopping}, timeout=5)
    hurried.cancel()
    if not stopping.cancelled() and (error := stopping.exception()):
        app.events.bug("stop", error)
    return stopping.cancelled() or stopping.exception() is None


async def _reload(app: App) -> None:
    notify("RELOADING=1", f"MONOTONIC_USEC={int(app.clock.monotonic() * 1_000_000)}")
    try:
        await app.reload()
    except Exception as error:  # reload has said why; a bug in it must not stop the service
        if not isinstance(error, ConfigError):
            app.events.bug("reload", error)
    notify("READY=1")


async def _watchdog(app: App) -> None:
    """Tell systemd we live, but only while the spool takes writes and the lanes run."""
    if (interval := watchdog_interval()) is None:
        return
    while True:
        if app.dispatcher and app.dispatcher.alive and app.spool.alive:
            notify("WATCHDOG=1")
        await app.clock.sleep(interval)


@asynccontextmanager
async def offline(loaded: Loaded, clock: Clock | None = None) -> AsyncIterator[App]:
    """Only the spool, for commands while no service runs. Raises SpoolError when one does."""

    def again() -> Loaded:
        return loaded

    app = App(loaded, again, clock or SystemClock(), random.SystemRandom())
    await app.open_spool()
    try:
        yield app
    finally:
        await app.stop(0)


def spool_path(loaded: Loaded) -> Path:
    """Where the spool of these settings lies, whether it exists or not."""
    return loaded.settings.state_dir / "spool.db"
