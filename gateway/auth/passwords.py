"""Device passwords: short random texts for printers, kept as scrypt hashes and verified off the loop (RFC 7914)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from gateway.auth.tokens import token_in
from gateway.clock import Clock
from gateway.config.values import parse_scrypt
from gateway.model import Refusal

_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # nothing that looks like something else on a printer's display
_LENGTH = 20  # 99 bits
_REMEMBERED = 300.0  # seconds
_THREADS = 2
_WAITING = 32


@dataclass(frozen=True, slots=True)
class _Hash:
    ln: int
    r: int
    p: int
    salt: bytes
    digest: bytes

    def derive(self, password: str) -> bytes:
        n, size = 1 << self.ln, len(self.digest)
        room = 128 * self.r * (n + self.p + 2) + 1_000_000
        raw = password.encode("utf-8", "surrogatepass")
        return hashlib.scrypt(raw, salt=self.salt, n=n, r=self.r, p=self.p, maxmem=room, dklen=size)

    def fits(self, password: str) -> bool:
        return hmac.compare_digest(self.derive(password), self.digest)


def new_password() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))


def hash_password(text: str, salt: bytes) -> str:
    """``$scrypt$ln=14,r=8,p=1$salt$hash`` as passlib writes it; 16 bytes of salt. Raises ValueError for a token."""
    if token_in(text):
        raise ValueError("a password of three parts with dots would be taken for a token")
    made = _Hash(14, 8, 1, salt, bytes(32))
    salted, digest = (base64.b64encode(raw).rstrip(b"=").decode() for raw in (salt, made.derive(text)))
    return f"$scrypt$ln={made.ln},r={made.r},p={made.p}${salted}${digest}"


class Passwords:
    """The hashes by user name. Raises ValueError for a wrong one, which config.load refuses."""

    def __init__(self, hashes: Mapping[str, str], clock: Clock) -> None:
        self._hashes = {name: _Hash(*parse_scrypt(text)) for name, text in hashes.items()}
        costs = [(known.r * known.p << known.ln, known.ln, known.r, known.p) for known in self._hashes.values()]
        # An unknown name costs as much as a wrong password, so that nobody can tell which names exist.
        self._decoy = _Hash(*max(costs)[1:], secrets.token_bytes(16), secrets.token_bytes(32)) if costs else None
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._remembered: dict[str, tuple[bytes, float]] = {}
        self._room = threading.BoundedSemaphore(_WAITING)
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="scrypt")

    async def verify(self, user: str, password: str) -> bool:
        """Whether this is the client's password. A success is remembered. Raises Refusal 454 when too many wait."""
        known = self._hashes.get(user, self._decoy)
        if known is None:
            return False
        mark = hmac.digest(self._secret, password.encode("utf-8", "surrogatepass"), "sha256")
        remembered, until = self._remembered.get(user, (b"", 0.0))
        if self._clock.monotonic() < until and hmac.compare_digest(mark, remembered):
            return True
        if not self._room.acquire(blocking=False):
            raise Refusal(454, "4.7.0", "Temporary authentication failure", "busy")
        work = self._executor.submit(known.fits, password)
        work.add_done_callback(lambda _: self._room.release())
        if not await asyncio.wrap_future(work) or user not in self._hashes:
            return False
        self._remembered[user] = (mark, self._clock.monotonic() + _REMEMBERED)
        return True

    def close(self) -> None:
        self._executor.shutdown(wait=False)  # what is queued ends: its sessions may outlive these settings
