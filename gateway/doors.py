"""What a gateway listens at: its SMTP listeners and HTTP. A reload opens what is new before it gives anything up."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from gateway.auth import Authenticator
from gateway.config.models import ListenerSettings, Settings
from gateway.events import Events
from gateway.http.server import HttpServer
from gateway.http.service import Service
from gateway.intake import Rules
from gateway.model import SpoolTrouble
from gateway.smtp import Listener, Site

MakeSite = Callable[[str, ListenerSettings], Site]


@dataclass(slots=True)
class Opened:
    """What has its addresses and lets nobody in yet. Exactly one of ``Doors.enter`` and ``close`` must follow."""

    listeners: dict[str, Listener] = field(default_factory=dict)
    http: HttpServer | None = None

    async def close(self) -> None:
        """All stays as it was."""
        for one in self.listeners.values():
            one.stop_accepting()
        if self.http is not None:
            await self.http.stop()


class Doors:
    """``listeners`` by name are those in force; who leaves lets its sessions end what they do."""

    def __init__(self, service: Service, events: Events) -> None:
        self.listeners: dict[str, Listener] = {}
        self.http: HttpServer | None = None
        self._service = service
        self._events = events
        self._leaving: dict[asyncio.Task[None], Listener | HttpServer] = {}

    async def start_http(self, settings: Settings) -> None:
        """Raises BindError; ``stop_http`` closes what is open, also after an error."""
        self.http = HttpServer(self._service, settings.http)
        await self.http.start()

    async def open(self, settings: Settings, site: MakeSite) -> Opened:
        """Have all the addresses that these settings name and nobody here has as they want it.

        Raises BindError, and ValueError for a certificate: nothing is open then that was not before.
        """
        opened = Opened()
        given_up = [one for name, one in self.listeners.items() if not one.fits(settings.listeners.get(name))]
        held = [sock for one in given_up for sock in one.sockets]
        if other_http := self.http is None or self.http.settings != settings.http:
            held += self.http.tcp if self.http else []
        held += self._not_yet_closed()
        try:
            if other_http:
                opened.http = HttpServer(self._service, settings.http)
                await opened.http.open(self.http, held)
            for name, section in settings.listeners.items():
                if name not in self.listeners or self.listeners[name] in given_up:
                    opened.listeners[name] = Listener(site(name, section))
                    await opened.listeners[name].open(held)
        except BaseException:
            await opened.close()
            raise
        return opened

    def _not_yet_closed(self) -> list[socket.socket]:
        """What HTTP had before a reload of a moment ago, which it gives up as soon as it looks."""
        return [sock for one in self._leaving.values() if isinstance(one, HttpServer) for sock in one.tcp]

    async def enter(self, opened: Opened, settings: Settings, rules: Rules, auth: Authenticator) -> None:
        """From now on by these: what was opened lets in, what stays takes over, what has no place any more leaves."""
        whose = {client: name for name, one in settings.tenants.items() for client in one.clients}
        with suppress(SpoolTrouble):  # what is not written down nobody sees who did not see it before
            await self._service.spool.belong(whose)
        before, http = self.listeners, self.http
        self.listeners = {name: opened.listeners.get(name) or before[name] for name in settings.listeners}
        for name, one in before.items():
            if self.listeners.get(name) is one:
                one.update(settings.listeners[name], rules, auth)
            else:
                one.site.rules, one.site.auth = rules, auth
        for one in opened.listeners.values():
            await one.serve()
        if opened.http is not None:
            self.http = opened.http
            await opened.http.serve(http)
        for name, one in before.items():
            if self.listeners.get(name) is not one:
                await self._show_out(one, self.listeners.get(name))
        if opened.http is not None and http is not None:
            self._leave(http.stop(), "http", http)  # it is answering whoever ordered this

    async def _show_out(self, one: Listener, successor: Listener | None) -> None:
        await (successor or one).serve_waiting(one.sockets)

        async def leave() -> None:
            await one.drain(None)
            if (name := one.site.name) not in self.listeners:
                self._events.listener_gone(name)

        self._leave(leave(), one.site.name, one)

    def _leave(self, work: Coroutine[Any, Any, None], name: str, who: Listener | HttpServer) -> None:
        task = asyncio.create_task(work, name=f"leaving.{name}")
        self._leaving[task] = who

        def ended(task: asyncio.Task[None]) -> None:
            del self._leaving[task]
            if not task.cancelled() and (error := task.exception()):
                self._events.bug(f"leaving.{name}", error)

        task.add_done_callback(ended)

    async def drain(self, seconds: float) -> None:
        """No more are let in; sessions may end what they do within ``seconds``, also those of who leaves already."""
        leaving = [one for one in self._leaving.values() if isinstance(one, Listener)]
        await asyncio.gather(*(one.drain(seconds) for one in (*self.listeners.values(), *leaving)))

    async def stop_http(self) -> None:
        if self._leaving:
            await asyncio.wait(tuple(self._leaving))
        if self.http is not None:
            await self.http.stop()
