"""Certificates and keys that backends' settings name: what is wrong with them, and until when they are good."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

from gateway.config.finding import Ending, Examined, Finding
from gateway.pem import complaint


def examine_authorities(file: Path | None, *, fatal: bool = True) -> Examined:
    """Whether ``ca_file`` can be trusted from. Reads it; asks nobody."""
    if file is None:
        return
    keys = ("ca_file",)
    try:
        trusted = ssl.create_default_context(cafile=file).get_ca_certs()
    except ssl.SSLError:
        yield Finding(keys, f"{file} {complaint(file.read_bytes(), 'certificate')}", fatal=fatal)
    except OSError as error:
        yield Finding(keys, f"{file}: {error.strerror}", fatal=fatal)
    else:
        if ends := [ssl.cert_time_to_seconds(str(one["notAfter"])) for one in trusted]:
            yield Ending(keys, "the last certificate in it", datetime.fromtimestamp(max(ends), UTC))


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
