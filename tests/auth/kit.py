"""Settings, keys and hand-made tokens for the auth suite: tokens are built byte by byte, not by the code under test."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from gateway.auth import Authenticator, Guesses, Revocations, ensure_own_key
from gateway.config.models import Settings, TenantSettings
from gateway.fetch import Answer, NotSent
from gateway.lastuse import LastUse
from tests import builders
from tests.fakes import START, FakeClock
from tests.rsa_keys import rsa_key

SECRET = "correct horse battery staple, and a few words more"  # 50 bytes
NOW = int(START.timestamp())
RSA, SMALL_RSA = rsa_key(), rsa_key(size=1024)
P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
P521 = ec.generate_private_key(ec.SECP521R1())
ED = ed25519.Ed25519PrivateKey.generate()
ANY = {"tokens": {"token": "*"}}
APP = {"app": {"algorithm": "HS256", "secret": SECRET}}


def settings(tmp_path: Path, keys: Mapping[str, Any] = APP, clients: Mapping[str, Any] = ANY) -> Settings:
    return builders.settings("office", "smart", state_dir=tmp_path, auth={"keys": keys}, clients=clients)


class Recorder:
    """Takes the place of Events: what Authenticator tells it."""

    def __init__(self) -> None:
        self.fetched: list[tuple[str, bool, str]] = []
        self.bugs: list[BaseException] = []

    def jwks(self, key: str, ok: bool, detail: str = "") -> None:
        self.fetched.append((key, ok, detail))

    def bug(self, where: str, error: BaseException) -> None:
        self.bugs.append(error)


class Issuer:
    """A strict Fetch: knows one URL, counts the requests, and can be away or hang."""

    URL = "https://login.example.com/keys"

    def __init__(self, *entries: object) -> None:
        self.entries: list[object] = list(entries)
        self.answer: Answer | Exception | None = None
        self.requests = 0
        self.gate: Any = None

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], deadline: float) -> Answer:
        assert (method, url) == ("GET", self.URL)
        assert 0 < deadline <= 10
        self.requests += 1
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer or Answer(200, {}, json.dumps({"keys": self.entries}).encode())

    def go_away(self) -> None:
        self.answer = NotSent("cannot connect to login.example.com: refused")

    def come_back(self) -> None:
        self.answer = None


class House:
    """An Authenticator with everything around it."""

    def __init__(
        self,
        tmp_path: Path,
        keys: Mapping[str, Any] = APP,
        clients: Mapping[str, Any] = ANY,
        fetch: Any = None,
        guesses: Guesses | None = None,
        tenants: Mapping[str, Any] = {},
        **providers: Any,
    ) -> None:
        whose = {name: TenantSettings.model_validate(one) for name, one in tenants.items()}
        self.settings = settings(tmp_path, keys, clients).model_copy(update={"tenants": whose})
        ensure_own_key(self.settings)
        self.clock = FakeClock()
        self.events = Recorder()
        self.fetch = fetch or Issuer()
        self.revocations = Revocations()
        self.uses = LastUse()
        self.auth = Authenticator(
            self.settings,
            self.clock,
            self.fetch,
            self.events,
            self.revocations,
            providers,  # type: ignore[arg-type]
            guesses,
            self.uses,
        )


def cheap_hash(password: str, ln: int = 10) -> str:
    """The weakest scrypt that is taken, for tests that need many."""
    made = hashlib.scrypt(password.encode(), salt=b"salt" * 4, n=1 << ln, r=8, p=1, dklen=32)
    salt, digest = (base64.b64encode(raw).rstrip(b"=").decode() for raw in (b"salt" * 4, made))
    return f"$scrypt$ln={ln},r=8,p=1${salt}${digest}"


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def hmac_token(payload: bytes, header: bytes = b'{"alg":"HS256","typ":"JWT"}', secret: bytes = SECRET.encode()) -> str:
    """A compact JWS over exactly these bytes, by the standard library alone."""
    signed = f"{b64(header)}.{b64(payload)}"
    return f"{signed}.{b64(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims, changed; a value of ... removes the claim."""
    merged = {"sub": "billing", "exp": NOW + 3600, "iat": NOW - 10} | changes
    return {name: value for name, value in merged.items() if value is not ...}


def token(header: Mapping[str, Any] | None = None, **changes: Any) -> str:
    payload = json.dumps(claims(**changes)).encode()
    return hmac_token(payload, json.dumps({"alg": "HS256", "typ": "JWT"} | dict(header or {})).encode())


def signed(key: Any, algorithm: str, header: Mapping[str, Any] | None = None, **changes: Any) -> str:
    """A token of an asymmetric key, as an issuer would make it."""
    return jwt.encode(claims(**changes), key, algorithm=algorithm, headers=dict(header or {}))


def private_pem(key: Any) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(key: Any) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def public_der(key: Any) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def jwk(key: Any, algorithm: str, **changes: Any) -> dict[str, Any]:
    """The public JWK of a private key; a value of ... removes a member."""
    made = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    made = {name: value for name, value in made.items() if name != "key_ops"} | {"kid": "k1"} | changes
    return {name: value for name, value in made.items() if value is not ...}


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(NOW + seconds, UTC)
