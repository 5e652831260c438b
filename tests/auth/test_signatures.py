"""Rule: the configuration alone decides which key and algorithm count; the token is only believed, never followed
(RFC 8725 section 3.1, door.md rows 28-31)."""

from __future__ import annotations

import asyncio
import base64
import json
import string
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed448
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from gateway.auth import keys
from gateway.fetch import Fetch
from tests.auth import kit
from tests.auth.kit import ED, P256, P384, P521, RSA, SECRET, House, b64, claims, hmac_token, jwk, signed, token
from tests.auth.test_claims import login
from tests.rsa_keys import rsa_key

ED448 = ed448.Ed448PrivateKey.generate()
LOCKED = ED.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
BASE64URL = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
ALGORITHMS: list[tuple[str, Any]] = [
    ("HS256", SECRET), ("HS384", SECRET), ("HS512", SECRET * 2),
    ("RS256", RSA), ("RS384", RSA), ("RS512", RSA), ("PS256", RSA), ("PS384", RSA), ("PS512", RSA),
    ("ES256", P256), ("ES384", P384), ("ES512", P521), ("EdDSA", ED),
]  # fmt: skip


def key_settings(tmp_path: Path, algorithm: str, key: Any, **more: Any) -> dict[str, Any]:
    if isinstance(key, str):
        return {"algorithm": algorithm, "secret": key} | more
    path = tmp_path / f"{algorithm}.pem"
    path.write_bytes(kit.public_pem(key))
    return {"algorithm": algorithm, "public_key_file": path} | more


@pytest.mark.parametrize(("algorithm", "key"), ALGORITHMS, ids=[a for a, _ in ALGORITHMS])
async def test_each_algorithm_lets_in_its_own_tokens_only(tmp_path: Path, algorithm: str, key: Any) -> None:
    """Every other algorithm is refused, also one of the same family made with the very same key."""
    house = House(tmp_path, {"app": key_settings(tmp_path, algorithm, key)})
    for other, other_key in ALGORITHMS:
        expected = "tokens" if other == algorithm else "token_unknown_key"
        assert await login(house, signed(other_key, other)) == expected, other


@pytest.mark.parametrize(("algorithm", "key"), ALGORITHMS, ids=[a for a, _ in ALGORITHMS])
async def test_a_changed_byte_anywhere_is_noticed(tmp_path: Path, algorithm: str, key: Any) -> None:
    house = House(tmp_path, {"app": key_settings(tmp_path, algorithm, key)})
    header, payload, signature = signed(key, algorithm).split(".")
    raw = bytearray(base64.urlsafe_b64decode(signature + "=="))
    for position in (0, len(raw) // 2, len(raw) - 1):
        raw[position] ^= 1
        assert await login(house, f"{header}.{payload}.{b64(bytes(raw))}") == "token_signature"
        raw[position] ^= 1
    other = b64(json.dumps(claims(sub="root")).encode())
    assert await login(house, f"{header}.{other}.{signature}") == "token_signature"
    for forged in ("", b64(b""), b64(bytes(raw[:-1])), b64(bytes(raw) + b"\0"), b64(bytes(len(raw)))):
        assert await login(house, f"{header}.{payload}.{forged}") == "token_signature"


@pytest.mark.parametrize("name", ["none", "None", "nOnE", "NONE", "", "hs256", "HS256 ", "Ed25519", "ES256K", "dir"])
async def test_no_other_algorithm_name_means_anything(tmp_path: Path, name: str) -> None:
    house = House(tmp_path)
    payload = b64(json.dumps(claims()).encode())
    header = b64(json.dumps({"alg": name}).encode())
    assert await login(house, f"{header}.{payload}.") == "token_unknown_key"
    assert await login(house, token({"alg": name})) == "token_unknown_key"


async def test_the_unsecured_token_of_rfc_7519_is_refused(tmp_path: Path) -> None:
    payload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
    text = f"eyJhbGciOiJub25lIn0.{payload}."
    assert await login(House(tmp_path), text) == "token_unknown_key"


CONFUSED = {
    "pem": kit.public_pem(RSA),
    "pem without its last newline": kit.public_pem(RSA).strip(),
    "der": kit.public_der(RSA),
    "base64 of der": base64.b64encode(kit.public_der(RSA)),
    "jwk": json.dumps(jwk(RSA, "RS256")).encode(),
    "empty": b"",
    "modulus": RSA.public_key().public_numbers().n.to_bytes(256, "big"),
}


@pytest.mark.parametrize("secret", CONFUSED.values(), ids=CONFUSED.keys())
async def test_a_public_key_is_no_secret_to_sign_with(tmp_path: Path, secret: bytes) -> None:
    """RS256 is configured; HS256 by its public key must not pass, nor RS256 in the header over an HMAC."""
    house = House(tmp_path, {"app": key_settings(tmp_path, "RS256", RSA)})
    payload = json.dumps(claims()).encode()
    assert await login(house, hmac_token(payload, b'{"alg":"HS256"}', secret)) == "token_unknown_key"
    assert await login(house, hmac_token(payload, b'{"alg":"RS256"}', secret)) == "token_signature"


KIDS = ["../../../../dev/null", "/dev/null", "' OR 1=1--", "app\0", "|sleep 5", "http://127.0.0.1/", "", "x" * 4000]


@pytest.mark.parametrize("kid", KIDS, ids=range(len(KIDS)))
async def test_a_key_id_opens_no_file_and_no_query(tmp_path: Path, kid: str) -> None:
    """The id of a key held here is only a label; that of a published key is looked up and found or not."""
    held = House(tmp_path)
    assert await login(held, token({"kid": kid})) == "tokens"
    payload = json.dumps(claims()).encode()
    empty_key = hmac_token(payload, json.dumps({"alg": "HS256", "kid": kid}).encode(), secret=b"")
    assert await login(held, empty_key) == "token_signature"
    published = House(
        tmp_path, {"corp": {"algorithm": "RS256", "jwks_url": kit.Issuer.URL}}, fetch=kit.Issuer(jwk(RSA, "RS256"))
    )
    assert await login(published, signed(RSA, "RS256", {"kid": kid})) == "token_signature"
    assert published.fetch.requests == 1


async def test_keys_in_the_header_are_neither_used_nor_fetched(tmp_path: Path) -> None:
    """jku and x5u point at a listener of ours, jwk and x5c bring the attacker's own key: refused, and nobody calls."""
    calls: list[str] = []

    async def called(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append("called")
        writer.close()

    server = await asyncio.start_server(called, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"
    fetch = Fetch()
    house = House(tmp_path, {"app": key_settings(tmp_path, "RS256", RSA)}, fetch=fetch)
    attacker = rsa_key("other")
    der = base64.b64encode(kit.public_der(attacker)).decode()
    own = {"jwk": jwk(attacker, "RS256"), "x5c": [der], "jku": url, "x5u": url, "kid": url}
    for header in (own, *({name: value} for name, value in own.items())):
        assert await login(house, signed(attacker, "RS256", header)) == "token_signature"
        assert await login(house, signed(RSA, "RS256", header)) == "tokens"
    await fetch.aclose()
    server.close()
    await server.wait_closed()
    assert calls == []


ISSUERS = [
    # iss of the token, signed by, who is let in
    ("https://corp.example", "corp", "tokens"),
    ("https://corp.example", "open", "token_signature"),
    ("https://corp.example/", "corp", "token_signature"),
    ("https://CORP.example", "corp", "token_signature"),
    ("https://other.example", "open", "tokens"),
    ("https://other.example", "corp", "token_signature"),
    (..., "open", "tokens"),
    (..., "corp", "token_signature"),
]


@pytest.mark.parametrize(("issuer", "by", "expected"), ISSUERS)
async def test_an_issuer_belongs_to_its_key(tmp_path: Path, issuer: object, by: str, expected: str) -> None:
    """Two keys of one algorithm; the one without an issuer must not speak for the one that has it, nor vice versa."""
    secrets = {"corp": "c" * 32, "open": "o" * 32}
    configured = {
        "corp": {"algorithm": "HS256", "secret": secrets["corp"], "issuer": "https://corp.example"},
        "open": {"algorithm": "HS256", "secret": secrets["open"]},
    }
    payload = json.dumps(claims(iss=issuer)).encode()
    assert await login(House(tmp_path, configured), hmac_token(payload, secret=secrets[by].encode())) == expected


async def test_an_issuer_may_change_its_key_with_both_configured(tmp_path: Path) -> None:
    issuer = "https://corp.example"
    both = {name: {"algorithm": "HS256", "secret": name[0] * 32, "issuer": issuer} for name in ("old", "new")}
    house = House(tmp_path, both)
    for name in both:
        payload = json.dumps(claims(iss=issuer)).encode()
        assert await login(house, hmac_token(payload, secret=name[0].encode() * 32)) == "tokens"


HEAD, PAYLOAD, SIGNATURE = token().split(".")
SHAPES = {
    "padding of the header": f"{HEAD}=.{PAYLOAD}.{SIGNATURE}",
    "padding of the payload": f"{HEAD}.{PAYLOAD}==.{SIGNATURE}",
    "padding of the signature": f"{HEAD}.{PAYLOAD}.{SIGNATURE}=",
    "trailing bits": f"{HEAD}.{PAYLOAD}.{SIGNATURE[:-1]}{BASE64URL[BASE64URL.index(SIGNATURE[-1]) + 1]}",
    "one character too many": f"{HEAD}.{PAYLOAD}.{SIGNATURE}AA",
    "standard alphabet": f"{HEAD}.{PAYLOAD}.+/{SIGNATURE[2:]}",
    "space inside": f"{HEAD}.{PAYLOAD[:4]} {PAYLOAD[4:]}.{SIGNATURE}",
    "two parts": f"{HEAD}.{PAYLOAD}",
    "four parts": f"{HEAD}.{PAYLOAD}.{SIGNATURE}.",
    "five parts": f"{HEAD}.{PAYLOAD}.{SIGNATURE}.{SIGNATURE}.{SIGNATURE}",
    "empty": "",
    "dots": "..",
    "JSON form": json.dumps({"protected": HEAD, "payload": PAYLOAD, "signature": SIGNATURE}),
    "unicode digit": f"{HEAD}.{PAYLOAD}.{SIGNATURE[:-1]}٣",
    "surrogate": f"{HEAD}.{PAYLOAD}.{SIGNATURE}\ud800",
    "two words": f"Bearer Bearer {HEAD}.{PAYLOAD}.{SIGNATURE}",
    "half a quote": f'"{HEAD}.{PAYLOAD}.{SIGNATURE}',
}


@pytest.mark.parametrize("text", SHAPES.values(), ids=SHAPES.keys())
async def test_only_the_canonical_spelling_is_a_token(tmp_path: Path, text: str) -> None:
    house = House(tmp_path)
    assert await login(house, f"{HEAD}.{PAYLOAD}.{SIGNATURE}") == "tokens"
    assert await login(house, text) in ("token_malformed", "auth_failed", "token_signature")


@pytest.mark.parametrize(
    "around", ["{}\n", "{}\r\n", " {}\t", "Bearer {}", "bearer  {}\n", '"{}"', "'{}'", 'Bearer "{}"']
)
async def test_what_came_along_with_a_token_does_no_harm(tmp_path: Path, around: str) -> None:
    """A file ends in a line break, a copied header begins with Bearer: no token holds such characters."""
    assert await login(House(tmp_path), around.format(f"{HEAD}.{PAYLOAD}.{SIGNATURE}")) == "tokens"


@pytest.mark.parametrize("cut", [20, 60, 128])
async def test_a_token_cut_short_is_called_malformed(tmp_path: Path, cut: int) -> None:
    """Many devices keep 128 characters of a password; the reason in the log leads there."""
    assert len(HEAD) > 20
    assert await login(House(tmp_path), f"{HEAD}.{PAYLOAD}.{SIGNATURE}"[:cut]) == "token_malformed"


RFC_VECTORS = {
    # RFC 7515 A.1, A.3 and RFC 8037 A.4; that they verify shows that they were copied right
    "7515 A.1": (
        "HS256",
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
        "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
    ),
    "7515 A.3": (
        "ES256",
        {
            "kty": "EC",
            "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        },
        "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
    ),
    "8037 A.4": (
        "EdDSA",
        {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
    ),
}


@pytest.mark.parametrize(("algorithm", "key", "text"), RFC_VECTORS.values(), ids=RFC_VECTORS.keys())
def test_the_examples_of_the_rfcs_verify(algorithm: str, key: Any, text: str) -> None:
    public = jwt.utils.base64url_decode(key) if isinstance(key, str) else keys.from_jwk(key, algorithm)
    assert keys.verify(text, public, algorithm)
    assert not keys.verify(text[:-3] + ("AAA" if text[-3:] != "AAA" else "BBB"), public, algorithm)


PEM_RSA, DER_RSA = kit.public_pem(RSA), kit.public_der(RSA)
FILE, PRIVATE = "public_key_file", "private_key_file"
BAD_KEYS: list[tuple[str, dict[str, Any], str]] = [
    # algorithm, sources (bytes: the content of a file), what the message says after auth.keys.bad
    ("HS256", {"secret": PEM_RSA.decode()}, ".secret: is a public key"),
    ("HS256", {"secret": base64.b64encode(DER_RSA).decode()}, ".secret: is a public key"),
    ("HS256", {"secret": json.dumps(jwk(RSA, "RS256"))}, ".secret: is a public key"),
    ("RS256", {FILE: kit.public_pem(kit.SMALL_RSA)}, ".public_key_file: RS256 needs an RSA key of 2048"),
    ("PS256", {PRIVATE: kit.private_pem(kit.SMALL_RSA)}, ".private_key_file: PS256 needs an RSA key of 2048"),
    ("ES256", {FILE: kit.public_pem(P384)}, ".public_key_file: ES256 needs a key on the curve secp256r1"),
    ("ES384", {PRIVATE: kit.private_pem(P256)}, ".private_key_file: ES384 needs a key on the curve secp384r1"),
    ("ES256", {FILE: PEM_RSA}, ".public_key_file: ES256 needs a key on the curve secp256r1"),
    ("RS256", {FILE: kit.public_pem(P256)}, ".public_key_file: RS256 needs an RSA key"),
    ("EdDSA", {FILE: kit.public_pem(ED448)}, ".public_key_file: EdDSA needs a key on the curve Ed25519"),
    ("EdDSA", {FILE: kit.private_pem(ED)}, "is not a PEM public key"),
    ("EdDSA", {PRIVATE: kit.public_pem(ED)}, "is not a PEM private key: it holds PUBLIC KEY"),
    ("EdDSA", {PRIVATE: LOCKED}, "is not a PEM private key: it needs a passphrase"),
    ("ES256", {PRIVATE: b""}, "is not a PEM private key: it is empty"),
    ("ES256", {PRIVATE: "missing.pem"}, ".private_key_file: cannot read"),
    ("HS256", {"secret": SECRET, "audience": "gateway-admin"}, ".audience: gateway-admin is reserved"),
]


@pytest.mark.parametrize(("algorithm", "sources", "words"), BAD_KEYS, ids=[f"{b[0]} {b[2]}" for b in BAD_KEYS])
def test_a_weak_or_wrong_key_is_refused_by_the_name_of_its_setting(
    tmp_path: Path, algorithm: str, sources: dict[str, Any], words: str
) -> None:
    key = {"algorithm": algorithm} | sources
    for name, content in sources.items():
        if isinstance(content, bytes):
            key[name] = tmp_path / "bad.pem"
            key[name].write_bytes(content)
    with pytest.raises(ValueError, match=r"^auth\.keys\.bad[.:]") as caught:
        keys.load_keys(kit.settings(tmp_path, {"bad": key}))
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)


def test_no_key_shows_its_secret(tmp_path: Path) -> None:
    assert SECRET not in repr(keys.load_keys(kit.settings(tmp_path)))
