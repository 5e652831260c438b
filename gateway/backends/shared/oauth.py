"""Access tokens: one cache for each identity, asked by many sends at once and refreshed by one of them.

The rules are those of RFC 6749. What talks to the identity provider is a library in a thread.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from gateway.backends.shared.base import Context, NoAnswer, away
from gateway.backends.shared.flight import SingleFlight
from gateway.backends.shared.http import is_page
from gateway.fetch import Answer, Fetch, Lost, NotSent
from gateway.model import Verdict
from gateway.pools import Pool
from gateway.strangers import lenient_json

_DEADLINE = 30.0  # seconds for one request to an identity provider
_IN_ALL = 120.0  # ... and for all that one refresh may need
_MARGIN = timedelta(seconds=30)  # a token that ends sooner is not handed out any more
_YOUNG = 60.0  # seconds; what was given so short ago would be given again
_AGAIN = 60.0  # seconds until a refresh that failed is tried again while the old token lives
_REMEMBERED = 5.0  # seconds for which a failure is the answer, without asking: what waits behind it comes at once


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An access token and when it ends (aware, UTC). Raises ValueError for what no HTTP header can carry."""

    value: str
    ends: datetime

    def __post_init__(self) -> None:
        if not isinstance(self.value, str) or not re.fullmatch(r"[!-~]+", self.value):
            raise ValueError(f"{type(self.value).__name__} as a token")


# For a library of an identity provider that blocks, or a file of its own: whoever waits for one holds up no mail.
in_token_thread = Pool("token", 32)
_BETWEEN = (
    "see what stands between this machine and the identity provider (network, portal, proxy, firewall), and whether "
    "authority or token_url is right"
)
_NETWORK = "see whether this machine reaches the identity provider (network, DNS, proxy), then try again"


def unavailable(detail: str, fix: str = _NETWORK) -> NoAnswer:
    """The identity provider could not be asked: nothing was sent, try again."""
    return away(detail, fix)


class BlockingHttp:
    """HTTP for a library that blocks, by the house's own client. To be used in the library's thread only."""

    def __init__(self, fetch: Fetch, loop: asyncio.AbstractEventLoop) -> None:
        self._fetch = fetch
        self.loop = loop

    def request(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, content: bytes | None = None
    ) -> Answer:
        """Raises NoAnswer."""
        asked = self._fetch.request(method, url, headers=headers, content=content, deadline=_DEADLINE)
        try:
            answer = asyncio.run_coroutine_threadsafe(asked, self.loop).result(_DEADLINE + 5)
        except (NotSent, Lost) as error:
            raise unavailable(str(error), getattr(error, "fix", "") or _NETWORK) from None
        finally:
            asked.close()  # where the loop is closed it was never begun
        if answer.status in range(300, 400) or (answer.status < 300 and is_page(answer)):
            what = "a redirect" if answer.status >= 300 else "a web page"
            raise unavailable(f"{urlsplit(url).netloc}: HTTP {answer.status}, {what} in place of an answer", _BETWEEN)
        return answer


def claims(token: str) -> dict[str, Any]:
    """The payload of a JWT whose signature nobody has looked at; empty for anything else."""
    try:
        part = token.split(".")[1]
        return lenient_json(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, IndexError):
        return {}


# Gets a new token; blocks. Raises NoAnswer.
TokenSource = Callable[[BlockingHttp], AccessToken]


class TokenCache:
    """Hands out one token until 80 % of its life are over, then refreshes it in the background while it still lives."""

    def __init__(self, backend: str, source: TokenSource, context: Context) -> None:
        self._backend = backend
        self._source = source
        self._context = context
        self._clock = context.clock
        self._token: AccessToken | None = None
        self._given = 0.0  # monotonic
        self._refresh_at = context.clock.now()
        self._refreshes: SingleFlight[None, AccessToken] = SingleFlight()
        self._failure: tuple[float, Exception] | None = None  # until when (monotonic) it counts

    async def get(self, stale: str = "") -> str:
        """The access token. ``stale`` is one that the API has just refused: it is never handed out again.

        Raises NoAnswer.
        """
        now, token = self._clock.now(), self._token
        if token is not None and (token.value == stale or now >= token.ends - _MARGIN):
            token = self._token = None
        if token is not None:
            if now >= self._refresh_at:
                self._refreshes.begin(None, self._refresh)
            return token.value
        if None not in self._refreshes and self._failure and self._clock.monotonic() < self._failure[0]:
            raise self._failure[1].with_traceback(None)  # else it would grow with every raise, and keep messages
        return (await self._refreshes.get(None, self._refresh)).value

    async def instead(self, refused: str) -> str | None:
        """Another token than the one that was refused; None where that is so young that another would be like it.

        For whoever refuses more than tokens that have ended: rights may have changed since. Raises NoAnswer.
        """
        held = self._token
        if held is not None and held.value == refused and self._clock.monotonic() - self._given < _YOUNG:
            return None
        return await self.get(stale=refused)

    @property
    def ends(self) -> datetime | None:
        """When the token now held ends."""
        return self._token.ends if self._token else None

    def forget_failure(self) -> None:
        """Ask again at the next ``get``, whatever came last."""
        self._failure = None

    async def aclose(self) -> None:
        await self._refreshes.aclose()

    async def _refresh(self) -> AccessToken:
        http = BlockingHttp(self._context.fetch, asyncio.get_running_loop())
        try:
            async with asyncio.timeout(_IN_ALL):
                token = await in_token_thread(partial(self._source, http))
        except TimeoutError:
            raise self._failed(unavailable(f"no token within {_IN_ALL:g} s")) from None
        except Exception as error:  # also a bug: whoever needs the token reports it
            self._failed(error)
            raise
        now = self._clock.now()
        self._token, self._failure, self._given = token, None, self._clock.monotonic()
        self._refresh_at = now + max(timedelta(0), token.ends - now) * self._context.rng.uniform(0.75, 0.85)
        self._context.signals.token_refreshed(self._backend, "ok", token.ends.timestamp())
        return token

    def _failed(self, error: Exception) -> Exception:
        verdict, detail = Verdict.DEFERRED, type(error).__name__
        if isinstance(error, NoAnswer):
            verdict, detail = error.outcome.verdict, error.outcome.detail
        kind = "unavailable" if verdict is Verdict.DEFERRED else "refused"
        self._failure = (self._clock.monotonic() + _REMEMBERED, error)
        self._refresh_at = self._clock.now() + timedelta(seconds=_AGAIN)
        self._context.signals.token_refreshed(self._backend, kind, detail=detail)
        return error


async def authorized(tokens: TokenCache, request: Callable[[str], Awaitable[Answer]]) -> tuple[Answer, str]:
    """What ``request`` gets with a token, and that token. Where it is refused (401), once more with a fresh one.

    Raises NoAnswer.
    """
    token = await tokens.get()
    answer = await request(token)
    if answer.status == 401:
        token = await tokens.get(stale=token)
        answer = await request(token)
    return answer, token
