"""SMTP2Graph's config.yml (github.com/SMTP2Graph/SMTP2Graph, config.schema.json)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from gateway.auth.passwords import hash_password
from gateway.config.document import ConfigError, Document, find_place
from gateway.migrate.found import BadSource, Found, Where
from gateway.migrate.shapes import absolute, network_of, port_of, put_listener, put_networks
from gateway.model import Network

_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_UNITS = {"k": 1024, "m": 1024**2}


class _Reader:
    def __init__(self, path: Path, salt: bytes) -> None:
        self.found, self.path, self.salt = Found("SMTP2Graph"), path, salt
        self.document = Document(str(path))
        try:
            self.document.read_file(path)
        except ConfigError as error:
            raise BadSource(str(error)) from None

    def at(self, *keys: str | int) -> Where:
        place = find_place(self.document.places, keys, self.document.place(keys))
        return Where(str(self.path), place.line, ".".join(map(str, keys)))

    def get(self, *keys: str | int) -> Any:
        here: Any = self.document.data
        for key in keys:
            known = isinstance(here, dict) and key in here
            here = here[key] if known or (isinstance(here, list) and isinstance(key, int)) else None
        return here

    def text(self, *keys: str | int) -> str:
        value = self.get(*keys)
        if value is not None and not isinstance(value, str):
            raise self.at(*keys).bad("must be text")
        return value or ""

    def yes(self, *keys: str) -> bool:
        return self.text(*keys).lower() == "true"

    def texts(self, *keys: str | int) -> list[str] | None:
        value = self.get(*keys)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self.at(*keys).bad("must be a list of texts")
        return value


def read_smtp2graph(path: Path, salt: bytes) -> Found:
    """``salt`` is for the hashes of its users' passwords. Raises BadSource."""
    reader = _Reader(path, salt)
    mode = reader.text("mode") or "full"
    if mode != "full":
        what = f"mode {mode}: one half of it ran here"
        reader.found.note("", reader.at("mode"), what, "gateway takes mail and sends it; let it do both")
    if mode != "receive":
        _office(reader)
    _door(reader)
    _clients(reader)
    for name, instead in (
        ("rateLimit", "rate of a client (messages), limits.connections_per_ip"),
        ("authLimit", "wrong passwords are always limited"),
    ):
        if reader.get("receive", name) is not None:
            reader.found.note("clients", reader.at("receive", name), "it limited connections or log-ins", instead)
    return reader.found


def _office(reader: _Reader) -> None:
    found, registration = reader.found, ("send", "appReg")
    tenant = reader.text(*registration, "tenant")
    if tenant and not _GUID.fullmatch(tenant) and "." not in tenant:
        tenant += ".onmicrosoft.com"  # as theirs does
    for key, value, theirs in (("tenant", tenant, "tenant"), ("client_id", reader.text(*registration, "id"), "id")):
        if not value:
            raise reader.at(*registration, theirs).bad("is missing")
        found.put("backends.office.type", "graph")
        found.put(f"backends.office.{key}", value, reader.at(*registration, theirs))
    secret, key_file = (reader.text(*registration, *rest) for rest in (["secret"], ["certificate", "privateKeyPath"]))
    if key_file:
        where = reader.at(*registration, "certificate", "privateKeyPath")
        found.put("backends.office.certificate_file", "graph.crt", where, "the public part, which you gave to Entra")
        found.put("backends.office.private_key_file", absolute(key_file, reader.path.parent), where)
        found.secret(
            "graph.crt", None, "the certificate (PEM) of the app registration: theirs needed only its key", where
        )
    else:
        where = reader.at(*registration, "secret")
        found.put("backends.office.client_secret_file", "graph.secret", where)
        found.secret("graph.secret", secret or None, "the client secret of the app registration", where)
    mailbox, where = reader.text("send", "forceMailbox"), reader.at("send", "forceMailbox")
    found.put("backends.office.mailbox", mailbox or "sender", where if mailbox else None)
    if mailbox:
        allowed = reader.texts("receive", "allowedFrom") or [f"*@{mailbox.rpartition('@')[2]}"]
        found.put("backends.office.senders", tuple(dict.fromkeys([mailbox, *allowed])), where)
    if reader.get("send", "retryLimit") is not None or reader.get("send", "retryInterval") is not None:
        what = "it gave up after a few tries and left mail in a folder"
        found.note("backends", reader.at("send"), what, "gateway tries for 5 days, then bounces; retry: changes that")
    _proxy(reader)
    found.todo("gateway backend check office: the app needs Mail.Send (application), which theirs needed as well")


def _proxy(reader: _Reader) -> None:
    if not (host := reader.text("httpProxy", "host")):
        return
    where, scheme = reader.at("httpProxy", "host"), reader.text("httpProxy", "protocol") or "http"
    port = port_of(reader.text("httpProxy", "port"), reader.at("httpProxy", "port"))
    if user := reader.text("httpProxy", "username"):
        text = f"{scheme}://{user}:{reader.text('httpProxy', 'password')}@{host}:{port}"
        reader.found.put("backends.office.proxy_file", "proxy.url", where)
        reader.found.secret("proxy.url", text, "the proxy with its password", where)
    else:
        reader.found.put("backends.office.proxy", f"{scheme}://{host}:{port}", where)


def _door(reader: _Reader) -> None:
    files = [reader.text("receive", name) for name in ("tlsCertPath", "tlsKeyPath")]
    pair = [(absolute(file, reader.path.parent), reader.at("receive")) for file in files if file]
    tls = "implicit" if reader.yes("receive", "secure") else "starttls" if len(pair) == 2 else "none"
    auth = "required" if reader.yes("receive", "requireAuth") else "optional" if _users(reader) else "off"
    where = reader.at("receive", "port")
    put_listener(
        reader.found, "smtp", reader.text("receive", "listenAddress") or "0.0.0.0",  # noqa: S104 - as theirs did
        port_of(reader.text("receive", "port") or "25", where), where, tls=tls, auth=auth,
        certificate=pair[0] if len(pair) == 2 else None, key=pair[1] if len(pair) == 2 else None,
    )  # fmt: skip
    if size := reader.text("receive", "maxSize"):
        if not (match := re.fullmatch(r"([0-9]{1,6})([km])", size.lower())):
            raise reader.at("receive", "maxSize").bad("must be a number and k or m")
        most = min(int(match[1]) * _UNITS[match[2]], 256_000_000)
        reader.found.put("limits.max_size", most, reader.at("receive", "maxSize"))


def _users(reader: _Reader) -> list[Any]:
    users = reader.get("receive", "users")
    return users if isinstance(users, list) else []


def _clients(reader: _Reader) -> None:
    found, listed = reader.found, reader.texts("receive", "ipWhitelist")
    senders = reader.texts("receive", "allowedFrom")
    networks: list[tuple[Network, Where]] = []
    for index, one in enumerate(listed or ()):
        where = reader.at("receive", "ipWhitelist", index)
        networks.append((network_of(one, where), where))
    if listed is None:
        what = "without ipWhitelist every machine that reached it could send"
        found.note("clients", reader.at("receive"), what, "list the networks of your machines")
        if not _users(reader):
            found.todo("list the networks of your machines in clients: theirs took mail from everybody")
        local = Where(str(reader.path), 0, "this machine")
        networks = [(network_of(one, local), local) for one in ("127.0.0.0/8", "::1")]
    if not reader.yes("receive", "requireAuth"):
        for name in put_networks(found, networks):
            if senders is not None:
                found.put(f"clients.{name}.senders", tuple(senders), reader.at("receive", "allowedFrom"))
    for index, _ in enumerate(_users(reader)):
        _user(reader, index, tuple(str(network) for network, _ in networks) if listed is not None else (), senders)


def _user(reader: _Reader, index: int, networks: tuple[str, ...], senders: list[str] | None) -> None:
    found, keys = reader.found, ("receive", "users", index)
    user, password = reader.text(*keys, "username"), reader.text(*keys, "password")
    where = reader.at(*keys, "username")
    if not user or not password:
        raise reader.at(*keys).bad("a user needs username and password")
    name = found.name("clients", user)
    found.put(f"clients.{name}.user", user, where)
    found.put(f"clients.{name}.password_hash_file", f"{name}.hash", reader.at(*keys, "password"))
    found.secret(f"{name}.hash", hash_password(password, reader.salt), f"the hash of the password of {user}", where)
    if networks:
        found.put(f"clients.{name}.networks", networks, reader.at("receive", "ipWhitelist"), "only from here")
    own = reader.texts(*keys, "allowedFrom")
    if (allowed := senders if own is None else own) is not None:
        found.put(f"clients.{name}.senders", tuple(allowed), reader.at(*keys, "allowedFrom"))
