"""HTTP out: by which proxy, and trusting whom. A request ends in an Answer, NotSent or Lost, nothing else."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.answer import Answer, Lost, NotSent
from gateway.names import Names
from gateway.pools import read_files
from gateway.proxies import Proxies, Proxy
from gateway.trust import Trust
from gateway.url import check_url

if TYPE_CHECKING:
    from gateway.calling import Caller

__all__ = ["Answer", "Fetch", "Lost", "NotSent"]

_LONGEST = 3600.0  # no request takes longer
_WAYS, _SHORT = 1000, 500  # URLs of which it is remembered how they are to be asked, and characters of each
_STORE = "see that the file named by ca_file or SSL_CERT_FILE is there and holds certificates"


class Fetch:
    """Shared HTTP client: verified TLS, no redirects, no cookies, proxies of the environment, kept connections.

    ``trust`` says which authorities count, by default this machine's own. ``names`` finds the hosts, those of proxies
    too. ``proxy`` takes the place of what the environment says (proxies.Proxies).
    """

    def __init__(self, *, trust: Trust | None = None, names: Names | None = None, proxy: str | None = None) -> None:
        self._trust = trust or Trust()
        self._names = names or Names()
        self._proxies = Proxies(proxy)
        self._ways: dict[str, tuple[bool, Proxy | None]] = {}  # by URL: whether by TLS, by which proxy
        self._clients: dict[tuple[Proxy | None, ssl.SSLContext | None], Caller] = {}
        self._outdated: list[tuple[float, Caller]] = []
        self._others: dict[tuple[Path | None, str | None], Fetch] = {}

    def by(
        self, ca_file: Path | None, proxy: str | None, kept: Callable[[str, str], None] = lambda file, why: None
    ) -> Fetch:
        """The same with authorities beside the system's, or with a proxy of its own. It is closed together with this.

        ``kept`` as in Trust. Raises OSError for a ``ca_file`` that cannot be used.
        """
        if ca_file is None and proxy is None:
            return self
        if (other := self._others.get((ca_file, proxy))) is None:
            trust = Trust(ca_file, kept=kept) if ca_file else self._trust
            if ca_file:
                trust.load()
            other = self._others[ca_file, proxy] = Fetch(trust=trust, names=self._names, proxy=proxy)
        return other

    def _way(self, url: str) -> tuple[bool, Proxy | None]:
        """Whether by TLS, and by which proxy: both are settled once a URL is known. Raises ValueError."""
        if (way := self._ways.get(url)) is None:
            parts = urlsplit(check_url(url, metadata=True))
            secure = parts.scheme == "https"
            way = secure, self._proxies.find(parts.hostname or "", parts.port or (443 if secure else 80))
            if len(url) <= _SHORT and "?" not in url:  # else it is most likely of one message, and may be a secret
                if len(self._ways) >= _WAYS:
                    self._ways.clear()
                self._ways[url] = way
        return way

    def _ready(self, url: str) -> Caller | None:
        """The one by which this URL is to be asked, where nothing has to be looked up or read for that."""
        if (way := self._ways.get(url)) is None:
            return None
        secure, proxy = way
        context = self._trust.unchanged() if secure else None
        return self._clients.get((proxy, context)) if context or not secure else None

    async def _client(self, url: str) -> Caller:
        """The one by which this URL is to be asked now. Raises ValueError and OSError: there is no way."""
        secure, proxy = self._way(url)
        context = await self._trust.current() if secure else None
        if (client := self._clients.get((proxy, context))) is None:
            caller = await read_files(load)
            if (client := self._clients.get((proxy, context))) is None:  # nor has somebody else made it meanwhile
                client = self._clients[proxy, context] = caller(self._names, proxy, context)
            await self._put_away(context)
        return client

    async def _put_away(self, now_trusted: ssl.SSLContext | None) -> None:
        """Clients that trust what no longer counts are closed when nothing they were asked can still be under way."""
        now = asyncio.get_running_loop().time()
        for key in [key for key in self._clients if now_trusted and key[1] not in (None, now_trusted)]:
            self._outdated.append((now, self._clients.pop(key)))
        while self._outdated and now - self._outdated[0][0] > _LONGEST:
            await self._outdated.pop(0)[1].aclose()

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        deadline: float,
        max_bytes: int = 1_000_000,
    ) -> Answer:
        """One request and its answer within ``deadline`` seconds. Raises only NotSent and Lost."""
        try:
            if (client := self._ready(url)) is None:
                async with asyncio.timeout(deadline):
                    client = await self._client(url)
        except OSError as error:  # also of time: a disk may hang
            raise NotSent(f"cannot read whom to trust: {error.strerror or 'no answer'}", _STORE) from None
        except ValueError as error:
            raise NotSent(str(error)) from None
        return await client.request(method, url, headers, content, deadline, max_bytes)

    async def aclose(self) -> None:
        for other in self._others.values():
            await other.aclose()
        for client in (*self._clients.values(), *(old for _, old in self._outdated)):
            await client.aclose()


def load() -> type[Caller]:
    """The libraries for it, which take a tenth of a second: not in the loop, and only where somebody is asked."""
    from gateway.calling import Caller  # noqa: PLC0415

    return Caller
