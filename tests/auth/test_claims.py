"""Rule: a token lets somebody in only if every claim has the right type and value; nothing in it raises anything but
a refusal, and the refusal's text never says why (RFC 7519 section 4, door.md rows 11, 32, 35)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway import auth
from gateway.model import Refusal
from tests.auth.kit import NOW, SECRET, House, claims, hmac_token, token

EXPIRED, EARLY, WRONG, AUDIENCE = "token_expired", "token_not_yet", "token_claims", "token_audience"
MALFORMED = "token_malformed"
ISSUED = NOW - 10


async def login(house: House, password: str, user: str = "jwt", peer: str = "192.0.2.1") -> str:
    """The client's name, or the reason of the refusal."""
    try:
        return (await house.auth.login(user, password, peer)).name
    except Refusal as caught:
        refusal = caught
    assert (refusal.code, refusal.enhanced, refusal.text) == (535, "5.7.8", "Authentication credentials invalid")
    assert refusal.reason in auth.REASONS
    return refusal.reason


VARIANTS = [
    # what is changed, what becomes of it
    ({}, "tokens"),
    ({"exp": ...}, WRONG),
    ({"exp": None}, WRONG),
    ({"exp": NOW + 0.5}, "tokens"),
    ({"exp": NOW}, "tokens"),
    ({"exp": NOW - 29}, "tokens"),
    ({"exp": NOW - 30}, EXPIRED),
    ({"exp": NOW - 31}, EXPIRED),
    ({"exp": 0}, EXPIRED),
    ({"exp": -1}, WRONG),
    ({"exp": -1e308}, WRONG),
    ({"exp": 1e308}, WRONG),
    ({"exp": 10**19}, WRONG),
    ({"exp": 10**400}, MALFORMED),
    ({"exp": 253_402_300_799}, "tokens"),
    ({"exp": 253_402_300_800}, WRONG),
    ({"exp": str(NOW + 3600)}, WRONG),
    ({"exp": "2030-01-01T00:00:00Z"}, WRONG),
    ({"exp": True}, WRONG),
    ({"exp": [NOW + 3600]}, WRONG),
    ({"exp": {"$date": NOW + 3600}}, WRONG),
    ({"nbf": NOW}, "tokens"),
    ({"nbf": NOW + 30}, "tokens"),
    ({"nbf": NOW + 31}, EARLY),
    ({"nbf": 1e308}, WRONG),
    ({"nbf": -5}, WRONG),
    ({"nbf": None}, WRONG),
    ({"nbf": False}, WRONG),
    ({"nbf": str(NOW)}, WRONG),
    ({"nbf": [NOW]}, WRONG),
    ({"iat": ...}, "tokens"),
    ({"iat": NOW + 30}, "tokens"),
    ({"iat": NOW + 31}, EARLY),
    ({"iat": None}, WRONG),
    ({"iat": -1}, WRONG),
    ({"iat": "yesterday"}, WRONG),
    ({"iat": [ISSUED]}, WRONG),
    ({"iat": True}, WRONG),
    ({"sub": ...}, WRONG),
    ({"sub": None}, WRONG),
    ({"sub": ""}, WRONG),
    ({"sub": 7}, WRONG),
    ({"sub": True}, WRONG),
    ({"sub": ["billing"]}, WRONG),
    ({"sub": {"id": 1}}, WRONG),
    ({"sub": "a\r\nb"}, WRONG),
    ({"sub": "a\x00"}, WRONG),
    ({"sub": "\ud800"}, MALFORMED),
    ({"name": "cut \ud83d"}, MALFORMED),
    ({"email": "\udc80@x.org"}, MALFORMED),
    ({"senders": ["\ud800@x.org"]}, MALFORMED),
    ({"groups": {"\ud800": 1}}, MALFORMED),
    ({"name": "\U0001f4e7"}, "tokens"),
    ({"sub": "x" * 255}, "tokens"),
    ({"sub": "x" * 256}, WRONG),
    ({"sub": "Jörg Öztürk"}, "tokens"),
    ({"jti": "a-1"}, "tokens"),
    ({"jti": 5}, WRONG),
    ({"jti": ""}, WRONG),
    ({"jti": None}, WRONG),
    ({"jti": ["a"]}, WRONG),
    ({"aud": "smtp"}, AUDIENCE),
    ({"aud": []}, AUDIENCE),
    ({"aud": ""}, AUDIENCE),
    ({"aud": None}, WRONG),
    ({"aud": 3}, WRONG),
    ({"aud": ["a", 3]}, WRONG),
    ({"aud": {"smtp": 1}}, WRONG),
    ({"aud": "gateway-admin"}, AUDIENCE),
    ({"iss": "https://elsewhere.example"}, "tokens"),
    ({"iss": None}, WRONG),
    ({"iss": ""}, WRONG),
    ({"iss": 5}, WRONG),
    ({"iss": ["a"]}, WRONG),
    ({"iss": {"a": 1}}, WRONG),
]


@pytest.mark.parametrize(("changes", "expected"), VARIANTS, ids=[json.dumps(v[0], default=str)[:60] for v in VARIANTS])
async def test_claim_variants(tmp_path: Path, changes: dict[str, object], expected: str) -> None:
    assert await login(House(tmp_path), token(**changes)) == expected


def test_the_table_is_as_long_as_promised() -> None:
    assert len(VARIANTS) >= 60


AUDIENCES = [
    ("smtp", "smtp", "tokens"),
    ("smtp", ["x", "smtp"], "tokens"),
    ("smtp", ..., AUDIENCE),
    ("smtp", "SMTP", AUDIENCE),
    ("smtp", "smtp2", AUDIENCE),
    ("smtp", [], AUDIENCE),
    ("smtp", ["smtp", "gateway-admin"], AUDIENCE),
    ("smtp", ["smtp", None], WRONG),
]


@pytest.mark.parametrize(("configured", "given", "expected"), AUDIENCES)
async def test_a_configured_audience_must_be_named(
    tmp_path: Path, configured: str, given: object, expected: str
) -> None:
    house = House(tmp_path, {"app": {"algorithm": "HS256", "secret": SECRET, "audience": configured}})
    assert await login(house, token(aud=given)) == expected


async def test_expiry_may_be_optional_but_is_then_still_checked(tmp_path: Path) -> None:
    house = House(tmp_path, {"app": {"algorithm": "HS256", "secret": SECRET, "expiry": "optional"}})
    assert await login(house, token(exp=...)) == "tokens"
    assert await login(house, token(exp=NOW - 31)) == EXPIRED
    assert await login(house, token(exp=None)) == WRONG


PAYLOADS = [
    (b"", "token_malformed"),
    (b"null", "token_malformed"),
    (b"[]", "token_malformed"),
    (b'"sub"', "token_malformed"),
    (b"{", "token_malformed"),
    (b'{"sub":"a","exp":NaN}', MALFORMED),
    (b'{"sub":"a","exp":Infinity}', MALFORMED),
    (b'{"sub":"a","exp":-Infinity}', MALFORMED),
    (b'{"sub":"a","exp":1e999}', MALFORMED),
    (b'{"sub":"a","exp":2000000000,"x":' + b"[" * 63 + b"]" * 63 + b"}", "tokens"),
    (b'{"sub":"a","exp":2000000000,"x":' + b"[" * 64 + b"]" * 64 + b"}", MALFORMED),
    (b'{"sub":"a","exp":2000000000,"x":' + b"[" * 2900 + b"]" * 2900 + b"}", MALFORMED),
    (b'{"sub":"a","exp":' + b"9" * 5000 + b"}", "token_malformed"),
    (b'{"sub":"a","sub":"b","exp":2000000000}', "token_malformed"),
    (b'{"sub":"a","x":{"y":1,"y":2},"exp":2000000000}', "token_malformed"),
    (b'\xef\xbb\xbf{"sub":"a","exp":2000000000}', "token_malformed"),
    (b'{"sub":"\xff","exp":2000000000}', "token_malformed"),
    ('{"sub":"a","exp":2000000000}'.encode("utf-16"), "token_malformed"),
    (b'{"sub":"a","exp":2000000000} trailing', "token_malformed"),
    (b"[" * 5000, "token_malformed"),
    (b'{"sub":"a","exp":2000000000}', "tokens"),
]


@pytest.mark.parametrize(("payload", "expected"), PAYLOADS, ids=[repr(p[0][:40]) for p in PAYLOADS])
async def test_payloads_that_are_signed_but_not_clean_json(tmp_path: Path, payload: bytes, expected: str) -> None:
    assert await login(House(tmp_path), hmac_token(payload)) == expected


HEADERS = [
    (b'{"alg":"HS256"}', "tokens"),
    (b'{"alg":"HS256","typ":"JWT"}', "tokens"),
    (b'{"alg":"HS256","typ":"at+jwt"}', "tokens"),
    (b'{"alg":"HS256","typ":"logout+jwt"}', "token_malformed"),
    (b'{"alg":"HS256","typ":1}', "token_malformed"),
    (b'{"alg":"HS256","alg":"HS256"}', "token_malformed"),
    (b'{"alg":"HS256","crit":["exp"],"exp":1}', "token_malformed"),
    (b'{"alg":"HS256","crit":[]}', "token_malformed"),
    (b'{"alg":"HS256","crit":["b64"],"b64":true}', "token_malformed"),
    (b'{"alg":"HS256","b64":false,"crit":["b64"]}', "token_malformed"),
    (b'{"alg":"HS256","kid":["a"]}', "token_malformed"),
    (b'{"alg":"HS256","kid":{}}', "token_malformed"),
    (b'{"alg":"HS256","kid":null}', "token_malformed"),
    (b'{"alg":["HS256"]}', "token_unknown_key"),
    (b'{"alg":{}}', "token_unknown_key"),
    (b'{"alg":null}', "token_unknown_key"),
    (b"{}", "token_unknown_key"),
    (b'["alg"]', "token_malformed"),
    (b"[" * 5000, "token_malformed"),
]


@pytest.mark.parametrize(("header", "expected"), HEADERS, ids=[repr(h[0][:40]) for h in HEADERS])
async def test_headers(tmp_path: Path, header: bytes, expected: str) -> None:
    good = json.dumps(claims()).encode()
    assert await login(House(tmp_path), hmac_token(good, header)) == expected


async def test_a_token_of_8_kb_passes_and_a_byte_more_does_not(tmp_path: Path) -> None:
    house = House(tmp_path)
    room = {n: len(token(filler="x" * n)) for n in range(5900, 6100)}
    fits = max(n for n, size in room.items() if size <= 8192)
    assert await login(house, token(filler="x" * fits)) == "tokens"
    assert await login(house, token(filler="x" * (fits + 2))) == "token_malformed"


USERS = [
    ("jwt", "tokens"),
    ("billing", "tokens"),
    ("tokens", "tokens"),
    ("JWT", "wrong_user"),
    ("", "wrong_user"),
    ("admin", "wrong_user"),
    ("bill", "wrong_user"),
    ("\ud800", "wrong_user"),
]


@pytest.mark.parametrize(("user", "expected"), USERS)
async def test_user_names_for_a_token(tmp_path: Path, user: str, expected: str) -> None:
    assert await login(House(tmp_path), token(), user) == expected
