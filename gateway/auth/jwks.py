"""Keys that an issuer publishes: fetched over HTTPS, cached, and served stale while the issuer is away."""

from __future__ import annotations

import asyncio
import math

from gateway.auth.keys import Key, Public, from_jwk
from gateway.clock import Clock
from gateway.events import Events
from gateway.fetch import Answer, Fetch, Lost, NotSent
from gateway.model import CannotTell
from gateway.strangers import strict_json

_FRESH = 300.0  # seconds; so long is a withdrawn key still good
_PAUSE = 30.0  # between two fetches, whatever key ids strangers make up
_STALE = 86_400.0
_DEADLINE = 5.0


class Jwks:
    """The published keys of one ``auth.keys`` entry. Times are seconds of ``clock.monotonic()``."""

    def __init__(self, key: Key, fetch: Fetch, clock: Clock, events: Events) -> None:
        self._key = key
        self._fetch = fetch
        self._clock = clock
        self._events = events
        self._entries: list[tuple[str | None, Public]] = []
        self._fetched_at = self._tried_at = -math.inf
        self._up: bool | None = None
        self._task: asyncio.Task[None] | None = None

    async def find(self, kid: str | None) -> list[Public]:
        """The keys a token with this ``kid`` may be signed with; without one, all. Raises CannotTell."""
        if self.old or not self._matching(kid):
            await self.refresh()
        found = self._matching(kid)
        if self._age() >= _STALE or (not found and not self._up):
            raise self._cannot_tell()
        return found

    @property
    def old(self) -> bool:
        """Whether the keys should be fetched again before they are relied upon."""
        return self._age() >= _FRESH

    async def refresh(self) -> None:
        """Fetch the keys, unless that was tried just now."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._load(), name=f"jwks {self._key.name}")
        await asyncio.wait((self._task,))  # not itself: who hangs up must not cancel the others' fetch

    def holds(self, public: object) -> bool:
        """Whether this key is still published, as far as is known. Raises CannotTell."""
        if self._age() >= _STALE:
            raise self._cannot_tell()
        return any(known == public for _, known in self._entries)

    def take_over(self, before: Jwks) -> None:
        """What was fetched under the settings before these: a reload must not need the issuer."""
        self._entries, self._up = before._entries, before._up
        self._fetched_at, self._tried_at = before._fetched_at, before._tried_at

    def _age(self) -> float:
        return self._clock.monotonic() - self._fetched_at

    def _cannot_tell(self) -> CannotTell:
        return CannotTell(f"the keys at {self._key.settings.jwks_url} cannot be had")

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    def _matching(self, kid: str | None) -> list[Public]:
        return [public for name, public in self._entries if kid in (None, name)]

    async def _load(self) -> None:
        if self._clock.monotonic() - self._tried_at < _PAUSE:
            return
        self._tried_at = self._clock.monotonic()
        was, self._up, detail = self._up, False, ""
        try:
            url = self._key.settings.jwks_url or ""
            answer = await self._fetch.request("GET", url, headers={"accept": "application/json"}, deadline=_DEADLINE)
            self._entries, detail = _read(answer, self._key.settings.algorithm)
            self._fetched_at, self._up = self._clock.monotonic(), True
        except (NotSent, Lost, ValueError) as error:
            detail = str(error)
        except Exception as error:  # nobody awaits the task's result
            self._events.bug("jwks", error)
        if was is not True or not self._up:
            self._events.jwks(self._key.name, self._up, detail)


def _read(answer: Answer, algorithm: str) -> tuple[list[tuple[str | None, Public]], str]:
    """The usable keys of a JWK set and a line about it. Raises ValueError when there is none."""
    if answer.status != 200:
        raise ValueError(f"the issuer answered {answer.status}")
    listed = strict_json(answer.body).get("keys")
    entries: list[tuple[str | None, Public]] = []
    refused: list[str] = []
    for entry in listed if isinstance(listed, list) else []:
        try:
            public = from_jwk(entry, algorithm)
            entries.append((entry.get("kid"), public))
        except ValueError as error:
            refused.append(str(error))
    detail = f"{len(entries)} keys for {algorithm}" + (f", refused: {'; '.join(refused)}" if refused else "")
    if not entries:
        raise ValueError(detail)
    return entries, detail
