"""Exim: Debian's update-exim4.conf.conf with passwd.client, or the main parts of an exim.conf of one's own."""

from __future__ import annotations

import re
import shlex

from gateway.migrate.exim_conf import Conf, parse
from gateway.migrate.found import Found, Route, Where
from gateway.migrate.shapes import network_of, port_of, put_aliases, put_listener, put_networks, put_smarthost
from gateway.migrate.sources import Source
from gateway.model import Network

_ASSIGNMENT = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_HOST = re.compile(r"\[(?P<literal>[^\]]+)\](:(?P<a>[0-9]+))?|(?P<name>[^:\[\]\s]+)(:(?P<b>[0-9]+))?")


def read_exim(source: Source) -> Found:
    """Raises BadSource."""
    debian = re.search(r"^\s*dc_eximconfig_configtype=", source.text, re.MULTILINE)
    found = Found("Exim")
    if debian:
        _debian(found, source)
    else:
        _own(found, parse(source), source)
    return found


def split(text: str) -> list[str]:
    """A list of Exim: by colons, of which two are one; or by what stands behind <, or by semicolons."""
    text = text.strip()
    if match := re.match(r"<\s*([^\w\s])", text):
        parts = text[match.end() :].split(match[1])
    elif ";" in text:
        parts = text.split(";")
    else:
        doubled = re.split(r"(?<!:):(?!:)", text.replace("::::", "\0"))
        parts = [part.replace("::", ":").replace("\0", "::") for part in doubled]
    return [part.strip() for part in parts if part.strip()]


def _debian(found: Found, source: Source) -> None:
    given: dict[str, tuple[str, Where]] = {}
    for number, line in enumerate(source.lines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not (match := _ASSIGNMENT.fullmatch(line)):
            raise Where(source.name, number).bad("not a setting: a line is name='value'")
        try:
            value = "".join(shlex.split(match[2])[:1])
        except ValueError:
            raise Where(source.name, number, match[1]).bad("a quotation mark is missing") from None
        given[match[1]] = (value, Where(source.name, number, match[1]))
    nothing = ("", Where(source.name))
    kind, where = given.get("dc_eximconfig_configtype", nothing)
    mailname = source.beside("../mailname") or source.beside("/etc/mailname")
    name = mailname.text.strip() if mailname else ""
    macros = source.beside("exim4.conf.localmacros")
    own = dict(re.findall(r"^\s*([A-Z][A-Z0-9_a-z]*)\s*=\s*(.*?)\s*$", macros.text, re.MULTILINE)) if macros else {}
    _networks(found, split(given.get("dc_relay_nets", nothing)[0]), given.get("dc_relay_nets", nothing)[1])
    interfaces, place = given.get("dc_local_interfaces", nothing)
    _listeners(
        found, split(interfaces), ["25"], place,
        own, Where(macros.name if macros else source.name, 0, "exim4.conf.localmacros"),
    )  # fmt: skip
    if name:
        found.put("default_domain", name, Where("/etc/mailname"), "completes names such as root")
    _aliases(found, source)
    if kind in ("smarthost", "satellite"):
        hosts, place = given.get("dc_smarthost", nothing)
        protocol = own.get("REMOTE_SMTP_SMARTHOST_PROTOCOL", "smtp")
        _smarthosts(found, split(hosts), place, _passwords(source), "implicit" if protocol == "smtps" else "starttls")
    else:
        what = f"configuration type {kind or 'none'}: Exim delivered by itself, or only on this machine"
        found.note("routes", where, what, "gateway hands mail to a provider: docs/backends.md")
    if given.get("dc_hide_mailname", nothing)[0] == "true" and (shown := given.get("dc_readhost", nothing)[0]):
        what = f"addresses of this machine became @{shown}"
        found.note("clients", given["dc_readhost"][1], what, "default_domain completes names; rewrite_sender replaces")
        for client in found.names("clients"):
            found.put(
                f"clients.{client}.default_domain", shown, given["dc_readhost"][1], "completes names such as root"
            )
    for key, instead in (
        ("dc_other_hostnames", "gateway has no mailboxes: let programs write to real addresses"),
        ("dc_relay_domains", "gateway takes mail from its clients only"),
    ):
        if given.get(key, nothing)[0].strip():
            found.note("clients", given[key][1], "Exim took mail for these domains", instead)


def _aliases(found: Found, source: Source) -> None:
    """/etc/aliases, which stands beside the folder of Exim."""
    file = source.beside("../aliases")
    for number, line in enumerate(file.lines() if file else (), 1):
        key, colon, value = line.partition(":")
        if file and colon and not line.startswith("#"):
            put_aliases(found, [(key, value, Where(file.name, number))])


def _networks(found: Found, items: list[str], where: Where) -> None:
    """This machine may always send with Exim, too."""
    networks: list[tuple[Network, Where]] = []
    local = Where(where.file, 0, "this machine (always)")
    networks += [(network_of(item, local), local) for item in ("127.0.0.1", "::1")]
    for item in items:
        if item in ("127.0.0.1", "::1", "@[]"):
            continue
        if item.startswith("!") or not re.fullmatch(r"[0-9a-fA-F.:/\[\]]+", item):
            found.note("clients", where, f"{item}: what Exim looks up, or takes out, is not taken over",
                       "write addresses and networks")  # fmt: skip
            found.todo(f"{where.whole}: {item} is not taken over; write its addresses into clients")
            if item.startswith("!"):
                found.off[("clients", "network")] = f"{item} was shut out, which is not taken over"
            continue
        networks.append((network_of(item, where), where))
    put_networks(found, networks)


def _listeners(
    found: Found, interfaces: list[str], ports: list[str], where: Where, tls: dict[str, str], place: Where
) -> None:
    certificate, key = tls.get("MAIN_TLS_CERTIFICATE"), tls.get("MAIN_TLS_PRIVATEKEY")
    on = "MAIN_TLS_ENABLE" in tls
    where = where if interfaces else Where(where.file, where.line, where.said or "all interfaces")
    for item in interfaces or ["0.0.0.0"]:  # noqa: S104 - as theirs did
        literal = re.fullmatch(r"\[([^\]]+)\](?::([0-9]+))?", item)
        four = re.fullmatch(r"([0-9.]+)\.([0-9]{1,5})", item) if item.count(".") == 4 else None
        host, own = (literal[1], literal[2]) if literal else (four[1], four[2]) if four else (item, None)
        for port in [own] if own else ports:
            tls_on = port in split(tls.get("tls_on_connect_ports", ""))
            put_listener(
                found, "smtp" if port == "25" else f"port{port}", host, port_of(port, where), where,
                tls="implicit" if tls_on else "starttls" if on or certificate else "none", auth="off",
                certificate=(certificate, place) if certificate else None,
                key=(key or certificate or "", place) if certificate else None,
            )  # fmt: skip


def _passwords(source: Source) -> list[tuple[str, str, str, Where]]:
    """Host pattern, login and password. In login and password : is written ::, and ^ as ^^."""
    rows, file = [], source.beside("passwd.client")
    for number, line in enumerate(file.lines() if file else (), 1):
        parts = re.split(r"(?<!:):(?!:)", line.strip(), maxsplit=2)
        if line.strip() and not line.startswith("#") and len(parts) == 3:
            login, password = (part.replace("::", ":").replace("^^", "^") for part in parts[1:])
            rows.append((parts[0], login, password, Where(file.name if file else "", number)))
    return rows


def _smarthosts(
    found: Found, hosts: list[str], where: Where, rows: list[tuple[str, str, str, Where]], tls: str
) -> None:  # fmt: skip
    names = []
    for item in hosts:
        if not (match := _HOST.fullmatch(item.replace("::", ":").strip())):
            raise where.bad("a smarthost is host, or host::port")
        host = match["literal"] or match["name"]
        port = port_of(match["a"] or match["b"] or ("465" if tls == "implicit" else "25"), where)
        login = next(((user, word, at) for key, user, word, at in rows if _fits(key, host)), None)
        how = "implicit" if port == 465 else tls
        names.append(put_smarthost(found, host, port, where, tls=how, login=login))
    if not names:
        return
    found.routes.append(Route(tuple(dict.fromkeys(names)), where=where))
    if tls == "starttls":
        found.note("backends", where, "Exim went without TLS where the server has none, and asked no certificate",
                   "tls: none for a server without STARTTLS and without a login; ca_file, server_name")  # fmt: skip
        found.todo("gateway backend check NAME says whether the server has STARTTLS; if not, set its tls")


def _fits(key: str, host: str) -> bool:
    """nwildlsearch: a name, * with what it ends in, or ^ and an expression (which is not tried here)."""
    return key in (host, "*") or (key.startswith("*") and host.endswith(key[1:]))


def _own(found: Found, conf: Conf, source: Source) -> None:
    value = conf.option
    if name := value("primary_hostname")[0]:
        found.put("hostname", name, value("primary_hostname")[1])
    _networks(found, split(conf.lists.get("relay_from_hosts", ("", Where(source.name)))[0]),
              conf.lists.get("relay_from_hosts", ("", Where(source.name)))[1])  # fmt: skip
    tls = {"tls_on_connect_ports": value("tls_on_connect_ports")[0]}
    if certificate := value("tls_certificate")[0]:
        tls |= {"MAIN_TLS_CERTIFICATE": certificate, "MAIN_TLS_PRIVATEKEY": value("tls_privatekey")[0] or certificate}
    ports, where = value("daemon_smtp_ports")
    _listeners(
        found, split(value("local_interfaces")[0]), split(ports) or ["25"], where, tls, value("tls_certificate")[1]
    )
    domain, where = value("qualify_domain")
    if domain:
        found.put("default_domain", domain, where, "completes names such as root")
    size, where = value("message_size_limit")
    if match := re.fullmatch(r"([0-9]{1,9})([KkMm]?)", size):
        most = int(match[1]) * {"": 1, "k": 1024, "m": 1024**2}[match[2].lower()]
        found.put("limits.max_size", min(most, 256_000_000), where)
    for section, text in conf.unread:
        found.note("", section, text, "see what it did, and docs/migrate.md")
    _routers(found, conf)
    for place in conf.acl:
        found.note("clients", place, "an ACL refused mail by rules of its own", "senders, recipients of clients")
        found.off |= {("clients", one): f"{place} refused mail by rules of its own" for one in found.names("clients")}


def _routers(found: Found, conf: Conf) -> None:
    logins = [one for one in conf.parts.values() if one.section == "authenticators" and one.has("client_")]
    for router in conf.parts.values():
        if router.section != "routers" or router.text("driver") != "manualroute":
            continue
        text, where = router.options.get("route_list") or router.options.get("route_data") or ("", router.where)
        words = text.split()
        hosts = " ".join(word for word in words[1:] if word not in ("byname", "bydns")) if len(words) > 1 else text
        transport = conf.parts.get(f"transports/{router.text('transport')}")
        smtps = transport is not None and transport.text("protocol") == "smtps"
        port = transport.text("port") if transport else ""
        items = [f"{one}:{port}" if port.isdigit() and ":" not in one else one for one in split(hosts.strip('"'))]
        if any("$" in one for one in items):
            found.todo(f"{where.whole}: an expression is not taken over; write the host yourself")
            continue
        rows = [("*", *one.login()) for one in logins if one.login()[0]]
        _smarthosts(found, items, where, rows, "implicit" if smtps else "starttls")
        if "domains" in router.options and not router.text("domains").startswith("!"):
            found.note("routes", where, "this router was for some domains only", "recipients of the route")
            found.todo(f"{where.whole}: was for {router.text('domains')} only; see recipients of its route")
