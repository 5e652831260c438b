"""HTTP out: one shared client with kept connections.

The only importer of httpx, httpx_aiohttp and aiohttp. A request ends in an Answer, NotSent or Lost, nothing else:
httpx_aiohttp turns every lost connection into ConnectTimeout, so the verdict is read from aiohttp's own exception.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.parse import urlsplit

import aiohttp
import aiohttp.abc
import httpx
import httpx_aiohttp

from gateway.names import PATIENCE, Names
from gateway.url import check_url

_CONNECT_SECONDS = 25.0  # for a free connection, the name, the connection and TLS
_NAME_SHARE = PATIENCE / _CONNECT_SECONDS  # so that a name server that is silent is called by its name
_CONNECTIONS = 100
_PIECE = 256 * 1024
_KEEP_SECONDS = 4.0  # below the 5 s after which the quickest servers hang up: no request meets a dying connection
_name_deadline: ContextVar[float] = ContextVar("_name_deadline")  # of the request under way, in the loop's time
_BEFORE_SENDING = (
    aiohttp.ClientConnectorError,  # also name resolution, TLS and proxy connections
    aiohttp.ClientHttpProxyError,  # the proxy refused the tunnel
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
)


class NotSent(Exception):
    """Nothing can have been processed: no name, no connection, no TLS, no free connection. The text may be shown."""


class Lost(Exception):
    """The request may have been processed, but no usable answer came. The text may be shown."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer. Header names are lower case; a body over the caller's cap is cut off there."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Resolver(aiohttp.abc.AbstractResolver):
    """How aiohttp gets at ``Names``. It is asked in the task of the request, as nothing is cached."""

    def __init__(self, names: Names) -> None:
        self._names = names

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        found = await self._names.find(host, seconds=_name_deadline.get() - asyncio.get_running_loop().time())
        proto, flags = socket.IPPROTO_TCP, socket.AI_NUMERICHOST
        return [
            {"hostname": host, "host": one.host, "port": port, "family": one.family, "proto": proto, "flags": flags}
            for one in found
        ]

    async def close(self) -> None: ...


class Fetch:
    """Shared HTTP client: verified TLS, no redirects, no cookies, proxies of the environment, kept connections.

    ``trust`` takes the place of the public authorities. ``names`` finds the hosts, those of proxies too.
    """

    def __init__(self, *, trust: ssl.SSLContext | None = None, names: Names | None = None) -> None:
        trust, resolver = trust or httpx.create_ssl_context(), _Resolver(names or Names())

        def session() -> aiohttp.ClientSession:  # made at the first request, inside the loop
            connector = aiohttp.TCPConnector(
                resolver=resolver, use_dns_cache=False, ssl=trust, limit=_CONNECTIONS, keepalive_timeout=_KEEP_SECONDS
            )
            return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())

        no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
        self._client = httpx_aiohttp.HttpxAiohttpClient(verify=trust, cookies=no_cookies)
        # Of httpx's own, also those for proxies; it has no public way to set their session.
        for transport in (self._client._transport, *self._client._mounts.values()):
            if isinstance(transport, httpx_aiohttp.AiohttpTransport):
                transport.client = session

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
            check_url(url, metadata=True)
        except ValueError as error:
            raise NotSent(str(error)) from None
        host = urlsplit(url).netloc
        # Connecting gets a smaller share, so that running into the whole deadline always means "was sent".
        connecting = min(_CONNECT_SECONDS, deadline / 2)
        timeout = httpx.Timeout(deadline, connect=connecting, pool=connecting)
        _name_deadline.set(asyncio.get_running_loop().time() + connecting * _NAME_SHARE)
        sent = {"accept-encoding": "identity", **(headers or {})}
        body: bytes | AsyncIterator[bytes] | None = content
        if content is not None and len(content) > _PIECE:
            sent["content-length"], body = str(len(content)), _pieces(content)
        try:
            async with (
                asyncio.timeout(deadline),
                self._client.stream(method, url, headers=sent, content=body, timeout=timeout) as response,
            ):
                return Answer(response.status_code, dict(response.headers), await _capped(response, max_bytes))
        except (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError, OSError, ValueError) as error:
            cause = error.__cause__ if isinstance(error, httpx.HTTPError) and error.__cause__ else error
            if isinstance(cause, (*_BEFORE_SENDING, httpx.InvalidURL, ValueError)):
                raise NotSent(_reason(cause, host)) from error
            raise Lost(f"{host}: {_loss(cause, deadline)}") from error

    async def aclose(self) -> None:
        await self._client.aclose()


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    """So that encrypting and copying a large body never holds the loop."""
    for start in range(0, len(content), _PIECE):
        yield content[start : start + _PIECE]


async def _capped(response: httpx.Response, limit: int) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) >= limit:
            break
    return bytes(body[:limit])


def _reason(error: BaseException, host: str) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return error.os_error.strerror or str(error.os_error)  # the words of names.Names, of a proxy too
    reason = str(error)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        reason = "timed out"
    elif isinstance(error, aiohttp.ClientConnectorCertificateError):
        inner = error.certificate_error
        reason = f"certificate not trusted: {getattr(inner, 'verify_message', '') or inner}"
    elif isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
        reason = f"TLS failed: {cause.reason}" if isinstance(cause, ssl.SSLError) else cause.strerror or str(cause)
    elif isinstance(error, aiohttp.ClientHttpProxyError):
        reason = f"the proxy answered {error.status}"
    return f"cannot connect to {host}: {reason}"


def _loss(error: BaseException, deadline: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {deadline:g} s"
    if isinstance(error, aiohttp.ClientResponseError):
        return "unintelligible answer"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the answer broke off"
    return "connection lost before the answer"
