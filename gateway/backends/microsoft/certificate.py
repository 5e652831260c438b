"""A certificate and its key in whatever form openssl, a key vault or Windows wrote them, for msal to sign with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.config.finding import Ending, Examined, Finding

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

SHORTEST = 2048  # bits of an RSA key (learn.microsoft.com/entra/identity-platform/certificate-credentials)
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Source:
    """The files, and the password of the key or of the whole PFX, "" for none."""

    certificate: Path
    key: Path | None = None
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Pair:
    """What msal wants, in PEM without a password, and from when to when it is good."""

    certificate: str
    private_key: str = field(repr=False)
    begins: datetime
    ends: datetime
    bits: int


class Unusable(Exception):
    """It cannot be signed with. The text holds nothing of a key; ``fix`` says how to correct ``setting``."""

    def __init__(self, path: Path, why: str, fix: str, setting: str = "certificate_file") -> None:
        super().__init__(f"{path}: {why}")
        self.fix = fix
        self.setting = setting


def read(source: Source) -> Pair:
    """Blocks. Raises Unusable.

    The certificate is the one whose key is there, wherever in the file it stands; notes around the blocks in any
    language, CR LF and a byte order mark do not matter.
    """
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    keys, certificates = _all_in(source)
    where = source.key or source.certificate
    setting = "private_key_file" if source.key else "certificate_file"
    if not certificates:
        fix = "cat the certificate and its key, both PEM, into certificate_file"
        raise Unusable(source.certificate, "no certificate in it", fix)
    if not keys:
        fix = "cat the certificate and its key, both PEM, into certificate_file, or name the key in private_key_file"
        raise Unusable(where, "no private key in it", fix, setting)
    of_key = {id(one): one.public_key() for one in keys}
    both = ((key, leaf) for key in keys for leaf in certificates if leaf.public_key() == of_key[id(key)])
    if (found := next(both, None)) is None:
        fix = "put the certificate and the key there that were made together"
        raise Unusable(where, "the key is not the key of the certificate", fix, setting)
    key, leaf = found
    if not isinstance(key, RSAPrivateKey):
        kind = type(key).__name__.removesuffix("PrivateKey")
        fix = "make a certificate with an RSA key of 2048 bits or more, and upload it: docs/microsoft365.md"
        raise Unusable(where, f"an {kind} key, and Microsoft takes RSA keys only", fix, setting)
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    shown = leaf.public_bytes(Encoding.PEM).decode()
    return Pair(shown, text, leaf.not_valid_before_utc, leaf.not_valid_after_utc, key.key_size)


def examine(source: Source) -> Examined:
    """What is wrong with the files, and when the certificate ends. Blocks; asks nobody."""
    try:
        pair = read(source)
    except Unusable as error:
        yield Finding((error.setting,), f"{error}; {error.fix}")
        return
    if pair.bits < SHORTEST:
        text = f"{source.certificate}: Microsoft takes RSA keys from {SHORTEST} bits, this has {pair.bits}"
        yield Finding(("certificate_file",), text)
    yield Ending(("certificate_file",), "the certificate", pair.ends, pair.begins)


def _all_in(source: Source) -> tuple[list[Any], list[Certificate]]:
    """All keys and certificates. Raises Unusable."""
    data = _bytes(source.certificate, "certificate_file")
    if not (blocks := list(_blocks(data))) and data.strip():
        return _binary(source, data)
    certificates = [_certificate(source.certificate, block) for label, block in blocks if label == "CERTIFICATE"]
    where = source.certificate
    if source.key is not None:
        where, blocks = source.key, list(_blocks(_bytes(source.key, "private_key_file")))
    keys = [_key(where, block, source) for label, block in blocks if label.endswith("PRIVATE KEY")]
    return keys, certificates


def _bytes(path: Path, setting: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Unusable(path, error.strerror or "", f"see that the service can read {setting}", setting) from None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        fix = "write it once more without it: PowerShell's > does that, Set-Content -Encoding ascii does not"
        raise Unusable(path, "UTF-16 text, not PEM", fix, setting)
    return data


def _blocks(data: bytes) -> Iterator[tuple[str, bytes]]:
    for match in _PEM.finditer(data):
        lines = (line.strip() for line in match[0].splitlines())
        yield match[1].decode(), b"\n".join(lines) + b"\n"


def _certificate(path: Path, block: bytes) -> Certificate:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(block)
    except ValueError:
        raise Unusable(path, "a certificate in it is damaged", "put the whole file there, unchanged") from None


def _key(path: Path, block: bytes, source: Source) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    setting = "private_key_file" if source.key else "certificate_file"
    locked = b"ENCRYPTED" in block
    if locked and not source.password:
        fix = "set certificate_password_file, or take the password off: openssl pkey -in OLD -out NEW"
        raise Unusable(path, "the key needs a password", fix, setting)
    try:
        return load_pem_private_key(block, source.password.encode() if locked else None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        if locked:
            fix = "correct certificate_password"
            raise Unusable(path, "the password does not open the key", fix, "certificate_password") from None
        raise Unusable(path, "the key in it is damaged", "put the whole file there, unchanged", setting) from None


def _binary(source: Source, data: bytes) -> tuple[list[Any], list[Certificate]]:
    """PKCS#12 (RFC 7292), which Windows calls PFX; else DER is told from nonsense. Raises Unusable."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_der_private_key
    from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12

    path = source.certificate
    for password in dict.fromkeys((source.password.encode() or None, None, b"")):
        try:
            found = load_pkcs12(data, password)
        except (ValueError, TypeError):
            continue
        certificates = [one.certificate for one in (found.cert, *found.additional_certs) if one]
        return [found.key] if found.key else [], certificates
    for load, what in ((x509.load_der_x509_certificate, "x509"), (_der_key(load_der_private_key), "pkey")):
        try:
            load(data)
        except (ValueError, TypeError):
            continue
        fix = f"make PEM of it: openssl {what} -inform der -in OLD -out NEW, and put certificate and key into one file"
        raise Unusable(path, "DER, not PEM", fix)
    if data[:1] == b"\x30":  # ASN.1
        fix = "set certificate_password_file to its password, or make PEM of it: openssl pkcs12 -in OLD -nodes -out NEW"
        why = "which the password does not open" if source.password else "which needs a password"
        raise Unusable(
            path, f"a PFX file (PKCS#12), {why}", fix, "certificate_password" if source.password else "certificate_file"
        )
    raise Unusable(path, "no PEM in it", "cat the certificate and its key, both PEM, into certificate_file")


def _der_key(load: Any) -> Any:
    return lambda data: load(data, None)
