"""Who may come: addresses that nobody has listed, logins that are not accepted, tokens."""

from __future__ import annotations

import shlex
from typing import Any

from gateway.config.models import users
from gateway.likeness import closest
from gateway.remedies.case import APPLY, Case, Remedy, allows, as_name, host, paste

_INTERNET = "Strangers on the Internet try this all day: do so only if it is one of yours. "


def relay_denied(case: Case) -> Remedy:
    return _listed(case, f"Nobody by the address {case.peer} may send here.", "If it is one of yours, add its address")


def auth_required(case: Case) -> Remedy:
    why = f"{case.peer} has to log in here, and did not."
    return _listed(case, why, "Give the device a user name and password (gateway password mint), or add its address")


def tls_required(case: Case) -> Remedy:
    why = f"{case.peer} has to log in, and may not do so without TLS."
    way = "Switch TLS (STARTTLS) on at the device. If it has none, add its address"
    if case.listener is not None and case.listener.tls == "none":
        way = f"Let it use a listener with TLS, for {case.row.listener} has none; or add its address"
    return _listed(case, why, way)


def _unnamed(case: Case) -> Remedy:
    return Remedy(
        why=f"The load balancer {case.peer} did not say whose connection this was.",
        fix="See that it sends the client's address in the PROXY protocol. Its own address is nobody's: add it to no "
        "client. A program on that machine logs in, or connects by the balancer as others do.",
    )


def _listed(case: Case, why: str, way: str) -> Remedy:
    """With the address among a client's networks; beside those that are there, if one is near."""
    if case.by_proxy:
        return _unnamed(case)
    required = case.listener is not None and case.listener.auth == "required"
    if case.row.peer and not required and (now := case.listed()):
        return Remedy(why=why, fix=f"Nothing more: by now {case.peer} belongs to client {now}.")
    near = case.nearest() if not case.stranger else None
    tree: dict[str, Any]
    if near is None:
        more = {"senders": [case.sender]} if case.sender else {}
        tree, text = case.with_client(case.new_name(), networks=[host(case.peer)], **more), f"{way} to a new client"
    else:
        name, network, wide = near
        client = case.settings.clients[name]
        one_bit = wide.prefixlen == network.prefixlen - 1
        networks = [str(wide) if one_bit and one == network else str(one) for one in client.networks]
        changes: dict[str, Any] = {"networks": networks if one_bit else [*networks, host(case.peer)]}
        if case.sender and client.rewrite_sender is None and not allows(client.senders, case.sender):
            changes["senders"] = [*client.senders, case.sender]
        tree = case.with_client(name, **changes)
        text = f"{way} to a client: {name} holds {network}, which ends at {network.broadcast_address}"
        text = text if network.num_addresses > 1 else f"{way} to a client: {name} holds {network.network_address}"
    if required:
        tree["listeners"] = {case.row.listener: {"auth": "optional"}}
        text += f"; and let {case.row.listener} take mail without a login (now auth: required)"
    return Remedy(why=why, fix=f"{_INTERNET * case.stranger}{text}.", yaml=paste(tree), command=APPLY)


# -- logins ------------------------------------------------------------------------------------------------------------


def auth_failed(case: Case) -> Remedy:
    user, name = case.row.user, case.user_client
    if name:
        return Remedy(
            why=f"The password for {user} is wrong.",
            fix=f"Type it again at the device, or make a new one: put its hash into clients.{name}.password_hash.",
            command=f"gateway password mint {name}",
        )
    if user in case.settings.clients or user == "jwt":
        fix = "It logs in with a token, and what came is none: paste the whole token, or give it a password."
        return Remedy(why=f"{user} has no password here.", fix=fix, command=f"gateway password mint {as_name(user)}")
    names = [one for one, _ in users(case.settings.clients)]
    close = closest(user, names)
    meant = f" Did you mean {close}?" if close else f" There are {', '.join(names)}." if names else ""
    return Remedy(
        why=f"No client has the user name {user}." if user else "The login was not understood.",
        fix=f"{_INTERNET * case.stranger}Correct the name at the device, or make a client of that name.{meant}",
        command=f"gateway password mint {as_name(user.casefold())}",
    )


def too_many_failures(case: Case) -> Remedy:
    return Remedy(
        why=f"Ten different wrong passwords for {case.row.user or 'one user name'} came from {case.peer}.",
        fix="Wait 30 seconds for each, and correct the password at the device. Nobody else is slowed down by it.",
    )


def auth_unavailable(case: Case) -> Remedy:
    urls = ", ".join(str(key.jwks_url) for key in case.settings.auth.keys.values() if key.jwks_url)
    fix = f"See that this machine reaches {urls}." if urls else "It is tried again by itself."
    return Remedy(why="Whether the login is good could not be found out: its issuer gave no answer.", fix=fix)


def wrong_user(case: Case) -> Remedy:
    fix = f"Set the user name at the device to jwt ({case.row.detail.rpartition('; ')[2]})."
    return Remedy(why=f"The token is good, but not under the user name {case.row.user}.", fix=fix)


def wrong_network(case: Case) -> Remedy:
    client, sub = case.client, case.token.get("sub", "")
    why = f"The login is good, but not from {case.peer}."
    if client is None or "own networks" in case.row.detail:
        more = f"gateway token mint --sub {shlex.quote(sub)} --network {case.peer}" if sub else ""
        return Remedy(why=why, fix="The token says where it may be used: make one that is good there.", command=more)
    tree = case.with_client(case.row.client, networks=[*map(str, client.networks), host(case.peer)])
    fix = f"Add the address to the networks of {case.row.client}."
    return Remedy(why=why, fix=fix, yaml=paste(tree), command=APPLY)


def unknown_client(case: Case) -> Remedy:
    sub = case.token.get("sub", "")
    why = f"The token is good, but no client takes its subject {sub}."
    if not sub:
        return Remedy(why=why, fix='Give a client token: SUBJECT, or token: "*" for any.')
    return Remedy(
        why=why,
        fix="Make a client for it.",
        yaml=paste(case.with_client(case.new_name(sub), token=sub)),
        command=APPLY,
    )


# -- tokens ------------------------------------------------------------------------------------------------------------


def token_malformed(case: Case) -> Remedy:
    length, name = case.token.get("length", ""), as_name(case.row.user.casefold(), "device")
    if "lines" in case.row.text:
        fix = "Its base64 belongs on one line: switch line wraps off where it is made."
        return Remedy(why="The login was cut into lines.", fix=fix)
    cut = f"The token was cut off after {length} characters." if length else "What was given begins like a token."
    fix = "Many devices keep no more than 128 characters. Give this one a short password instead."
    return Remedy(why=cut, fix=fix, command=f"gateway password mint {'device' if name == 'jwt' else name}")


def token_signature(case: Case) -> Remedy:
    length = case.token.get("length", "")
    shown = f" ({length} characters)" if length else ""
    return Remedy(
        why=f"The token was signed by somebody else, or its end was cut off{shown}.",
        fix="Compare its length with the original; else make a new one, or correct the key or secret on both sides.",
        command=_mint(case),
    )


def _mint(case: Case) -> str:
    return f"gateway token mint --sub {shlex.quote(case.token.get('sub', '')) if case.token.get('sub') else 'NAME'}"


def _which(case: Case) -> str:
    found = case.token
    named = [f"{word} {found[key]}" for key, word in (("jti", "id"), ("sub", "subject")) if key in found]
    return f"The token ({', '.join(named)})" if named else "The token"


def _said(case: Case) -> str:
    """What is wrong with the token, in the words of the check."""
    parts = [part for part in case.row.detail.split("; ") if not part.startswith(("jti ", "sub "))]
    return f": {parts[0]}" if parts and parts[0] and not parts[0].endswith(" characters") else ""


def token_expired(case: Case) -> Remedy:
    if "settings" in case.row.text:
        return Remedy(why="The settings of clients changed while it was logged in.", fix="Nothing: it logs in again.")
    if case.row.stage == "mail":
        why = "Its login ended while it was connected: the token ran out or was revoked, or a key or password changed."
        return Remedy(why=why, fix="It has to log in again with what is good now.", command=_mint(case))
    return Remedy(
        why=f"{_which(case)} is too old{_said(case)}.",
        fix="Make a new one and paste it at the device; if every token is refused, look at the clock.",
        command=_mint(case),
    )


def token_not_yet(case: Case) -> Remedy:
    fix = "Set the clocks of this machine and of whoever made the token: timedatectl, chronyc tracking."
    return Remedy(why=f"{_which(case)} is not good yet{_said(case)}.", fix=fix)


def token_revoked(case: Case) -> Remedy:
    return Remedy(
        why=f"{_which(case)} was revoked here.",
        fix="If that was right, find out who still uses it; else make a new one.",
        command=_mint(case),
    )


def token_unknown_key(case: Case) -> Remedy:
    keys = ", ".join(case.settings.auth.keys)
    return Remedy(
        why=f"{_which(case)} is by no issuer and algorithm that is known here.",
        fix=f"Add its issuer's key to auth.keys (there: {keys}); gateway token inspect tells what it says.",
        command="gateway token inspect",
    )


def token_claims(case: Case) -> Remedy:
    return Remedy(
        why=f"{_which(case)} does not say what it must{_said(case)}.",
        fix="Correct what the issuer puts in: sub and exp, and claims of the right kind.",
        command="gateway token inspect",
    )


def token_audience(case: Case) -> Remedy:
    return Remedy(
        why=f"{_which(case)} is for somebody else{_said(case)}.",
        fix="Set audience on its key in auth.keys to what the issuer writes into aud, if it is meant for this gateway.",
        command="gateway token inspect",
    )
