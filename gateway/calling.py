"""One client for HTTP out, with kept connections.

The only importer of httpx, httpx_aiohttp and aiohttp, and slow to load for that: see Fetch. httpx_aiohttp turns every
lost connection into ConnectTimeout, so the verdict is read from aiohttp's own exception.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.parse import urlsplit

import aiohttp
import aiohttp.abc
import httpx
import httpx_aiohttp

from gateway.answer import Answer, Lost, NotSent
from gateway.names import PATIENCE, Names, in_words
from gateway.proxies import Proxy
from gateway.trust import time_fix

_CONNECT_SECONDS = 25.0  # for a free connection, the name, the connection and TLS
_NAME_SHARE = PATIENCE / _CONNECT_SECONDS  # so that a name server that is silent is called by its name
_CONNECTIONS = 100
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
_reused: ContextVar[list[bool]] = ContextVar("_reused")  # not empty: the request under way got a kept connection
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
    """Requests by one proxy, or none, to whoever ``context`` trusts (None: nobody)."""

    def __init__(self, names: Names, proxy: Proxy | None, context: ssl.SSLContext | None) -> None:
        self._client = _open(_Resolver(names), proxy, context)

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
        host = urlsplit(url).netloc
        reused: list[bool] = []
        _reused.set(reused)
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
                headers = dict(response.headers)
                return Answer(
                    response.status_code, headers, decoded(await _capped(response, max_bytes), headers, max_bytes)
                )
        except (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError, OSError, ValueError) as error:
            cause = error.__cause__ if isinstance(error, httpx.HTTPError) and error.__cause__ else error
            if isinstance(cause, (*_BEFORE_SENDING, httpx.InvalidURL, ValueError)):
                raise NotSent(*_reason(cause, host)) from error
            stale = bool(reused) and isinstance(cause, (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError))
            raise Lost(f"{host}: {_loss(cause, deadline)}", stale=stale) from error

    async def aclose(self) -> None:
        await self._client.aclose()


async def _note_reuse(*_: object) -> None:
    _reused.get().append(True)


def _open(resolver: _Resolver, proxy: Proxy | None, context: ssl.SSLContext | None) -> httpx.AsyncClient:
    """A client of its own: neither httpx nor aiohttp looks into the environment, and no cookie is kept."""
    context = context or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which trusts nobody
    reuse = aiohttp.TraceConfig()
    reuse.on_connection_reuseconn.append(_note_reuse)

    def session() -> aiohttp.ClientSession:  # made at the first request, inside the loop
        connector = aiohttp.TCPConnector(
            resolver=resolver, use_dns_cache=False, ssl=context, limit=_CONNECTIONS, keepalive_timeout=_KEEP_SECONDS
        )
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trace_configs=[reuse])

    headers = {"proxy-authorization": proxy.authorization} if proxy and proxy.authorization else None
    by = httpx.Proxy(proxy.url, headers=headers) if proxy else None
    transport = httpx_aiohttp.AiohttpTransport(verify=context, proxy=by, client=session)
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
    return httpx.AsyncClient(transport=transport, trust_env=False, cookies=no_cookies)


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


def decoded(body: bytes, headers: Mapping[str, str], limit: int) -> bytes:
    """At most ``limit`` bytes of what was compressed although we ask for nothing of that (RFC 9110, 8.4.1).

    What cannot be read is replaced by words that say so.
    """
    codings = [one.strip().lower() for one in headers.get("content-encoding", "").split(",")]
    for coding in reversed(codings):
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


def _loss(error: BaseException, deadline: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {deadline:g} s"
    if isinstance(error, aiohttp.ClientResponseError):
        return "unintelligible answer"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the answer broke off"
    return "connection lost before the answer"
