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
from dataclasses import dataclass, field

from gateway.auth.guesses import Guesses
from gateway.auth.tokens import token_in
from gateway.clock import Clock
from gateway.config.values import parse_scrypt
from gateway.model import Refusal

_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # nothing that looks like something else on a printer's display
_LENGTH = 20  # 99 bits
_THREADS = 2
_WAITING = 32
_OF_ONE = 8  # of these for one neighbour: who tries many user names must not take the places of the others


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


@dataclass(frozen=True, slots=True)
class Login:
    """A user name and password, and the neighbour they come from. ``here``: would the right password be good there?

    ``trusted``: such neighbours may be wrong as often as they like.
    """

    user: str
    password: str = field(repr=False)
    place: str
    here: bool
    trusted: bool


@dataclass(slots=True)
class _Run:
    """A password being looked at, and how many wait for the answer."""

    answer: asyncio.Future[bool]
    waiting: int = 0


class Passwords:
    """The hashes by user name. Raises ValueError for a wrong one, which config.load refuses.

    Every branch costs the same: of a wrong password, of a name that does not exist, of a right password from the wrong
    place. What was judged in the last minutes for the same neighbour is not judged again, whatever the verdict was.
    """

    def __init__(self, hashes: Mapping[str, str], clock: Clock, guesses: Guesses) -> None:
        self._hashes = {name: _Hash(*parse_scrypt(text)) for name, text in hashes.items()}
        self._costs = [(known.ln, known.r, known.p) for known in self._hashes.values()]
        self._clock = clock
        self._guesses = guesses
        self._runs: dict[bytes, _Run] = {}
        self._room = threading.BoundedSemaphore(_WAITING)
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="scrypt")

    async def verify(self, login: Login) -> bool:
        """Whether this is the user's password.

        Raises Refusal 454 when too many wait, or when this neighbour guesses too often at this user.
        """
        if not self._costs:
            return False
        known = self._hashes.get(login.user) or self._decoy(login.user)
        mark = self._guesses.mark(login.place, login.user, login.password, known.digest, login.here)
        verdict = self._guesses.recall(mark, self._clock.monotonic())
        if verdict is not None:
            return verdict
        run = self._runs.get(mark) or self._begin(mark, known, login)
        run.waiting += 1
        try:
            return await asyncio.shield(run.answer)
        finally:
            run.waiting -= 1
            if not run.waiting:
                run.answer.cancel()  # nobody wants to know any more; without effect once it is known

    def of(self, user: str) -> object:
        """What stands for the user's password as it is configured; None without one."""
        return self._hashes.get(user)

    def _decoy(self, user: str) -> _Hash:
        """For a name that does not exist, so that nobody can tell: it costs what one of those that exist costs."""
        made = self._guesses.mark("decoy", user)
        return _Hash(*self._costs[made[0] % len(self._costs)], made[:16], made)

    def _begin(self, mark: bytes, known: _Hash, login: Login) -> _Run:
        """Reserve, then look: what is counted only afterwards lets as many guess as have connections."""
        guesses, now = self._guesses, self._clock.monotonic()
        who = guesses.mark(login.place, login.user)
        if not login.trusted and not guesses.reserve(who, now):
            text = "Too many failed logins as this user from your address, try again later"
            raise Refusal(454, "4.7.0", text, "too_many_failures")
        crowded = not login.trusted and guesses.at_work.of(login.place) >= _OF_ONE
        if crowded or not self._room.acquire(blocking=False):
            guesses.release(who, now)
            raise Refusal(454, "4.7.0", "Temporary authentication failure", "busy")
        work = self._executor.submit(known.fits, login.password)
        work.add_done_callback(lambda _: self._room.release())
        run = self._runs[mark] = _Run(asyncio.wrap_future(work))
        guesses.at_work.add(login.place, 1)

        def ended(answer: asyncio.Future[bool]) -> None:
            del self._runs[mark]
            guesses.at_work.add(login.place, -1)
            if answer.cancelled() or answer.exception() is not None:
                return
            right, then = answer.result(), self._clock.monotonic()
            guesses.learn(mark, right, then, admitted=right and login.here)
            if right and login.here:
                guesses.release(who, then)

        run.answer.add_done_callback(ended)
        return run

    def close(self) -> None:
        self._executor.shutdown(wait=False)  # what is queued ends: its sessions may outlive these settings
