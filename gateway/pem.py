"""PEM text (RFC 7468) that cannot be used: why, in words for whoever has to correct the file."""

from __future__ import annotations

import re

_LABEL = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
_LOCKED = re.compile(rb"BEGIN ENCRYPTED PRIVATE KEY|^Proc-Type: 4,ENCRYPTED", re.MULTILINE)


def complaint(data: bytes, wanted: str) -> str:
    """Why ``data`` was refused as a ``wanted``: "certificate", "private key" or "public key". Quotes nothing of it."""
    labels = [label.decode() for label in _LABEL.findall(data)]
    if not data.strip():
        why = "it is empty"
    elif not labels:
        why = 'it has no line "-----BEGIN ...-----"'
    elif not any(label.endswith(wanted.upper()) for label in labels):
        why = f"it holds {labels[0]}"
    elif wanted == "private key" and _LOCKED.search(data):
        why = "it needs a passphrase, take that off: openssl pkey -in OLD -out NEW"
    else:
        why = "it is damaged"
    return f"is not a PEM {wanted}: {why}"
