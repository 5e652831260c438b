"""The certificate of a listener: loaded at start, and again whenever its file changes."""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from cryptography import x509

from gateway.config.finding import Ending, Examined, Finding, Unfit
from gateway.config.models import ListenerSettings
from gateway.events import Events
from gateway.pem import complaint
from gateway.smtp.handshake import Context
from gateway.trust import VERSIONS

_GROUP = Path(__file__).with_name("ffdhe2048.pem")  # RFC 7919 A.1
_PAIR = "does not belong to private_key {key}; take both from one folder, as made together"
_REASONS = {  # what OpenSSL calls it -> what it means
    "KEY_VALUES_MISMATCH": _PAIR,
    "NO_CERTIFICATE_ASSIGNED": _PAIR,  # a key of another kind
    "EE_KEY_TOO_SMALL": "its key is too short, RSA needs 2048 bits or more",
    "CA_KEY_TOO_SMALL": "the key of its issuer is too short, RSA needs 2048 bits or more",
    "CA_MD_TOO_WEAK": "it is signed with a digest that is too weak, such as SHA-1",
}


class Certificate:
    """``context`` is what the next handshake uses. The constructor raises ValueError with a text for the operator."""

    def __init__(self, name: str, listener: ListenerSettings, events: Events) -> None:
        self._name = name
        self._events = events
        self._seen = _stamp(listener)
        self.context = self._load(listener)

    def refresh(self, listener: ListenerSettings) -> None:
        """Two stat calls; what has changed is loaded, and when that fails the old certificate stays in use."""
        stamp = _stamp(listener)
        if stamp == self._seen or listener.certificate is None:
            return
        self._seen = stamp
        file = str(listener.certificate)
        try:
            self.context = self._load(listener)
        except ValueError as error:
            self._events.warning("tls_certificate_kept", listener=self._name, file=file, detail=str(error))
        else:
            self._events.info("tls_certificate_loaded", listener=self._name, file=file)

    def _load(self, listener: ListenerSettings) -> ssl.SSLContext:
        context, leaf = _read(self._name, listener)
        self._events.tls_expiry(self._name, leaf.not_valid_after_utc.timestamp())
        return context


def examine(listeners: Mapping[str, ListenerSettings], hostname: str) -> Examined:
    """What is wrong with the certificates and keys of these listeners, and until when they are good. Reads them.

    A certificate for other names than ``hostname`` may be meant so: clients look at the name they were given.
    """
    for name, listener in listeners.items():
        if listener.tls == "none":
            continue
        try:
            _, leaf = _read(name, listener)
        except Unfit as error:
            yield error.finding
        else:
            keys = "listeners", name, "certificate"
            yield Ending(keys, "the certificate", leaf.not_valid_after_utc, leaf.not_valid_before_utc)
            names = _names(leaf)
            if names and not {hostname.lower(), f"*.{hostname.lower().partition('.')[2]}"} & set(names):
                text = (
                    f"is for {', '.join(names[:3])}, not for hostname {hostname}: clients must ask for one of its names"
                )
                yield Finding(keys, text, fatal=False)


def _names(leaf: x509.Certificate) -> list[str]:
    """The hosts it is for (RFC 9525: only subjectAltName counts), none where it does not say so."""
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [name.lower() for name in found.get_values_for_type(x509.DNSName)]


def _read(name: str, listener: ListenerSettings) -> tuple[ssl.SSLContext, x509.Certificate]:
    """The context of a handshake and the certificate it shows. Raises Unfit."""
    setting, file, data = "certificate", listener.certificate, b""
    if file is None:
        raise Unfit(("listeners", name, setting), f"needed for tls: {listener.tls}")
    context = Context(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_RENEGOTIATION
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the operator asked for an old version by name
        context.minimum_version = VERSIONS[listener.min_tls]
    if listener.min_tls < "1.2":
        # OpenSSL 3 speaks TLS 1.0 and 1.1 at no higher level. Old devices know no forward secrecy, and SHA-1 only. DHE
        # comes last, for some that offer it cannot do it with 2048 bits.
        context.set_ciphers("DEFAULT:+kDHE:@SECLEVEL=0")
        context.load_dh_params(str(_GROUP))
    try:
        data = file.read_bytes()
        leaf, *_ = x509.load_pem_x509_certificates(data)
        setting, file = "private_key", listener.private_key or file
        data = file.read_bytes()
        context.load_cert_chain(listener.certificate or file, file, password="")  # or OpenSSL asks at the terminal
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, ssl.SSLError) else ""
        if reason in _REASONS:
            raise Unfit(("listeners", name, "certificate"), _REASONS[reason].format(key=file)) from None
        said = None if isinstance(error, ssl.SSLError) else getattr(error, "strerror", None)
        why = f": {said}" if said else f" {complaint(data, setting.replace('_', ' '))}"
        raise Unfit(("listeners", name, setting), f"{file}{why}") from None
    return context, leaf


def _stamp(listener: ListenerSettings) -> tuple[object, ...]:
    """Changes when the files do, or which files they are."""
    found: list[object] = [listener.min_tls]
    for path in filter(None, (listener.certificate, listener.private_key)):
        with suppress(OSError):
            stat = path.stat()
            found += [path, stat.st_mtime_ns, stat.st_size, stat.st_ino]
    return tuple(found)
