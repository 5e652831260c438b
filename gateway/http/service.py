"""What the HTTP handlers need of a running gateway (gateway.app.App), so that http never imports app."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from starlette.exceptions import HTTPException

from gateway.alerts.watch import Alerts
from gateway.auth import Authenticator
from gateway.config.renewal import Renewal
from gateway.delivery import Dispatcher
from gateway.doctor import Doctor
from gateway.health.gather import Watched
from gateway.http.work import Works
from gateway.learn.learner import Learner
from gateway.quotas import Quotas
from gateway.spool import Filter


class Service(Watched, Protocol):
    """A gateway that runs; or, for commands while none runs, only its open spool: then ``dispatcher`` is None."""

    @property
    def quotas(self) -> Quotas: ...
    @property
    def alerts(self) -> Alerts: ...
    @property
    def authenticator(self) -> Authenticator | None: ...
    @property
    def learner(self) -> Learner: ...
    @property
    def works(self) -> Works: ...
    @property
    def doctor(self) -> Doctor: ...
    async def reload(self) -> list[str]: ...
    async def renew(self, name: str) -> Renewal: ...
    async def submit(self, sender: str, recipients: Sequence[str], raw: bytes, *, client: str, pin: str) -> str: ...
    async def bounce(self, which: Filter, each: Callable[[Mapping[str, bool]], object]) -> dict[str, bool]: ...
    async def revoke(self, *, jti: str, subject: str) -> None: ...


def running(service: Service) -> Dispatcher:
    """Raises HTTPException while no service runs."""
    if service.dispatcher is None:
        raise HTTPException(503, "no service is running; start it with: gateway serve")
    return service.dispatcher
