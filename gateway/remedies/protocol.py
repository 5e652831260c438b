"""How a client speaks: connections, TLS, commands, line ends; and what is our own trouble."""

from __future__ import annotations

from collections.abc import Callable

from gateway.remedies.case import APPLY, Case, Remedy, paste

_DEVICES = "docs/devices.md tells more."


def plain(why: str, fix: str, command: str = "") -> Callable[[Case], Remedy]:
    """The same for everybody."""
    return lambda case: Remedy(why=why, fix=fix, command=command)


def _tolerating(case: Case, word: str, why: str) -> Remedy:
    listener = case.listener
    if listener is None or word in listener.tolerate:
        return Remedy(why=why, fix=f"Correct the program. {_DEVICES}")
    fix = f"Correct the program, or let {case.row.listener} tolerate it; better on a listener for such devices only."
    tree = {"listeners": {case.row.listener: {"tolerate": [*listener.tolerate, word]}}}
    return Remedy(why=why, fix=fix, yaml=paste(tree), command=APPLY)


def bad_newlines(case: Case) -> Remedy:
    return _tolerating(case, "bare_newlines", "Its lines end with CR or LF alone, not with both.")


def line_too_long(case: Case) -> Remedy:
    if case.row.stage != "data":
        why = "It sent a command of more than 2,000 characters."
        return Remedy(why=why, fix="This is no mail program, or it is broken.")
    return _tolerating(case, "long_lines", f"{case.row.text}.")


def bad_message(case: Case) -> Remedy:
    if "no header" in case.row.text:
        return _tolerating(case, "missing_headers", "Its message has no header.")
    return Remedy(why=f"{case.row.text}.", fix="Correct the program that writes it.")


def bad_sequence(case: Case) -> Remedy:
    if "EHLO" in case.row.text and case.row.stage == "mail":
        return _tolerating(case, "missing_helo", "It sends mail without saying hello first (EHLO).")
    why = f"It sent commands in a wrong order: {case.row.text}."
    return Remedy(why=why, fix="An earlier refusal is often the cause: look for one of the same address just before.")


def bad_syntax(case: Case) -> Remedy:
    return Remedy(why=f"A command was not understood: {case.row.text}.", fix=f"Correct the program. {_DEVICES}")


def tls_failed(case: Case) -> Remedy:
    why = f"The TLS handshake failed: {case.row.detail or 'for an unknown cause'}."
    listener = case.listener
    if listener is not None and 'min_tls: "1.0"' in case.row.detail and listener.min_tls != "1.0":
        tree = {"listeners": {case.row.listener: {"min_tls": "1.0"}}}
        fix = "Update the device. If it cannot be, allow old TLS; better on a listener for such devices only."
        return Remedy(why=why, fix=fix, yaml=paste(tree), command=APPLY)
    return Remedy(why=why, fix="Do as that says; openssl s_client -connect HOST:PORT shows what is offered.")


def proxy_header(case: Case) -> Remedy:
    setting = f"listeners.{case.row.listener}.proxy_protocol_from"
    if case.row.stage != "connect":
        return Remedy(
            why=f"{case.peer} speaks the PROXY protocol, and is not listed for that.",
            fix=f"If it is your load balancer, add its address to {setting}. If not, this is no mail program.",
        )
    return Remedy(
        why=f"{case.peer} is listed as a load balancer, and its header is wrong: {case.row.detail}.",
        fix="Let it send one (HAProxy: send-proxy-v2 behind the server; nginx: proxy_protocol on), or take the address "
        f"out of {setting}.",
    )


def too_many_connections(case: Case) -> Remedy:
    limits, client = case.settings.limits, case.client
    if client is not None and client.connections is not None and ".connections) open" in case.row.text:
        return Remedy(
            why=f"{case.row.client} has all its connections open ({client.connections}).",
            fix="If that is right so, raise the number; else find out what holds them open. It tries again by itself.",
            yaml=paste(case.with_client(case.row.client, connections=client.connections * 2)),
            command=APPLY,
        )
    if "address" in case.row.text:
        name, most, why = (
            "connections_per_ip",
            limits.connections_per_ip,
            f"{case.peer} has too many connections at once",
        )
    else:
        name, most, why = "connections", limits.connections, "Too many connections are open at once"
    tree = {"limits": {name: most * 2}}
    fix = "If that is right so, raise the limit; else find out what holds them open."
    return Remedy(why=f"{why} (limits.{name} is {most}).", fix=fix, yaml=paste(tree), command=APPLY)


def busy(case: Case) -> Remedy:
    if case.row.stage == "auth":
        return Remedy(why="Too many passwords are looked at just now.", fix="Nothing: it tries again.")
    memory = case.settings.limits.memory
    tree = {"limits": {"memory": f"{memory * 2 // 1_000_000}MB"}}
    fix = "Nothing, clients try again. If it happens often, and there is memory, allow more."
    return Remedy(why="Too much mail came at one moment for limits.memory.", fix=fix, yaml=paste(tree), command=APPLY)
