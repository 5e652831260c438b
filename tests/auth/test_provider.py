"""Rule: a client with ``login`` is whoever its provider says the token belongs to, may send as that address alone, and
its token is shown to nobody else (issue: cloudflare_temp_email's own tokens)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway import policy
from gateway.model import CannotTell, Refusal
from tests.auth.kit import RSA, House, Issuer, hmac_token, signed, token
from tests.auth.test_claims import login

ADDRESS = "me@temp.example"
FOREIGN = hmac_token(b'{"address":"me@temp.example","address_id":7}', secret=b"the worker's own secret, 32 bytes")
ANOTHER = hmac_token(b'{"address":"you@temp.example","address_id":8}', secret=b"the worker's own secret, 32 bytes")
NOT_THEIRS = hmac_token(b'{"sub":"billing","exp":4000000000}', secret=b"somebody else's secret, which is long")
OURS = token(address=ADDRESS)
MAILBOXES = {"mailboxes": {"login": "office"}, "tokens": {"token": "*"}}


class Provider:
    """Knows one token; can be away."""

    def __init__(self, known: str = FOREIGN, address: str = ADDRESS) -> None:
        self.known, self.address = known, address
        self.asked: list[str] = []
        self.away = False

    async def verify(self, token: str) -> str:
        self.asked.append(token)
        if self.away:
            raise CannotTell("cannot be told now")
        return self.address if token == self.known else ""


def built(tmp_path: Path, clients: Any = MAILBOXES, **providers: Provider) -> House:
    return House(tmp_path, clients=clients, **providers)


@pytest.mark.parametrize("user", ["jwt", "mailboxes", ADDRESS, ADDRESS.upper()])
async def test_the_provider_says_who_it_is(tmp_path: Path, user: str) -> None:
    """Only that address may be the sender, the mail leaves by that backend, and with that token."""
    provider = Provider()
    client = await built(tmp_path, office=provider).auth.login(user, FOREIGN, "192.0.2.1")
    assert (client.name, client.login, client.backend, client.secret) == ("mailboxes", ADDRESS, "office", FOREIGN)
    assert policy.allowed(client.senders, ADDRESS)
    assert not policy.allowed(client.senders, "you@temp.example")
    assert FOREIGN not in repr(client)


@pytest.mark.parametrize(
    ("user", "password", "reason"),
    [
        ("jwt", ANOTHER, "token_signature"),
        ("somebody", FOREIGN, "wrong_user"),
        ("mailboxes", "hunter2", "auth_failed"),
    ],
)
async def test_everybody_else_is_refused(tmp_path: Path, user: str, password: str, reason: str) -> None:
    """535 as for any bad login; the reason is for the log."""
    assert await login(built(tmp_path, office=Provider()), password, user) == reason


async def test_no_address_is_no_good_token(tmp_path: Path) -> None:
    """Where the provider knows of no address, the token is judged as if nobody knew it."""
    provider = Provider(address="")
    assert await login(built(tmp_path, office=provider), FOREIGN) == "token_signature"
    assert provider.asked == [FOREIGN]


async def test_a_provider_that_is_away_is_no_refusal(tmp_path: Path) -> None:
    """Our trouble is 4xx: the client tries again."""
    provider = Provider()
    provider.away = True
    with pytest.raises(Refusal, match=r"454 4\.7\.0"):
        await built(tmp_path, office=provider).auth.login("jwt", FOREIGN, "192.0.2.1")


@pytest.mark.parametrize(
    ("password", "expected"), [(OURS, "tokens"), (NOT_THEIRS, "token_signature"), (token(), "tokens")]
)
async def test_tokens_of_others_are_shown_to_no_provider(tmp_path: Path, password: str, expected: str) -> None:
    """A token that a key of ours signed, or that does not say what the provider's tokens say, stays here."""
    provider = Provider()
    assert await login(built(tmp_path, office=provider), password) == expected
    assert provider.asked == []


async def test_a_token_that_an_issuer_may_have_signed_is_shown_to_no_provider(tmp_path: Path) -> None:
    """Whether it did is only known with the keys it publishes, and they cannot always be had."""
    provider, issuer = Provider(), Issuer()
    issuer.go_away()
    keys = {"corp": {"algorithm": "RS256", "jwks_url": Issuer.URL}}
    auth = House(tmp_path, keys, MAILBOXES, issuer, office=provider).auth
    with pytest.raises(Refusal, match=r"454 4\.7\.0"):
        await auth.login("jwt", signed(RSA, "RS256", {"kid": "k1"}, address=ADDRESS), "192.0.2.1")
    assert provider.asked == []


async def test_two_providers_are_asked_in_turn_or_by_name(tmp_path: Path) -> None:
    """The first that knows the token has it; a user name that is a client's asks only its provider."""
    first, second = Provider(known="none"), Provider()
    clients = {"one": {"login": "office"}, "two": {"login": "smart"}}
    house = built(tmp_path, clients, office=first, smart=second)
    assert await login(house, FOREIGN) == "two"
    assert (len(first.asked), len(second.asked)) == (1, 1)
    assert await login(house, FOREIGN, "two") == "two"
    assert (len(first.asked), len(second.asked)) == (1, 2)


async def test_networks_of_the_client_hold(tmp_path: Path) -> None:
    """A stolen token is of no use from elsewhere."""
    clients = {"mailboxes": {"login": "office", "networks": ["192.0.2.0/24"]}}
    house = built(tmp_path, clients, office=Provider())
    assert await login(house, FOREIGN) == "mailboxes"
    assert await login(house, FOREIGN, peer="198.51.100.1") == "wrong_network"
    assert house.auth.by_network("192.0.2.1") is None


@pytest.mark.parametrize(
    "address", ["*", "*@*", "*@temp.example", "nobody", "me@temp.example\r\nx", "x" * 400 + "@x.org"]
)
async def test_what_the_provider_says_is_an_address_and_no_pattern(tmp_path: Path, address: str) -> None:
    """A wildcard from there would let the owner of one mailbox send as anybody."""
    assert await login(built(tmp_path, office=Provider(address=address)), FOREIGN) == "token_claims"
