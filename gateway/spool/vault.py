"""Secrets at rest: sealed with a key that lies beside the spool and in none of its copies. Not on the loop.

AES-256-GCM. Whose it is is associated data: a client's token opens with its own message only, a sign-in (secrets.py)
under its own name. No queue id is such a name.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

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


class Warns(Protocol):
    """The part of Events that is needed; commands have none of the service's."""

    def warning(self, event: str, **fields: object) -> None: ...


class Vault:
    """Seals and unseals. What cannot be opened is "", and the backend answers for it; the operator is warned once."""

    def __init__(self, key: bytes, events: Warns) -> None:
        self._cipher = AESGCM(key)
        self._events = events
        self._warned = False

    def seal(self, ident: str, secret: str) -> bytes | None:
        return self.enclose(ident, secret.encode("utf-8", _ERRORS)) if secret else None

    def unseal(self, ident: str, sealed: bytes | None) -> str:
        opened = self.disclose(ident, sealed) if sealed is not None else b""
        try:
            return (opened or b"").decode("utf-8", _ERRORS)
        except ValueError:  # sealed by others than ``seal``
            return ""

    def enclose(self, name: str, value: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, value, name.encode())

    def disclose(self, name: str, sealed: bytes) -> bytes | None:
        """None for what cannot be opened."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], name.encode())
        except (InvalidTag, TypeError, ValueError):  # a damaged value may be of any type
            if not self._warned:
                self._warned = True
                text = "it was sealed with another spool.key: put that file back, or have it sent or signed in again"
                self._events.warning("unsealable", id=name, detail=text)
            return None
