"""Who may send, and where mail comes in: the clients and listeners that answers make."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.setup_ask import Asker, bind, file_there, name_of_client, networks
from gateway.setup.composing import LOCAL, LOCALHOST, free_name, taken

if TYPE_CHECKING:
    from gateway.cli.setup_given import Given


@dataclass(frozen=True, slots=True)
class People:
    """``reach``: somebody who is not this machine sends. ``files`` beside the settings, by name."""

    clients: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    reach: bool = False


def people(given: Given, asker: Asker, sender: str, *, only: bool, old: str | None) -> People:
    """``only``: the provider takes nothing but this sender, so that others are rewritten to it."""
    text = asker.take(
        "--network", " ".join(given.networks) if given.networks else None,
        "Which networks may send without a login, beside this machine (such as 192.0.2.0/24; empty: none)", networks,
        default="",
    )  # fmt: skip
    there = taken(old or "", "clients")
    as_sender: dict[str, Any] = {}
    if sender:
        as_sender["senders"] = [sender if only else f"*@{sender.partition('@')[2]}"]
        as_sender["rewrite_sender"] = {"to": sender, "when": "not_allowed"}
    found: dict[str, Mapping[str, Any]] = {}
    if old is None and as_sender:  # nobody who sends today is to be kept from it
        found["localhost"] = {**LOCALHOST, **as_sender}
    if text:
        found[free_name("lan", there)] = {"networks": text.split(), **as_sender}
    if not given.login:
        return People(found, reach=bool(text))
    return _with_login(given, asker, found, text.split(), as_sender, there)


def _with_login(
    given: Given, asker: Asker, found: dict[str, Mapping[str, Any]], where: list[str], as_sender: Mapping[str, Any],
    there: tuple[str, ...],
) -> People:  # fmt: skip
    from gateway import auth

    name = asker.take("--login", given.login, "", name_of_client)
    if name in there or name in found:
        raise click.BadParameter(f"there is a client {name} already", param_hint="--login")
    if not where and not given.tls_certificate:
        raise click.UsageError("a login needs TLS (--tls-certificate), or networks that it comes from (--network)")
    made = auth.new_password()
    hashed = auth.hash_password(made, secrets.token_bytes(16))
    limits = {"networks": where} if where else {}
    found[name] = {"password_hash_file": f"{name}.hash", **limits, **as_sender}
    if where and "lan" in found:  # they log in, then
        del found["lan"]
    files = {f"{name}.hash": f"{hashed}\n".encode(), f"{name}.password": f"{made}\n".encode()}
    note = f"type user name {name} and the password in {name}.password into the device, then delete that file"
    return People(found, files, (note,), reach=True)


def doors(given: Given, asker: Asker, old: str | None, *, reach: bool) -> dict[str, Mapping[str, Any]]:
    """Listeners by name. With an old file none need be added."""
    usual = "" if old is not None else _usual(reach=reach)
    text = asker.take(
        "--listen", " ".join(given.binds) if given.binds else None,
        "Where does mail come in (ADDRESS:PORT; 0.0.0.0 is every address)" + (" (empty: as it is)" if old else ""),
        _binds, default=usual,
    )  # fmt: skip
    tls: dict[str, Any] = {}
    if given.tls_certificate:
        tls = {"tls": "starttls", "certificate": file_there(given.tls_certificate)}
        tls |= {"private_key": file_there(given.tls_key)} if given.tls_key else {}
    there, found = taken(old or "", "listeners"), dict[str, Mapping[str, Any]]()
    for one in text.split():
        local = one.startswith(("127.", "localhost:", "[::1]:"))
        name = free_name("local" if local else "lan", (*there, *found))
        found[name] = {"bind": one, **({} if local else tls)}
    return found


def _binds(answer: str) -> str:
    return " ".join(map(bind, answer.replace(",", " ").split()))


def _usual(*, reach: bool) -> str:
    if os.geteuid() != 0:
        return "0.0.0.0:8025" if reach else LOCAL["bind"]
    return "0.0.0.0:25" if reach else "127.0.0.1:25"
