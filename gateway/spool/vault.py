"""Clients' own tokens at rest: sealed with a key that lies beside the spool and in none of its copies. Not on the loop.

AES-256-GCM; the queue id is associated data, so that a sealed token opens with its own message only.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.events import Events

_NONCE = 12  # bytes, at random: good for some 4 thousand million messages under one key (NIST SP 800-38D, 8.3)
_ERRORS = "surrogatepass"  # what a client gave as its password may be no text


class Vault:
    """Seals and unseals. What cannot be opened is "", and the backend answers for it; the operator is told once."""

    def __init__(self, key: bytes, events: Events) -> None:
        self._cipher = AESGCM(key)
        self._events = events
        self._told = False

    def seal(self, ident: str, secret: str) -> bytes | None:
        if not secret:
            return None
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, secret.encode("utf-8", _ERRORS), ident.encode())

    def unseal(self, ident: str, sealed: bytes | None) -> str:
        if sealed is None:
            return ""
        try:
            opened = self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], ident.encode())
            return opened.decode("utf-8", _ERRORS)
        except (InvalidTag, TypeError, ValueError):  # a damaged value may be of any type
            if not self._told:
                self._told = True
                text = "it was sealed with another spool.key: put that file back, or have its client send again"
                self._events.warning("unsealable", id=ident, detail=text)
            return ""
