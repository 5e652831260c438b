"""The certificate of a listener: loaded at start, and again whenever its file changes."""

from __future__ import annotations

import ssl
import warnings
from pathlib import Path

from cryptography import x509

from gateway.config.models import ListenerSettings
from gateway.events import Events

_VERSIONS = {
    "1.0": ssl.TLSVersion.TLSv1,
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}


class Certificate:
    """``context`` is what the next handshake uses. The constructor raises ValueError with a text for the operator."""

    def __init__(self, name: str, listener: ListenerSettings, events: Events) -> None:
        self._name = name
        self._events = events
        self._seen = _stamp(listener)
        if listener.certificate is None:
            raise ValueError(f"listeners.{name}.certificate: needed for tls: {listener.tls}")
        try:
            self.context = self._load(listener)
        except (OSError, ValueError) as error:
            raise ValueError(f"listeners.{name}.certificate: {listener.certificate}: {error}") from error

    def refresh(self, listener: ListenerSettings) -> None:
        """Two stat calls; what has changed is loaded, and when that fails the old certificate stays in use."""
        stamp = _stamp(listener)
        if stamp == self._seen or listener.certificate is None:
            return
        self._seen = stamp
        file = str(listener.certificate)
        try:
            self.context = self._load(listener)
        except (OSError, ValueError) as error:
            self._events.warning("tls_certificate_kept", listener=self._name, file=file, detail=str(error))
        else:
            self._events.info("tls_certificate_loaded", listener=self._name, file=file)

    def _load(self, listener: ListenerSettings) -> ssl.SSLContext:
        assert listener.certificate is not None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.options |= ssl.OP_NO_RENEGOTIATION
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the operator asked for an old version by name
            context.minimum_version = _VERSIONS[listener.min_tls]
        if listener.min_tls < "1.2":
            context.set_ciphers("DEFAULT:@SECLEVEL=0")  # OpenSSL 3 speaks TLS 1.0 and 1.1 at no higher level
        context.load_cert_chain(listener.certificate, listener.private_key)
        leaf = x509.load_pem_x509_certificate(listener.certificate.read_bytes())
        self._events.tls_expiry(self._name, leaf.not_valid_after_utc.timestamp())
        return context


def _stamp(listener: ListenerSettings) -> tuple[object, ...]:
    """Changes when the files do, or which files they are."""
    files = [path for path in (listener.certificate, listener.private_key) if path]
    return listener.min_tls, *((path, _identity(path)) for path in files)


def _identity(path: Path) -> tuple[int, int, int]:
    try:
        stat = path.stat()
    except OSError:
        return 0, 0, 0
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
