"""Which hosts are this machine, and which URLs may be asked."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """True for localhost, 127.0.0.0/8 and ::1, also in brackets; False for every other way to write this machine."""
    try:
        address = ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback if isinstance(address, IPv4Address) else address == IPv6Address("::1")


def is_metadata(host: str) -> bool:
    """The services by which clouds tell a machine who it is: plain HTTP by design, and never off the machine's link."""
    try:
        return ip_address(host).is_link_local
    except ValueError:
        return host == "metadata.google.internal"


def check_url(url: str, *, metadata: bool = False) -> str:
    """``url`` without a slash at its end. ValueError: not https, nor http to loopback; an impossible port; a password.

    With ``metadata`` plain http also to the services that clouds offer their own machines.
    """
    parts = urlsplit(url)
    host, _ = parts.hostname or "", parts.port  # which raises where it is none
    if not host.strip(".") or parts.scheme not in ("https", "http"):
        shown = f"{parts.scheme}://{host} " if parts.scheme else ""  # what else stands there may be a secret
        raise ValueError(f"{shown}is not a URL such as https://api.example.com")
    if " " in host or not url.isprintable():
        raise ValueError(f"the URL of {host} has a space in the host, or a control character")
    if parts.scheme == "http" and not is_loopback(host) and not (metadata and is_metadata(host)):
        raise ValueError(f"http://{host} is not encrypted: use https (plain http only to this machine)")
    if parts.username or parts.password:
        raise ValueError(f"the URL of {host} carries a user name or password")
    return url.rstrip("/")
