"""Clients' own tokens at rest: sealed with a key that lies beside the spool and in none of its copies. Not on the loop.

AES-256-GCM; the queue id is associated data, so that a sealed token opens with its own message only.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.events import Events
from gateway.files import write_whole
from gateway.spool.records import SpoolError

FILE = "spool.key"
_KEY = 32  # bytes
_NONCE = 12  # bytes, at random: good for some 4 thousand million messages under one key (NIST SP 800-38D, 8.3)
_ERRORS = "surrogatepass"  # what a client gave as its password may be no text


def key(directory: Path) -> bytes:
    """The file spool.key in this folder, made when there is none yet; one that cannot be right is put aside.

    Raises SpoolError. Blocks.
    """
    path = directory / FILE
    try:
        found = path.read_bytes() if path.exists() else b""
        if len(found) == _KEY:
            return found
        if found:
            path.replace(path.with_name(f"{FILE}.unusable"))
        made = os.urandom(_KEY)
        write_whole(path, made)
    except OSError as error:
        raise SpoolError(f"{path} cannot be used: {error.strerror}") from error
    return made


class Vault:
    """Seals and unseals. What cannot be opened is "", and the backend answers for it; the operator is warned once."""

    def __init__(self, key: bytes, events: Events) -> None:
        self._cipher = AESGCM(key)
        self._events = events
        self._warned = False

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
            if not self._warned:
                self._warned = True
                text = "it was sealed with another spool.key: put that file back, or have its client send again"
                self._events.warning("unsealable", id=ident, detail=text)
            return ""
