"""Keys that sign tokens: read once, weak ones refused by the name of their setting, then used to verify and to sign.

The only importer of jwt. A key's algorithm is fixed by the configuration; nothing in a token chooses it.
"""

from __future__ import annotations

import base64
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from gateway.config.authorities import examine_authorities
from gateway.config.finding import Examined, Unfit, below
from gateway.config.models import Algorithm, KeySettings, Settings
from gateway.files import unwritable, write_whole
from gateway.pem import complaint

ADMIN_AUDIENCE = "gateway-admin"
_SOURCES = ("secret", "public_key_file", "private_key_file", "jwks_url")
_CURVES = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}
_JWS = jwt.PyJWS(algorithms=get_args(Algorithm))  # without "none"

Public = bytes | RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
Private = bytes | RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class Key:
    """A configured key. ``public`` is None when it is published at ``settings.jwks_url``. Equal is what signs alike."""

    name: str
    settings: KeySettings
    public: Public | None = field(default=None, repr=False)
    private: Private | None = field(default=None, repr=False, compare=False)


def load_keys(settings: Settings) -> dict[str, Key]:
    """Every configured key, files read. Raises Unfit at the first that is missing, wrong or weak.

    What the settings alone can tell (one source, the right kind, the length of a secret) config.load has checked.
    """
    return {name: _load(name, key, settings.state_dir) for name, key in settings.auth.keys.items()}


def examine(settings: Settings) -> Examined:
    """All that is wrong with the keys and their files; one that ``ensure_own_key`` will make may be missing."""
    for name, key in settings.auth.keys.items():
        yield from below(("auth", "keys", name), examine_authorities(key.ca_file))
        try:
            if (path := _to_be_made(key, settings.state_dir)) is None:
                _load(name, key, settings.state_dir)
            elif path.parent != settings.state_dir and (why := unwritable(path.parent, made=True)):
                raise _unfit(name, "private_key_file", why)
        except Unfit as error:
            yield error.finding


def _unfit(name: str, setting: str, why: str) -> Unfit:
    return Unfit(("auth", "keys", name, setting), why)


def _load(name: str, key: KeySettings, state_dir: Path) -> Key:
    source = next(source for source in _SOURCES if getattr(key, source) is not None)
    if key.audience == ADMIN_AUDIENCE:
        raise _unfit(name, "audience", f"{ADMIN_AUDIENCE} is reserved for the HTTP interface")
    try:
        if key.jwks_url is not None:
            return Key(name, key)
        if key.secret is not None:
            given: object = key.secret.get_secret_value().encode()
        else:
            path = state_dir / (key.private_key_file or key.public_key_file or "")
            given = _read(path, private=key.private_key_file is not None)
        private = given if isinstance(given, Private) else None
        public = given if private is None or isinstance(private, bytes) else private.public_key()
        return Key(name, key, strong(public, key.algorithm), private)
    except ValueError as error:
        raise _unfit(name, source, str(error)) from None


def _read(path: Path, *, private: bool) -> object:
    data = b""
    try:
        data = path.read_bytes()
        return load_pem_private_key(data, password=None) if private else load_pem_public_key(data)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(f"{path} {complaint(data, 'private key' if private else 'public key')}") from None


def strong(public: object, algorithm: str) -> Public:
    """The key itself, if it fits the algorithm and is long enough. Raises ValueError with the reason."""
    if isinstance(public, bytes):
        if any(map(_is_public_text, (public, _from_base64(public)))):
            raise ValueError("is a public key or certificate, which is no secret")
        return public
    if isinstance(public, RSAPublicKey) and algorithm[:2] in ("RS", "PS"):
        if not 2048 <= public.key_size <= 16384:  # RFC 7518 section 3.3; the upper end bounds the work
            raise ValueError(f"{algorithm} needs an RSA key of 2048 to 16384 bits, this has {public.key_size}")
        return public
    if isinstance(public, EllipticCurvePublicKey) and public.curve.name == _CURVES.get(algorithm):
        return public
    if isinstance(public, Ed25519PublicKey) and algorithm == "EdDSA":
        return public
    curve = _CURVES.get(algorithm, "Ed25519" if algorithm == "EdDSA" else "")
    raise ValueError(f"{algorithm} needs {f'a key on the curve {curve}' if curve else 'an RSA key'}")


def _from_base64(text: bytes) -> bytes:
    with suppress(ValueError):
        return base64.b64decode(text + b"==")
    return b""


def _is_public_text(secret: bytes) -> bool:
    """PEM, DER, SSH or JWK: what an attacker could know (key confusion), though it be long enough."""
    try:
        jwt.get_algorithm_by_name("HS256").prepare_key(secret or b"none")
    except jwt.InvalidKeyError:
        return True
    return False


def from_jwk(entry: object, algorithm: str) -> Public:
    """One member of a JWK set (RFC 7517), only if it is there to verify this algorithm. Raises ValueError if not."""
    if not isinstance(entry, dict) or "d" in entry or entry.get("kty") == "oct":
        raise ValueError("not a public key")
    if entry.get("alg", algorithm) != algorithm:
        raise ValueError(f"not for {algorithm}")
    operations = entry.get("key_ops", ["verify"])
    if entry.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise ValueError("not for signatures")
    try:
        return strong(jwt.PyJWK(entry, algorithm).key, algorithm)
    except (jwt.PyJWTError, UnsupportedAlgorithm):  # the library's text quotes the key
        raise ValueError("cannot be read") from None


def verify(text: str, public: Public, algorithm: str) -> bool:
    """Whether this compact JWS was signed by that key with that algorithm; claims are not looked at."""
    try:
        _JWS.decode(text, public, [algorithm])
    except jwt.PyJWTError:
        return False
    return True


def sign(payload: bytes, key: Key) -> str:
    """A compact JWS. Raises ValueError when only the public half is known."""
    if key.private is None:
        raise ValueError(f"auth.keys.{key.name} cannot sign: it needs a secret or a private_key_file")
    return _JWS.encode(payload, key.private, key.settings.algorithm)


def ensure_own_key(settings: Settings) -> None:
    """Make each EdDSA ``private_key_file`` that does not exist yet, mode 0600. Blocks. Raises Unfit."""
    for name, key in settings.auth.keys.items():
        if (path := _to_be_made(key, settings.state_dir)) is not None:
            pair = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            try:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_whole(path, pair, replace=False)
            except OSError as error:
                raise _unfit(name, "private_key_file", f"cannot make {path}: {error.strerror}") from None


def signing_keys(settings: Settings) -> dict[str, tuple[Path, bytes]]:
    """By name each key read from a ``private_key_file``: that file, and the key in DER, which is the same however the
    file is written. Blocks. Raises Unfit."""
    found = {}
    for name, key in load_keys(settings).items():
        if (file := key.settings.private_key_file) is not None and not isinstance(key.private, bytes | None):
            der = key.private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
            found[name] = settings.state_dir / file, der
    return found


def _to_be_made(key: KeySettings, state_dir: Path) -> Path | None:
    """The file of a key that we make ourselves and that is not there; another that is missing is an error."""
    if key.private_key_file is None or key.algorithm != "EdDSA":
        return None
    path = state_dir / key.private_key_file
    return None if os.path.lexists(path) else path
