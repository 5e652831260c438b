"""Rule: an address has one form however it comes, hosts of one /64 are one neighbour, and what a network lets in is
measured in public addresses, whatever pieces and translations it is given in."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from gateway.networks import neighbour, plain_address, prefix_length, public_addresses

FOUR = 3_702_258_688  # addresses of IPv4 but for private ones, multicast and the rest of RFC 6890
PUBLIC = [
    ("10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 127.0.0.0/8 fc00::/7 fe80::/10 ::1", 0, 0),
    ("192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 2001:db8::/32", 0, 0),
    ("130.1.0.0/16 130.1.2.0/24 130.1.2.3", 65_536, 0),
    ("9.0.0.0/8 10.0.0.0/8 11.0.0.0/8", 2 * 2**24, 0),
    ("172.0.0.0/8", 2**24 - 2**20, 0),
    ("0.0.0.0/0", FOUR, 0),
    ("0.0.0.0/1 128.0.0.0/1 9.0.0.0/8", FOUR, 0),
    ("::ffff:0:0/96", FOUR, 0),
    ("::ffff:130.1.0.0/112 130.1.0.0/17", 65_536, 0),
    ("::ffff:10.0.0.0/104", 0, 0),
    ("64:ff9b::/96", FOUR, 0),
    ("64:ff9b::130.1.0.0/112", 65_536, 0),
    ("64:ff9b:1:2::/96", FOUR, 0),
    ("64:ff9b:1:2::8.8.8.8", 1, 0),
    ("2002::/16", FOUR, 0),
    ("2002:8201::/32", 65_536, 0),
    ("2002:8201:203:4::/64", 1, 0),
    ("2002:c0a8::/32", 0, 0),
    ("2001::/32", FOUR, 0),
    ("2001:0:4136:e378::/64", FOUR, 0),
    ("2001:0:4136:e378:8000:63bf:3fff:fdd2", 0, 0),  # of 192.0.2.45 (RFC 4380 4)
    ("2001:0:4136:e378:8000:63bf:7dfe:fdfc", 1, 0),
    ("2a00::/32 2a00::1", 0, 2**96),
    ("2001:4000::/20", 0, 2**108),
]


@pytest.mark.parametrize(("networks", "four", "six"), PUBLIC, ids=[row[0] for row in PUBLIC])
def test_public_addresses(networks: str, four: int, six: int) -> None:
    assert public_addresses(map(ip_network, networks.split())) == (four, six)


@pytest.mark.parametrize("networks", ["::/0", "2000::/3", "::/1", "2000::/4 3000::/4"])
def test_the_internet_by_ipv6_holds_that_of_ipv4(networks: str) -> None:
    four, six = public_addresses(map(ip_network, networks.split()))
    assert four == FOUR
    assert 2**124 < six < 2**125


NEIGHBOURS = [
    ("192.0.2.1", "192.0.2.1"),
    ("::ffff:192.0.2.1", "192.0.2.1"),
    ("2001:db8::1", "2001:0db8:0000:0000"),
    ("2001:db8::ffff:1:2:3", "2001:0db8:0000:0000"),
    ("2001:db8:0:1::1", "2001:0db8:0000:0001"),
    ("fe80::1%eth0", "fe80:0000:0000:0000"),
    ("", ""),
]


@pytest.mark.parametrize(("peer", "expected"), NEIGHBOURS)
def test_neighbours(peer: str, expected: str) -> None:
    assert neighbour(peer) == expected


def test_plain_addresses() -> None:
    assert str(plain_address("::ffff:7f00:1")) == "127.0.0.1"
    assert plain_address("::FFFF:127.0.0.1").is_loopback
    assert str(plain_address("fe80::1%eth0")) == "fe80::1"
    with pytest.raises(ValueError, match="does not appear"):
        plain_address("localhost")


def test_the_longest_prefix_counts_and_only_mapped_addresses_are_ipv4() -> None:
    networks = [ip_network(text) for text in ("10.0.0.0/8", "::ffff:10.1.0.0/112", "64:ff9b::/96")]
    lengths = {"10.9.9.9": 8, "10.1.2.3": 16, "::ffff:10.1.2.3": 16, "64:ff9b::10.1.2.3": 96, "11.0.0.1": -1, "x": -1}
    assert {peer: prefix_length(networks, peer) for peer in lengths} == lengths
