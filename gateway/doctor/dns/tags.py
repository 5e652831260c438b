"""Records made of tags: keys of DKIM (RFC 6376, 3.6.1) and DMARC policies (RFC 7489, 6.3)."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

_LEAST = 1024  # bits that receivers take (RFC 8301, 3.2)


def tags(text: str) -> Mapping[str, str]:
    """``name=value`` between semicolons. Raises ValueError."""
    found: dict[str, str] = {}
    for part in filter(str.strip, text.split(";")):
        name, equals, value = part.partition("=")
        if not equals or name.strip() in found:
            raise ValueError(f'"{part.strip()[:40]}" is no tag, or stands twice')
        found[name.strip()] = value.strip()
    return found


@dataclass(frozen=True, slots=True)
class Key:
    """A published key: ``fault`` is what makes it unusable, ``weak`` what makes it doubtful."""

    fault: str = ""
    weak: str = ""


def key_of(text: str) -> Key:
    try:
        found = tags(text)
        if found.get("v", "DKIM1") != "DKIM1":
            raise ValueError("it is no DKIM key (v=DKIM1)")
        material = re.sub(r"\s", "", found.get("p", ""))
        if not material:
            raise ValueError("the key was taken back (p= is empty)" if "p" in found else "it holds no key (p=)")
        bits = _bits(found.get("k", "rsa"), material)
    except ValueError as error:
        return Key(str(error))
    if 0 < bits < _LEAST:
        return Key(weak=f"the key has {bits} bits, receivers want {_LEAST} at least")
    return Key(weak="it is marked as a test (t=y)" if "y" in found.get("t", "").split(":") else "")


def _bits(kind: str, material: str) -> int:
    """0 for a key that is not of RSA. Raises ValueError."""
    try:
        raw = base64.b64decode(material, validate=True)
        if kind == "ed25519" and len(raw) == 32:  # RFC 8463: the bare octets
            return 0
        key = load_der_public_key(raw)
    except ValueError:
        raise ValueError("its key is damaged: it was cut off, or has a character too many") from None
    return key.key_size if isinstance(key, rsa.RSAPublicKey) else 0


@dataclass(frozen=True, slots=True)
class Dmarc:
    """What a domain wants done with mail that fails: ``policy`` none, quarantine or reject; "s" is strict."""

    policy: str
    spf: str = "r"
    dkim: str = "r"
    reports: bool = False


def dmarc_of(text: str, *, below: bool) -> Dmarc:
    """``below``: it is asked about a subdomain of the one that has the record. Raises ValueError."""
    found = tags(text)
    policy = (found.get("sp") if below else None) or found.get("p", "")
    if policy.lower() not in ("none", "quarantine", "reject"):
        raise ValueError(f"p={policy or '...'} must be none, quarantine or reject")
    return Dmarc(policy.lower(), found.get("aspf", "r").lower(), found.get("adkim", "r").lower(), "rua" in found)


def is_dmarc(text: str) -> bool:
    return bool(re.match(r"v\s*=\s*DMARC1\s*(;|$)", text))
