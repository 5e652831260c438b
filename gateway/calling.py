"""One client for HTTP out, with kept connections.

The only importer of httpx, httpx_aiohttp and aiohttp, and slow to load for that: see Fetch. What has a body, as mail
has, goes by aiohttp itself, for which httpx would cost three times as much CPU; whatever only asks goes by httpx, over
the same connections. httpx_aiohttp turns every lost connection into ConnectTimeout, so the verdict is read from
aiohttp's own exception.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import zlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from functools import lru_cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.parse import urlsplit

import aiohttp
import aiohttp.abc
import httpx
import httpx_aiohttp

from gateway import __version__
from gateway.answer import Answer, Lost, NotSent
from gateway.names import PATIENCE, Names, in_words
from gateway.proxies import Proxy
from gateway.trust import time_fix

_CONNECT_SECONDS = 25.0  # for the name, the connection and TLS
_NAME_SHARE = PATIENCE / _CONNECT_SECONDS  # so that a name server that is silent is called by its name
_PIECE = 256 * 1024
# Mail must not be sent twice, so no request may meet a connection that a server or a firewall on the way has given up:
# one that has rested is not used again. Messages that follow each other closely still share one.
_KEEP_SECONDS = 0.5
_UNKNOWN_AUTHORITY = (18, 19, 20, 21)  # X509_V_ERR_...: self-signed, or no issuer found
_OTHER_NAME = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, ..._IP_ADDRESS_MISMATCH
_AUTHORITY = "if a proxy looks into TLS, install its authority here (update-ca-certificates), or name it in ca_file"
_PROXY = "check HTTPS_PROXY and NO_PROXY, or the setting proxy: host, port, user name and password"
_NAME_SERVER = "see whether the name is spelled right, and this machine's name server knows it: getent ahosts {host}"
_ROUTE = "see whether this machine may go out to there: firewall, routes, proxy (HTTPS_PROXY, setting proxy)"
_ANOTHER = "somebody else answers in its place: a portal that wants a log-in, a proxy, or a name server that lies"
_name_deadline: ContextVar[float] = ContextVar("_name_deadline")  # of the request under way, in the loop's time
_opened: ContextVar[list[bool]] = ContextVar("_opened")  # empty: the request under way got a kept connection
_OURS = {"accept-encoding": "identity", "user-agent": f"smtp-api-gateway/{__version__}"}
_BEFORE_SENDING = (
    aiohttp.ClientConnectorError,  # also name resolution, TLS and proxy connections
    aiohttp.ClientHttpProxyError,  # the proxy refused the tunnel
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
)


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


class Caller:
    """Requests by one proxy, or none, to whoever ``context`` trusts (None: nobody). To be made inside the loop.

    Neither httpx nor aiohttp looks into the environment, and no cookie is kept.
    """

    def __init__(self, names: Names, proxy: Proxy | None, context: ssl.SSLContext | None) -> None:
        context = context or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which trusts nobody
        connector = aiohttp.TCPConnector(
            resolver=_Resolver(names), use_dns_cache=False, ssl=context, keepalive_timeout=_KEEP_SECONDS,
            limit=0,  # who asks keeps to the ``concurrency`` of his settings, and must not wait for others
            socket_factory=_noted,
        )  # fmt: skip
        jar = aiohttp.DummyCookieJar()
        self._session = aiohttp.ClientSession(connector=connector, cookie_jar=jar, auto_decompress=False)
        self._proxy = proxy.url if proxy else None
        self._to_proxy = {"proxy-authorization": proxy.authorization} if proxy and proxy.authorization else None
        by = httpx.Proxy(proxy.url, headers=self._to_proxy) if proxy else None
        transport = httpx_aiohttp.AiohttpTransport(verify=context, proxy=by, client=self._session)
        no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
        self._client = httpx.AsyncClient(transport=transport, trust_env=False, cookies=no_cookies)

    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        content: bytes | None,
        deadline: float,
        max_bytes: int,
    ) -> Answer:
        """As Fetch.request."""
        opened: list[bool] = []
        _opened.set(opened)
        # Connecting gets a smaller share, so that running into the whole deadline always means "was sent".
        connecting = min(_CONNECT_SECONDS, deadline / 2)
        _name_deadline.set(asyncio.get_running_loop().time() + connecting * _NAME_SHARE)
        sent = {**_OURS, **(headers or {})}
        try:
            async with asyncio.timeout(deadline):
                if content is None:
                    answer = await self._ask(method, url, sent, connecting, max_bytes)
                else:
                    answer = await self._send(method, url, sent, content, connecting, max_bytes)
        except (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError, OSError, ValueError) as error:
            host = urlsplit(url).netloc
            cause = error.__cause__ if isinstance(error, httpx.HTTPError) and error.__cause__ else error
            if isinstance(cause, (*_BEFORE_SENDING, httpx.InvalidURL, ValueError)):
                raise NotSent(*_reason(cause, host)) from error
            raise Lost(f"{host}: {_loss(cause, deadline)}", stale=not opened and _is_silent(cause)) from error
        return answer

    async def _send(
        self, method: str, url: str, headers: dict[str, str], content: bytes, connecting: float, max_bytes: int
    ) -> Answer:
        body: bytes | AsyncIterator[bytes] | None = content or None
        if len(content) > _PIECE:
            headers["content-length"], body = str(len(content)), _pieces(content)
        async with self._session.request(
            method,
            url,
            headers=headers,
            data=body,
            timeout=_patience(connecting),
            allow_redirects=False,
            proxy=self._proxy,
            proxy_headers=self._to_proxy,
        ) as response:
            raw = await _capped(response.content.iter_any(), max_bytes)
            return _answer(response.status, response.raw_headers, raw, max_bytes)

    async def _ask(
        self, method: str, url: str, headers: Mapping[str, str], connecting: float, max_bytes: int
    ) -> Answer:
        timeout = httpx.Timeout(None, connect=connecting, pool=connecting)
        async with self._client.stream(method, url, headers=headers, timeout=timeout) as response:
            raw = await _capped(response.aiter_raw(), max_bytes)
            return _answer(response.status_code, response.headers.raw, raw, max_bytes)

    async def aclose(self) -> None:
        await self._session.close()


def _noted(place: tuple[int, int, int, str, object]) -> socket.socket:
    """A socket for a new connection of the request under way."""
    _opened.get().append(True)
    return socket.socket(*place[:3])


@lru_cache(maxsize=64)
def _patience(connecting: float) -> aiohttp.ClientTimeout:
    """For all the rest there is one deadline, which the caller keeps."""
    return aiohttp.ClientTimeout(connect=connecting, sock_connect=connecting)


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    """So that encrypting and copying a large body never holds the loop."""
    for start in range(0, len(content), _PIECE):
        yield content[start : start + _PIECE]


async def _capped(chunks: AsyncIterable[bytes], limit: int) -> bytes:
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) >= limit:
            break
    return bytes(body[:limit])


def _answer(status: int, fields: Iterable[tuple[bytes, bytes]], body: bytes, limit: int) -> Answer:
    headers: dict[str, str] = {}
    for raw_name, raw_value in fields:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value  # RFC 9110, 5.3
    return Answer(status, headers, decoded(body, headers, limit))


def decoded(body: bytes, headers: Mapping[str, str], limit: int) -> bytes:
    """At most ``limit`` bytes of what was compressed although we ask for nothing of that (RFC 9110, 8.4.1).

    What cannot be read is replaced by words that say so.
    """
    if not (named := headers.get("content-encoding")):
        return body
    for coding in reversed([one.strip().lower() for one in named.split(",")]):
        if coding in ("", "identity") or not body:
            continue
        windows = {"gzip": (31,), "x-gzip": (31,), "deflate": (15, -15)}.get(coding, ())
        for bits in windows:  # some send a bare deflate stream
            with suppress(zlib.error):
                body = zlib.decompressobj(bits).decompress(body, limit)
                break
        else:
            return f"(a body in the content coding {coding}, which cannot be read)".encode()
    return body


def _reason(error: BaseException, host: str) -> tuple[str, str]:
    """In words, and what to do about it."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        said = error.os_error.strerror or str(error.os_error)  # the words of names.Names, of a proxy too
        return said, _NAME_SERVER.format(host=error.host)
    reason, fix = str(error), ""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        reason = "timed out"
    elif isinstance(error, aiohttp.ClientConnectorCertificateError):
        inner = error.certificate_error
        reason = f"certificate not trusted: {getattr(inner, 'verify_message', '') or inner}"
        code = getattr(inner, "verify_code", 0)
        fix = _AUTHORITY if code in _UNKNOWN_AUTHORITY else _ANOTHER if code in _OTHER_NAME else time_fix(inner)
    elif isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
        reason, fix = in_words(cause), _ROUTE
        if isinstance(cause, ssl.SSLError):
            reason, fix = f"TLS failed: {cause.reason}", ""
        if isinstance(error, aiohttp.ClientProxyConnectionError):
            reason, fix = f"the proxy {error.host}:{error.port}: {reason}", _PROXY
    elif isinstance(error, aiohttp.ClientHttpProxyError):
        reason, fix = f"the proxy answered {error.status}", _PROXY
    return f"cannot connect to {host}: {reason}", fix


def _is_silent(error: BaseException) -> bool:
    """Whether the connection ended without a byte of an answer, as far as that is known."""
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return isinstance(error.message, str)  # else it is what had been read of one
    return isinstance(error, aiohttp.ClientOSError)


def _loss(error: BaseException, deadline: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {deadline:g} s"
    if isinstance(error, aiohttp.ClientResponseError):
        return "unintelligible answer"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the answer broke off"
    return "connection lost before the answer"
