"""Where Postfix listened and from whom it took mail."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

from gateway.migrate.found import Found, Where
from gateway.migrate.postfix_files import Parameters, Service, Table, table, tables
from gateway.migrate.shapes import network_of, port_of, put_listener, put_networks, without
from gateway.migrate.sources import Source
from gateway.model import Network
from gateway.networks import is_public

_RELAY = "permit_mynetworks, permit_sasl_authenticated, defer_unauth_destination"
_LISTS = [f"smtpd_{one}_restrictions" for one in ("client", "helo", "sender", "relay", "recipient", "data")]
_STOPS = re.compile("(error|discard|retry):")
_REFUSING = ("reject", "defer", "discard", "hold", "4", "5")


def doors(found: Found, parameters: Parameters, services: list[Service], source: Source, *, ipv6: bool) -> None:
    """Listeners and clients."""
    allowed = _my_networks(parameters, source)
    trusting = [one for one in services if "permit_mynetworks" in _restrictions(_of(parameters, one))]
    names = put_networks(found, allowed) if trusting else []
    for service in services:
        _listener(found, _of(parameters, service), service, ipv6=ipv6)
    logins = any(found.get(f"listeners.{name}.auth") != "off" for name in found.names("listeners"))
    if logins:
        what = "users logged in by SASL, and their passwords cannot be read from here"
        instead = "gateway password mint NAME makes one for each, and says what to write here"
        found.note("clients", parameters.where("smtpd_sasl_auth_enable"), what, instead)
        found.todo("give each device or person that logs in a password: gateway password mint NAME")
        found.put("clients.tokens.token", "*", None, "or a token: gateway token mint --sub NAME")
    refusing = list(dict.fromkeys(one for service in services for one in _refusals(_of(parameters, service), source)))
    for name, why in refusing:
        what, instead = (
            f"{name} refused mail by {why}",
            "gateway has senders and recipients of clients, which say who may",
        )
        found.note("clients", parameters.where(name), what, instead)
        for client in names:
            found.off[("clients", client)] = f"{name} refused mail by {why}, which is not taken over"
    _rate(found, parameters, names)


def _of(parameters: Parameters, service: Service) -> Parameters:
    return replace(parameters, over=service.over)


def _restrictions(parameters: Parameters) -> list[str]:
    """Those that decide about relaying."""
    return parameters.list("smtpd_relay_restrictions", _RELAY) + parameters.list("smtpd_recipient_restrictions")


def _listener(found: Found, parameters: Parameters, service: Service, *, ipv6: bool) -> None:
    host, _, last = service.name.rpartition(":")
    port = port_of(last, service.where)
    level = parameters.text("smtpd_tls_security_level")
    if not level:
        level = "encrypt" if parameters.yes("smtpd_enforce_tls") else "may" if parameters.yes("smtpd_use_tls") else ""
    implicit = parameters.yes("smtpd_tls_wrappermode") or port == 465
    tls = "implicit" if implicit else "starttls" if level in ("may", "encrypt") else "none"
    permits = _restrictions(parameters)
    sasl = parameters.yes("smtpd_sasl_auth_enable") and "permit_sasl_authenticated" in permits
    auth = "optional" if sasl else "off"
    if "permit_mynetworks" not in permits:
        if not sasl:
            what = f"port {port} relayed for nobody: it took mail for local domains only"
            found.note("listeners", service.where, what, "gateway has no mailboxes, so nobody needs this port")
            return
        auth = "required"
    if level == "encrypt" and auth == "optional":
        auth = "required"
        text = "there was no mail without TLS here; optional would let the listed networks do without"
        found.note("listeners", service.where, f"port {port}: {text}", "auth: optional, if that is what you want")
    for bound in [host.strip("[]")] if host else _hosts(parameters):
        name = put_listener(
            found, _name(service.name, port, bound), bound, port, service.where, tls=tls, auth=auth,
            certificate=_file(parameters, "smtpd_tls_cert_file"), ipv6=ipv6,
            key=_file(parameters, "smtpd_tls_key_file") or _file(parameters, "smtpd_tls_cert_file"),
        )  # fmt: skip
        if (protocols := parameters.text("smtpd_tls_protocols")) and tls != "none":
            what = f"TLS versions were {protocols}; here they are 1.2 and later"
            found.note(
                "listeners", parameters.where("smtpd_tls_protocols"), what, f'{name}: min_tls: "1.0" for old ones'
            )


def _name(service: str, port: int, host: str) -> str:
    base = service.rpartition(":")[2]
    base = {25: "smtp", 587: "submission", 465: "submissions"}.get(port, f"port{base}")
    return f"{base}_6" if ":" in host else base


def _file(parameters: Parameters, name: str) -> tuple[str, Where] | None:
    text = parameters.text(name)
    if not text and name != "smtpd_tls_chain_files":
        chain = parameters.list("smtpd_tls_chain_files")
        return (chain[0], parameters.where("smtpd_tls_chain_files")) if chain else None
    return (text, parameters.where(name)) if text and text != "none" else None


def _hosts(parameters: Parameters) -> list[str]:
    protocols, hosts = parameters.list("inet_protocols", "all"), []
    four, six = (not protocols or {"all", one} & set(protocols) for one in ("ipv4", "ipv6"))
    for one in parameters.list("inet_interfaces", "all"):
        if one in ("all", "loopback-only", "localhost"):
            inside = one != "all"
            hosts += ["127.0.0.1" if inside else "0.0.0.0"] * bool(four) + ["::1" if inside else "::"] * bool(six)  # noqa: S104
        else:
            hosts.append(one.strip("[]"))
    return list(dict.fromkeys(hosts))


def _my_networks(parameters: Parameters, source: Source) -> list[tuple[Network, Where]]:
    """In Postfix the first that fits counts, so !pattern takes out of what comes behind it."""
    where = parameters.where("mynetworks")
    if not parameters.has("mynetworks"):
        style = parameters.text("mynetworks_style", "host")
        if style != "host":
            raise parameters.where("mynetworks_style").bad(
                f"{style}: which networks that is depends on the machine. Give me the output of: postconf mynetworks"
                " (put its line into the file)"
            )
        return [(network_of(one, where), where) for one in ("127.0.0.0/8", "[::1]/128")]
    found: list[tuple[Network, Where]] = []
    excluded: list[Network] = [network for network, _ in _denied(parameters, source)]
    for item, place in _patterns(parameters.list("mynetworks"), source, where):
        if item.startswith("!"):
            excluded.append(network_of(item[1:], place))
        else:
            network = network_of(item, place)
            found += [(one, place) for one in ([network] if is_public([network]) else without(network, excluded))]
    return found


def _patterns(items: list[str], source: Source, where: Where) -> list[tuple[str, Where]]:
    """Also what stands in files and tables."""
    found: list[tuple[str, Where]] = []
    for item in items:
        if item.startswith("/"):
            file = source.beside(item)
            if file is None:
                raise where.bad(f"{item} cannot be read, and its networks may not be guessed")
            found += [(word, Where(file.name, n)) for n, line in enumerate(file.lines(), 1)
                      if not line.lstrip().startswith("#") for word in line.replace(",", " ").split()]  # fmt: skip
        elif ":/" in item and not item.startswith("["):
            one = table(item.lstrip("!"), source, where)
            if one.rows is None or item.startswith("!"):
                raise where.bad(f"{one.spec} cannot be read, and its networks may not be guessed")
            found += [(key, place) for key, _, place in one.rows]
        else:
            found.append((item, where))
    return found


def _denied(parameters: Parameters, source: Source) -> list[tuple[Network, Where]]:
    """Networks that a cidr table of smtpd_client_restrictions refuses."""
    found = []
    for one in _access(parameters, "smtpd_client_restrictions", source):
        if one.spec.startswith("cidr:"):
            found += [(network_of(key, at), at) for key, value, at in one.rows or () if _refuses(value)]
    return found


def _access(parameters: Parameters, name: str, source: Source) -> list[Table]:
    parts = parameters.list(name)
    named = [spec for check, spec in pairwise(parts) if check.startswith("check_") and ":" in spec]
    return [table(spec, source, parameters.where(name)) for spec in named]


def _refuses(value: str) -> bool:
    return value.lower().startswith(_REFUSING)


def _refusals(parameters: Parameters, source: Source) -> list[tuple[str, str]]:
    """Lists of restrictions that refuse mail of clients by what has no equivalent, each with the table."""
    found = []
    for name in _LISTS:
        for one in _access(parameters, name, source):
            known = name == "smtpd_client_restrictions" and one.spec.startswith("cidr:")
            if one.rows is None or (not known and any(_refuses(value) for _, value, _ in one.rows)):
                found.append((name, one.spec.partition("{")[0]))
    for one in tables(parameters, "transport_maps", source):
        values = [value for _, value, _ in one.rows or ()]
        found += [("transport_maps", one.spec)] * any(map(_STOPS.match, values))
    return found


def _rate(found: Found, parameters: Parameters, clients: list[str]) -> None:
    """Postfix counts for each address, gateway for each client."""
    limit, unit = parameters.text("smtpd_client_message_rate_limit"), parameters.text("anvil_rate_time_unit", "60s")
    period = {"60s": "minute", "1m": "minute", "1h": "hour", "3600s": "hour", "1d": "day"}.get(unit)
    where = parameters.where("smtpd_client_message_rate_limit")
    if limit.isdigit() and int(limit) and period and "network" in clients:
        found.put("clients.network.rate", f"{limit}/{period}", where, "here of all of them together")
