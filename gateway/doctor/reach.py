"""The way to a provider by HTTPS, step by step: its name, a connection, whose certificate is shown there."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509

from gateway.doctor.finding import Finding, finding
from gateway.doctor.talk import any_tls
from gateway.names import Names, in_words
from gateway.pools import read_files
from gateway.proxies import Proxies, Proxy
from gateway.trust import Trust, public_store, time_fix
from gateway.url import is_loopback

_SECONDS = 8.0  # for each step
_ANSWER = 16_384  # octets of a proxy's answer that are read
_PROXY = "check HTTPS_PROXY and NO_PROXY, or the setting proxy: host, port, user name and password"
_NETWORK = "see whether this machine may go out to that port: firewall, proxy (HTTPS_PROXY, setting proxy), routes"


class _NotTried(Exception):
    """The way cannot be looked at step by step; the check goes it all the same."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a backend goes out. ``proxy``: its setting, None for what the environment says."""

    about: str
    names: Names
    ca_file: Path | None = None
    proxy: str | None = None


async def reach(url: str, way: Way, tell: Callable[[Finding], None]) -> None:
    """Plain HTTP leads to this machine only, and is left to the check."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    if parts.scheme != "https":
        return
    try:
        proxy = Proxies(way.proxy).find(host, port)
        _, issuer = await _secured(host, port, proxy, way, await read_files(Trust(way.ca_file).load))
    except _NotTried:
        return
    except ssl.SSLCertVerificationError as error:
        tell(await _untrusted(host, port, proxy, way, error))
        return
    except (OSError, ValueError) as error:
        tell(_unreached(host, port, error, way))
        return
    if not is_loopback(host) and not await _known(host, port, proxy, way):
        what = f"TLS to {host} is opened on the way: its certificate is by {issuer}, which the world does not know"
        fix = "ask who runs the proxy or firewall to pass this host unread: mail and tokens are read there, and some"
        fix += " providers refuse it"
        tell(finding("backend_inspected", "warn", what, fix, said=issuer, paste=_show(host, port), about=way.about))
        return
    by = f" by the proxy {proxy.url}" if proxy else ""
    tell(finding("backend_reached", "good", f"{host} is reached{by}, its certificate is by {issuer}", about=way.about))


async def _secured(host: str, port: int, proxy: Proxy | None, way: Way, context: ssl.SSLContext) -> tuple[bytes, str]:
    """The certificate shown, and who issued it. Raises OSError, ValueError."""
    sock = await _connected(host, port, proxy, way)
    try:
        async with asyncio.timeout(_SECONDS):
            _, writer = await asyncio.open_connection(sock=sock, ssl=context, server_hostname=host)
    except BaseException:
        sock.close()
        raise
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(True)
    writer.transport.abort()
    return shown, x509.load_der_x509_certificate(shown).issuer.rfc4514_string()


async def _connected(host: str, port: int, proxy: Proxy | None, way: Way) -> socket.socket:
    if proxy is None:
        return await way.names.connect(host, port, seconds=_SECONDS)
    at = urlsplit(proxy.url)
    if at.scheme != "http":
        raise _NotTried  # its own TLS comes first
    sock = await way.names.connect(at.hostname or "", at.port or 80, seconds=_SECONDS)
    try:
        async with asyncio.timeout(_SECONDS):
            await _tunnel(sock, f"[{host}]:{port}" if ":" in host else f"{host}:{port}", proxy)
    except BaseException:
        sock.close()
        raise
    return sock


async def _tunnel(sock: socket.socket, target: str, proxy: Proxy) -> None:
    """RFC 9110, 9.3.6. Raises OSError."""
    loop, answer = asyncio.get_running_loop(), b""
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    lines += [f"Proxy-Authorization: {proxy.authorization}"] if proxy.authorization else []
    await loop.sock_sendall(sock, "\r\n".join([*lines, "", ""]).encode())
    while b"\r\n\r\n" not in answer and len(answer) < _ANSWER:
        piece = await loop.sock_recv(sock, 1)  # not an octet of what comes behind it
        if not piece:
            break
        answer += piece
    status = answer.partition(b"\r\n")[0].decode("latin-1")
    if status.split()[1:2] != ["200"]:
        raise ConnectionError(f"the proxy {proxy.url} answered: {status or 'nothing'}")


async def _known(host: str, port: int, proxy: Proxy | None, way: Way) -> bool:
    """Whether the authorities that the world knows vouch for it; True where that cannot be tried."""
    context = await read_files(Trust(public_store(), alone=True).load)
    try:
        await _secured(host, port, proxy, way, context)
    except ssl.SSLCertVerificationError:
        return False
    except (OSError, ValueError):
        return True
    return True


async def _untrusted(
    host: str, port: int, proxy: Proxy | None, way: Way, error: ssl.SSLCertVerificationError
) -> Finding:
    issuer = "somebody unknown"
    with suppress(OSError, ValueError):
        _, issuer = await _secured(host, port, proxy, replace(way), any_tls())
    what = f"the certificate shown for {host} is not trusted ({error.verify_message}); it is by {issuer}"
    fix = (
        time_fix(error)
        or "if a proxy or portal of yours stands in between, let it pass this host, or name its authority in ca_file"
    )
    paste = _show(host, port) if time_fix(error) else f"{way.about}.ca_file: /path/to/its-authority.pem"
    return finding("backend_certificate", "bad", what, fix, said=issuer, paste=paste, about=way.about)


def _unreached(host: str, port: int, error: Exception, way: Way) -> Finding:
    if isinstance(error, socket.gaierror):
        what, fix = error.strerror or f"cannot find {host}", "see whether this machine's name server knows it"
        paste = f"getent ahosts {host}"
        return finding("backend_name", "bad", what, fix, paste=paste, about=way.about)
    said = "no answer" if isinstance(error, TimeoutError) else in_words(error)
    what = f"{host}:{port} is not reached: {said}"
    fix = _PROXY if "the proxy " in said else _NETWORK
    return finding("backend_unreachable", "bad", what, fix, paste=f"curl -v https://{host}:{port}/", about=way.about)


def _show(host: str, port: int) -> str:
    return f"openssl s_client -connect {host}:{port} -servername {host} </dev/null | openssl x509 -noout -issuer -dates"
