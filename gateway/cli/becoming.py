"""Who gets the mail for an address by these settings, and what copies are made: ``gateway check-config --whom``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from gateway.address import is_bare, parse_path
from gateway.auth.clients import default_domain
from gateway.config.aliases import Aliases
from gateway.config.checks import given_aliases
from gateway.config.models import Settings
from gateway.model import BadAddress, Client
from gateway.whom import becomes


@dataclass(frozen=True, slots=True)
class Becoming:
    """``asked`` is the address, completed, that ``clients`` ask for; ``becomes`` who gets it, by the setting ``by``.

    ``copies`` are who gets one as well by a client's own settings. ``refused``: why it is no recipient.
    """

    clients: tuple[str, ...]
    asked: str
    becomes: tuple[str, ...] = ()
    by: str = ""
    copies: tuple[str, ...] = ()
    refused: str = ""

    def words(self) -> str:
        whose = f"from {', '.join(self.clients)}: "
        if self.refused:
            return f"{whose}{self.asked} is refused: {self.refused}"
        end = f" -> {', '.join(self.becomes)} ({self.by})" if self.by else ""
        more = f", and a copy to {', '.join(self.copies)}" if self.copies else ""
        return f"{whose}{self.asked}{end}{more}"


def becoming(settings: Settings, asked: str) -> tuple[Becoming, ...]:
    """Clients to whom the same happens are told of together. Raises BadAddress."""
    name, _ = parse_path(f"<{asked.strip().strip('<>')}>".encode(), utf8=True, domain=None)
    if not name:
        raise BadAddress("A recipient is needed", "syntax")
    aliases = Aliases.of(given_aliases(settings)) if settings.aliases else None
    found: dict[Becoming, list[str]] = {}
    for client, one in _each(settings, name, aliases):
        found.setdefault(one, []).append(client)
    return tuple(replace(one, clients=tuple(who)) for one, who in found.items())


def _each(settings: Settings, name: str, aliases: Aliases | None) -> Iterator[tuple[str, Becoming]]:
    bare = is_bare(name)
    for client, known in settings.clients.items():
        domain = default_domain(known, settings.default_domain or "")
        if bare and not domain and (name.lower() == "postmaster" or (aliases is not None and aliases.knows(name))):
            domain = settings.hostname
        if bare and not domain:
            yield client, Becoming((), name, refused="it has no domain and is no alias; set default_domain")
            continue
        address = f"{name}@{domain}" if bare else name
        who = Client(client, redirect_to=known.redirect_to or "")
        instead = becomes(who, aliases, address, bare=bare)
        to, by = (instead.became, instead.by) if instead else ((), "")
        yield client, Becoming((), address, to, by, known.copy_to)
