"""Which configured client somebody is, and what is left of its rights after the token's claims."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from typing import Any

from gateway.address import NOT, parse_address
from gateway.auth.tokens import Invalid, narrowing
from gateway.config.models import ClientSettings, Settings
from gateway.model import BadAddress, Client, LoginToken, SenderRewrite
from gateway.networks import is_public, prefix_length
from gateway.url import is_loopback

_PLACEHOLDER = re.compile(r"\{(sub|email)\}")


class Clients:
    """The ``clients`` section, asked by network, by token and by name."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.clients
        self._backends, self._tenants = settings.backends.keys(), settings.tenants
        self._default_domain = settings.default_domain or ""
        self._anonymous = {name: known for name, known in settings.clients.items() if not known.logs_in}
        listed = chain.from_iterable(known.networks for known in settings.clients.values())
        self._listed = [network for network in listed if not is_public([network])]
        self._known = lru_cache(maxsize=1024)(self._by_network)

    def __contains__(self, name: str) -> bool:
        return name in self._settings

    def by_network(self, peer: str) -> Client | None:
        """The client that needs no login, by its most specific network."""
        return self._known(peer)

    def _by_network(self, peer: str) -> Client | None:
        lengths = {name: prefix_length(known.networks, peer) for name, known in self._anonymous.items()}
        name = max(lengths, key=lengths.__getitem__, default="")
        return self._client(name, "", peer) if name and lengths[name] >= 0 else None

    def trusts(self, peer: str) -> bool:
        """This host and the networks that the operator listed: a mistake made there is no attack."""
        return is_loopback(peer) or prefix_length(self._listed, peer) >= 0

    def admits(self, name: str, peer: str) -> bool:
        """Whether the client of this name may come from there."""
        networks = self._settings[name].networks
        return not networks or prefix_length(networks, peer) >= 0

    def by_name(self, name: str, peer: str) -> Client:
        """The client whose password was right. Raises Invalid from a wrong place."""
        return self._client(name, name, peer)

    def by_token(self, token: LoginToken, claims: Mapping[str, Any], user: str, peer: str) -> Client:
        """The client whose ``token`` names the subject, else the one that takes any; narrowed. Raises Invalid."""
        fits = {
            name: (known.token == token.subject, known.key is not None)
            for name, known in self._settings.items()
            if known.token in (token.subject, "*") and known.key in (None, token.key)
        }
        if not fits:
            raise Invalid("unknown_client", f"no client has token: {token.subject}")
        name = max(fits, key=fits.__getitem__)
        if user not in ("jwt", token.subject, name):
            raise Invalid("wrong_user", f"the user name is jwt, {token.subject} or {name}", name)
        client = replace(self._client(name, token.subject, peer, claims), token=token)
        return self._narrowed(client, claims, peer)

    def by_provider(self, name: str, address: str, user: str, peer: str, secret: str) -> Client:
        """The client whose token its provider knows as this address: it may send as nobody else. Raises Invalid.

        What the provider says is no pattern: a wildcard would let its owner send as anybody.
        """
        if not _fill("{email}", {"email": address}):
            raise Invalid("token_claims")
        if user.lower() not in ("jwt", name, address.lower()):
            raise Invalid("wrong_user", f"the user name is jwt, {address} or {name}", name)
        client = self._client(name, address, peer)
        backend = client.backend or self._settings[name].login or ""
        return replace(client, senders=(*client.senders, (address,)), backend=backend, secret=secret)

    def _client(self, name: str, login: str, peer: str, claims: Mapping[str, Any] = {}) -> Client:
        """The client of this name. Raises Invalid from a wrong place."""
        known = self._settings[name]
        if not self.admits(name, peer):
            raise Invalid("wrong_network", f"clients.{name}.networks does not hold {peer}", name)
        rewrite = known.rewrite_sender
        return Client(
            name=name,
            login=login,
            senders=(tuple(filled for pattern in known.senders if (filled := _fill(pattern, claims))),),
            recipients=(known.recipients,),
            rewrite=SenderRewrite(rewrite.to, always=rewrite.when == "always") if rewrite else None,
            backend=known.backend or "",
            max_size=known.max_size,
            max_recipients=known.max_recipients,
            rate=known.rate,
            quota=known.quota.quota if known.quota else None,
            connections=known.connections,
            default_domain=default_domain(known, self._default_domain),
            redirect_to=known.redirect_to or "",
            copy_to=known.copy_to,
        )

    def _foreign(self, client: str) -> set[str]:
        """Backends of tenants to which this client does not belong."""
        return {name for one in self._tenants.values() if client not in one.clients for name in one.backends}

    def _narrowed(self, client: Client, claims: Mapping[str, Any], peer: str) -> Client:
        asked = narrowing(claims)
        if asked.networks is not None and prefix_length(asked.networks, peer) < 0:
            raise Invalid("wrong_network", f"the token's own networks do not hold {peer}", client.name)
        if asked.backend in self._foreign(client.name):
            raise Invalid("token_claims", f"its backend {asked.backend} belongs to another tenant", client.name)
        if asked.backend and (asked.backend not in self._backends or client.backend not in ("", asked.backend)):
            raise Invalid(
                "token_claims", f"its backend {asked.backend} is not one that the client may use", client.name
            )
        sizes = [size for size in (client.max_size, asked.max_size) if size is not None]
        return replace(
            client,
            senders=client.senders if asked.senders is None else (*client.senders, asked.senders),
            recipients=client.recipients if asked.recipients is None else (*client.recipients, asked.recipients),
            backend=asked.backend or client.backend,
            max_size=min(sizes, default=None),
        )


def default_domain(known: ClientSettings, of_all: str) -> str:
    """What completes this client's names: of strangers nothing is, unless its own settings say so."""
    return known.default_domain or ("" if known.open_relay else of_all)


def _fill(pattern: str, claims: Mapping[str, Any]) -> str:
    """``{sub}`` and ``{email}`` replaced by the claims; "" (matches nothing) when that gives no address.

    A claim never brings a wildcard or a ``!`` of its own, and an address its issuer calls unverified is nobody's.
    """
    names = _PLACEHOLDER.findall(pattern)
    values = {name: claims.get(name) for name in names}
    if "email" in names and claims.get("email_verified", True) not in (True, "true"):
        return ""
    if not all(isinstance(value, str) and value and "*" not in value for value in values.values()):
        return ""
    filled = _PLACEHOLDER.sub(lambda match: str(values[match[1]]), pattern)
    if names and filled.startswith(NOT):  # a claim never blocks either: beside "!x" another pattern may mean more
        return ""
    try:
        if names:
            parse_address(filled.replace("*", "x"))
    except BadAddress:
        return ""
    return filled
