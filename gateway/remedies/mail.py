"""What a client may send: senders, recipients, sizes, numbers, ways out."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

from gateway.address import blocked_by
from gateway.config.models import RouteSettings
from gateway.config.quotas import QuotaSettings
from gateway.config.values import format_rate, format_size
from gateway.quota import Rate
from gateway.remedies.case import APPLY, Case, Remedy, allows, as_address, paste

_MB = 1_000_000
_WITHIN = 1.1  # times the size that was refused: what the next message of that kind will have


def sender_denied(case: Case) -> Remedy:
    name, client = case.row.client, case.client
    denied = as_address(re.sub(r"^<([^>]*)>.*", r"\1", case.row.text, flags=re.S)) or case.sender
    why = f"{name or 'It'} may not send as {denied or 'what stands in its header'}."
    if client is None:
        return Remedy(why=why, fix="Add the address to the senders of its client.")
    if case.backend:
        return _not_by_backend(case, denied)
    if "the token allows" in case.row.text or "this login is" in case.row.text:
        fix = "Its token says as whom it may send: make one with that sender."
        sub = case.row.user if case.row.user.isprintable() else ""
        command = f"gateway token mint --sub {shlex.quote(sub)} --sender {shlex.quote(denied)}"
        return Remedy(why=why, fix=fix, command=command)
    if not denied or "one plain address" in case.row.text or "no address in" in case.row.text:
        to = case.sender if case.sender and allows(client.senders, case.sender) else _concrete(client.senders)
        fix = "Its From is no plain address. Correct it there, or let the gateway write one into its place."
        tree = case.with_client(name, rewrite_sender={"to": to, "when": "not_allowed"}) if to else {}
        return Remedy(why=why, fix=fix, yaml=paste(tree), command=APPLY if to else "")
    more = [one for one in dict.fromkeys((denied, case.sender)) if one and not allows(client.senders, one)]
    if denied and not more:
        return Remedy(why=why, fix=f"Nothing more: by now {name} may send as {denied}.")
    blocked, senders = _admitting(client.senders, more)
    allowed = ", ".join(client.senders) or "nobody"
    fix = f"{name} may send as {allowed} only: add the address, or let rewrite_sender put one of these in its place."
    return Remedy(
        why=why,
        fix=f'Nothing, if that is meant. Else take "{blocked}" out of its senders.' if blocked else fix,
        yaml=paste(case.with_client(name, senders=senders)),
        command=APPLY,
    )


def _admitting(patterns: Sequence[str], addresses: Sequence[str]) -> tuple[str, list[str]]:
    """What blocks one of these, or "", and the patterns with which they are let in."""
    blocked = [one for one in patterns if any(one == blocked_by([one], address) for address in addresses)]
    left = [one for one in patterns if one not in blocked]
    return "".join(blocked[:1]), left + [one for one in addresses if not allows(left, one)]


def _concrete(patterns: tuple[str, ...]) -> str:
    return next((one for one in patterns if "*" not in one and not one.startswith("!") and as_address(one)), "")


def _not_by_backend(case: Case, denied: str) -> Remedy:
    """Gmail and Microsoft 365 send as their own mailboxes only."""
    own = re.search(r"sends only as (\S+?)[,;]", case.row.text)
    to = _concrete((own[1],)) if own else ""
    tree = case.with_client(case.row.client, rewrite_sender={"to": to, "when": "always"}) if to else {}
    return Remedy(
        why=f"{case.backend} cannot send as {denied}" + (f", only as {own[1]}." if own else "."),
        fix=f"Let the gateway put that sender in; or, if the account may send as {denied}, add it to"
        f" backends.{case.backend}.senders.",
        yaml=paste(tree),
        command=APPLY if to else "",
    )


def recipient_denied(case: Case) -> Remedy:
    name, client, address = case.row.client, case.client, "".join(case.row.recipients[:1])
    why = f"{name or 'It'} may not send to {address or 'this recipient'}."
    if client is None or not as_address(address):
        return Remedy(why=why, fix="Add the address to the recipients of its client.")
    if "the token allows" in case.row.text:
        command = f"gateway token mint --sub {shlex.quote(case.row.user)} --recipient {shlex.quote(address)}"
        return Remedy(why=why, fix="Its token says to whom it may send: make one with that recipient.", command=command)
    if allows(client.recipients, address) and "pass it on" not in case.row.text:
        return Remedy(why=why, fix=f"Nothing more: by now {name} may send to {address}.")
    fix = f"{name} may send to {', '.join(client.recipients) or 'nobody'} only: add the address."
    if "pass it on" in case.row.text:
        fix = "Its name asks the other host to pass it on. If that is meant, list this very address."
    blocked, recipients = _admitting(client.recipients, (address,))
    if blocked:
        fix = f'Nothing, if that is meant. Else take "{blocked}" out of its recipients.'
    tree = case.with_client(
        name, recipients=[*client.recipients, address] if "pass it on" in case.row.text else recipients
    )
    return Remedy(why=why, fix=fix, yaml=paste(tree), command=APPLY)


def rate_limited(case: Case) -> Remedy:
    if case.client and case.client.quota is not None and ".quota)" in case.row.text:
        return _over_quota(case, case.client.quota)
    rate = case.client.rate if case.client else None
    why = f"{case.row.client} sends faster than its rate allows" + (f" ({format_rate(rate)})." if rate else ".")
    if rate is None:
        return Remedy(why=why, fix="Nothing: the client tries again.")
    more = format_rate(Rate(rate.count * 2, rate.period))
    return Remedy(
        why=why,
        fix="If it is no loop, raise the rate. A mail program tries again by itself, a device may not.",
        yaml=paste(case.with_client(case.row.client, rate=more)),
        command=APPLY,
    )


def _over_quota(case: Case, quota: QuotaSettings) -> Remedy:
    name = case.row.client
    more = {
        key: [format_rate(Rate(rate.count * 2, rate.period)) for rate in rates]
        for key, rates in (("messages", quota.messages), ("recipients", quota.recipients)) if rates
    }  # fmt: skip
    kept = {key: value for key, value in (("per", quota.per), ("over", quota.over)) if key in quota.model_fields_set}
    return Remedy(
        why=f"{name} has used up its quota. See what it sends: it may be a loop, or an infected machine.",
        fix="If all of it is wanted, raise the quota, or let it be held instead (over: hold).",
        yaml=paste(case.with_client(name, quota={**more, **kept})),
        command=APPLY,
    )


def too_big(case: Case) -> Remedy:
    size, limits, client = case.row.size, case.settings.limits, case.client
    need = -(-int(size * _WITHIN) // _MB) * _MB
    shown = f"Too big: {size / _MB:.1f} MB" if size else "Too big"
    tree: dict[str, Any] = {}
    asked = []
    if need > limits.max_size:
        asked.append(f"limits.max_size is {format_size(limits.max_size)}")
        tree["limits"] = {"max_size": format_size(need)}
    if client is not None and client.max_size is not None and need > client.max_size:
        asked.append(f"clients.{case.row.client}.max_size is {format_size(client.max_size)}")
        tree |= case.with_client(case.row.client, max_size=format_size(need))
    backend = case.settings.backends.get(case.backend)
    if backend is not None:
        own = backend.max_size
        able = re.search(r"([0-9]{1,12}) (?:octets|bytes)(?: allowed|$|[;,])", case.row.text)
        most = f"{int(able[1]) / _MB:g} MB" if able else "no more"
        asked.append(f"{case.backend} carries " + (f"{format_size(own)} by its max_size" if own else most))
        if own is not None and need > own:
            tree["backends"] = {case.backend: {"max_size": format_size(need)}}
    hint = case.row.text.rpartition("; ")[2] if "; " in case.row.text else ""
    way = f"{hint[:1].upper()}{hint[1:]}." if hint else "Raise that, send smaller attachments, or take another backend."
    paste_it = tree and size
    return Remedy(
        why=f"{shown}, and {'; '.join(asked) or 'more than is allowed here'}.",
        fix=way,
        yaml=paste(tree) if paste_it else "",
        command=APPLY if paste_it else "",
    )


def too_many_recipients(case: Case) -> Remedy:
    limits, client = case.settings.limits, case.client
    own = client.max_recipients if client else None
    most = min(limits.max_recipients, own or limits.max_recipients)
    tree: dict[str, Any] = {}
    if own is not None and own <= most:
        tree |= case.with_client(case.row.client, max_recipients=most * 2)
    if limits.max_recipients < most * 2:
        tree["limits"] = {"max_recipients": most * 2}
    return Remedy(
        why=f"More than {most} recipients in one message. Those before were taken.",
        fix="Mail servers send the rest in a second message by themselves. If this one does not, raise the limit.",
        yaml=paste(tree),
        command=APPLY,
    )


def no_route(case: Case) -> Remedy:
    address = "".join(case.row.recipients[:1]) or "this recipient"
    backends = list(case.settings.backends)
    if "not configured" in case.row.text or not backends:
        fix = f"Write the name of a backend that there is: {', '.join(backends) or 'none yet'}."
        return Remedy(why="A route, a client or a token names a backend that is not configured.", fix=fix)
    last = {"backend": case.settings.routes[0].backend[0] if case.settings.routes else backends[0]}
    routes = [*map(_route, case.settings.routes), last]
    return Remedy(
        why=f"No line of routes is for {address}.",
        fix="Add a last line for all the rest, by the backend that should take it.",
        yaml=paste({"routes": routes}),
        command=APPLY,
    )


def _route(line: RouteSettings) -> dict[str, Any]:
    given = {"clients": line.clients, "senders": line.senders, "recipients": line.recipients}
    backend = line.backend[0] if len(line.backend) == 1 else list(line.backend)
    return {**{name: list(value) for name, value in given.items() if value}, "backend": backend}


def cannot_carry(case: Case) -> Remedy:
    what, _, fix = case.row.text.rpartition("; ")
    smarthost = next((name for name, one in case.settings.backends.items() if one.type == "smtp"), "")
    if "null sender" in case.row.text and smarthost:
        routes = [{"senders": [""], "backend": smarthost}, *map(_route, case.settings.routes)]
        return Remedy(
            why=f"A bounce (its sender is empty) cannot be sent by {case.backend}.",
            fix=f"Let {smarthost} take them, by a first line of routes.",
            yaml=paste({"routes": routes}),
            command=APPLY,
        )
    return Remedy(
        why=f"{(what or case.row.text).strip()[:1].upper()}{(what or case.row.text).strip()[1:]}.",
        fix=f"{fix[:1].upper()}{fix[1:]}." if what else "Let an smtp backend take it, by a line of routes.",
    )


def bad_address(case: Case) -> Remedy:
    why = f"{case.row.text.partition(': ')[2] or case.row.sender or 'It'} is no address."
    local = case.row.sender and "@" not in case.row.sender and case.row.sender.replace("-", "").isalnum()
    if case.client is not None and local and case.row.stage == "mail":
        domain = case.settings.hostname.partition(".")[2] or case.settings.hostname
        tree = case.with_client(case.row.client, default_domain=domain)
        return Remedy(why=why, fix="Complete names without a domain:", yaml=paste(tree), command=APPLY)
    name = case.row.text.rpartition(": ")[2].strip("<> ")
    if case.client is not None and case.row.stage == "rcpt" and name.replace("-", "").isalnum():
        domain = case.settings.hostname.partition(".")[2] or "example.com"
        known: dict[str, object] = {one: list(targets) for one, targets in case.settings.aliases.items()}
        tree = {"aliases": {**known, name: f"postmaster@{domain}"}}
        why = f"{name} has no domain, and nobody has said whose mailbox that is."
        return Remedy(why=why, fix="Say whose it is:", yaml=paste(tree), command=APPLY)
    return Remedy(why=why, fix="Correct it at the device, or let rewrite_sender put a sender in.")


def utf8_address(case: Case) -> Remedy:
    fix = "Use an address in ASCII, or a program that speaks SMTPUTF8."
    return Remedy(why="The address has characters beyond ASCII, and the client did not ask for SMTPUTF8.", fix=fix)
