"""A key pair and its certificate, made here: nobody ever has to copy a secret."""

from __future__ import annotations

import base64
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.backends.microsoft import keypair


def make(now: datetime) -> bytes:
    """Certificate and RSA key as PEM."""
    pair = keypair.make(now)
    return f"{pair.certificate}{pair.private_key}".encode()


def credential(pem: bytes) -> dict[str, str]:
    """What Microsoft gets of it (keyCredential): the certificate, never the key. Raises ValueError."""
    found = x509.load_pem_x509_certificate(pem[pem.index(b"-----BEGIN CERTIFICATE-----") :])
    return {
        "type": "AsymmetricX509Cert",
        "usage": "Verify",
        "displayName": "CN=smtp-gateway",
        "key": base64.b64encode(found.public_bytes(Encoding.DER)).decode(),
        "startDateTime": f"{found.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}",
        "endDateTime": f"{found.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
    }
