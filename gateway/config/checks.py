"""What single values cannot tell: settings that must fit each other. Pure; yields where and what is wrong."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import chain

from gateway.config import quotas, tenants
from gateway.config.aliases import Given, faults
from gateway.config.document import Keys, hint
from gateway.config.models import BackendSettings, ClientSettings, KeySettings, Settings, users
from gateway.config.values import format_size, parse_bind, parse_scrypt
from gateway.model import Network
from gateway.networks import MOST_OF_ONE, is_public, overlap, public_addresses, within
from gateway.url import is_loopback

Names = Mapping[str, Collection[str]]  # "backends", "clients", "keys": all that are given, also those in error
Findings = Iterator[tuple[Keys, str]]
_OWN = "name your own networks such as 192.0.2.0/24"
_CLOSE = f"{_OWN}, or set open_relay: true beside it if you mean it"


def findings(settings: Settings, names: Names) -> Findings:
    """Everything that does not fit; the order does not matter."""
    yield from _listeners(settings, names)
    for name, key in settings.auth.keys.items():
        yield from _key(("auth", "keys", name), key)
    for name, client in settings.clients.items():
        yield from _client(("clients", name), client)
    yield from _open_relay(settings.clients)
    yield from _references(settings, names)
    taken: dict[str, str] = {}
    for user, name in users(settings.clients):
        if (first := taken.setdefault(user, name)) != name:
            yield ("clients", name, "user"), f'clients.{first} has the user name "{user}" already'
    for name, client in settings.clients.items():
        if client.connections is not None and client.connections > settings.limits.connections:
            most = f"limits.connections ({settings.limits.connections})"
            yield ("clients", name, "connections"), f"is more than {most}, which holds for all together"
    yield from _pickup(settings)
    yield from tenants.findings(settings, names)
    yield from ((("aliases", name), text) for name, text in faults(given_aliases(settings)))
    if not settings.routes and names["backends"]:
        example = f"routes: [{{backend: {min(names['backends'])}}}]"
        yield ("routes",), f"needed to choose between {len(names['backends'])} backends, write for example {example}"
    if settings.spool.url is None and settings.spool.password is not None:
        yield ("spool", "password"), "is only for a database of PostgreSQL: give its url, too"
    if settings.limits.memory < settings.limits.max_size:
        yield ("limits", "memory"), f"must be at least limits.max_size ({format_size(settings.limits.max_size)})"


def _listeners(settings: Settings, names: Names) -> Findings:
    unsure = len(names["clients"]) > len(settings.clients)
    can_log_in = unsure or any(client.logs_in for client in settings.clients.values())
    taken = {parse_bind(settings.http.bind): "http"} if settings.http.bind else {}
    for name, listener in settings.listeners.items():
        here: Keys = ("listeners", name)
        address = parse_bind(listener.bind)
        if address[1] and address in taken:
            yield (*here, "bind"), f'"{listener.bind}" is taken by {taken[address]}'
        taken[address] = f"listeners.{name}"
        missing = [key for key in ("certificate", "private_key") if getattr(listener, key) is None]
        if missing and listener.tls != "none":
            yield (*here, "tls"), f"{listener.tls} needs {' and '.join(missing)}"
        if is_public(listener.proxy_protocol_from):
            text = "holds so much of the Internet that strangers could say they are anybody"
            yield (*here, "proxy_protocol_from"), f"{text}; name your load balancers, such as 192.0.2.5"
        if listener.learn is not None and is_public(listener.learn.hear_out):
            yield (*here, "learn"), f"hear_out: strangers of the Internet are not heard out; {_OWN}"
        if listener.auth == "required" and not can_log_in:
            yield (*here, "auth"), "no client has a token, password_hash or login, so nobody could log in"


def given_aliases(settings: Settings) -> Given:
    return Given(
        settings.aliases, settings.hostname, settings.default_domain or "", settings.local_domains,
        settings.recipient_delimiter,
    )  # fmt: skip


def _pickup(settings: Settings) -> Findings:
    taken = {settings.state_dir: "state_dir"}
    for name, section in settings.pickup.items():
        folder = section.directory
        if name == "maildrop":
            yield ("pickup", name), "is the name of gateway-sendmail's own folder, give it another"
        if name in settings.listeners:
            yield ("pickup", name), "is the name of a listener as well, and the log has to tell them apart"
        for other, whose in taken.items():
            if folder == other or other in folder.parents or folder in other.parents:
                yield ("pickup", name, "directory"), f"{folder} and {whose} {other} must not be within each other"
        taken[folder] = f"pickup.{name}"


def _key(here: Keys, key: KeySettings) -> Findings:
    sources = ("secret", "public_key_file", "private_key_file", "jwks_url")
    given = [name for name in sources if getattr(key, name) is not None]
    if key.ca_file is not None and key.jwks_url is None:
        yield (*here, "ca_file"), "is only for jwks_url"
    if len(given) != 1:
        yield here, f"needs exactly one of {', '.join(sources)}"
    elif key.algorithm.startswith("HS") != (given == ["secret"]):
        fitting = "a secret" if key.algorithm.startswith("HS") else "a key file or jwks_url"
        yield (*here, given[0]), f"does not fit algorithm {key.algorithm}, which needs {fitting}"
    elif key.secret is not None:
        needed, has = int(key.algorithm[2:]) // 8, len(key.secret.get_secret_value().encode())
        if has < needed:  # RFC 7518 section 3.2
            yield (*here, "secret"), f"{key.algorithm} needs at least {needed} bytes, this has {has}"


def _client(here: Keys, client: ClientSettings) -> Findings:
    login = [key for key in ("token", "password_hash", "login") if getattr(client, key) is not None]
    if len(login) > 1:
        yield (*here, login[1]), f"give {' or '.join(login)}, not both"
    if not login and not client.networks:
        yield here, "say how this client is known: networks, token, password_hash or login"
    if client.password_hash is not None:
        try:
            parse_scrypt(client.password_hash.get_secret_value())
        except ValueError as error:
            yield (*here, "password_hash"), str(error)
    if client.user is not None and client.password_hash is None:
        yield (*here, "user"), "only a client with a password has a user name"
    if client.key is not None and client.token is None:
        yield (*here, "key"), "only a client with a token has a key"
    if client.redirect_to and client.copy_to:
        yield (*here, "copy_to"), "nobody gets a copy of what redirect_to takes; take one of the two out"
    if client.quota is not None:
        for key, text in quotas.faults(client.quota, logs_in=bool(login)):
            yield (*here, "quota", *key), text
    for field in ("senders", "recipients"):
        if client.token is None and any("{" in pattern for pattern in getattr(client, field)):
            yield (*here, field), "{sub} and {email} stand for claims, which only a client with a token has"


def _open_relay(clients: Mapping[str, ClientSettings]) -> Findings:
    """All together that may send without a login: the Internet is still the Internet when it is given in pieces."""
    anonymous = {name: one.networks for name, one in clients.items() if not one.logs_in and not one.open_relay}
    if not is_public(chain.from_iterable(anonymous.values())):
        return
    four, six = public_addresses(chain.from_iterable(anonymous.values()))
    shares = {name: public_addresses(networks) for name, networks in anonymous.items()}
    widest, *others = sorted((name for name in shares if any(shares[name])), key=shares.__getitem__, reverse=True)
    sizes = [f"{four:,} public addresses of IPv4"] * (four > MOST_OF_ONE[0])
    sizes += [f"as many of IPv6 as a /{129 - six.bit_length()} has"] * (six > MOST_OF_ONE[1])
    text = f"would relay for strangers: {' and '.join(sizes)} need no login"
    if others:
        text += f", together with {', '.join(f'clients.{name}' for name in others[:3])}"
    yield ("clients", widest, "networks"), f"{text}; {_CLOSE}"


def _references(settings: Settings, names: Names) -> Findings:
    uses: list[tuple[Keys, str, str | None]] = [(("bounces", "backend"), "backends", settings.bounces.backend)]
    for name, client in settings.clients.items():
        uses += [(("clients", name, "backend"), "backends", client.backend)]
        uses += [(("clients", name, "login"), "backends", client.login)]
        lender = settings.backends.get(client.login or "")
        if isinstance(lender, BackendSettings) and not lender.verifies:  # else it is wrong itself
            text = f'backend "{client.login}" cannot tell whose a token is; a temp_mail backend with token: client can'
            yield ("clients", name, "login"), text
        if client.login and client.backend not in (None, client.login):
            yield ("clients", name, "backend"), f"mail of these clients can only leave by {client.login}"
        uses += [(("clients", name, "key"), "keys", client.key)]
    for index, route in enumerate(settings.routes):
        uses += [(("routes", index, "backend"), "backends", backend) for backend in route.backend]
        uses += [(("routes", index, "clients"), "clients", client) for client in route.clients]
        if any("{" in pattern for pattern in (*route.senders, *route.recipients)):
            yield ("routes", index), "{sub} and {email} stand for claims, which are known to clients only"
    for name, backend in settings.backends.items():
        if any("{" in pattern for pattern in getattr(backend, "senders", ())):
            yield ("backends", name, "senders"), "{sub} and {email} stand for claims, which are known to clients only"
    for keys, kind, wanted in uses:
        if wanted is not None and wanted not in names[kind]:
            yield keys, f'there is no {kind.removesuffix("s")} "{wanted}"{hint(wanted, names[kind])}'


def reach(settings: Settings) -> str:
    """Which other machines may send, where that is none: what it takes. "" where some may."""
    hosts = {name: parse_bind(listener.bind)[0] for name, listener in settings.listeners.items()}
    if all(is_loopback(host) for host in hosts.values()):
        where = ", ".join(sorted(settings.listeners[name].bind for name in hosts))
        fix = 'listeners: {local: {bind: "0.0.0.0:25"}}'
        return f"nobody but this machine may send: it listens at {where} only; for others write for example {fix}"
    networks = [one for client in settings.clients.values() if not client.logs_in for one in client.networks]
    if not any(client.logs_in for client in settings.clients.values()) and all(one.is_loopback for one in networks):
        fix = 'clients: {printers: {networks: ["192.0.2.0/24"]}}'
        return f"nobody but this machine may send: no client has a network of others; write for example {fix}"
    return ""


def _meaningless(settings: Settings) -> Findings:
    limits = settings.limits
    if settings.spool.url is not None and limits.spool_free != type(limits).model_fields["spool_free"].default:
        text = "has no meaning with spool.url, for nobody sees the disk of a database from here"
        yield ("limits", "spool_free"), f"{text}; take it out, limits.spool_size says how large that may grow"
    for name in ("local_domains", "recipient_delimiter"):
        if getattr(settings, name) and not settings.aliases:
            yield (name,), "has no meaning without aliases"


def _proxies(settings: Settings) -> Findings:
    """Load balancers of listeners, and clients that have their addresses."""
    known = [(name, one) for name, one in settings.clients.items() if not one.logs_in]
    for where, listener in settings.listeners.items():
        here: Keys = ("listeners", where, "proxy_protocol_from")
        outer = [one for one in listener.proxy_protocol_from if not one.is_loopback]
        if is_loopback(parse_bind(listener.bind)[0]) and len(outer) == len(listener.proxy_protocol_from) > 0:
            yield here, f"no load balancer there gets here: {listener.bind} is this machine only"
        for proxy in outer:
            yield from _clients_at(proxy, where, known, settings)


def _clients_at(
    proxy: Network, where: str, clients: Collection[tuple[str, ClientSettings]], settings: Settings
) -> Findings:
    for name, client in clients:
        here: Keys = ("clients", name, "networks")
        held = [one for one in client.networks if overlap(one, proxy)]
        open_ = [
            other
            for other, one in settings.listeners.items()
            if one.auth != "required" and not is_loopback(parse_bind(one.bind)[0])
            if not any(within(proxy, listed) for listed in one.proxy_protocol_from)
        ]
        if any(within(one, proxy) for one in held):
            text = f"names a load balancer of listeners.{where}, whose own address is nobody's there; take it out"
            yield here, text
        elif held and open_:
            text = f"holds {proxy}, a load balancer of listeners.{where}, which listeners.{open_[0]} does not list"
            risk = "whoever reaches that one by way of it would be taken for this client"
            yield here, f"{text}: {risk}; list it there as well, or let no balancer lead there"


def warnings(settings: Settings) -> Findings:
    """What works but is hardly meant."""
    yield from _meaningless(settings)
    if not settings.clients:
        yield ("clients",), "nobody may send, for no client is listed"
    bound = {parse_bind(listener.bind) for listener in settings.listeners.values()}
    for name, listener in settings.listeners.items():
        if listener.tls == "none" and listener.certificate:
            yield ("listeners", name), "has a certificate, but tls: none"
        host, port = parse_bind(listener.bind)
        if host == "::" and ("0.0.0.0", port) not in bound:  # noqa: S104 - compared, not bound
            yield ("listeners", name, "bind"), f"is IPv6 only; for IPv4 add a listener with bind: 0.0.0.0:{port}"
    yield from _proxies(settings)
    inside = all(is_loopback(parse_bind(one.bind)[0]) for one in settings.listeners.values())
    for name, client in settings.clients.items():
        if inside and client.networks and not any(one.is_loopback for one in client.networks):
            yield (
                ("clients", name, "networks"),
                "nobody there gets here: every listener binds this machine only",
            )
    first: dict[object, str] = {}
    for name, client in settings.clients.items():
        known_by = ((client.token, client.key),) if client.token is not None else client.networks
        owners = [first.setdefault(one, name) for one in known_by if client.token is not None or not client.logs_in]
        if owners and name not in owners:
            what = "networks" if client.token is None else "token"
            yield ("clients", name), f"never used, clients.{owners[0]} before it has the same {what}"
    used = {backend for route in settings.routes for backend in route.backend}
    used |= {name or "" for client in settings.clients.values() for name in (client.backend, client.login)}
    used.add(settings.bounces.backend or "")
    for name in settings.backends:
        if name not in used:
            yield ("backends", name), "no route and no client leads to it"
    for index, route in enumerate(settings.routes[:-1]):
        if not (route.clients or route.senders or route.recipients):
            yield ("routes", index), "takes everything, so the routes behind it are never used"
            return
