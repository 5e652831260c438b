"""A key pair and its certificate, made here: nobody ever has to copy a secret."""

from __future__ import annotations

import base64
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

LASTS = timedelta(days=365)  # learn.microsoft.com/graph/applications-how-to-add-certificate: a year
_SKEW = timedelta(minutes=5)  # of two clocks


def make(now: datetime) -> bytes:
    """Certificate and RSA key as PEM."""
    key = generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "smtp-gateway")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - _SKEW).not_valid_after(now + LASTS)
    made: bytes = builder.sign(key, SHA256()).public_bytes(Encoding.PEM)
    return made + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


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
