"""The wiring: settings in, a running gateway out. Starts spool, dispatcher, listeners, HTTP; stops in reverse."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

from gateway import auth, backends, intake
from gateway.clock import Clock, QueueIds, SystemClock
from gateway.config import ConfigError
from gateway.config.finding import Ending
from gateway.config.inforce import InForce
from gateway.config.loading import Loaded
from gateway.config.models import Settings
from gateway.config.renewal import Renewal, renewed
from gateway.config.show import diff, restart_keys
from gateway.delivery import Dispatcher
from gateway.doctor import Doctor, Subject
from gateway.drop.drop import Drop
from gateway.drop.judge import Judge
from gateway.events import Events
from gateway.fetch import Fetch
from gateway.http.server import HttpServer
from gateway.message import Arrival
from gateway.model import Backend, Client, Envelope, Recipient, SpoolUnavailable, Verifies
from gateway.names import Names
from gateway.pools import read_files
from gateway.readiness import Endings, ready
from gateway.routing import Routing
from gateway.smtp import Listener, Shared, Site
from gateway.spool import DoorBook, Filter, Spool

DRAIN = 30.0  # seconds for sessions and sends under way at a stop
Load = Callable[[], Loaded]


class App:
    """A gateway: its parts by name, and what the operator may ask of the whole.

    Time and chance enter here: without others, those of this machine. ``load`` reads the settings again.
    """

    def __init__(
        self,
        loaded: Loaded,
        load: Load,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        names: Names | None = None,
    ) -> None:
        self._load = load
        self._rng = rng or random.Random()  # noqa: S311 - delays and names, no secrets
        self.clock = clock or SystemClock()
        self.settings = self._at_start = loaded.settings
        self.in_force = InForce(loaded, self.clock.now())
        self.events = Events(format=self.settings.log.format, level=self.settings.log.level, clock=self.clock)
        self.ids = QueueIds(self.clock, self._rng)
        self._names = names or Names()
        self.fetch = Fetch(names=self._names)
        self.draining = False
        self.listeners: dict[str, Listener] = {}
        self.spool: Spool
        self.authenticator: auth.Authenticator | None = None
        self.dispatcher: Dispatcher | None = None
        self.drop: Drop | None = None
        self._shared = Shared()
        self.rates = self._shared.rates
        self._backends: dict[str, Backend] = {}
        self._rules: intake.Rules
        self._patience = DRAIN
        self.doctor = Doctor(self._subject)
        self._reloading = asyncio.Lock()
        self._endings = Endings(self.clock)
        self._parts = AsyncExitStack()
        self._parts.callback(self.events.close)
        self._parts.push_async_callback(self.fetch.aclose)
        self._parts.push_async_callback(self.doctor.aclose)
        self._revocations, self._guesses = auth.Revocations(), auth.Guesses()

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
            most=settings.limits.spool_size,
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
        self._parts.push_async_callback(DoorBook.begin(self.spool.note_refusals, self.clock, self.events).aclose)
        self._adopt(self.settings, *await self._build(self.settings))
        self._parts.push_async_callback(self._close_built)
        http = HttpServer(self, self.settings.http)
        self._parts.push_async_callback(http.stop)
        await http.start()
        rules = self._rules
        self.dispatcher = Dispatcher(
            self.spool, self.settings, rules.routing, events=self.events, clock=self.clock, ids=self.ids, rng=self._rng
        )
        self._parts.push_async_callback(self._drain_dispatcher)
        await self.dispatcher.start(self._backends)
        assert self.authenticator is not None
        for name, section in self.settings.listeners.items():
            site = Site(
                name=name,
                settings=section,
                rules=rules,
                auth=self.authenticator,
                put=self.spool.put,
                room=self.spool.room,
                events=self.events,
                clock=self.clock,
                ids=self.ids,
                shared=self._shared,
            )
            self.listeners[name] = Listener(site)
        self._parts.push_async_callback(self._unless_hurried, self._drain_listeners)
        for listener in self.listeners.values():
            await listener.start()
        self.drop = Drop(self.spool, self.ids, self.events, self.clock)
        self._parts.push_async_callback(self._unless_hurried, self.drop.stop)
        self._direct_drop()

    async def stop(self, seconds: float = DRAIN) -> None:
        """Stop accepting, let sessions and then sends end within ``seconds`` each, close in reverse order.

        Cancelled, it still closes everything, but waits for nobody.
        """
        self.draining, self._patience = True, seconds
        await self._parts.aclose()

    async def _unless_hurried(self, step: Callable[[float], Awaitable[None]]) -> None:
        """Cancelled, neither this step nor those after it wait for anybody."""
        try:
            await step(self._patience)
        except asyncio.CancelledError:
            self._patience = 0.0
            await step(0.0)
            raise

    async def _drain_listeners(self, seconds: float) -> None:
        await asyncio.gather(*(one.drain(seconds) for one in self.listeners.values()))

    async def _drain_dispatcher(self) -> None:
        assert self.dispatcher is not None
        await self.dispatcher.drain(self._patience)

    async def _close_built(self) -> None:
        """What the last reload made, else the start. The dispatcher closes the backends that it has taken over."""
        for backend in self._backends.values() if self.dispatcher is None else ():
            await backend.aclose()
        if self.authenticator:
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
            keys=[name for name, key in settings.auth.keys.items() if key.jwks_url is not None],
            oauth=[name for name, section in settings.backends.items() if section.oauth],
        )

    async def _build(self, settings: Settings) -> tuple[dict[str, Backend], auth.Authenticator]:
        """Backends, and who lets in; what has not changed is kept. Raises ValueError, OSError: the new are closed."""
        context = backends.Context(
            settings.hostname, settings.state_dir, self.clock, self.fetch, self._rng, self.events, self._names
        )
        before, built = self.settings, dict[str, Backend]()
        async with AsyncExitStack() as new:
            for name, section in settings.backends.items():
                same = before.backends.get(name) == section and before.hostname == settings.hostname
                if same and name in self._backends:
                    built[name] = self._backends[name]
                    continue
                self.events.memory.ends.pop(("credential", name), None)
                built[name] = backends.build(name, section, context)
                new.push_async_callback(built[name].aclose)
            providers = {name: backend for name, backend in built.items() if isinstance(backend, Verifies)}
            made = auth.Authenticator(
                settings,
                self.clock,
                self.fetch,
                self.events,
                self._revocations,
                providers,
                self._guesses,
                self.spool.uses,
            )
            if self.authenticator:
                made.take_over(self.authenticator)
            new.pop_all()
        return built, made

    def _adopt(self, settings: Settings, built: dict[str, Backend], authenticator: auth.Authenticator) -> None:
        """From now on by these."""
        self.settings, self._backends, self.authenticator = settings, built, authenticator
        routing = Routing(settings.routes, {name: backend.capabilities for name, backend in built.items()})
        self._rules = intake.Rules.of(settings, routing)

    def _direct_drop(self) -> None:
        """Mail that comes as files is judged as a listener on this machine would judge it."""
        if self.drop and self.dispatcher and self.authenticator:
            by_network, refuse = self.authenticator.by_network, self.dispatcher.refuse
            rates, put = self._shared.rates, self.spool.put
            self.drop.update(self.settings, Judge(self._rules, by_network, rates, put, refuse, self.events, self.clock))

    # -- what the operator asks ------------------------------------------------------------------------------------

    async def reload(self) -> list[str]:
        """Read the configuration again: all or nothing. Returns what changed, in words.

        What needs a restart is named at every reload until there was one. Raises ConfigError, and SpoolUnavailable when
        the service stops meanwhile.
        """
        async with self._reloading:
            return await self._reload()

    async def _reload(self) -> list[str]:
        try:
            loaded = await read_files(self._look)
            if self.draining:  # from here to the dispatcher nothing waits, so no worker is opened behind its back
                raise SpoolUnavailable("the gateway is stopping; it reads its settings again when it starts")
            old, before, settings = self.authenticator, self.settings, loaded.settings
            built, authenticator = await self._build(settings)
        except (ConfigError, ValueError, OSError) as error:
            self.events.reloaded(False, str(error))
            self.in_force = self.in_force.after_failure(self.clock.now(), str(error).splitlines())
            raise error if isinstance(error, ConfigError) else ConfigError([str(error)]) from error
        for warning in loaded.warnings:
            self.events.warning("settings_doubtful", detail=warning)
        self.in_force = InForce(loaded, self.clock.now())
        await self._switch(settings, built, authenticator)
        later = restart_keys(diff(self._at_start, settings))
        lines = [f"{key}: {how}" for key, how in diff(before, settings).items() if key not in later]
        lines += [f"auth.keys.{name}: another key in its file" for name in (authenticator.replaced(old) if old else ())]
        lines += [f"{key}: needs a restart" for key in later]
        self.events.reloaded(True, "; ".join(lines))
        return lines

    async def _switch(
        self, settings: Settings, built: dict[str, Backend], authenticator: auth.Authenticator, *, resting: bool = False
    ) -> None:
        """Everybody goes by these from now on; ``resting``: a new backend that did not work is not thought to."""
        old, dispatcher = self.authenticator, self.dispatcher
        assert dispatcher is not None
        self._adopt(settings, built, authenticator)
        self._declare()
        for name, listener in self.listeners.items():
            listener.update(settings.listeners.get(name), self._rules, authenticator)
        self._direct_drop()
        await dispatcher.update(settings, self._rules.routing, built, resting=resting)
        if old:
            await old.aclose()

    async def renew(self, name: str) -> Renewal:
        """Take the secrets of this backend that have changed on disk, and nothing else. It goes on resting as it did.

        Raises SpoolUnavailable when the service stops meanwhile.
        """
        async with self._reloading:
            try:
                loaded = await read_files(self._load)
                section, found = renewed(self.settings.backends[name], loaded.settings.backends.get(name))
                if not found.taken:
                    return found
                settings = self.settings.model_copy(update={"backends": {**self.settings.backends, name: section}})
                built, authenticator = await self._build(settings)
            except (ConfigError, ValueError, OSError) as error:
                return Renewal(errors=tuple(str(error).splitlines()))
            if self.draining:
                raise SpoolUnavailable("the gateway is stopping; it reads its secrets again when it starts")
            self.in_force = replace(self.in_force, loaded=replace(self.in_force.loaded, settings=settings))
            await self._switch(settings, built, authenticator, resting=True)
            self.events.info("secrets_read", backend=name, settings=list(found.taken))
            return found

    async def endings(self) -> Sequence[Ending]:
        """Until when files are good that the settings name."""
        return await self._endings.of(self.settings)

    def _look(self) -> Loaded:
        """The settings as they are now. Blocks. Raises ConfigError with all that is wrong, ValueError, OSError."""
        loaded = ready(self._load(), self.clock.now())
        auth.ensure_own_key(loaded.settings)
        return loaded

    def _subject(self) -> Subject:
        """What the doctor looks at."""
        return Subject(
            settings=self.settings,
            read=lambda: ready(self._load(), self.clock.now()),
            clock=self.clock,
            names=self._names,
            fetch=self.fetch,
            signals=self.events,
            at_start=self._at_start,
            backends=self._backends,
            ports={name: listener.port for name, listener in self.listeners.items()},
            spool=self.spool,
        )

    async def submit(self, sender: str, recipients: Sequence[str], raw: bytes, *, client: str, pin: str = "") -> str:
        """Accept a message from inside (send-test). Returns the queue id; raises Refusal or Fault."""
        envelope = Envelope(sender, tuple(Recipient(address) for address in recipients))
        who = Client(name=client, backend=pin)
        arrival = Arrival(self.ids(), self.clock.now(), listener="", peer="", helo="", protocol="local")
        message = intake.prepare(raw, envelope, who, arrival, self._rules)
        await self.spool.put(message)
        self.events.accepted(message, 0.0)
        return message.id

    async def bounce(self, which: Filter) -> dict[str, bool]:
        """Return these messages to their senders, and say for each given up whether its sender is told; needs a running
        service, which writes the bounces.
        """
        assert self.dispatcher is not None  # the interface asks first
        return await self.dispatcher.bounce(which)

    async def revoke(self, *, jti: str, subject: str) -> None:
        """Revoke a token by id, or all of a subject up to now; effective at once, also in open connections."""
        now = self.clock.now()
        await self.spool.revoke(jti=jti, subject=subject, now=now)
        if jti:
            self._revocations.revoke_jti(jti)
        if subject:
            self._revocations.revoke_subject(subject, now)
