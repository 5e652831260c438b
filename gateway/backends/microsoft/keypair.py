"""A new key with its certificate, and the proof by an old one that whoever asks may add it.

learn.microsoft.com/graph/application-rollkey-prooftoken: RS256, for the old directory API, by the application's object
id, good for at most 10 minutes. No part of it may have padding.
"""

from __future__ import annotations

import base64
import json
from datetime import datetime, timedelta
from typing import Any

from gateway.backends.microsoft.certificate import SHORTEST, Pair

LASTS = timedelta(days=365)
_AUDIENCE = "00000002-0000-0000-c000-000000000000"  # in every cloud, and not Graph's
_SKEW = timedelta(minutes=5)  # of two clocks
_PROVES = timedelta(minutes=9)


def make(now: datetime) -> Pair:
    """Good from now for a year. Blocks for a moment: it is work."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = generate_private_key(public_exponent=65537, key_size=SHORTEST)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "smtp-gateway")])
    begins, ends = (moment.replace(microsecond=0) for moment in (now - _SKEW, now + LASTS))
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(begins).not_valid_after(ends)
    shown = builder.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return Pair(shown, text, begins, ends, key.key_size)


def again(certificate: str, private_key: str) -> Pair:
    """One that was kept. Raises ValueError: it is damaged."""
    leaf, key = _loaded(certificate), _key(private_key)
    if key.public_key() != leaf.public_key():
        raise ValueError("the key is not the key of the certificate")
    return Pair(certificate, private_key, leaf.not_valid_before_utc, leaf.not_valid_after_utc, SHORTEST)


def der(pair: Pair) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    encoded: bytes = _loaded(pair.certificate).public_bytes(Encoding.DER)
    return encoded


def thumbprint(pair: Pair) -> str:
    """As Entra shows it."""
    from cryptography.hazmat.primitives.hashes import SHA1

    found: bytes = _loaded(pair.certificate).fingerprint(SHA1())  # noqa: S303 - a name, which Entra has chosen
    return found.hex().upper()


def proof(pair: Pair, object_id: str, now: datetime) -> str:
    """That whoever asks has the key of ``pair``."""
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    begins = int(now.timestamp())
    claims = {"aud": _AUDIENCE, "iss": object_id, "nbf": begins, "exp": begins + int(_PROVES.total_seconds())}
    head = {"alg": "RS256", "typ": "JWT", "x5t": _text(bytes.fromhex(thumbprint(pair)))}
    said = ".".join(_text(json.dumps(each, separators=(",", ":")).encode()) for each in (head, claims))
    return f"{said}.{_text(_key(pair.private_key).sign(said.encode(), PKCS1v15(), SHA256()))}"


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _loaded(certificate: str) -> Any:
    from cryptography import x509

    return x509.load_pem_x509_certificate(certificate.encode())


def _key(private_key: str) -> Any:
    """Of ours, or looked at before: to look at its primes again takes a tenth of a second."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    return load_pem_private_key(private_key.encode(), None, unsafe_skip_rsa_key_validation=True)
