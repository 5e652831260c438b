"""HTTP out: one shared client with kept connections.

The only importer of httpx, httpx_aiohttp and aiohttp. A request ends in an Answer, NotSent or Lost, nothing else:
httpx_aiohttp turns every lost connection into ConnectTimeout, so the verdict is read from aiohttp's own exception.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import httpx
import httpx_aiohttp

from gateway.url import check_url

_CONNECT_SECONDS = 20.0
_PIECE = 256 * 1024
_KEEP_SECONDS = 4.0  # below the 5 s after which the quickest servers hang up: no request meets a dying connection
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


class Fetch:
    """Shared HTTP client: verified TLS, no redirects, proxies of the environment, kept connections.

    ``ca_file`` names certificates to trust besides the public ones.
    """

    def __init__(self, *, connections: int = 100, ca_file: Path | None = None) -> None:
        trust = httpx.create_ssl_context()
        if ca_file is not None:
            trust.load_verify_locations(cafile=ca_file)
        limits = httpx.Limits(
            max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=_KEEP_SECONDS
        )
        self._client = httpx_aiohttp.HttpxAiohttpClient(verify=trust, limits=limits, follow_redirects=False)

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
                raise NotSent(f"cannot connect to {host}: {_reason(cause)}") from error
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


def _reason(error: BaseException) -> str:
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "timed out"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        inner = error.certificate_error
        return f"certificate not trusted: {getattr(inner, 'verify_message', '') or inner}"
    if isinstance(error, aiohttp.ClientConnectorError):
        inner = error.os_error
        return f"TLS failed: {inner.reason}" if isinstance(inner, ssl.SSLError) else inner.strerror or str(inner)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy answered {error.status}"
    return str(error)


def _loss(error: BaseException, deadline: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {deadline:g} s"
    if isinstance(error, aiohttp.ClientResponseError):
        return "unintelligible answer"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the answer broke off"
    return "connection lost before the answer"
