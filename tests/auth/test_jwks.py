"""Rule: published keys are fetched over HTTPS, kept 5 minutes, asked for again at most once in 30 s whatever key ids
strangers send, used for 24 hours while the issuer is away; after that 454, never 535 and never in (door.md row 12)."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from gateway.auth import keys
from gateway.fetch import Answer, Fetch, Lost
from gateway.model import Refusal
from gateway.trust import Trust
from tests.auth import kit
from tests.auth.kit import ED, P256, P384, RSA, SMALL_RSA, House, Issuer, jwk, signed
from tests.auth.test_claims import login
from tests.fakes import until
from tests.rsa_keys import rsa_key

CORP = {"corp": {"algorithm": "RS256", "jwks_url": Issuer.URL}}
OTHER_RSA = rsa_key("other")


@pytest.fixture
def issuer() -> Issuer:
    return Issuer(jwk(RSA, "RS256"))


@pytest.fixture
def house(tmp_path: Path, issuer: Issuer) -> House:
    return House(tmp_path, CORP, fetch=issuer)


def from_issuer(key: Any = RSA, kid: str | None = "k1") -> str:
    return signed(key, "RS256", {"kid": kid} if kid is not None else {}, exp=kit.NOW + 1_000_000)


async def unavailable(house: House, text: str) -> bool:
    try:
        await house.auth.login("jwt", text, "192.0.2.1")
    except Refusal as refusal:
        return (refusal.code, refusal.enhanced, refusal.reason) == (454, "4.7.0", "auth_unavailable")
    return False


async def test_keys_are_fetched_once_and_kept_five_minutes(house: House, issuer: Issuer) -> None:
    assert issuer.requests == 0
    for _ in range(5):
        assert await login(house, from_issuer()) == "tokens"
    assert issuer.requests == 1
    house.clock.advance(299)
    assert await login(house, from_issuer()) == "tokens"
    assert issuer.requests == 1
    house.clock.advance(1)
    assert await login(house, from_issuer()) == "tokens"
    assert issuer.requests == 2


async def test_a_withdrawn_key_is_dead_within_five_minutes(house: House, issuer: Issuer) -> None:
    assert await login(house, from_issuer()) == "tokens"
    issuer.entries = [jwk(OTHER_RSA, "RS256", kid="k2")]
    house.clock.advance(300)
    assert await login(house, from_issuer()) == "token_signature"


async def test_made_up_key_ids_cause_one_fetch_in_thirty_seconds(house: House, issuer: Issuer) -> None:
    for n in range(200):
        assert await login(house, from_issuer(kid=f"made-up-{n}")) == "token_signature"
    assert issuer.requests == 1
    house.clock.advance(30)
    for n in range(200):
        assert await login(house, from_issuer(kid=f"made-up-{n}")) == "token_signature"
    assert issuer.requests == 2


async def test_a_new_key_is_found_before_the_five_minutes_are_over(house: House, issuer: Issuer) -> None:
    assert await login(house, from_issuer()) == "tokens"
    issuer.entries.append(jwk(OTHER_RSA, "RS256", kid="k2"))
    house.clock.advance(30)
    assert await login(house, from_issuer(OTHER_RSA, "k2")) == "tokens"
    assert await login(house, from_issuer()) == "tokens"
    assert issuer.requests == 2


async def test_logins_at_once_share_one_fetch_even_when_the_first_hangs_up(house: House, issuer: Issuer) -> None:
    issuer.gate = asyncio.Event()
    tasks = [asyncio.create_task(login(house, from_issuer())) for _ in range(20)]
    await until(lambda: issuer.requests > 0)
    tasks[0].cancel()
    issuer.gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1:] == ["tokens"] * 19
    assert issuer.requests == 1


async def test_while_the_issuer_is_away_its_last_keys_serve_for_a_day(house: House, issuer: Issuer) -> None:
    assert await login(house, from_issuer()) == "tokens"
    issuer.go_away()
    house.clock.advance(86_399)
    assert await login(house, from_issuer()) == "tokens"
    house.clock.advance(1)
    assert await unavailable(house, from_issuer())
    house.clock.advance(30)
    issuer.come_back()
    assert await login(house, from_issuer()) == "tokens"
    assert [ok for _, ok, _ in house.events.fetched] == [True, False, True]


async def test_an_unknown_key_id_cannot_be_judged_while_the_issuer_is_away(house: House, issuer: Issuer) -> None:
    """It may be a new key, so 454; a known id with a wrong signature is still 535."""
    assert await login(house, from_issuer()) == "tokens"
    issuer.go_away()
    house.clock.advance(300)
    assert await unavailable(house, from_issuer(OTHER_RSA, "k2"))
    assert await login(house, from_issuer(OTHER_RSA)) == "token_signature"
    assert issuer.requests == 2


BROKEN: dict[str, Answer | Exception] = {
    "lost": Lost("login.example.com: no answer within 5 s"),
    "500 with keys": Answer(500, {}, json.dumps({"keys": [jwk(RSA, "RS256")]}).encode()),
    "404": Answer(404, {}, b"{}"),
    "redirect": Answer(302, {"location": "http://169.254.169.254/"}, b""),
    "not JSON": Answer(200, {}, b"<html>"),
    "cut off": Answer(200, {}, b'{"keys": [{"kty":'),
    "a list": Answer(200, {}, b"[]"),
    "no keys": Answer(200, {}, b"{}"),
    "keys is no list": Answer(200, {}, b'{"keys": {"kty": "RSA"}}'),
    "empty": Answer(200, {}, b'{"keys": []}'),
    "no usable key": Answer(200, {}, json.dumps({"keys": [1, None, {}, jwk(P256, "ES256")]}).encode()),
    "nested": Answer(200, {}, b"[" * 100_000),
    "not UTF-8": Answer(200, {}, b'{"keys": "\xff"}'),
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN.keys())
async def test_without_any_key_nobody_is_turned_away_for_good(
    house: House, issuer: Issuer, answer: Answer | Exception
) -> None:
    """Whatever the issuer does, the login is put off, at most one request in 30 s leaves, and the reason is told."""
    issuer.answer = answer
    for _ in range(10):
        assert await unavailable(house, from_issuer())
    assert issuer.requests == 1
    assert [(key, ok) for key, ok, _ in house.events.fetched] == [("corp", False)]
    assert house.events.fetched[0][2]
    assert house.events.bugs == []
    issuer.come_back()
    house.clock.advance(30)
    assert await login(house, from_issuer()) == "tokens"
    assert house.events.fetched[-1][1]


async def test_a_bug_while_fetching_is_reported_and_lets_nobody_in(house: House, issuer: Issuer) -> None:
    issuer.answer = RuntimeError("boom")
    assert await unavailable(house, from_issuer())
    assert [str(bug) for bug in house.events.bugs] == ["boom"]


async def test_broken_answers_do_not_displace_good_keys(house: House, issuer: Issuer) -> None:
    assert await login(house, from_issuer()) == "tokens"
    for answer in BROKEN.values():
        issuer.answer = answer
        house.clock.advance(300)
        assert await login(house, from_issuer()) == "tokens"


async def test_keys_held_here_work_while_an_issuer_is_away(tmp_path: Path, issuer: Issuer) -> None:
    issuer.go_away()
    house = House(tmp_path, CORP | kit.APP, fetch=issuer)
    assert await login(house, kit.token()) == "tokens"
    assert issuer.requests == 0


async def test_closing_ends_a_fetch_under_way_without_harming_the_session(house: House, issuer: Issuer) -> None:
    issuer.gate = asyncio.Event()
    waiting = asyncio.create_task(unavailable(house, from_issuer()))
    await until(lambda: issuer.requests > 0)
    await house.auth.aclose()
    assert await waiting


PURPOSES = [
    # the entry, whether it may verify RS256
    (jwk(RSA, "RS256"), True),
    (jwk(RSA, "RS256", alg="RS256"), True),
    (jwk(RSA, "RS256", use="sig"), True),
    (jwk(RSA, "RS256", key_ops=["verify"]), True),
    (jwk(RSA, "RS256", use="sig", key_ops=["verify", "sign"]), True),
    (jwk(RSA, "RS256", alg="RS512"), False),
    (jwk(RSA, "RS256", alg="PS256"), False),
    (jwk(RSA, "RS256", alg="RSA-OAEP"), False),
    (jwk(RSA, "RS256", alg=None), False),
    (jwk(RSA, "RS256", use="enc"), False),
    (jwk(RSA, "RS256", use=["sig"]), False),
    (jwk(RSA, "RS256", use=None), False),
    (jwk(RSA, "RS256", key_ops=[]), False),
    (jwk(RSA, "RS256", key_ops=["encrypt"]), False),
    (jwk(RSA, "RS256", key_ops=["sign"]), False),
    (jwk(RSA, "RS256", key_ops="verify"), False),
    (jwk(RSA, "RS256", key_ops=None), False),
    (jwk(RSA, "RS256", use="enc", key_ops=["verify"]), False),
    (jwk(RSA, "RS256", d="AQAB"), False),
    (jwk(RSA, "RS256", n=...), False),
    (jwk(RSA, "RS256", n=5), False),
    (jwk(RSA, "RS256", n=""), False),
    (jwk(RSA, "RS256", e="AQ"), False),
    (jwk(RSA, "RS256", e="!!"), False),
    (jwk(RSA, "RS256", kty="oct", k="c2VjcmV0"), False),
    (jwk(RSA, "RS256", kty="rsa"), False),
    (jwk(RSA, "RS256", kty=...), False),
    (jwk(RSA, "RS256", kty=["RSA"]), False),
    (jwk(SMALL_RSA, "RS256"), False),
    (jwk(P256, "ES256"), False),
    (jwk(ED, "EdDSA"), False),
    ({}, False),
    ("RSA", False),
    (None, False),
    ([], False),
]


@pytest.mark.parametrize(("entry", "usable"), PURPOSES, ids=range(len(PURPOSES)))
def test_only_a_strong_key_published_for_this_use_counts(entry: Any, usable: bool) -> None:
    """RFC 7517 sections 4.2 to 4.4, RFC 7518 section 3.3."""
    if usable:
        assert keys.from_jwk(entry, "RS256") == RSA.public_key()
    else:
        with pytest.raises(ValueError, match=r".") as caught:
            keys.from_jwk(entry, "RS256")
        assert jwk(RSA, "RS256")["n"][:20] not in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "algorithm"),
    [
        (jwk(P384, "ES384"), "ES256"),
        (jwk(P256, "ES256"), "ES384"),
        (jwk(P256, "ES256", x="AA"), "ES256"),
        (jwk(P256, "ES256", y=jwk(P256, "ES256")["x"]), "ES256"),
        (jwk(P256, "ES256", crv="secp256k1"), "ES256"),
        (jwk(ED, "EdDSA", crv="Ed448"), "EdDSA"),
        (jwk(ED, "EdDSA", x="AA"), "EdDSA"),
    ],
)
def test_curves_are_fixed_and_points_checked(entry: Any, algorithm: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        keys.from_jwk(entry, algorithm)


async def test_of_a_mixed_set_only_the_fitting_keys_are_taken(house: House, issuer: Issuer) -> None:
    """As real issuers publish: an encryption key, other kinds, something unknown; tokens without kid try what fits."""
    encryption = jwk(OTHER_RSA, "RS256", use="enc", alg="RSA-OAEP", kid="k3")
    fitting = jwk(RSA, "RS256", use="sig", alg="RS256")
    issuer.entries = [{"kty": "new"}, encryption, jwk(P256, "ES256", kid="k2"), fitting]
    assert await login(house, from_issuer()) == "tokens"
    assert await login(house, from_issuer(kid=None)) == "tokens"
    assert await login(house, from_issuer(OTHER_RSA, "k3")) == "token_signature"
    assert await login(house, from_issuer(OTHER_RSA, None)) == "token_signature"
    assert await login(house, from_issuer(RSA, "k3")) == "token_signature"
    assert house.events.fetched[0][2].startswith("1 keys for RS256, refused: ")


async def test_a_set_without_key_ids(house: House, issuer: Issuer) -> None:
    issuer.entries = [jwk(RSA, "RS256", kid=...)]
    assert await login(house, from_issuer(kid=None)) == "tokens"
    assert await login(house, from_issuer(kid="k1")) == "token_signature"


async def test_over_a_real_https_server(tmp_path: Path) -> None:
    """The real Fetch, a real certificate: keys come; an issuer whose certificate is not trusted counts as away."""
    authority = trustme.CA()
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_tls)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    body = json.dumps({"keys": [jwk(RSA, "RS256")]}).encode()
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=server_tls)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"
    for trust, more, expected in ((Trust(ca_file), {}, True), (None, {"ca_file": ca_file}, True), (None, {}, False)):
        fetch = Fetch(trust=trust)
        house = House(tmp_path, {"corp": {"algorithm": "RS256", "jwks_url": url, **more}}, fetch=fetch)
        if expected:
            assert await login(house, from_issuer()) == "tokens"
        else:
            assert await unavailable(house, from_issuer())
            assert "certificate not trusted" in house.events.fetched[0][2]
        await fetch.aclose()
    server.close()
    await server.wait_closed()
    assert [line.split(b"\r\n")[0] for line in asked] == [b"GET /keys HTTP/1.1"] * 2
