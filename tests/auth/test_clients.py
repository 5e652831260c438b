"""Rule: who somebody is follows from network, token or name alone; a claim narrows what the settings allow and never
widens it (interface.md section 2, door.md row 13)."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from gateway import policy
from gateway.model import Client, Refusal
from tests.auth.kit import APP, SECRET, House, token
from tests.auth.test_claims import login

OFFICE = {
    "localhost": {"networks": ["127.0.0.0/8", "::1/128"]},
    "everywhere": {"networks": ["10.0.0.0/8", "2001:db8::/32"]},
    "printers": {"networks": ["10.1.0.0/16", "10.2.0.0/16"]},
    "scanner": {"networks": ["10.1.2.3"]},
    "twin": {"networks": ["10.2.0.0/16"]},
    "mapped": {"networks": ["::ffff:172.16.0.0/108"]},
    "copier": {"networks": ["10.1.2.4"], "password_hash": "$scrypt$ln=10,r=8,p=1$c2FsdHNhbHQ$" + "A" * 43},
    "app": {"networks": ["10.1.2.5"], "token": "app"},
}
PEERS = [
    ("127.0.0.1", "localhost"),
    ("127.255.255.254", "localhost"),
    ("::1", "localhost"),
    ("::ffff:127.0.0.1", "localhost"),
    ("::ffff:7f00:1", "localhost"),
    ("10.9.9.9", "everywhere"),
    ("::ffff:10.9.9.9", "everywhere"),
    ("::FFFF:10.1.0.1", "printers"),
    ("10.1.2.3", "scanner"),
    ("::ffff:10.1.2.3", "scanner"),
    ("10.2.0.1", "printers"),
    ("10.1.2.4", "printers"),
    ("10.1.2.5", "printers"),
    ("172.16.5.5", "mapped"),
    ("::ffff:172.16.5.5", "mapped"),
    ("172.32.0.1", ""),
    ("2001:db8::5", "everywhere"),
    ("2001:db8::5%eth0", "everywhere"),
    ("2001:db9::5", ""),
    ("::10.1.2.3", ""),
    ("64:ff9b::10.1.2.3", ""),
    ("11.0.0.1", ""),
    ("0.0.0.0", ""),
    ("010.1.2.3", ""),
    ("10.1.2.3:25", ""),
    ("localhost", ""),
    ("", ""),
]


@pytest.mark.parametrize(("peer", "expected"), PEERS)
def test_the_most_specific_network_names_the_client(tmp_path: Path, peer: str, expected: str) -> None:
    """Those with a token or a password are never anonymous; IPv4 in IPv6 is IPv4; equal prefixes: the first listed."""
    client = House(tmp_path, clients=OFFICE).auth.by_network(peer)
    assert (client.name if client else "") == expected


@pytest.mark.parametrize("order", list(itertools.permutations(["everywhere", "printers", "scanner"])))
def test_the_order_of_the_section_does_not_matter(tmp_path: Path, order: tuple[str, ...]) -> None:
    client = House(tmp_path, clients={name: OFFICE[name] for name in order}).auth.by_network("10.1.2.3")
    assert client is not None
    assert client.name == "scanner"


def test_nobody_is_anonymous_without_networks(tmp_path: Path) -> None:
    for clients in ({}, {"tokens": {"token": "*"}}, {"empty": {}}):
        assert House(tmp_path, clients=clients).auth.by_network("127.0.0.1") is None


def test_what_the_settings_allow_arrives_in_the_client(tmp_path: Path) -> None:
    section = {
        "networks": ["10.0.0.0/8"], "senders": ["*@example.com"], "recipients": ["*@example.org"], "backend": "office",
        "rewrite_sender": {"to": "scanner@example.com", "when": "always"}, "rate": "60/minute", "max_size": "20MB",
        "max_recipients": 20,
    }  # fmt: skip
    client = House(tmp_path, clients={"printers": section}).auth.by_network("10.0.0.1")
    assert client is not None
    assert (client.name, client.login, client.backend) == ("printers", "", "office")
    assert (client.senders, client.recipients) == ((("*@example.com",),), (("*@example.org",),))
    assert client.rewrite is not None
    assert (client.rewrite.to, client.rewrite.always) == ("scanner@example.com", True)
    assert client.rate is not None
    assert (client.rate.count, client.max_size, client.max_recipients) == (60, 20_000_000, 20)
    assert client.token is None


CHOICES = [
    # clients, subject, key, who it is
    ({"any": {"token": "*"}, "exact": {"token": "billing"}}, "billing", "app", "exact"),
    ({"any": {"token": "*"}, "exact": {"token": "billing"}}, "payroll", "app", "any"),
    ({"exact": {"token": "billing"}}, "payroll", "app", "unknown_client"),
    ({"exact": {"token": "billing"}}, "Billing", "app", "unknown_client"),
    ({"exact": {"token": "billing", "key": "app"}}, "billing", "app", "exact"),
    ({"exact": {"token": "billing", "key": "app"}}, "billing", "corp", "unknown_client"),
    ({"exact": {"token": "billing", "key": "app"}, "any": {"token": "*"}}, "billing", "corp", "any"),
    ({"open": {"token": "*"}, "bound": {"token": "*", "key": "corp"}}, "x", "corp", "bound"),
    ({"open": {"token": "*"}, "bound": {"token": "*", "key": "corp"}}, "x", "app", "open"),
    ({"any": {"token": "*", "key": "app"}, "exact": {"token": "billing"}}, "billing", "app", "exact"),
    ({"lan": {"networks": ["0.0.0.0/0"]}}, "billing", "app", "unknown_client"),
    ({"any": {"token": "*"}, "exact": {"token": "billing"}}, "*", "app", "any"),
    ({}, "billing", "app", "unknown_client"),
]


@pytest.mark.parametrize(("clients", "subject", "key", "expected"), CHOICES)
async def test_which_client_a_subject_is(
    tmp_path: Path, clients: dict[str, Any], subject: str, key: str, expected: str
) -> None:
    both = {"app": {"algorithm": "HS256", "secret": SECRET}, "corp": APP["app"] | {"issuer": "https://corp.example"}}
    issuer = "https://corp.example" if key == "corp" else ...
    assert await login(House(tmp_path, both, clients), token(sub=subject, iss=issuer)) == expected


async def test_the_client_carries_what_must_stay_true_of_its_token(tmp_path: Path) -> None:
    house = House(tmp_path)
    client = await house.auth.login("jwt", token(jti="t-1"), "192.0.2.1")
    assert (client.name, client.login) == ("tokens", "billing")
    assert client.token is not None
    assert (client.token.key, client.token.subject, client.token.jti) == ("app", "billing", "t-1")


FILLED = [
    # pattern, claims, sender, allowed
    ("{email}", {"email": "ann@example.com"}, "ann@example.com", True),
    ("{email}", {"email": "ann@example.com"}, "Ann@EXAMPLE.com", True),
    ("{email}", {"email": "ann@example.com"}, "bob@example.com", False),
    ("{email}", {"email": "ann@example.com", "email_verified": True}, "ann@example.com", True),
    ("{email}", {"email": "ann@example.com", "email_verified": "true"}, "ann@example.com", True),
    ("{email}", {"email": "ann@example.com", "email_verified": False}, "ann@example.com", False),
    ("{email}", {"email": "ann@example.com", "email_verified": "false"}, "ann@example.com", False),
    ("{email}", {"email": "ann@example.com", "email_verified": None}, "ann@example.com", False),
    ("{email}", {}, "ann@example.com", False),
    ("{email}", {}, "{email}", False),
    ("{email}", {"email": ""}, "", False),
    ("{email}", {"email": "*"}, "ann@example.com", False),
    ("{email}", {"email": "*@example.com"}, "ann@example.com", False),
    ("{email}", {"email": '"*"@example.com'}, "ann@example.com", False),
    ("{email}", {"email": "ann@*"}, "ann@example.com", False),
    ("{email}", {"email": "ann@*.example.com"}, "ann@a.example.com", False),
    ("{email}", {"email": ["ann@example.com"]}, "ann@example.com", False),
    ("{email}", {"email": {"a": 1}}, "ann@example.com", False),
    ("{email}", {"email": 5}, "ann@example.com", False),
    ("{email}", {"email": "ann@example.com\r\n"}, "ann@example.com", False),
    ("{email}", {"email": "ann"}, "ann", False),
    ("{email}", {"email": "ann@example.com,bob@example.com"}, "bob@example.com", False),
    ("{email}", {"email": "{sub}@example.com", "sub": "bob"}, "bob@example.com", False),
    ("{sub}@example.com", {"sub": "ann"}, "ann@example.com", True),
    ("{sub}@example.com", {"sub": "*"}, "bob@example.com", False),
    ("{sub}@example.com", {"sub": "bob@example.com"}, "bob@example.com", False),
    ("{sub}@example.com", {"sub": "ann smith"}, "ann smith@example.com", False),
    ("{sub}", {"sub": "ann@example.com"}, "ann@example.com", True),
    ("{sub}", {"sub": "*"}, "bob@example.com", False),
    ("{sub}", {"sub": "ann"}, "ann", False),
    ("*@{sub}", {"sub": "example.com"}, "bob@example.com", True),
    ("*@{sub}", {"sub": "*.com"}, "bob@example.com", False),
    ("*@{sub}", {"sub": "example.com@evil.example"}, "bob@evil.example", False),
]


@pytest.mark.parametrize(("pattern", "given", "sender", "allowed"), FILLED)
async def test_placeholders_are_filled_by_claims_and_never_widen(
    tmp_path: Path, pattern: str, given: dict[str, Any], sender: str, allowed: bool
) -> None:
    house = House(tmp_path, clients={"staff": {"token": "*", "senders": [pattern]}})
    client = await house.auth.login("jwt", token(**given), "192.0.2.1")
    assert policy.allowed(client.senders, sender) is allowed


async def test_an_unfilled_pattern_leaves_the_others_and_alone_allows_nobody(tmp_path: Path) -> None:
    house = House(
        tmp_path, clients={"staff": {"token": "*", "senders": ["{email}"]},
                           "both": {"token": "both", "senders": ["{email}", "desk@example.com"]}}
    )  # fmt: skip
    nobody = await house.auth.login("jwt", token(), "192.0.2.1")
    assert nobody.senders == ((),)
    assert not policy.allowed(nobody.senders, "a@example.com")
    both = await house.auth.login("jwt", token(sub="both"), "192.0.2.1")
    assert policy.allowed(both.senders, "desk@example.com")


RICH = {
    "app": {
        "token": "*", "senders": ["*@example.com"], "recipients": ["*@example.com", "*@example.org"],
        "max_size": "10MB", "networks": ["192.0.2.0/24"],
    },
    "pinned": {"token": "pinned", "backend": "office"},
}  # fmt: skip


async def narrowed(tmp_path: Path, peer: str = "192.0.2.1", **given: Any) -> Client | str:
    house = House(tmp_path, clients=RICH)
    text = token(**given)
    reason = await login(house, text, peer=peer)
    return await house.auth.login("jwt", text, peer) if reason in ("app", "pinned") else reason


SENDERS = [
    # claim, sender allowed by the settings as well, allowed in the end
    (["ann@example.com"], "ann@example.com", True),
    ("ann@example.com", "ann@example.com", True),
    (["ann@example.com"], "bob@example.com", False),
    (["*"], "bob@example.com", True),
    (["*"], "bob@evil.example", False),
    (["bob@evil.example"], "bob@evil.example", False),
    (["*@evil.example", "ann@example.com"], "ann@example.com", True),
    ([], "ann@example.com", False),
    (["{email}"], "{email}", False),
]


@pytest.mark.parametrize(
    ("claim", "address", "allowed"),
    [
        (["*", "!boss@example.com"], "boss@example.com", False),
        (["*", "!boss@example.com"], "ann@example.com", True),
        (["*", "!boss@example.com"], "ann@elsewhere.example", False),  # by the settings
        (["!boss@example.com"], "ann@example.com", False),  # only who is blocked: nobody
    ],
)
async def test_a_claim_that_blocks(tmp_path: Path, claim: list[str], address: str, allowed: bool) -> None:
    """It narrows what the client may do, as a list of the settings would."""
    house = House(tmp_path, clients={"staff": {"token": "*", "senders": ["*@example.com"]}})
    client = await house.auth.login("jwt", token(senders=claim), "192.0.2.1")
    assert policy.allowed(client.senders, address) is allowed


async def test_no_claim_is_taken_for_a_blocking_pattern(tmp_path: Path) -> None:
    """An address that begins with ! is nobody's here: beside other patterns it would mean more than its owner's."""
    house = House(tmp_path, clients={"staff": {"token": "*", "senders": ["{email}", "desk@example.com"]}})
    client = await house.auth.login("jwt", token(email="!a@example.com"), "192.0.2.1")
    assert client.senders == (("desk@example.com",),)
    with pytest.raises(Refusal):
        await house.auth.login("jwt", token(senders=["*", "!boss"]), "192.0.2.1")


@pytest.mark.parametrize("name", ["senders", "recipients"])
@pytest.mark.parametrize(("claim", "address", "allowed"), SENDERS)
async def test_address_claims_narrow(tmp_path: Path, name: str, claim: object, address: str, allowed: bool) -> None:
    client = await narrowed(tmp_path, **{name: claim})
    assert isinstance(client, Client)
    assert policy.allowed(getattr(client, name), address) is allowed


SIZES = [(5_000_000, 5_000_000), (20_000_000, 10_000_000), ("5MB", 5_000_000), (1, 1), (..., 10_000_000)]


@pytest.mark.parametrize(("claim", "expected"), SIZES)
async def test_the_size_claim_narrows(tmp_path: Path, claim: object, expected: int) -> None:
    client = await narrowed(tmp_path, max_size=claim)
    assert isinstance(client, Client)
    assert client.max_size == expected


PLACES = [
    # networks claim, peer, who is let in
    (["192.0.2.1"], "192.0.2.1", "app"),
    ("192.0.2.1", "192.0.2.1", "app"),
    (["192.0.2.1"], "::ffff:192.0.2.1", "app"),
    (["::ffff:192.0.2.1/128"], "192.0.2.1", "app"),
    (["10.0.0.0/8", "192.0.2.0/25"], "192.0.2.1", "app"),
    (["0.0.0.0/0"], "192.0.2.1", "app"),
    (["192.0.2.2"], "192.0.2.1", "wrong_network"),
    (["10.0.0.0/8"], "10.0.0.1", "wrong_network"),
    (["0.0.0.0/0"], "10.0.0.1", "wrong_network"),
    ([], "192.0.2.1", "wrong_network"),
    (..., "192.0.3.1", "wrong_network"),
    (["192.0.2.1/24"], "192.0.2.1", "token_claims"),
    (["here"], "192.0.2.1", "token_claims"),
    ([""], "192.0.2.1", "token_claims"),
    ([None], "192.0.2.1", "token_claims"),
    (5, "192.0.2.1", "token_claims"),
]


@pytest.mark.parametrize(("claim", "peer", "expected"), PLACES)
async def test_the_networks_claim_narrows(tmp_path: Path, claim: object, peer: str, expected: str) -> None:
    assert await login(House(tmp_path, clients=RICH), token(networks=claim), peer=peer) == expected


PINS = [
    ("billing", "smart", "smart"),
    ("billing", ..., ""),
    ("pinned", ..., "office"),
    ("pinned", "office", "office"),
    ("pinned", "smart", "token_claims"),
    ("billing", "nowhere", "token_claims"),
    ("billing", "", "token_claims"),
    ("billing", ["smart"], "token_claims"),
]


@pytest.mark.parametrize(("subject", "claim", "expected"), PINS)
async def test_the_backend_claim_pins_but_never_frees(
    tmp_path: Path, subject: str, claim: object, expected: str
) -> None:
    client = await narrowed(tmp_path, sub=subject, backend=claim)
    assert (client.backend if isinstance(client, Client) else client) == expected


async def test_a_claim_leads_to_no_backend_of_another_tenant(tmp_path: Path) -> None:
    """A shared backend and one's own may be named, one of somebody else not."""
    tenants = {"own": {"clients": ["app"], "backends": ["office"]}, "other": {"backends": ["smart"]}}
    house = House(tmp_path, clients=RICH, tenants=tenants)
    assert await login(house, token(sub="app", backend="office"), peer="192.0.2.1") == "app"
    assert await login(house, token(sub="app", backend="smart"), peer="192.0.2.1") == "token_claims"


MALFORMED: list[tuple[str, object]] = [
    *((name, value) for name in ("senders", "recipients", "networks") for value in (None, 1, True, {})),
    *((name, value) for name in ("senders", "recipients", "networks") for value in ([1], [["a"]], ["\n"])),
    *(("max_size", value) for value in (None, True, -1, 0, "0", "0MB", 1.5, "big", [], {}, 1e308, 10**20, "")),
    *(("backend", value) for value in (None, 1, True, {}, [])),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), MALFORMED, ids=[f"{n}={v!r:.20}" for n, v in MALFORMED])
async def test_a_claim_that_cannot_be_understood_is_not_ignored(tmp_path: Path, name: str, value: object) -> None:
    assert await narrowed(tmp_path, **{name: value}) == "token_claims"
