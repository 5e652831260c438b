"""Certificates of ours that backends' settings name: what is wrong with them, and until when they are good."""

from __future__ import annotations

import ssl
from pathlib import Path

from gateway.config.finding import Ending, Examined, Finding
from gateway.pem import complaint


def examine_pair(certificate: Path, key: Path | None, *, fatal: bool = True) -> Examined:
    """Whether ``certificate_file`` and ``private_key_file`` can be shown to a server. Reads them; asks nobody."""
    from cryptography import x509

    ours, file = ("certificate_file",), key or certificate
    try:
        leaf, *_ = x509.load_pem_x509_certificates(certificate.read_bytes())
    except OSError as error:
        yield Finding(ours, f"{certificate}: {error.strerror}", fatal=fatal)
        return
    except ValueError:
        yield Finding(ours, f"{certificate} {complaint(certificate.read_bytes(), 'certificate')}", fatal=fatal)
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, file, password="")
    except OSError as error:
        why = f": {error.strerror}"
        if isinstance(error, ssl.SSLError):
            other = error.reason == "KEY_VALUES_MISMATCH"
            why = " is not the key of that certificate" if other else f" {complaint(file.read_bytes(), 'private key')}"
        yield Finding(("private_key_file",) if key else ours, f"{file}{why}", fatal=fatal)
        return
    yield Ending(ours, "the certificate", leaf.not_valid_after_utc, leaf.not_valid_before_utc)
