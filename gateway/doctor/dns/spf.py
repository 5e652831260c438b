"""Reads a domain's SPF record with all that it includes (RFC 7208), to see whom it lets send."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from gateway.doctor.dns.resolver import Resolver

MOST = 10  # look-ups (4.6.4)
_VOID = 2  # names that lead nowhere (4.6.4)
_TERM = re.compile(r"([+\-~?]?)([a-z][a-z0-9_.-]*)(?:([:=/])(.*))?$", re.IGNORECASE)
_LOOKS = ("include", "a", "mx", "ptr", "exists")


@dataclass(slots=True)
class Policy:
    """What a record comes to. ``names`` are those it lets send by include and redirect, ``networks`` the addresses.

    ``others`` is what becomes of everybody else: "-", "~", "?", "+" or "" where nothing is said. ``unclear``: parts
    that depend on the message. ``faults`` make it worthless.
    """

    record: str
    lookups: int = 0
    voids: int = 0
    others: str = ""
    names: set[str] = field(default_factory=set)
    networks: list[IPv4Network | IPv6Network] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def allows(self, address: str) -> bool:
        one = ip_address(address)
        return any(one in network for network in self.networks)


def records(texts: tuple[str, ...]) -> list[str]:
    """Those that are SPF (4.5)."""
    return [text for text in texts if re.match(r"v=spf1(?= |$)", text, re.IGNORECASE)]


async def read(domain: str, record: str, resolver: Resolver) -> Policy:
    """Raises Silent."""
    policy = Policy(record)
    await _terms(domain, record, policy, resolver, top=True, allows=True, above=(domain,))
    if policy.voids > _VOID:
        policy.faults.append(f"{policy.voids} of its parts lead to names that have nothing, 2 may")
    return policy


async def _terms(
    domain: str, record: str, policy: Policy, resolver: Resolver, *, top: bool, allows: bool, above: tuple[str, ...]
) -> None:
    """``top``: what it says of all others counts. ``allows``: what passes here passes in the end."""
    redirect, ended = "", False
    for text in record.split()[1:]:
        if policy.lookups > 2 * MOST or ended:
            break
        if (found := _TERM.match(text)) is None:
            policy.faults.append(f'"{text}" is no part of SPF')
            continue
        sign, name, mark, argument = found[1] or "+", found[2].lower(), found[3] or "", found[4] or ""
        if mark == "=":
            redirect = argument if name == "redirect" else redirect
        elif name == "all":
            ended = True
            policy.others = sign if top else policy.others
        elif name in ("ip4", "ip6"):
            _network(text, argument, policy, allows=allows and sign == "+")
        elif name in _LOOKS:
            passes = allows and sign == "+"
            target, prefix = _target(domain, mark, argument)
            await _look(name, text, target, prefix, policy, resolver, allows=passes, above=above)
        else:
            policy.faults.append(f'"{text}" is no part of SPF')
    if redirect and not ended:
        await _include(f"redirect={redirect}", redirect, policy, resolver, top=top, allows=allows, above=above)


def _network(text: str, argument: str, policy: Policy, *, allows: bool) -> None:
    try:
        network = ip_network(argument, strict=False)
    except ValueError:
        policy.faults.append(f'"{text}" holds no network')
        return
    if allows:
        policy.networks.append(network)


def _target(domain: str, mark: str, argument: str) -> tuple[str, str]:
    """Name and prefix lengths of "a", "a:name", "a/24", "a:name/24//64"."""
    if mark == "/":
        return domain, argument
    name, _, prefix = argument.partition("/")
    return name or domain, prefix


async def _look(
    name: str, text: str, target: str, prefix: str, policy: Policy, resolver: Resolver, *, allows: bool,
    above: tuple[str, ...],
) -> None:  # fmt: skip
    if name == "include":
        await _include(text, target, policy, resolver, top=False, allows=allows, above=above)
        return
    policy.lookups += 1
    if "%" in target or name in ("ptr", "exists"):
        policy.unclear.append(text)
        return
    hosts = [target]
    if name == "mx":
        hosts = [value.partition(" ")[2] for value in (await resolver.ask(target, "MX")).values][:MOST]
    found = [address for host in hosts for address in await resolver.addresses(host)]
    if not found:
        policy.voids += 1
    four, _, six = prefix.partition("//")
    for address in found if allows else ():
        length = six if ":" in address else four
        policy.networks.append(ip_network(f"{address}/{length}" if length.isdigit() else address, strict=False))


async def _include(
    text: str, target: str, policy: Policy, resolver: Resolver, *, top: bool, allows: bool, above: tuple[str, ...]
) -> None:
    policy.lookups += 1
    name = target.lower().rstrip(".")
    if "%" in target:
        policy.unclear.append(text)
        return
    if name in above:
        policy.faults.append(f'"{text}" leads in a circle')
        return
    if allows:
        policy.names.add(name)
    inner = records(await resolver.texts(name))
    if len(inner) == 1:
        await _terms(name, inner[0], policy, resolver, top=top, allows=allows, above=(*above, name))
    elif not inner:
        policy.faults.append(f'"{text}": that name has no SPF record')
    else:
        policy.faults.append(f'"{text}": that name has {len(inner)} SPF records')
