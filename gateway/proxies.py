"""Which HTTP proxy leads to a host: that of a setting, else what the environment says in curl's words."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment

from gateway.url import is_loopback, is_metadata

DIRECT = "direct"  # what the setting ``proxy`` says to use none


@dataclass(frozen=True, slots=True)
class Proxy:
    """``url`` carries no secret; ``authorization`` is the value of a Proxy-Authorization field, or ""."""

    url: str
    authorization: str = field(default="", repr=False)


def parse_proxy(text: str) -> Proxy:
    """``http://user:password@proxy.example.com:3128``. Raises ValueError, whose text holds no password."""
    parts = urlsplit(text if "://" in text else f"http://{text}")
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("has a port that is none") from None
    if parts.scheme not in ("http", "https") or not host or not host.isprintable() or " " in host:
        raise ValueError("is not an HTTP proxy such as http://proxy.example.com:3128")
    shown = f"[{host}]" if ":" in host else host
    url = f"{parts.scheme}://{shown}:{port or (443 if parts.scheme == 'https' else 80)}"
    if parts.username is None:
        return Proxy(url)
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"  # RFC 7617, 2
    return Proxy(url, f"Basic {base64.b64encode(pair.encode()).decode()}")


class Proxies:
    """``setting`` stands for what the environment says, which is read here."""

    def __init__(self, setting: str | None = None) -> None:
        self._setting = setting
        self._given = getproxies_environment()
        self._exceptions = [one.strip().lower() for one in self._given.get("no", "").split(",")]

    def find(self, host: str, port: int) -> Proxy | None:
        """None for a direct way, which leads to this machine and a cloud's metadata service whatever anybody says.

        Raises ValueError for a proxy that cannot be used.
        """
        if is_loopback(host) or is_metadata(host) or self._setting == DIRECT:
            return None
        if self._setting:
            return parse_proxy(self._setting)
        text = self._given.get("https") or self._given.get("all") or ""
        if not text or _excepted(host, port, self._exceptions):
            return None
        try:
            return parse_proxy(text)
        except ValueError as error:
            raise ValueError(f"HTTPS_PROXY or ALL_PROXY {error}") from None


def _excepted(host: str, port: int, exceptions: Iterable[str]) -> bool:
    """NO_PROXY: host names with all below them, addresses, networks, each with a port or without; * for everything."""
    for entry in exceptions:
        name, _, only = entry.rpartition(":") if entry.count(":") == 1 else (entry, "", "")
        if only and only != str(port):
            continue
        if name == "*":
            return True
        name = name.removeprefix("*").strip(".[]")
        try:
            if ip_address(host) in ip_network(name, strict=False):
                return True
        except ValueError:  # one of them is a name
            if name and f".{host.lower().rstrip('.')}".endswith(f".{name}"):
                return True
    return False
