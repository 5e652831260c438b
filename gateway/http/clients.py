"""The clients over HTTP: who may send what, and when they last did. Never a secret."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from starlette.exceptions import HTTPException
from starlette.requests import Request

from gateway.auth.clients import default_domain
from gateway.config.models import ClientSettings
from gateway.config.values import format_rate, format_size
from gateway.http.described import described
from gateway.http.service import Service
from gateway.spool import Counts

HOUR = timedelta(hours=1)
SILENT = timedelta(days=7)  # after which it is told of who used to send daily


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaView:
    """One number of a quota: ``used`` of ``limit`` messages or recipients (``counts``) in the time that ``rate`` names.

    Where the quota counts for each of several, it is the one that has used most, ``who``.
    """

    counts: str
    rate: str
    limit: int
    used: int
    who: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientView:
    """One client as configured, in words and as written, with today's numbers (since midnight of this machine).

    ``rate_used`` is how much of ``rate`` is used up now. ``silent``: it sent day by day, and not for a week now.
    ``password_used_at`` is when its device password last let somebody in. ``quota_per`` says for whom the numbers of
    ``quota`` count, ``quota_over`` what becomes of the rest; both are "" without a quota. ``connections`` are open now.
    """

    name: str
    known_by: tuple[str, ...]
    sends_as: str
    sends_to: str
    sends_by: str
    networks: tuple[str, ...]
    token: str
    key: str
    user: str
    password: bool
    login: str
    senders: tuple[str, ...]
    rewrite_to: str
    rewrite_when: str
    recipients: tuple[str, ...]
    backend: str
    default_domain: str
    redirect_to: str
    copy_to: tuple[str, ...]
    rate: str
    rate_limit: int | None
    rate_used: int
    quota: tuple[QuotaView, ...]
    quota_per: str
    quota_over: str
    connections: int
    max_connections: int | None
    max_size: str
    max_recipients: int | None
    open_relay: bool
    accepted_today: int
    refused_today: int
    last_accepted_at: datetime | None
    last_accepted_from: str
    silent: bool
    password_used_at: datetime | None
    password_used_from: str


@dataclass(frozen=True, slots=True)
class ClientList:
    """In the order of the settings."""

    clients: list[ClientView]


async def clients(service: Service, _request: Request) -> ClientList:
    """Every client, how it is known, what it may do, and what it did today."""
    return ClientList(await views(service))


@described(refusals=(404,))
async def client(service: Service, request: Request) -> ClientView:
    """One client."""
    name = request.path_params["name"]
    return (await views(service, (find(service, name),)))[0]


def find(service: Service, name: str) -> str:
    """Raises HTTPException where there is no such client."""
    if name not in service.settings.clients:
        raise HTTPException(404, f"no client {name}; there are {', '.join(service.settings.clients)}")
    return name


async def views(service: Service, names: Sequence[str] = ()) -> list[ClientView]:
    """Of these, or of all, in the order of the file."""
    counts = await _today(service)
    return [_view(service, name, counts.get(name, Counts())) for name in names or service.settings.clients]


async def _today(service: Service) -> Mapping[str, Counts]:
    """What each client did since midnight; the hours are those of UTC, so half an hour more in some zones."""
    now = service.clock.now()
    midnight = now.astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
    hours = (now - midnight) // HOUR + 1
    return (await service.spool.flow(now, hours, HOUR)).clients


def _view(service: Service, name: str, today: Counts) -> ClientView:
    known, now = service.settings.clients[name], service.clock.now()
    last, password = service.spool.uses.of("client", name), service.spool.uses.of("password", name)
    monotonic, quotas = service.clock.monotonic(), service.quotas
    rewrite = known.rewrite_sender
    return ClientView(
        name=name,
        known_by=tuple(_known_by(name, known)),
        sends_as=_sends_as(known),
        sends_to=some(known.recipients) + (f", all of it goes to {known.redirect_to}" if known.redirect_to else ""),
        sends_by=known.backend or known.login or "routes",
        networks=tuple(map(str, known.networks)),
        token=known.token or "",
        key=known.key or "",
        user=(known.user or name) if known.password_hash else "",
        password=known.password_hash is not None,
        login=known.login or "",
        senders=known.senders,
        rewrite_to=rewrite.to if rewrite else "",
        rewrite_when=rewrite.when if rewrite else "",
        recipients=known.recipients,
        backend=known.backend or "",
        default_domain=default_domain(known, service.settings.default_domain or ""),
        redirect_to=known.redirect_to or "",
        copy_to=known.copy_to,
        rate=format_rate(known.rate) if known.rate else "",
        rate_limit=known.rate.count if known.rate else None,
        rate_used=quotas.rates.used(name, known.rate, monotonic) if known.rate else 0,
        quota=_quota(service, name, known),
        quota_per=known.quota.per if known.quota else "",
        quota_over=known.quota.over if known.quota else "",
        connections=quotas.connections.of(name),
        max_connections=known.connections,
        max_size=format_size(known.max_size) if known.max_size else "",
        max_recipients=known.max_recipients,
        open_relay=known.open_relay,
        accepted_today=today.accepted,
        refused_today=today.refused,
        last_accepted_at=last.at if last else None,
        last_accepted_from=last.peer if last else "",
        silent=last is not None and last.daily and now - last.at >= SILENT,
        password_used_at=password.at if password else None,
        password_used_from=password.peer if password else "",
    )


def _quota(service: Service, name: str, known: ClientSettings) -> tuple[QuotaView, ...]:
    if known.quota is None:
        return ()
    used = service.quotas.used(name, known.quota.quota, service.clock.monotonic())
    return tuple(
        QuotaView(counts=one.what, rate=format_rate(one.rate), limit=one.rate.count, used=one.used, who=one.who)
        for one in used
    )


def _known_by(name: str, known: ClientSettings) -> list[str]:
    """By what somebody is taken for this client, in words."""
    ways = [str(one.network_address if one.prefixlen == one.max_prefixlen else one) for one in known.networks]
    if known.token is not None:
        ways.append("any token" if known.token == "*" else f"token {known.token}")  # noqa: S105 - its subject
        ways[-1] += f" of key {known.key}" if known.key else ""
    if known.password_hash is not None:
        ways.append(f"password of {known.user}" if known.user not in (None, name) else "password")
    if known.login is not None:
        ways.append(f"token of {known.login}")
    return ways


def _sends_as(known: ClientSettings) -> str:
    rewrite = known.rewrite_sender
    if rewrite is None:
        return some(known.senders)
    if rewrite.when == "always":
        return f"always {rewrite.to}"
    return f"{some(known.senders)}, others become {rewrite.to}"


def some(patterns: Sequence[str]) -> str:
    """Patterns in words: any, nobody, or as they are written."""
    taken = [one for one in patterns if not one.startswith("!")]
    blocked = ", ".join(one[1:] for one in patterns if one.startswith("!"))
    return ("any" if "*" in taken else ", ".join(taken) or "nobody") + (f" but not {blocked}" if blocked else "")
