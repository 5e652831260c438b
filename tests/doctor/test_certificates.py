"""What clients find in a listener's certificate file, as findings; each row is one way in which it goes wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from gateway.config.models import ListenerSettings
from gateway.doctor.chain import examine
from tests.doctor.kit import levels, of
from tests.rsa_keys import rsa_key

NOW = datetime(2026, 11, 20, tzinfo=UTC)
EC = ec.generate_private_key(ec.SECP256R1())
ROOT_KEY, MIDDLE_KEY = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
RSA1024 = rsa_key(size=1024)


def make(
    subject: str, key: Any, issuer: str = "", signer: Any = None, *, names: Sequence[str] = (), days: int = 90,
    begins: int = -10, ca: bool = False, more: Sequence[x509.ExtensionType] = (),
) -> x509.Certificate:  # fmt: skip
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    made = (
        x509.CertificateBuilder()
        .subject_name(named(subject))
        .issuer_name(named(issuer or subject))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + timedelta(days=begins))
        .not_valid_after(NOW + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if names:
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
    for extension in more:
        made = made.add_extension(extension, critical=False)
    return made.sign(signer or key, hashes.SHA256())


ROOT = make("root", ROOT_KEY, ca=True, days=1000)
MIDDLE = make("middle", MIDDLE_KEY, "root", ROOT_KEY, ca=True, days=500)
STRANGER = make("stranger", RSA1024, ca=True)
URL = "http://middle.example/ca.der"
WHERE = x509.AuthorityInformationAccess(
    [x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier(URL))]
)
HERE = ("relay.example.com",)


def leaf(key: Any = EC, **more: Any) -> x509.Certificate:
    return make("leaf", key, "middle", MIDDLE_KEY, **{"names": HERE, "more": [WHERE], **more})


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ListenerSettings]:
    """A listener with these certificates, on a machine that trusts ROOT alone."""
    store = tmp_path / "store.pem"
    store.write_bytes(
        ROOT.public_bytes(serialization.Encoding.PEM) + b"-----BEGIN CERTIFICATE-----\nodd\n-----END CERTIFICATE-----\n"
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(store))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)

    def write(*certificates: x509.Certificate, key: Any = EC) -> ListenerSettings:
        file, private = tmp_path / "cert.pem", tmp_path / "key.pem"
        file.write_bytes(b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates))
        plain = serialization.NoEncryption()
        private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
        return ListenerSettings(bind="0.0.0.0:25", tls="starttls", certificate=file, private_key=private)

    return write


def look(section: ListenerSettings) -> Any:
    return examine("devices", section, "relay.example.com", NOW)


GOOD = {"certificate_good listeners.devices": "good"}
ROWS: Mapping[str, tuple[Sequence[x509.Certificate], Any, Mapping[str, str]]] = {
    "whole": ((leaf(), MIDDLE), EC, {"certificate_good": "good"}),
    "with its root": ((leaf(), MIDDLE, ROOT), EC, {"certificate_good": "good"}),
    "wildcard": ((leaf(names=["*.example.com"]), MIDDLE), EC, {"certificate_good": "good"}),
    "no intermediate": ((leaf(),), EC, {"certificate_chain": "bad"}),
    "private authority": ((leaf(more=[]),), EC, {"certificate_private": "note", "certificate_good": "good"}),
    "wrong order": ((leaf(), ROOT, MIDDLE), EC, {"certificate_order": "warn"}),
    "a foreign one": ((leaf(), MIDDLE, STRANGER), EC, {"certificate_order": "warn", "certificate_weak": "warn"}),
    "leaf not first": ((MIDDLE, leaf()), EC, {"certificate_unusable": "bad"}),
    "another key": ((leaf(), MIDDLE), ROOT_KEY, {"certificate_unusable": "bad"}),
    "self-signed": ((make("leaf", EC, names=HERE),), EC, {"certificate_self_signed": "warn"}),
    "unknown root": (
        (make("leaf", EC, "stranger", RSA1024, names=HERE), STRANGER),
        EC,
        {"certificate_private": "note", "certificate_weak": "warn"},
    ),
    "other names": ((leaf(names=["mail.example.net"]), MIDDLE), EC, {"certificate_name": "warn"}),
    "two labels under a wildcard": ((leaf(names=["*.com"]), MIDDLE), EC, {"certificate_name": "warn"}),
    "no names": ((leaf(names=()), MIDDLE), EC, {"certificate_name": "warn"}),
    "ended": ((leaf(days=-1), MIDDLE), EC, {"certificate_ended": "bad"}),
    "ends": ((leaf(days=29), MIDDLE), EC, {"certificate_ends": "warn"}),
    "not yet": ((leaf(begins=1), MIDDLE), EC, {"certificate_early": "bad"}),
    "short key": ((leaf(RSA1024), MIDDLE), RSA1024, {"certificate_weak": "bad"}),
    "for clients": (
        (leaf(more=[WHERE, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])]), MIDDLE),
        EC,
        {"certificate_purpose": "bad"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_files(files: Callable[..., ListenerSettings], case: str) -> None:
    """Exactly what is wrong is said, about this listener, with something to do; only what is whole is good."""
    certificates, key, expected = ROWS[case]
    result = look(files(*certificates, key=key))
    assert levels(result) == {f"{name} listeners.devices": level for name, level in expected.items()}
    assert all(one.fix for one in result if one.level != "good")


def test_a_missing_intermediate_can_be_had(files: Callable[..., ListenerSettings]) -> None:
    """What is to be pasted gets it from where the authority says; or names the whole chain that lies beside it."""
    section = files(leaf())
    assert of(look(section), "certificate_chain").paste.startswith(f"curl -s {URL} | openssl x509 -inform der >> ")
    assert section.certificate is not None
    section.certificate.with_name("fullchain.pem").write_text("x")
    assert (
        of(look(section), "certificate_chain").paste
        == f"listeners:\n  devices:\n    certificate: {section.certificate.with_name('fullchain.pem')}"
    )


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda section: section.certificate.unlink(), r"cert\.pem: No such file"),
        (lambda section: section.certificate.write_text("x"), r"no line \"-----BEGIN"),
        (lambda section: section.private_key.write_text("x"), "is not a PEM private key"),
    ],
)
def test_files_that_cannot_be_read(
    files: Callable[..., ListenerSettings], spoil: Callable[[Any], None], words: str
) -> None:
    """The file is named, and what it is instead."""
    section = files(leaf(), MIDDLE)
    spoil(section)
    [one] = look(section)
    assert (one.key, one.level, bool(re.search(words, one.what))) == ("certificate_unusable", "bad", True)
