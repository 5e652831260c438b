"""IP addresses and networks: in which form they are compared, who counts as one neighbour, how many are public."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses, ip_address

from gateway.model import Network

# What no stranger on the Internet sends from (RFC 6890, RFC 5771), so that a client may list it as it likes.
_PRIVATE = [
    IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
    )
]  # fmt: skip
_GLOBAL = IPv6Network("2000::/3")  # RFC 4291 2.4, RFC 4007: all that is routed in IPv6
_DOCUMENTATION = [IPv6Network("2001:db8::/32"), IPv6Network("3fff::/20")]  # RFC 3849, RFC 9637
_MAPPED = IPv6Network("::ffff:0:0/96")
_TEREDO = IPv6Network("2001::/32")  # RFC 4380 4
_ALL = IPv4Network("0.0.0.0/0")
_ONES = 0xFFFFFFFF
NOBODY = "::"  # stands for the address of whom nobody knows one (RFC 4291 2.5.2)
# More public addresses than this are given to others: an IPv4 /12 is more than nearly any organisation has, and less
# than any large provider; an IPv6 /28 is the most that RIPE NCC gives a provider without asking why (policy 2024-02).
MOST_OF_ONE = (2**20, 2**100)


@lru_cache(maxsize=4096)
def plain_address(text: str) -> IPv4Address | IPv6Address:
    """An IPv4 address mapped into IPv6 (RFC 4291 2.5.5.2) is that IPv4 address. Raises ValueError."""
    address = ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def _plain_network(network: Network) -> Network:
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return _embedded(network, 96)
    return network


def prefix_length(networks: Iterable[Network], peer: str) -> int:
    """The length of the longest of these networks' prefixes that holds the peer; -1 when none does.

    IPv4 addresses mapped into IPv6 count as IPv4 on both sides.
    """
    try:
        address = plain_address(peer)
    except ValueError:
        return -1
    return max((network.prefixlen for network in map(_plain_network, networks) if address in network), default=-1)


def within(one: Network, other: Network) -> bool:
    """Whether the first holds nothing that the second has not. Mapped ones count as IPv4."""
    inner, outer = _plain_network(one), _plain_network(other)
    return overlap(inner, outer) and inner.prefixlen >= outer.prefixlen


def overlap(one: Network, other: Network) -> bool:
    """Whether any address is in both. Mapped ones count as IPv4."""
    return any(_common(_plain_network(one), [_plain_network(other)]))


@lru_cache(maxsize=4096)
def neighbour(peer: str) -> str:
    """Who counts as one where something is shared out by address: an IPv4 address, or the /64 of IPv6.

    There a host chooses among 2**64 addresses.
    """
    try:
        address = plain_address(peer)
    except ValueError:
        return peer
    return str(address) if isinstance(address, IPv4Address) else address.exploded[:19]


def public_addresses(networks: Iterable[Network]) -> tuple[int, int]:
    """How many public addresses these networks hold together: of IPv4, also by way of IPv6, and of IPv6."""
    networks = tuple(networks)
    six = list(collapse_addresses(network for network in networks if isinstance(network, IPv6Network)))
    four = [network for network in networks if isinstance(network, IPv4Network)]
    four += [translated for network in six for translated in _as_ipv4(network)]
    private = [*_DOCUMENTATION, *(block for block, _ in _EMBEDDING)]
    return _count(four, [_ALL], _PRIVATE), _count(six, [_GLOBAL], private)


def is_public(networks: Iterable[Network]) -> bool:
    """Whether these networks hold so much of the Internet that strangers are in them."""
    return any(map(operator.gt, public_addresses(networks), MOST_OF_ONE))


def _count(networks: Iterable[Network], inside: Iterable[Network], but: Iterable[Network]) -> int:
    """Addresses of the union of ``networks`` within ``inside``; the networks in ``but`` do not overlap."""
    parts = [part for one in networks for part in _common(one, inside)]
    kept = collapse_addresses(parts)  # type: ignore[type-var] # all of one family
    return sum(one.num_addresses - sum(part.num_addresses for part in _common(one, but)) for one in kept)


def _common(network: Network, others: Iterable[Network]) -> Iterator[Network]:
    """Of two networks one holds the other, or they have nothing in common."""
    for other in others:
        if isinstance(network, IPv4Network) == isinstance(other, IPv4Network) and network.overlaps(other):
            yield max(network, other, key=lambda one: one.prefixlen)


def _embedded(network: IPv6Network, start: int, *, flipped: bool = False) -> IPv4Network:
    """The IPv4 addresses that stand at bit ``start`` in the addresses of ``network``."""
    bits = int(network.network_address) >> (96 - start) & _ONES
    length = min(max(network.prefixlen - start, 0), 32)
    return IPv4Network(((bits ^ _ONES if flipped else bits) & (_ONES << (32 - length)), length))


# Parts of IPv6 by which hosts of the IPv4 Internet come, and at which bit their own address stands there.
_EMBEDDING = [
    (_MAPPED, 96),
    (IPv6Network("64:ff9b::/96"), 96),  # NAT64, RFC 6052
    (IPv6Network("64:ff9b:1::/48"), 96),  # NAT64 by a prefix of one's own, RFC 8215
    (IPv6Network("2002::/16"), 16),  # 6to4, RFC 3056
    (_TEREDO, 96),  # for whoever asks a public server for an address
]


def _as_ipv4(network: IPv6Network) -> Iterator[IPv4Network]:
    for block, start in _EMBEDDING:
        for part in _common(network, [block]):
            assert isinstance(part, IPv6Network)
            yield _embedded(part, start, flipped=block is _TEREDO)
