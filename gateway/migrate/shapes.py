"""What all readers need to say in our words: networks that may send, listeners, smarthosts, addresses of domains."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import ip_network
from pathlib import Path

from gateway.migrate.found import Entry, Found, Where, words
from gateway.model import Network
from gateway.networks import is_public

PORTS = {"smtp": 25, "submission": 587, "submissions": 465, "smtps": 465, "ssmtp": 465, "urd": 465}
_HUGE = {4: 16, 6: 48}
_SYSTEM_STORE = re.compile(r"/etc/(ssl|pki)/.*(ca-certificates\.crt|ca-bundle.*|tls-ca-bundle\.pem|cert\.pem)|system")


def port_of(text: str, where: Where) -> int:
    """A number or the name of a service. Raises BadSource."""
    if text.isascii() and text.isdigit() and 0 < int(text[:6]) <= 65535:
        return int(text)
    if text in PORTS:
        return PORTS[text]
    raise where.bad(f'"{text}" is no port')


def network_of(text: str, where: Where) -> Network:
    """Raises BadSource. ``127.0.0.0/8``, ``[::1]/128``, ``192.168.1.1``; bits behind the prefix are taken off."""
    plain = re.sub(r"\[([^\]]*)\]", r"\1", text.strip())
    if re.fullmatch(r"[0-9]+(\.[0-9]+){0,2}(/[0-9]+)?", plain):  # 10/8, 192.168.1/24: missing octets are 0
        octets, slash, length = plain.partition("/")
        numbers = octets.split(".")
        length = length if slash else str(8 * len(numbers))
        plain = ".".join((numbers + ["0"] * 3)[:4]) + f"/{length}"
    try:
        network = ip_network(plain, strict=False)
    except ValueError:
        raise where.bad(f'"{text}" is no address and no network') from None
    mapped = getattr(network.network_address, "ipv4_mapped", None)  # Postfix needs both forms, gateway one
    if mapped is None or network.prefixlen < 96:
        return network
    return ip_network(f"{mapped}/{network.prefixlen - 96}")


def without(network: Network, excluded: Iterable[Network]) -> list[Network]:
    """What of it is left when these are taken out."""
    kept = [network]
    for other in excluded:
        after: list[Network] = []
        for one in kept:
            if one.version != other.version or not one.overlaps(other):
                after.append(one)
            elif one.prefixlen < other.prefixlen:
                after.extend(one.address_exclude(other))  # type: ignore[arg-type]
        kept = after
    return sorted(kept, key=lambda one: (one.version, one))


def put_networks(found: Found, given: Sequence[tuple[Network, Where]]) -> list[str]:
    """Clients that are known by address: this machine, and the others. Returns their names.

    What holds so much of the Internet that strangers are in it is not taken over, and said.
    """
    kept: list[tuple[Network, Where]] = []
    for network, where in sorted(given, key=lambda one: -one[0].prefixlen):
        if is_public([network]) or is_public([*(one for one, _ in kept), network]):
            found.note(
                "clients", where, f"{network} let strangers send without a login: not taken over",
                "list the networks of your own machines, or let the others log in (gateway password mint NAME)",
            )  # fmt: skip
            found.todo(f"{where.whole}: {network} is the Internet, and was left out; list your own networks in clients")
            continue
        kept.append((network, where))
        if not network.is_loopback and network.prefixlen < _HUGE[network.version]:
            text = (
                f"{where.whole}: {network} has {network.num_addresses:,} addresses that may send; narrow it if you can"
            )
            found.todo(text)
    kept.sort(key=lambda one: (one[0].version, one[0]))
    names = []
    for name, local in (("localhost", True), ("network", False)):
        part = [(network, where) for network, where in kept if network.is_loopback == local]
        if part:
            value = tuple(dict.fromkeys(str(network) for network, _ in part))
            found.put(f"clients.{name}.networks", value, part[0][1])
            names.append(name)
    return names


def put_listener(
    found: Found, wanted: str, host: str, port: int, where: Where, *, tls: str, auth: str,
    certificate: tuple[str, Where] | None = None, key: tuple[str, Where] | None = None, ipv6: bool = True,
) -> str:  # fmt: skip
    """Without a certificate there is no TLS. Returns its name."""
    name = found.name("listeners", wanted)
    shown = f"[{host}]" if ":" in host else host
    found.put(f"listeners.{name}.bind", f"{shown}:{port}", where)
    if tls != "none" and (certificate is None or key is None):
        what = "TLS was on, but no certificate is named"
        found.note("listeners", where, what, "name certificate and private_key (PEM) and set tls")
        found.todo(f"{where.whole}: no certificate was found for port {port}; it now takes mail without TLS")
        tls = "none"
    found.put(f"listeners.{name}.tls", tls)
    found.put(f"listeners.{name}.auth", auth)
    if tls != "none" and certificate and key:
        found.put(f"listeners.{name}.certificate", *certificate)
        found.put(f"listeners.{name}.private_key", *key)
        found.todo(f"let the user gateway read {key[0]} (it must not be readable for all)")
    if ":" in host and not ipv6:
        found.off[("listeners", name)] = "this machine has no IPv6"
    return name


def put_smarthost(
    found: Found, host: str, port: int, where: Where, *, tls: str,
    login: tuple[str, str | None, Where] | None = None, ca: tuple[str, Where] | None = None,
) -> str:  # fmt: skip
    """A backend of type smtp, made once for each server and login. ``login`` is user name, password, place."""
    user = login[0] if login else None
    for name in found.names("backends"):
        same = (found.get(f"backends.{name}.{key}") for key in ("host", "port", "username"))
        if tuple(same) == (host, port, user):
            return name
    name = found.name("backends", "smart" if not found.names("backends") else host)
    found.put(f"backends.{name}.type", "smtp")
    found.put(f"backends.{name}.host", host, where)
    found.put(f"backends.{name}.port", port)
    if login and tls == "none" and not host.startswith("127."):
        tls = "starttls"
        what = "the password could go over a clear line"
        found.note("backends", login[2], what, "here it needs TLS; the server must offer STARTTLS, or use port 465")
    found.put(f"backends.{name}.tls", tls)
    if ca and not _SYSTEM_STORE.fullmatch(ca[0]):
        found.put(f"backends.{name}.ca_file", *ca)
    if login:
        found.put(f"backends.{name}.username", login[0], login[2])
        file = f"{name}.pw"
        found.put(f"backends.{name}.password_file", file, login[2])
        found.secret(file, login[1], f"the password of {login[0]} at {host}", login[2])
    retired(found, host, bool(login), where)
    return name


def retired(found: Found, host: str, logs_in: bool, where: Where) -> None:
    """Servers whose passwords end, or are already at an end."""
    if logs_in and re.fullmatch(r".*\.(office365|outlook)\.com", host.lower()):
        what = "Microsoft ends passwords for SMTP"
        found.note("backends", where, what, "use a backend of type graph: docs/microsoft365.md")
        found.todo(f"{where.whole}: {host} stops taking passwords; put a backend of type graph in its place")


def put_aliases(found: Found, rows: Iterable[tuple[str, str, Where]]) -> None:
    """As in /etc/aliases and virtual(5). Programs, files and lists have no equivalent, nor has a whole domain."""
    for key, value, where in rows:
        name, targets = key.strip('"').rstrip(":").strip('"'), [part for part in words(value.replace('"', "")) if part]
        kept = tuple(one.removeprefix("\\") for one in targets if not one.startswith(("|", "/", ":", "@")))
        if not name or name.startswith("@") or not kept or len(kept) != len(targets):
            found.note(
                "aliases", where, f"{name}: a program, a file, a list or a domain", "let a program send elsewhere"
            )
            found.todo(f"{where.whole}: {name} is not taken over whole")
        if name and not name.startswith("@") and kept and kept != (name,):
            found.entries[("aliases", name)] = Entry(kept if len(kept) > 1 else kept[0], where)


def domain_pattern(key: str) -> str:
    """``example.com`` and ``@example.com`` as ``*@example.com``, ``.example.com`` as its subdomains."""
    if key == "*":
        return key
    if key.startswith("."):
        return f"*@*{key}"
    return f"*{key}" if key.startswith("@") else key if "@" in key else f"*@{key}"


def absolute(path: str, folder: Path | None) -> str:
    """Of a file that they name relative to their own folder."""
    return path if path.startswith("/") or folder is None else str(folder.absolute() / path)
