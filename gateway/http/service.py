"""What the HTTP handlers need of a running gateway (gateway.app.App), so that http never imports app."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from starlette.exceptions import HTTPException

from gateway.auth import Authenticator
from gateway.clock import Clock
from gateway.config.inforce import InForce
from gateway.config.models import Settings
from gateway.delivery import Dispatcher
from gateway.doctor import Doctor
from gateway.drop.drop import Drop
from gateway.events import Events
from gateway.ratelimit import RateWindow
from gateway.spool import Filter, Spool


class Listening(Protocol):
    """The part of smtp.Listener that is seen from outside."""

    @property
    def port(self) -> int: ...
    @property
    def accepting(self) -> bool: ...


class Service(Protocol):
    """A gateway that runs; or, for commands while none runs, only its open spool: then ``dispatcher`` is None."""

    @property
    def settings(self) -> Settings: ...
    @property
    def in_force(self) -> InForce: ...
    @property
    def rates(self) -> RateWindow: ...
    @property
    def spool(self) -> Spool: ...
    @property
    def events(self) -> Events: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def dispatcher(self) -> Dispatcher | None: ...
    @property
    def drop(self) -> Drop | None: ...
    @property
    def authenticator(self) -> Authenticator | None: ...
    @property
    def listeners(self) -> Mapping[str, Listening]: ...
    @property
    def draining(self) -> bool: ...
    @property
    def doctor(self) -> Doctor: ...
    async def reload(self) -> list[str]: ...
    async def submit(self, sender: str, recipients: Sequence[str], raw: bytes, *, client: str, pin: str) -> str: ...
    async def bounce(self, which: Filter) -> dict[str, bool]: ...
    async def revoke(self, *, jti: str, subject: str) -> None: ...


def running(service: Service) -> Dispatcher:
    """Raises HTTPException while no service runs."""
    if service.dispatcher is None:
        raise HTTPException(409, "no service is running; start it with: gateway serve")
    return service.dispatcher
