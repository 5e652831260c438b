"""Pure decisions: who may send what to whom, and whether bounces get through. No I/O, no clock.

Every refusal names what was refused and the setting that allows it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from gateway.address import NOT, blocked_by, takes, takes_any
from gateway.config.models import BounceSettings
from gateway.model import Client, Refusal
from gateway.routing import Freight, Routing

_ROUTE = re.compile("[%!@]")  # Postfix resolve.c: RESOLVE_FLAG_ROUTED
_DOMAIN = re.compile(r"\*@(?!\*\Z)")  # a pattern for everybody of certain domains
_ANY = ("*",)
BOUNCES = "gateway"  # the client name that our own bounces are routed and shown under
_ANYBODY = "noreply@example.com"


def allowed(groups: Sequence[Sequence[str]], address: str) -> bool:
    """Every group (settings, token claim) must have a matching pattern; no group allows any address."""
    return _denied_by(groups, address) < 0


def _denied_by(groups: Sequence[Sequence[str]], address: str) -> int:
    """The number of the first group without a matching pattern; -1 when there is none."""
    for number, group in enumerate(groups):
        if group != _ANY and not takes_any(group) and not takes(group, address):
            return number
    return -1


def anybody(groups: Sequence[Sequence[str]]) -> bool:
    """Whether every group lets any address pass."""
    for group in groups:  # noqa: SIM110 - asked for each message, several times: half the time of all()
        if group != _ANY and not takes_any(group):
            return False
    return True


def check_sender(client: Client, mail_from: str, header_from: Sequence[str], *, plain: bool = True) -> None:
    """Envelope sender and every header From address must be allowed; the null sender is nobody's address.

    Raises Refusal 553 5.7.1. A From without any address is refused where senders are restricted: readers would
    see a name that nobody checked; so where there is no From field at all, pass what will be written into it.
    ``plain`` says that no reader can find other addresses in From and Sender than those given.
    """
    if anybody(client.senders):
        return
    for address in filter(None, (mail_from, *header_from)):
        if (number := _denied_by(client.senders, address)) >= 0:
            raise _sender_denied(client, f"<{address}>: sender not allowed", _sender_fix(client, number, address))
    if not any(header_from):
        raise _sender_denied(client, "From: no address in the header", f"clients.{client.name}.senders needs one")
    if not plain:
        raise _sender_denied(client, "From or Sender: not one plain address per entry", "write Name <user@example.com>")


def _sender_denied(client: Client, what: str, fix: str) -> Refusal:
    return Refusal(553, "5.7.1", f'{what} for client "{client.name}"; {fix}', "sender_denied")


def _sender_fix(client: Client, number: int, address: str) -> str:
    """What would help depends on who says no: the settings are the first group, what a login brings follows."""
    group = client.senders[number]
    if pattern := blocked_by(group, address):
        return f"{'the token' if number else f'clients.{client.name}.senders'} blocks it by {pattern}"
    if number and client.secret:
        return f"this login is for {group[0]} only"
    if number:
        return f"the token allows only {_some(group)}, so it takes another token"
    if not group:
        return f"the token has no address for clients.{client.name}.senders (claim email or sub)"
    return f"add it to clients.{client.name}.senders"


def check_recipient(client: Client, address: str) -> None:
    """Raises Refusal 550 5.7.1 for a recipient that the client may not send to.

    A local part with %, ! or @ asks its host to pass the mail on to somewhere else, and who may send to a domain may
    not for that reason send by it. As for Postfix, whatever we make of these characters, the next host may obey them;
    only a pattern for everything (beside which nothing is blocked), or the very address, allows it.
    """
    groups: Sequence[Sequence[str]] = client.recipients
    if anybody(groups):
        return
    setting = f"clients.{client.name}.recipients"
    if routed := _ROUTE.search(address.rpartition("@")[0]):
        groups = [_unrouted(group) for group in groups]
    if (number := _denied_by(groups, address)) < 0:
        return
    if routed and _denied_by(client.recipients, address) < 0:
        why = f'"{routed[0]}" asks the host to pass it on; write the address itself into {setting}'
    elif pattern := blocked_by(client.recipients[number], address):
        why = f"{'the token' if number else setting} blocks it by {pattern}"
    else:
        why = f"the token allows only {_some(client.recipients[number])}" if number else setting
    text = f'<{address}>: recipient not allowed for client "{client.name}" ({why})'
    raise Refusal(550, "5.7.1", text, "recipient_denied")


def _unrouted(group: Sequence[str]) -> list[str]:
    """Without the patterns that stand for whole domains, and for all of them where some are blocked."""
    some = any(one[:1] == NOT for one in group)
    return [one for one in group if not _DOMAIN.match(one) and not (some and one in ("*", "*@*"))]


def _some(patterns: Sequence[str]) -> str:
    return ", ".join(patterns[:3]) + " ..." * (len(patterns) > 3) or "nobody"


def bounce_senders(bounces: BounceSettings) -> tuple[str, ...]:
    """Envelope senders of a bounce in the order in which they are tried: the null sender, then our own address."""
    null = () if bounces.mode == "notice" else ("",)
    return (*null, *((bounces.sender,) if bounces.sender and bounces.mode != "dsn" else ()))


def bounce_freight(bounces: BounceSettings, hostname: str, sender: str, size: int, *, smtputf8: bool) -> Freight:
    """What a bounce of ours is to the routes. Under an ordinary sender it is one more mail with a report in it."""
    return Freight(
        client=BOUNCES,
        sender=sender,
        size=size,
        pin=bounces.backend or "",
        smtputf8=smtputf8,
        authors=(bounce_author(bounces, hostname),),
        features={} if sender else {"report": ""},
    )


def bounce_author(bounces: BounceSettings, hostname: str) -> str:
    """Who stands in From of a bounce."""
    return bounces.sender or f"postmaster@{hostname}"


def no_bounces(bounces: BounceSettings, hostname: str, routing: Routing) -> str:
    """Why senders would not hear of mail that fails, by the routes that a bounce takes, and the line that helps.

    "" where they would.
    """
    if bounces.mode == "off" or any(map(all, by_sender := _reached(bounces, hostname, routing))):
        return ""
    if any(map(any, by_sender)):
        why = "not every sender has a route to a backend that could send a bounce"
    elif bounces.sender and bounces.mode != "dsn":
        why = f"no backend that a route or bounces.backend leads to sends as bounces.from {bounces.sender}"
    elif bounces.mode == "notice":
        why = "bounces.mode is notice without bounces.from"
    else:
        why = "no backend that a route or bounces.backend leads to can send with the null sender"
    return f"senders would not hear of mail that fails: {why}; write {_would_help(bounces, hostname, routing)}"


def _reached(bounces: BounceSettings, hostname: str, routing: Routing) -> list[list[tuple[str, ...]]]:
    """For each sender that a bounce may have, the backends of each route that could send it."""
    freights = (bounce_freight(bounces, hostname, one, 1, smtputf8=False) for one in bounce_senders(bounces))
    return [list(routing.reachable(one)) for one in freights]


def _would_help(bounces: BounceSettings, hostname: str, routing: Routing) -> str:
    """The line to paste: with an address that a backend here sends as, or one that takes the null sender."""
    known = [pattern for able in routing.capabilities.values() for pattern in able.senders]
    own = [one.replace("*@", "postmaster@") for one in known if "*" not in one.removeprefix("*@") and "{" not in one]
    tries = [({"sender": one}, f"bounces: {{from: {one}}}") for one in dict.fromkeys(own)]
    anybody = (
        {"sender": _ANYBODY},
        f"bounces: {{from: {_ANYBODY}}}, with an address that your provider lets you send as",
    )
    tries += [anybody, *(({"backend": name}, f"bounces: {{backend: {name}}}") for name in routing.capabilities)]
    for change, line in tries:
        better = BounceSettings(mode="auto").model_copy(update=change)
        if any(map(all, _reached(better, hostname, routing))):
            return line
    return 'bounces: {mode: "off"} if that is meant, or a last route to an smtp backend'
