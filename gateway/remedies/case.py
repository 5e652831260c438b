"""One refusal beside the settings in force, and lines of settings to paste."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from gateway.address import parse_address, takes
from gateway.config.models import ClientSettings, ListenerSettings, Settings, users
from gateway.model import BadAddress, Network
from gateway.networks import plain_address, prefix_length
from gateway.spool import RefusalRow

APPLY = "gateway reload"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_HERE = "127.0.0.1"
_WIDEST = {4: 24, 6: 56}  # prefix of what is taken for one site


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """``why`` is the plain reason and ``fix`` what to do. ``yaml`` are settings to paste in the place of the same keys,
    ``command`` is what applies them, or helps without any. "" for none."""

    why: str
    fix: str
    yaml: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """What a remedy is computed from."""

    row: RefusalRow
    settings: Settings

    @property
    def peer(self) -> str:
        return self.row.peer or _HERE

    @property
    def stranger(self) -> bool:
        """From the Internet, and so most likely none of the operator's own."""
        try:
            return plain_address(self.peer).is_global
        except ValueError:
            return True

    @property
    def client(self) -> ClientSettings | None:
        return self.settings.clients.get(self.row.client)

    @property
    def listener(self) -> ListenerSettings | None:
        """None for mail that came as a file."""
        return self.settings.listeners.get(self.row.listener)

    @property
    def by_proxy(self) -> bool:
        """Whether the address is that of a load balancer, which says in a header whose connections it hands on."""
        return self.listener is not None and prefix_length(self.listener.proxy_protocol_from, self.peer) >= 0

    @property
    def user_client(self) -> str:
        """The client whose password the user name belongs to."""
        return dict(users(self.settings.clients)).get(self.row.user.casefold(), "")

    @property
    def sender(self) -> str:
        """The address that the mail came from, "" where there is none that can be allowed."""
        return as_address(self.row.sender)

    @property
    def backend(self) -> str:
        """The one that the refusal names."""
        found = re.search(r'backend "([a-z][a-z0-9_]*)"', self.row.text)
        return found[1] if found and found[1] in self.settings.backends else ""

    @property
    def token(self) -> Mapping[str, str]:
        """Which one it was: jti, sub, and its length, as far as the refusal says."""
        found = {}
        for part in self.row.detail.split("; "):
            key, _, value = part.partition(" ")
            if key in ("jti", "sub") and value:
                found[key] = value
            elif value == "characters" and key.isdecimal():
                found["length"] = key
        return found

    def can_log_in(self) -> bool:
        return any(client.logs_in for client in self.settings.clients.values())

    def listed(self) -> str:
        """The client that this address is of without a login by now; "" for none."""
        held = ((prefix_length(one.networks, self.peer), name) for name, one in self.settings.clients.items()
                if not one.logs_in)  # fmt: skip
        length, name = max(held, default=(-1, ""))
        return name if length >= 0 else ""

    def nearest(self) -> tuple[str, Network, Network] | None:
        """The client with a network beside this address: its name, that network, and one that would hold both."""
        found = []
        for name, client in self.settings.clients.items():
            for network in () if client.logs_in or client.open_relay else client.networks:
                wide = wider(network, self.peer)
                if wide is not None and wide.prefixlen >= _WIDEST[wide.version]:
                    found.append((wide.prefixlen, name, network, wide))
        return max(found, key=lambda one: one[0])[1:] if found else None

    def new_name(self, wanted: str = "device") -> str:
        """For one more client."""
        wanted = wanted if _NAME.fullmatch(wanted) else "device"
        names = (wanted, *(f"{wanted}{n}" for n in range(2, len(self.settings.clients) + 3)))
        return next(name for name in names if name not in self.settings.clients)

    def with_client(self, name: str, **changes: Any) -> dict[str, Any]:
        """Settings for this client. The two that are there without any ``clients`` have to be written down with it."""
        clients: dict[str, Any] = {}
        if set(self.settings.clients) == {"localhost", "tokens"}:
            local = self.settings.clients["localhost"].networks
            clients = {"localhost": {"networks": list(map(str, local))}, "tokens": {"token": "*"}}
        return {"clients": clients | {name: clients.get(name, {}) | changes}}


def as_address(text: str) -> str:
    try:
        return parse_address(text)
    except BadAddress:
        return ""


def as_name(text: str, otherwise: str = "NAME") -> str:
    """For a command line: what strangers wrote is no part of it, unless it could be a client's name."""
    return text if _NAME.fullmatch(text) else otherwise


def wider(network: Network, peer: str) -> Network | None:
    """The smallest that holds both; None where they are of different kinds."""
    try:
        address = plain_address(peer)
    except ValueError:
        return None
    if address.version != network.version:
        return None
    while prefix_length([network], peer) < 0:
        network = network.supernet()
    return network


def host(peer: str) -> str:
    return str(ip_network(str(plain_address(peer)))) if "/" not in peer else peer


def allows(patterns: Sequence[str], address: str) -> bool:
    return takes(patterns, address)


def paste(tree: Mapping[str, Any]) -> str:
    """As YAML: a key a line, lists and texts as JSON, which is YAML, too; ``routes`` a line each."""
    return "\n".join(_lines(tree, ""))


def _lines(tree: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield f"{indent}{key}:"
            yield from _lines(value, f"{indent}  ")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            yield f"{indent}{key}:"
            for one in value:
                yield f"{indent}  - {{{', '.join(f'{name}: {_json(part)}' for name, part in one.items())}}}"
        else:
            yield f"{indent}{key}: {_json(value)}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
