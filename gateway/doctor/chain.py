"""A listener's certificate file, as a client that looks at it sees it. Reads files, asks nobody."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from shlex import quote

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from gateway.config.models import ListenerSettings
from gateway.doctor.finding import Finding, Level, finding
from gateway.pem import complaint
from gateway.trust import system_store

SOON = timedelta(days=30)
_RSA, _EC = 2048, 256  # bits
_NEW_KEY = "make a new key, and have it certified again"
_PUT = "put the right files there; the service sees them by itself"


def examine(name: str, listener: ListenerSettings, hostname: str, now: datetime) -> list[Finding]:
    """What there is to say of one listener's certificate; good only where nothing is wrong."""
    found = list(_examine(f"listeners.{name}", listener, hostname, now))
    about = f"listeners.{name}"
    if all(one.level in ("good", "note") for one in found):
        found.append(finding("certificate_good", "good", f"the certificate of {about} is whole and fits", about=about))
    return found


def _examine(about: str, listener: ListenerSettings, hostname: str, now: datetime) -> Iterator[Finding]:
    file, key_file = listener.certificate, listener.private_key or listener.certificate
    if file is None or key_file is None:
        yield finding("certificate_unusable", "bad", "there is none", f"set {about}.certificate", about=about)
        return
    try:
        certificates = _certificates(file)
        own = _public_key(key_file)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}"
        yield finding("certificate_unusable", "bad", what, "let the service's user read it", about=about)
        return
    except ValueError as error:
        yield finding("certificate_unusable", "bad", str(error), _PUT, about=about)
        return
    leaf, *rest = certificates
    if _bytes(leaf.public_key()) != own:
        what = f"{key_file} is not the key of the certificate in {file}"
        first = next((one for one in rest if _bytes(one.public_key()) == own), None)
        fix = "its certificate stands in the file, but not first: put it first" if first else _PUT
        yield finding("certificate_unusable", "bad", what, fix, about=about)
        return
    yield from _dates(about, leaf, now)
    yield from _names(about, leaf, hostname)
    yield from _strength(about, certificates)
    yield from _chain(about, file, certificates)


def _certificates(file: Path) -> list[x509.Certificate]:
    data = file.read_bytes()
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        raise ValueError(f"{file} {complaint(data, 'certificate')}") from None


def _public_key(file: Path) -> bytes:
    data = file.read_bytes()
    try:
        return _bytes(serialization.load_pem_private_key(data, None).public_key())
    except (ValueError, TypeError):
        raise ValueError(f"{file} {complaint(data, 'private key')}") from None


def _bytes(key: object) -> bytes:
    made: bytes = key.public_bytes(  # type: ignore[attr-defined] # every kind of public key has it
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return made


def _dates(about: str, leaf: x509.Certificate, now: datetime) -> Iterator[Finding]:
    ends, begins = leaf.not_valid_after_utc, leaf.not_valid_before_utc
    fix, paste = "renew it; the service sees the new file by itself", "certbot renew"
    if ends <= now:
        yield finding(
            "certificate_ended", "bad", f"its certificate ended on {ends:%Y-%m-%d}", fix, paste=paste, about=about
        )
    elif begins > now:
        what = f"its certificate is good only from {begins:%Y-%m-%d %H:%M:%SZ}"
        yield finding(
            "certificate_early", "bad", what, "is this machine's clock right?", paste="timedatectl", about=about
        )
    elif ends - now <= SOON:
        what = f"its certificate ends on {ends:%Y-%m-%d}, in {(ends - now).days} days"
        yield finding("certificate_ends", "warn", what, fix, paste=paste, about=about)


def _names(about: str, leaf: x509.Certificate, hostname: str) -> Iterator[Finding]:
    """RFC 9525: only subjectAltName counts, a wildcard stands for one label."""
    names: list[str] = []
    with suppress(x509.ExtensionNotFound, ValueError):
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [one.lower() for one in found.get_values_for_type(x509.DNSName)]
    wanted = {hostname.lower(), f"*.{hostname.lower().partition('.')[2]}"}
    if not wanted & set(names):
        what = f"its certificate is for {', '.join(names[:3]) or 'no host at all'}, not for hostname {hostname}"
        fix = "let clients ask for one of its names, or have it made for this name, too"
        yield finding("certificate_name", "warn", what, fix, about=about)
    with suppress(x509.ExtensionNotFound, ValueError):
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(usage):
            what = "its certificate is not meant for servers (extended key usage has no serverAuth)"
            yield finding("certificate_purpose", "bad", what, "ask its authority for one that is", about=about)


def _strength(about: str, certificates: Sequence[x509.Certificate]) -> Iterator[Finding]:
    for number, one in enumerate(certificates):
        which = "its" if number == 0 else f"the issuer's ({_called(one)})"
        key, digest = one.public_key(), None
        with suppress(Exception):  # an algorithm that is not known here
            digest = one.signature_hash_algorithm
        level: Level = "bad" if number == 0 else "warn"
        if isinstance(key, rsa.RSAPublicKey) and key.key_size < _RSA:
            what = f"{which} key has {key.key_size} bits, RSA needs {_RSA}"
            yield finding("certificate_weak", level, what, _NEW_KEY, about=about)
        elif isinstance(key, ec.EllipticCurvePublicKey) and key.key_size < _EC:
            what = f"{which} key has {key.key_size} bits, an elliptic curve needs {_EC}"
            yield finding("certificate_weak", level, what, _NEW_KEY, about=about)
        if isinstance(digest, hashes.SHA1 | hashes.MD5) and not _self_signed(one):
            what = f"{which} signature is made with {digest.name.upper()}, which can be forged"
            yield finding("certificate_weak", level, what, "have it certified again", about=about)


def _chain(about: str, file: Path, certificates: Sequence[x509.Certificate]) -> Iterator[Finding]:
    path, rest = [certificates[0]], list(certificates[1:])
    while not _self_signed(path[-1]) and (issuer := next((one for one in rest if _issued(path[-1], one)), None)):
        rest.remove(issuer)
        path.append(issuer)
    last, store = path[-1], _store()
    if list(certificates[: len(path)]) != path or rest:
        what = f"{file} has its certificates in the wrong order, or some that do not belong to it"
        fix = "the order is: its own, then each one's issuer; leave out all others"
        yield finding("certificate_order", "warn", what, fix, about=about)
    if _self_signed(last):
        if len(path) == 1:
            what = "its certificate is signed by itself: clients that look at it refuse it"
            fix = "fine for devices that do not look; for others get one of an authority"
            yield finding("certificate_self_signed", "warn", what, fix, about=about)
        elif not any(last.fingerprint(hashes.SHA256()) == one.fingerprint(hashes.SHA256()) for one in store):
            yield _private(about, _called(last))
    elif not any(_issued(last, one) for one in store):
        yield _incomplete(about, file, last)


def _incomplete(about: str, file: Path, last: x509.Certificate) -> Finding:
    """Public authorities say where the issuer's certificate is (RFC 5280, 4.2.2.1)."""
    issuer = last.issuer.rfc4514_string()
    full, url = file.with_name("fullchain.pem"), _issuer_url(last)
    if not url and not full.is_file():
        return _private(about, issuer)
    what = f"{file} lacks the certificate of its issuer ({issuer}): clients that look at it refuse it"
    if full.is_file() and full != file:
        return finding(
            "certificate_chain", "bad", what, "use the whole chain", paste=f"{about}.certificate: {full}", about=about
        )
    paste = f"curl -s {quote(url)} | openssl x509 -inform der >> {quote(str(file))}" if url else ""
    return finding("certificate_chain", "bad", what, "add it behind its own", paste=paste, about=about)


def _private(about: str, issuer: str) -> Finding:
    what = f"its certificate's authority ({issuer}) is not one that this machine trusts"
    fix = "if it is your own, give clients its certificate; else the file lacks the certificate of the issuer"
    return finding("certificate_private", "note", what, fix, about=about)


def _issuer_url(one: x509.Certificate) -> str:
    with suppress(x509.ExtensionNotFound, ValueError):
        access = one.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
        for entry in access:
            if entry.access_method == AuthorityInformationAccessOID.CA_ISSUERS:
                return str(entry.access_location.value)
    return ""


def _self_signed(one: x509.Certificate) -> bool:
    return _issued(one, one)


def _issued(one: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        one.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _called(one: x509.Certificate) -> str:
    return one.subject.rfc4514_string()


def _store() -> list[x509.Certificate]:
    """Whom this machine trusts."""
    file, folder = system_store()
    files = [Path(file)] if file else [one for one in Path(folder or "").iterdir() if one.is_file()] if folder else []
    found: list[x509.Certificate] = []
    for path in files:
        with suppress(OSError):
            for block in path.read_bytes().split(b"-----END CERTIFICATE-----")[:-1]:
                with suppress(ValueError), warnings.catch_warnings():  # one that is odd is none of ours
                    warnings.simplefilter("ignore")
                    found.append(
                        x509.load_pem_x509_certificate(
                            block[block.find(b"-----BEGIN") :] + b"-----END CERTIFICATE-----\n"
                        )
                    )
    return found
