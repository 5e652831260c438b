"""What a TLS connection holds, and what a failed handshake leaves behind: the alert, which asyncio does not send, and
the cause, in words."""

from __future__ import annotations

import asyncio.sslproto
import os
import re
import socket
import ssl
from contextlib import suppress
from typing import Any

# asyncio makes a buffer of 256 KiB for each connection, and fills it with zeros; a record has 16 (RFC 8446 5.1).
asyncio.sslproto.SSLProtocol.max_size = 32 * 1024

_OLD = 'an old device may come by a listener of its own with min_tls: "1.0"'
_PLAIN = (
    "no TLS came but plain text: the client is set to none or STARTTLS where TLS is spoken from the start, or is none,"
    " or is a load balancer that speaks the PROXY protocol and is not in proxy_protocol_from"
)
_DISTRUST = "the client does not trust the certificate, or was given another name for this server"
_CAUSES = {  # what OpenSSL calls it, as an expression -> what it means
    "NO_SHARED_CIPHER": f"the client knows only old ciphers, or none for this kind of certificate; {_OLD}",
    "UNSUPPORTED_PROTOCOL|VERSION_TOO_LOW|ALERT_PROTOCOL_VERSION": f"the client speaks other versions of TLS; {_OLD}",
    "HTTP_REQUEST|HTTPS_PROXY_REQUEST|WRONG_VERSION_NUMBER|UNKNOWN_PROTOCOL|PACKET_LENGTH_TOO_LONG|NOT_SSL": _PLAIN,
    "ALERT_UNKNOWN_CA|ALERT_BAD_CERTIFICATE|ALERT_CERTIFICATE_UNKNOWN|ALERT_UNSUPPORTED_CERTIFICATE": _DISTRUST,
    "ALERT_CERTIFICATE_(?:EXPIRED|REVOKED)": "the client finds the certificate out of date: renew it, or set its clock",
    "ALERT_(?:HANDSHAKE_FAILURE|INSUFFICIENT_SECURITY)": f"the client wants what is not offered; {_OLD}",
    "ALERT_UNRECOGNIZED_NAME": "the client asks for another name than this server's",
}
SILENT = "no handshake came in time: a client set to none or STARTTLS waits for a greeting where TLS is spoken at once"


_SPARE = 100  # handshakes at once whose failure is told by an alert: each costs a descriptor


class Spare:
    """A second hold on a connection, for an alert after asyncio has closed it; none where too many have one."""

    _held = 0

    def __init__(self, line: socket.socket) -> None:
        self._socket: socket.socket | None = None
        if Spare._held < _SPARE:
            with suppress(OSError):  # none left: the handshake may go well without
                self._socket = socket.socket(fileno=os.dup(line.fileno()))
                Spare._held += 1

    def __enter__(self) -> Spare:
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()
            Spare._held -= 1

    def send(self, alert: bytes) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.send(alert)


class HandshakeError(ssl.SSLError):
    """With the ``alert`` that is due to the client: octets to be sent as they are, or none."""

    alert = b""


class _Handshake(ssl.SSLObject):
    outgoing: ssl.MemoryBIO

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            failed = HandshakeError(*error.args)
            failed.reason, failed.library, failed.alert = error.reason, error.library, self.outgoing.read()
            raise failed from None


class Context(ssl.SSLContext):
    """A context whose handshakes fail with HandshakeError: asyncio forgets the alert, so its sender must know it."""

    sslobject_class = _Handshake

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **options: Any) -> ssl.SSLObject:
        made = super().wrap_bio(incoming, outgoing, *args, **options)
        assert isinstance(made, _Handshake)
        made.outgoing = outgoing
        return made


def gone(error: OSError) -> bool:
    """Whether the client has left, and nothing was wrong with what it said."""
    return not isinstance(error, ssl.SSLError)


def cause(error: OSError) -> str:
    """For the log: what was wrong, as OpenSSL calls it, and what to do about it."""
    if not isinstance(error, ssl.SSLError):  # as ``gone``, for the type's sake
        return "the client has gone in the middle of the handshake"
    reason = error.reason or ""
    said = (reason or str(error)).replace("_", " ").lower()
    meant = (text for expression, text in _CAUSES.items() if re.search(rf"(?:\A|_)(?:{expression})\Z", reason))
    return ": ".join((said, *meant))
