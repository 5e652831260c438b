"""Rule: tokens made here are accepted here and say what they are; a revoked or expired one stops working in an open
session; only our own key opens the HTTP interface (issue item 4, door.md row 34)."""

from __future__ import annotations

import json
import stat
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway import auth
from gateway.auth import Revocations
from gateway.model import CannotTell, LoginToken, Refusal
from tests.auth.kit import (
    ANY,
    APP,
    NOW,
    RSA,
    SECRET,
    House,
    Issuer,
    at,
    cheap_hash,
    hmac_token,
    jwk,
    public_pem,
    settings,
    signed,
    token,
)
from tests.auth.test_claims import login
from tests.auth.test_jwks import OTHER_RSA
from tests.fakes import START

OWN = {"own": {"algorithm": "EdDSA", "private_key_file": "token.key"}}
DAY = timedelta(days=1)
NOBODY = Revocations()


def mint(configured: Any, key: str = "own", **changes: Any) -> str:
    given = {"subject": "billing", "expires_in": DAY, "now": START, "jti": "t-1", "claims": {}} | changes
    return auth.mint(configured, key, **given)


def inspect(configured: Any, text: str, revocations: Revocations = NOBODY) -> dict[str, Any]:
    return auth.inspect(configured, text, START, revocations)


# -- our own key ---------------------------------------------------------------------------------------------------


def test_the_own_key_is_made_once_and_for_us_alone(tmp_path: Path) -> None:
    state = tmp_path / "state"
    configured = settings(state, OWN)
    auth.ensure_own_key(configured)
    path = state / "token.key"
    made = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"PRIVATE KEY" in made
    auth.ensure_own_key(configured)
    assert path.read_bytes() == made
    assert [entry.name for entry in state.iterdir()] == ["token.key"]
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_an_existing_file_is_never_replaced_even_by_many_at_once(tmp_path: Path) -> None:
    configured = settings(tmp_path, OWN)
    barrier = threading.Barrier(8)
    seen: list[bytes] = []

    def start() -> None:
        barrier.wait()
        auth.ensure_own_key(configured)
        seen.append((tmp_path / "token.key").read_bytes())

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8
    assert len(set(seen)) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["token.key"]


def test_only_an_eddsa_private_key_is_made(tmp_path: Path) -> None:
    keys = {
        "r": {"algorithm": "RS256", "private_key_file": "r.key"},
        "e": {"algorithm": "EdDSA", "public_key_file": "e"},
    }
    auth.ensure_own_key(settings(tmp_path, keys | APP))
    assert list(tmp_path.iterdir()) == []


def test_where_no_key_can_be_made_the_setting_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    keys = {"own": {"algorithm": "EdDSA", "private_key_file": tmp_path / "file" / "token.key"}}
    with pytest.raises(ValueError, match=r"^auth\.keys\.own\.private_key_file: cannot make "):
        auth.ensure_own_key(settings(tmp_path, keys))


# -- mint and inspect ----------------------------------------------------------------------------------------------


async def test_what_is_minted_lets_in(tmp_path: Path) -> None:
    house = House(tmp_path, OWN | APP)
    for key in ("own", "app"):
        text = mint(house.settings, key, claims={"senders": ["a@example.com"], "max_size": 1000})
        assert len(text) < 500
        client = await house.auth.login("jwt", text, "192.0.2.1")
        assert client.token == LoginToken(key, "billing", "t-1", START, START + DAY)
        assert client.senders == (("*",), ("a@example.com",))
    house.clock.advance(DAY.total_seconds() + 30)
    assert await login(house, text) == "token_expired"


async def test_issuer_and_audience_of_the_key_are_written(tmp_path: Path) -> None:
    keys = {"app": APP["app"] | {"issuer": "https://relay.example", "audience": "smtp"}}
    text = mint(settings(tmp_path, keys), "app")
    assert await login(House(tmp_path, keys), text) == "tokens"
    shown = inspect(settings(tmp_path, keys), text)
    assert (shown["claims"]["iss"], shown["claims"]["aud"]) == ("https://relay.example", "smtp")


REFUSED_MINTS = [
    ("app", {"expires_in": None}, "exp is missing"),
    ("app", {"subject": ""}, "sub is"),
    ("app", {"subject": "a\nb"}, "sub is"),
    ("app", {"expires_in": -DAY}, "expired"),
    ("app", {"claims": {"senders": 5}}, "senders"),
    ("app", {"claims": {"networks": ["x"]}}, "network"),
    ("app", {"claims": {"max_size": "huge"}}, "not a size"),
    ("app", {"claims": {"aud": "smtp"}}, "aud"),
    ("app", {"claims": {"aud": "gateway-admin"}}, "private_key_file"),
    ("app", {"claims": {"iss": "https://corp.example"}}, "no configured key"),
    ("app", {"claims": {"exp": NOW, "sub": "root"}}, "exp, sub cannot be given among the claims"),
    ("app", {"claims": {"x": "y" * 9000}}, "longer than 8192"),
    ("app", {"claims": {"x": float("nan")}}, "not JSON compliant"),
    ("none", {}, "auth.keys.none: no such key"),
    ("corp", {}, "auth.keys.corp cannot sign"),
]


@pytest.mark.parametrize(("key", "changes", "words"), REFUSED_MINTS, ids=[w for _, _, w in REFUSED_MINTS])
def test_no_token_is_minted_that_would_be_refused(
    tmp_path: Path, key: str, changes: dict[str, Any], words: str
) -> None:
    corp = {"algorithm": "RS256", "jwks_url": Issuer.URL, "issuer": "https://corp.example"}
    with pytest.raises(ValueError, match=words.replace(".", r"\.")):
        mint(settings(tmp_path, APP | {"corp": corp}), key, **changes)


async def test_a_token_without_an_end_where_the_key_allows_it(tmp_path: Path) -> None:
    keys = {"app": APP["app"] | {"expiry": "optional"}}
    text = mint(settings(tmp_path, keys), "app", expires_in=None, jti="")
    client = await House(tmp_path, keys).auth.login("jwt", text, "192.0.2.1")
    assert client.token == LoginToken("app", "billing", "", START, None)


HERE = "the clock of this machine says 2026-11-20 12:00:00"
VERDICTS = [
    (token(), True, "app", "valid"),
    (token(exp=NOW - 60), False, "app", f"expired at 2026-11-20 11:59:00 UTC, and {HERE}"),
    (token(nbf=NOW + 60), False, "app", f"not valid yet: nbf or iat lies in the future, and {HERE}"),
    (token(aud="x"), False, "app", "aud is not expected: the key has no audience configured"),
    (token(senders=1), False, "app", "senders is not a list of texts"),
    (token()[:-4] + "AAAA", False, "", "the signature is wrong"),
    (token({"alg": "none"}), False, "", "no configured key has this issuer and algorithm"),
    (signed(RSA, "RS256"), None, "corp", f"signature not checked: needs {Issuer.URL}"),
    (signed(RSA, "RS256", exp=NOW - 60), False, "corp", f"expired at 2026-11-20 11:59:00 UTC, and {HERE}"),
    ("nonsense", False, "", "this is no token: a token has three parts"),
    ("", False, "", "this is no token: a token has three parts"),
    ("a.b.c", False, "", None),
    ("\ud800.\ud800.", False, "", None),
]


@pytest.mark.parametrize(("text", "valid", "key", "verdict"), VERDICTS, ids=[str(v[3]) for v in VERDICTS])
def test_inspect_says_in_words_what_would_happen(
    tmp_path: Path, text: str, valid: bool | None, key: str, verdict: str | None
) -> None:
    corp = {"corp": {"algorithm": "RS256", "jwks_url": Issuer.URL}}
    shown = inspect(settings(tmp_path, APP | corp), text)
    assert (shown["valid"], shown["key"]) == (valid, key)
    assert shown["verdict"] == verdict or (verdict is None and shown["verdict"])
    assert not text or text not in json.dumps(shown)
    assert SECRET not in json.dumps(shown)


# -- the HTTP interface --------------------------------------------------------------------------------------------


def admin(house: House, text: str, peer: str = "192.0.2.1") -> str:
    try:
        return house.auth.admin_token(text, peer).name
    except Refusal as caught:
        refusal = caught
    assert (refusal.code, refusal.enhanced) == (535, "5.7.8")
    return refusal.reason


@pytest.mark.parametrize(
    ("peer", "becomes"), [("192.0.2.9", "ann"), ("198.51.100.1", "wrong_network"), ("", "wrong_network")]
)
async def test_networks_narrow_an_admin_token(tmp_path: Path, peer: str, becomes: str) -> None:
    """What was minted for one network opens nothing from another."""
    house = House(tmp_path, OWN)
    text = mint(house.settings, claims={"aud": "gateway-admin", "networks": ["192.0.2.0/24"]}, subject="ann")
    assert admin(house, text, peer) == becomes


async def test_only_our_own_key_opens_the_http_interface(tmp_path: Path) -> None:
    """A secret shared to send mail, or an account at an issuer, does not; and an admin token sends no mail."""
    issuer = Issuer(jwk(RSA, "RS256"))
    keys = APP | {"own": OWN["own"] | {"audience": "smtp"}, "corp": {"algorithm": "RS256", "jwks_url": Issuer.URL}}
    house = House(tmp_path, keys, fetch=issuer)
    text = mint(house.settings, claims={"aud": "gateway-admin"}, subject="ann")
    assert admin(house, text) == "ann"
    assert await login(house, text) == "token_audience"
    both = mint(house.settings, claims={"aud": ["smtp", "gateway-admin"]}, subject="ann")
    assert admin(house, both) == "ann"
    assert await login(house, both) == "token_audience"
    assert admin(house, mint(house.settings)) == "token_audience"
    assert admin(house, token(aud="gateway-admin")) == "token_audience"
    assert admin(house, signed(RSA, "RS256", {"kid": "k1"}, aud="gateway-admin")) == "token_signature"
    assert issuer.requests == 0
    assert admin(house, "") == "token_malformed"
    shown = inspect(house.settings, text)
    assert (shown["valid"], shown["verdict"]) == (True, "valid for the HTTP interface only, to admin")
    assert inspect(house.settings, token(aud="gateway-admin"))["valid"] is False
    house.revocations.revoke_jti("t-1")
    assert admin(house, text) == "token_revoked"


def test_an_admin_token_expires(tmp_path: Path) -> None:
    house = House(tmp_path, OWN)
    text = mint(house.settings, claims={"aud": "gateway-admin"})
    house.clock.advance(DAY.total_seconds() + 30)
    assert admin(house, text) == "token_expired"


# -- revocation ----------------------------------------------------------------------------------------------------

REVOKED = [
    # claims of the token, what is revoked, dead
    ({"jti": "a"}, {"jti": "a"}, True),
    ({"jti": "a"}, {"jti": "b"}, False),
    ({}, {"jti": "a"}, False),
    ({"iat": NOW - 10}, {"subject": "billing", "before": at(0)}, True),
    ({"iat": NOW - 10}, {"subject": "billing", "before": at(-10)}, False),
    ({"iat": NOW - 10}, {"subject": "billing", "before": at(-11)}, False),
    ({"iat": ...}, {"subject": "billing", "before": at(-1000)}, True),
    ({"iat": NOW - 10}, {"subject": "payroll", "before": at(0)}, False),
]


@pytest.mark.parametrize(("given", "revoked", "dead"), REVOKED)
async def test_a_revoked_token_stops_in_new_and_open_sessions(
    tmp_path: Path, given: dict[str, Any], revoked: dict[str, Any], dead: bool
) -> None:
    house = House(tmp_path)
    text = token(**given)
    client = await house.auth.login("jwt", text, "192.0.2.1")
    assert house.auth.still_valid(client)
    if "jti" in revoked:
        house.revocations.revoke_jti(revoked["jti"])
    else:
        house.revocations.revoke_subject(revoked["subject"], revoked["before"])
    assert house.auth.still_valid(client) is not dead
    assert await login(house, text) == ("token_revoked" if dead else "tokens")
    shown = inspect(house.settings, text, house.revocations)
    assert (shown["valid"], shown["verdict"]) == ((False, "revoked") if dead else (True, "valid"))


def test_revocations_from_the_spool_and_never_taken_back() -> None:
    known = Revocations({"a"}, {"billing": at(0)})
    known.revoke_subject("billing", at(-100))
    assert known.is_revoked(LoginToken("app", "x", "a", at(0), None))
    assert known.is_revoked(LoginToken("app", "billing", "", at(-1), None))
    assert not known.is_revoked(LoginToken("app", "billing", "", at(0), None))
    assert not Revocations().is_revoked(LoginToken("app", "billing", "", None, None))


async def test_a_session_ends_with_its_token(tmp_path: Path) -> None:
    """With the same leeway as at login; an end far away never overflows."""
    house = House(tmp_path)
    client = await house.auth.login("jwt", token(exp=NOW + 100), "192.0.2.1")
    forever = await house.auth.login("jwt", token(exp=253_402_300_799), "192.0.2.1")
    house.clock.advance(129)
    assert house.auth.still_valid(client)
    house.clock.advance(1)
    assert not house.auth.still_valid(client)
    assert house.auth.still_valid(forever)


async def test_who_is_no_longer_configured_is_out(tmp_path: Path) -> None:
    """After a reload: the client's section or the key that signed is gone."""
    lan = {"lan": {"networks": ["192.0.2.0/24"]}}
    house = House(tmp_path, clients=ANY | lan)
    anonymous = house.auth.by_network("192.0.2.1")
    client = await house.auth.login("jwt", token(), "192.0.2.1")
    assert anonymous is not None
    assert house.auth.still_valid(anonymous)
    assert not House(tmp_path, clients=ANY).auth.still_valid(anonymous)
    assert not House(tmp_path, clients=lan).auth.still_valid(client)
    other = {"other": {"algorithm": "HS256", "secret": SECRET}}
    assert not House(tmp_path, other, ANY).auth.still_valid(client)


WORD = "k7hmx2paq9wbt4crn6ez"
COPIER = {"copier": {"password_hash": cheap_hash(WORD)}}
PUBLIC = {"pub": {"algorithm": "RS256", "public_key_file": "pub.pem"}}
CHANGES: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any], bool]] = [
    # keys and clients of the login, what they are changed to, good still
    ("nothing", APP, ANY, {}, True),
    ("another secret", APP, ANY, {"keys": {"app": APP["app"] | {"secret": SECRET + "!"}}}, False),
    ("an audience", APP, ANY, {"keys": {"app": APP["app"] | {"audience": "smtp"}}}, False),
    ("a key beside it", APP, ANY, {"keys": APP | PUBLIC}, True),
    ("our own key, as it was", OWN, ANY, {}, True),
    ("our own key, made anew", OWN, ANY, {"files": ["token.key"]}, False),
    ("a public key in its file", PUBLIC, ANY, {"files": ["pub.pem"]}, False),
    ("a password", APP, COPIER, {"clients": {"copier": {"password_hash": cheap_hash("another")}}}, False),
    ("the same password", APP, COPIER, {"clients": COPIER | ANY}, True),
    ("a user name", APP, COPIER, {"clients": {"copier": COPIER["copier"] | {"user": "c@example.com"}}}, True),
    ("a password that is a token now", APP, COPIER, {"clients": {"copier": {"token": "x"}}}, False),
]


@pytest.mark.parametrize(("what", "keys", "clients", "changed", "good"), CHANGES, ids=[row[0] for row in CHANGES])
async def test_a_session_is_judged_by_the_credentials_of_now(
    tmp_path: Path, what: str, keys: dict[str, Any], clients: dict[str, Any], changed: dict[str, Any], good: bool
) -> None:
    """A key or password that was replaced, perhaps because it leaked, ends the sessions that it let in, whatever its
    name; what is as it was ends none."""
    (tmp_path / "pub.pem").write_bytes(public_pem(RSA))
    house = House(tmp_path, keys, clients)
    text = WORD if clients is COPIER else mint(house.settings) if keys is OWN else token()
    text = signed(RSA, "RS256") if keys is PUBLIC else text
    client = await house.auth.login("copier" if clients is COPIER else "jwt", text, "192.0.2.1")
    assert house.auth.still_valid(client)
    for name in changed.get("files", ()):
        (tmp_path / name).unlink()
    if not (tmp_path / "pub.pem").exists():
        (tmp_path / "pub.pem").write_bytes(public_pem(OTHER_RSA))
    after = House(tmp_path, changed.get("keys", keys), changed.get("clients", clients))
    assert after.auth.still_valid(client) is good


async def test_a_session_ends_when_the_issuer_withdraws_its_key(tmp_path: Path) -> None:
    """Asked again after five minutes, like at a login; while it is away the kept keys serve for a day, also over a
    reload; then nobody can tell."""
    issuer = Issuer(jwk(RSA, "RS256"), jwk(OTHER_RSA, "RS256", kid="k2"))
    keys = {"corp": {"algorithm": "RS256", "jwks_url": Issuer.URL}}
    house = House(tmp_path, keys, fetch=issuer)
    auth = house.auth
    client = await auth.login("jwt", signed(RSA, "RS256", {"kid": "k1"}, exp=NOW + 10_000_000), "192.0.2.1")
    assert (auth.unsure(client), auth.still_valid(client), issuer.requests) == (False, True, 1)
    house.clock.advance(300)
    assert auth.unsure(client)
    await auth.look_again(client)
    assert (auth.unsure(client), auth.still_valid(client), issuer.requests) == (False, True, 2)

    issuer.go_away()
    house.clock.advance(3600)
    after = House(tmp_path, keys, fetch=issuer)
    after.clock.advance(3900)
    after.auth.take_over(auth)
    await after.auth.look_again(client)
    assert after.auth.still_valid(client)
    after.clock.advance(83_000)
    await after.auth.look_again(client)
    with pytest.raises(CannotTell):
        after.auth.still_valid(client)

    issuer.come_back()
    issuer.entries = [jwk(OTHER_RSA, "RS256", kid="k1")]
    await auth.look_again(client)
    assert not auth.still_valid(client)


async def test_a_session_ends_with_the_backend_that_knew_its_token(tmp_path: Path) -> None:
    class Site:
        async def verify(self, text: str) -> str:
            return "me@example.com"

    clients, site = {"boxes": {"login": "site"}}, Site()
    house = House(tmp_path, clients=clients, site=site)
    client = await house.auth.login("jwt", hmac_token(b'{"address":"me@example.com"}', secret=b"x" * 32), "192.0.2.1")
    assert house.auth.still_valid(client)
    assert House(tmp_path, clients=clients, site=site).auth.still_valid(client)
    assert not House(tmp_path, clients=clients, site=Site()).auth.still_valid(client)


async def test_no_secret_shows_in_a_client_or_a_refusal(tmp_path: Path) -> None:
    house = House(tmp_path)
    text = token(jti="t-1")
    client = await house.auth.login("jwt", text, "192.0.2.1")
    with pytest.raises(Refusal) as caught:
        await house.auth.login("jwt", text[:-4] + "AAAA", "192.0.2.1")
    for shown in (repr(client), repr(caught.value), str(caught.value)):
        assert text.split(".")[2][:20] not in shown
        assert text.split(".")[1] not in shown
    assert caught.value.__cause__ is None


async def test_last_uses_are_noted(tmp_path: Path) -> None:
    """Who came in, by token id or by the password of a client; a token that was refused was of no use."""
    house = House(tmp_path, clients=ANY | {"copier": {"password_hash": cheap_hash("word")}})
    said = [await login(house, token(jti="t1")), await login(house, "word", user="copier")]
    said += [await login(house, token(jti="t2", exp=NOW - 3600)), await login(house, token(jti="t3", aud="elsewhere"))]
    house.revocations.revoke_jti("t1")
    house.clock.advance(60)
    assert [*said, await login(house, token(jti="t1"))] == [
        "tokens", "copier", "token_expired", "token_audience", "token_revoked",
    ]  # fmt: skip
    noted = [(kind, name, use.at, use.peer) for kind, name, use in house.uses.take()]
    assert noted == [
        ("password", "copier", START, "192.0.2.1"),
        ("revoked", "t1", START + timedelta(minutes=1), "192.0.2.1"),
        ("token", "t1", START, "192.0.2.1"),
    ]
