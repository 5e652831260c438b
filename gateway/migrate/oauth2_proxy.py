"""The emailproxy.config of Email OAuth 2.0 Proxy (github.com/simonrob/email-oauth2-proxy)."""

from __future__ import annotations

import configparser
import json
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from gateway.migrate.found import BadSource, Found, Where
from gateway.migrate.shapes import absolute, port_of, put_listener
from gateway.migrate.sources import Source

_SERVER = re.compile(r"(IMAP|POP|SMTP)-([0-9]+)", re.IGNORECASE)
_APART = {"email oauth 2.0 proxy configuration file", "server setup", "account setup", "advanced proxy configuration",
          "emailproxy"}  # fmt: skip


def read_oauth2_proxy(source: Source) -> Found:
    """Raises BadSource."""
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    try:
        parser.read_string(source.text, source.name)
    except configparser.Error as error:
        line = getattr(error, "lineno", None) or (getattr(error, "errors", None) or [(0, "")])[0][0]
        text = type(error).__name__.removesuffix("Error")
        raise BadSource(f"{source.name}:{line or 1}: not an INI file: {text}") from None
    found, lines = Found("Email OAuth 2.0 Proxy"), _places(source)
    accounts = [name for name in parser.sections() if "@" in name]
    for name in parser.sections():
        where = Where(source.name, lines.get(name, 0), f"[{name}]")
        if server := _SERVER.fullmatch(name):
            _server(found, server, parser[name], where, source)
        elif name in accounts:
            _account(found, name, parser[name], where, source)
        elif name.lower() not in _APART:
            found.unread.append(f"[{name}]")
    if not accounts:
        found.todo("no account was found; write backends yourself: docs/microsoft365.md, docs/gmail.md")
    return found


def _places(source: Source) -> dict[str, int]:
    heads = ((number, re.match(r"\[(.+)\]", line)) for number, line in enumerate(source.lines(), 1))
    return {head[1]: number for number, head in heads if head}


def _server(
    found: Found, server: re.Match[str], given: Mapping[str, str], where: Where, source: Source
) -> None:  # fmt: skip
    if server[1].upper() != "SMTP":
        what = f"it also let programs read mail ({server[1].upper()})"
        found.note("listeners", where, what, "gateway only sends: keep theirs for that")
        return
    files = [given.get(f"local_{name}_path") for name in ("certificate", "key")]
    pair = [(absolute(file, source.folder), where) for file in files if file]
    starttls = given.get("local_starttls", "").lower() in ("true", "yes", "on", "1")
    host = given.get("local_address") or "0.0.0.0"  # noqa: S104 - as theirs did
    put_listener(
        found, "smtp", "127.0.0.1" if host == "localhost" else host.strip("[]"), port_of(server[2], where), where,
        tls="none" if len(pair) < 2 else "starttls" if starttls else "implicit", auth="required",
        certificate=pair[0] if len(pair) == 2 else None, key=pair[1] if len(pair) == 2 else None,
    )  # fmt: skip
    if len(pair) < 2 and not host.startswith(("127.", "localhost", "::1")):
        what = "it took passwords over a clear line from everywhere"
        found.note("listeners", where, what, "here only from the networks of the client that logs in: give it networks")


def _account(found: Found, name: str, given: Mapping[str, str], where: Where, source: Source) -> None:
    """A way out for the account, and a client that may send as it and by it only."""
    flow, host = given.get("oauth2_flow", ""), urlsplit(_url(given.get("token_url", ""))).hostname or ""
    catch_all = name.startswith("@")
    backend = found.name("backends", name.strip("@"))
    if re.search(r"(microsoftonline|microsoft|windows)\.", host):
        _microsoft(found, backend, name, flow, given, where)
    elif host.endswith("googleapis.com") or host.endswith("google.com"):
        _google(found, backend, name, flow, given, where)
    else:
        what = f"accounts at {host or 'an unknown provider'} have no type of their own here"
        instead = "a backend of type smtp with an app password, or auth: xoauth2 with a token_file"
        found.note("backends", where, what, instead)
        found.todo(f"{where.whole}: write a backend of type smtp for it")
        return
    if catch_all:
        what = "everybody at this domain could log in, with any password"
        found.note("clients", where, what, "gateway password mint NAME --sender ADDRESS for each who may")
        found.todo(f"{where.whole}: name who may send: gateway password mint NAME --sender ADDRESS")
        return
    client = found.name("clients", name)
    found.put(f"clients.{client}.user", name, where)
    found.put(f"clients.{client}.password_hash_file", f"{client}.hash", where, "gateway password mint")
    found.secret(f"{client}.hash", None, f"the hash that gateway password mint {client} prints", where)
    found.put(f"clients.{client}.senders", (name,), where)
    found.put(f"clients.{client}.backend", backend)
    found.todo(f"type the new password of {name} into its programs and devices; theirs took any and kept none")


def _url(text: str) -> str:
    return text if re.fullmatch(r"[\x21-\x7e]*", text.replace("*** your tenant id here ***", "TENANT")) else ""


def _mailbox(found: Found, backend: str, name: str, preset: str, where: Where) -> None:
    found.put(f"backends.{backend}.type", "smtp")
    found.put(f"backends.{backend}.preset", preset, where)
    found.put(f"backends.{backend}.mailbox", "sender" if name.startswith("@") else name, where)
    found.put(f"backends.{backend}.senders", (f"*{name}" if name.startswith("@") else name,), where)


def _microsoft(found: Found, backend: str, name: str, flow: str, given: Mapping[str, str], where: Where) -> None:
    """By SMTP with tokens, as theirs did: the rights that the app has are enough."""
    _mailbox(found, backend, name, "office365", where)
    url = urlsplit(_url(given.get("token_url", "")))
    tokens: dict[str, str | int] = {"tenant": url.path.strip("/").partition("/")[0]}
    tokens["client_id"] = given.get("client_id", "")
    if name.lower().endswith(("@outlook.com", "@hotmail.com", "@live.com")):
        found.put(f"backends.{backend}.host", "smtp-mail.outlook.com", where)
    if (url.hostname or "").endswith((".us", ".cn")):
        tokens["cloud"] = "usgov" if (url.hostname or "").endswith(".us") else "china"
    if flow == "client_credentials" and given.get("jwt_certificate_path"):
        tokens["certificate_file"] = given["jwt_certificate_path"]
        tokens["private_key_file"] = given.get("jwt_key_path", "")
    elif flow == "client_credentials":
        tokens["client_secret_file"] = f"{backend}.secret"
        found.secret(f"{backend}.secret", _real(given.get("client_secret")), f"the client secret for {name}", where)
    else:
        tokens["device_login"] = "true"
        found.todo(f"sign in for {name}: gateway auth microsoft --backend {backend} (its tokens cannot be taken over)")
    found.put(f"backends.{backend}.microsoft", tokens, where)


def _google(found: Found, backend: str, name: str, flow: str, given: Mapping[str, str], where: Where) -> None:
    _mailbox(found, backend, name, "gmail", where)
    secret, file = _real(given.get("client_secret")), f"{backend}.json"
    if flow == "service_account" and given.get("client_id") == "file" and secret:
        found.put(f"backends.{backend}.google", {"service_account_file": secret}, where)
    elif flow == "service_account":
        found.put(f"backends.{backend}.google", {"service_account_file": file}, where)
        key = secret if secret and _is_json(secret) else None
        found.secret(file, key, f"the service account key for {name}", where)
    else:
        found.put(f"backends.{backend}.google", {"authorized_user_file": file}, where)
        found.secret(file, None, f"the sign-in of {name}, which gateway auth google --smtp makes", where)


def _real(text: str | None) -> str | None:
    """Not what stands in their example."""
    return None if not text or text.startswith("***") else text


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
