"""The SMTP service of IIS 6: MetaBase.xml, or what Get-WmiObject IIsSmtpServerSetting prints (Format-List, JSON)."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any
from xml.parsers import expat

from gateway.migrate.found import Found, Route, Where, words
from gateway.migrate.shapes import network_of, port_of, put_listener, put_networks, put_smarthost
from gateway.migrate.sources import Source
from gateway.model import Network

_SSL, _CLEAR = 4, 256  # RouteAction: SMTP_SSL, SMTP_AUTH_CLEARTEXT
_LINE = re.compile(r"\s*([A-Za-z][A-Za-z0-9_]*)\s*(?::|=)\s?(.*)")
_HEAD = 80  # bytes of a RelayIpList before its first address, where all stand one by one
_EVERY = "0.0.0.0"  # noqa: S104 - as theirs did
_ONE_BY_ONE = b"\xff\xff\xff\xff"
Property = tuple[str, Where]


def read_iis(source: Source) -> Found:
    """Raises BadSource."""
    found, given = Found("the SMTP service of IIS"), _properties(source)
    if not given:
        raise Where(source.name, 1).bad("holds no IIsSmtpServer, and no lines such as SmartHost : smtp.example.com")

    def value(name: str) -> Property:
        return given.get(name.lower(), [("", Where(source.name))])[0]

    if name := value("FullyQualifiedDomainName")[0]:
        found.put("hostname", name, value("FullyQualifiedDomainName")[1])
    _clients(found, given, source)
    _doors(found, given, source)
    _out(found, given, source)
    size, where = value("MaxMessageSize")
    if size.isdigit() and 1000 <= int(size[:12]) <= 256_000_000:
        found.put("limits.max_size", int(size), where)
    if value("MaxRecipients")[0].isdigit() and int(value("MaxRecipients")[0][:6]):
        found.put("limits.max_recipients", int(value("MaxRecipients")[0][:6]), value("MaxRecipients")[1])
    if domain := value("MasqueradeDomain")[0]:
        what = f"senders became addresses at {domain}"
        found.note("clients", value("MasqueradeDomain")[1], what, "rewrite_sender of a client")
    if value("DropDirectory")[0]:
        what = "it took files from its Pickup folder"
        found.note("", value("PickupDirectory")[1], what, "pickup: a folder of this machine, docs/sendmail.md")
    return found


def _properties(source: Source) -> dict[str, list[Property]]:
    """By name in small letters, each with all values of it."""
    if source.text.lstrip().startswith("<"):
        return _xml(source)
    with suppress(ValueError, RecursionError):
        data = json.loads(source.text)
        data = data[0] if isinstance(data, list) and data else data
        if isinstance(data, dict):
            return {key.lower(): _listed(key, one, source) for key, one in data.items() if one is not None}
    found: dict[str, list[Property]] = {}
    last = ""
    for number, line in enumerate(source.lines(), 1):
        if match := _LINE.fullmatch(line):
            last = match[1].lower()
            found.setdefault(last, []).append((match[2].strip(), Where(source.name, number, match[1])))
        elif last and line[:1].isspace() and line.strip():
            text, where = found[last][-1]
            found[last][-1] = (f"{text} {line.strip()}", where)
    return found if {"smarthost", "relayiplist", "serverbindings", "ipgrant"} & set(found) else {}


def _listed(key: str, value: Any, source: Source) -> list[Property]:
    where = Where(source.name, 0, key)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [(f"{one.get('IP') or ''}:{one.get('Port') or ''}:", where) for one in value if isinstance(one, dict)]
    if isinstance(value, list):
        return [(", ".join(str(one) for one in value), where)]
    return [(str(value), where)]


def _xml(source: Source) -> dict[str, list[Property]]:
    """The first virtual server, over what all inherit. Entities of its own are refused."""
    service: dict[str, list[Property]] = {}
    server: dict[str, list[Property]] = {}
    parser = expat.ParserCreate()
    parser.ordered_attributes = False

    def start(tag: str, attributes: dict[str, str]) -> None:
        kept = service if tag == "IIsSmtpService" else server if tag == "IIsSmtpServer" and not server else None
        if kept is not None:
            line = parser.CurrentLineNumber
            kept |= {name.lower(): [(text, Where(source.name, line, name))] for name, text in attributes.items()}

    def refuse(*_: object) -> None:
        raise Where(source.name, parser.CurrentLineNumber).bad("a DOCTYPE has no place in a MetaBase.xml")

    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(re.sub(r"^\s*<\?xml[^>]*\?>", "", source.text), True)
    except expat.ExpatError as error:
        raise Where(source.name, error.lineno).bad(f"not XML: {expat.ErrorString(error.code)}") from None
    return service | server


def _clients(found: Found, given: dict[str, list[Property]], source: Source) -> None:
    networks: list[tuple[Network, Where]] = []
    for text, where in given.get("ipgrant", []):
        parts = words(text, ", \t{}\"'")
        for address, mask in zip(parts[::2], parts[1::2], strict=False):
            networks.append((network_of(f"{address}/{mask}", where), where))
    text, where = given.get("relayiplist", [("", Where(source.name))])[0]
    if not networks:
        addresses = _relay_list(text)
        networks = [(network_of(one, where), where) for one in addresses or ()]
        if addresses is None:
            what = "the list of machines that may relay cannot be read with certainty from this"
            found.note(
                "clients", where, what, "Access, Relay in its dialog shows it; or see docs/migrate.md for IPGrant"
            )
            found.todo(f"{where.whole}: list in clients the networks that its dialog shows under Access, Relay")
    put_networks(found, networks)
    logins, place = given.get("relayforauth", [("0", Where(source.name))])[0]
    if logins.lower() in ("-1", "true", "1", "4294967295"):
        what = "everybody with a Windows account could relay"
        found.note("clients", place, what, "gateway password mint NAME for each device or program")
        found.todo("give each device or program that logs in a password: gateway password mint NAME")
        found.put("clients.tokens.token", "*", None, "or a token: gateway token mint --sub NAME")


def _relay_list(text: str) -> list[str] | None:
    """The addresses, where it is sure that these may relay and no others; None where it is not."""
    try:
        if re.fullmatch(r"(0x)?[0-9a-fA-F]{48,}", text):
            raw = bytes.fromhex(text.removeprefix("0x"))
        else:
            raw = bytes(int(one) for one in words(text, ", \t{}"))
    except ValueError:
        return None
    if len(raw) <= _HEAD or len(raw) % 4 or raw[_HEAD - 4 : _HEAD] != _ONE_BY_ONE:
        return None
    addresses = [".".join(map(str, raw[at : at + 4])) for at in range(_HEAD, len(raw), 4)]
    denies, count = any(raw[24:32]), int.from_bytes(raw[36:40], "little")
    return addresses if not denies and count == len(addresses) else None


def _doors(found: Found, given: dict[str, list[Property]], source: Source) -> None:
    auth = "optional" if found.get("clients.tokens.token") else "off"
    bindings = [
        (one, where)
        for text, where in given.get("serverbindings", [])
        for one in words(text, " ,\t\r\n{}")
        if ":" in one
    ]
    if not bindings:
        bindings = [(":25:", given.get("serverbindings", [("", Where(source.name, 0, "port 25"))])[0][1])]
    for one, where in bindings:
        host, _, rest = one.strip('"').partition(":")
        port = port_of(rest.partition(":")[0] or "25", where)
        put_listener(found, "smtp" if port == 25 else f"port{port}", host or _EVERY, port, where, tls="none", auth=auth)
    if given.get("securebindings") or "AccessSSL" in str(given.get("accesssslflags", "")):
        found.note(
            "listeners", None, "TLS was with a certificate of Windows", "export it as PEM; certificate, private_key"
        )
        found.todo("for TLS export the certificate with its key from Windows as PEM, and set tls: starttls")


def _out(found: Found, given: dict[str, list[Property]], source: Source) -> None:
    host, where = given.get("smarthost", [("", Where(source.name, 0, "SmartHost"))])[0]
    if not (host := host.strip('"[] ')):
        found.note("routes", where, "no smart host: it delivered to the whole Internet by itself",
                   "gateway hands mail to a provider: docs/backends.md")  # fmt: skip
        return
    action = given.get("routeaction", [("0", where)])[0]
    port = given.get("remotesmtpport", [("25", where)])[0]
    flags = int(action[0]) if action[0].isdigit() else 0
    always = given.get("alwaysusessl", [("", where)])[0][0].lower() in ("true", "1", "-1")
    user, place = given.get("routeusername", [("", where)])[0]
    number = port_of(port[0] or "25", port[1])
    name = put_smarthost(
        found, host, number, where, tls="starttls" if flags & _SSL or always else "none",
        login=(user, None, place) if user else None,
    )  # fmt: skip
    if user:
        found.todo(f"the password of {user} is encrypted by Windows: type it into {name}.pw")
    elif flags & _CLEAR:
        found.todo(f"{action[1].whole}: it logged in, but no user name is told; write username and password_file")
    found.routes.append(Route((name,), where=where))
    if given.get("smarthosttype", [("2", where)])[0][0] == "1":
        found.note(
            "routes", given["smarthosttype"][0][1], "it tried direct delivery first", "gateway uses the smart host"
        )
