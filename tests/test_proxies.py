"""Proxies by which HTTPS goes out: which one, for whom not, and what a real one that is strict gets to see."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from typing import Any

import pytest

from gateway.fetch import Answer, Fetch, NotSent
from gateway.names import Names
from gateway.proxies import Proxies, parse_proxy
from tests.backends import kit
from tests.backends.kit import Certificates, Web, http
from tests.names_kit import NameServer

certificates = kit.certificates
NAME, SECRET = "relay", "hunter2:/@"
HOST = "api.example.test"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


class Proxy(kit.Server):
    """RFC 9110, 9.3.6: CONNECT, with a user name and password if they are right, then bytes to and fro."""

    def __init__(self, target: int, *, password: str = SECRET, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls)
        self.target = target
        self.wanted = "Basic " + base64.b64encode(f"{NAME}:{password}".encode()).decode()
        self.asked: list[str] = []

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line, *fields = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        self.asked.append(line)
        given = [value.strip() for name, _, value in (one.partition(":") for one in fields) if _]
        if not line.startswith("CONNECT ") or self.wanted not in given:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n")
            await writer.drain()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
        finally:
            back.close()

    @staticmethod
    async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write_eof() if writer.can_write_eof() else writer.close()


async def ask(url: str, certificates: Certificates, **options: Any) -> Answer:
    """By a client that finds every name on this machine."""
    fetch = Fetch(trust=certificates.trust, names=Names(NameServer()), **options)
    try:
        return await fetch.request("POST", url, headers={"authorization": "Bearer key"}, content=b"mail", deadline=5)
    finally:
        await fetch.aclose()


def url_of(proxy: Proxy, password: str = "hunter2%3A%2F%40", name: str = NAME) -> str:
    return f"{'https' if proxy.tls else 'http'}://{name}:{password}@proxy.example.test:{proxy.port}"


@pytest.mark.parametrize("how", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "setting"])
@pytest.mark.parametrize("secure", [False, True], ids=["http proxy", "https proxy"])
async def test_a_request_goes_through_the_proxy_and_the_proxy_reads_nothing_of_it(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch, how: str, secure: bool
) -> None:
    """The proxy's password goes to the proxy, the provider's key to the provider."""
    async with Web(lambda _: http(200, "ok"), certificates.server(HOST)) as web:
        tls = certificates.server("proxy.example.test") if secure else None
        async with Proxy(web.port, tls=tls) as proxy:
            options = {"proxy": url_of(proxy)} if how == "setting" else {}
            if how != "setting":
                monkeypatch.setenv(how, url_of(proxy))
            assert (await ask(f"https://{HOST}/v1", certificates, **options)).body == b"ok"
            assert proxy.asked == [f"CONNECT {HOST}:443 HTTP/1.1"]
        (request,) = web.requests
        assert (request.headers["authorization"], request.body) == ("Bearer key", b"mail")
        assert "proxy-authorization" not in request.headers


async def test_a_wrong_password_for_the_proxy_sends_nothing_and_is_shown_nowhere(
    certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    async with Web(lambda _: http(200), certificates.server(HOST)) as web, Proxy(web.port) as proxy:
        with pytest.raises(NotSent, match="the proxy answered 407") as error:
            await ask(f"https://{HOST}/", certificates, proxy=url_of(proxy, "hunter3"))
        assert "HTTPS_PROXY" in error.value.fix
        assert web.requests == []
    shown = f"{error.value} {error.value.fix} {caplog.text} {parse_proxy('http://u:hunter3@p')}"
    assert not any(secret in shown for secret in ("hunter3", base64.b64encode(b"relay:hunter3").decode()))


async def test_a_proxy_that_is_away_is_called_the_proxy(certificates: Certificates) -> None:
    async with Proxy(1) as proxy:
        port = proxy.port
    with pytest.raises(NotSent, match=rf"cannot connect to {HOST}: the proxy proxy\.example\.test:{port}: ") as error:
        await ask(f"https://{HOST}/", certificates, proxy=f"http://u:hunter2@proxy.example.test:{port}")
    assert "hunter2" not in f"{error.value}"


async def test_no_proxy_hears_of_this_machine(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    """What talks to its own loopback sends keys and mail in the clear: no proxy may get to see that."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://proxy.example.test:1")
    async with Web(lambda _: http(200, "ok")) as web:
        assert (await ask(web.url, certificates)).body == b"ok"
    async with Web(lambda _: http(200, "ok"), certificates.server("localhost")) as web:
        assert (await ask(f"https://localhost:{web.port}", certificates)).body == b"ok"


@pytest.mark.parametrize(
    ("exceptions", "host", "port", "direct"),
    [
        ("", HOST, 443, False),
        ("*", HOST, 443, True),
        (HOST, HOST, 443, True),
        ("API.Example.TEST", HOST, 443, True),
        ("example.test", HOST, 443, True),
        (".example.test", HOST, 443, True),
        ("*.example.test", HOST, 443, True),
        ("ample.test", HOST, 443, False),
        ("x.test, example.test", HOST, 443, True),
        ("example.test:443", HOST, 443, True),
        ("example.test:8443", HOST, 443, False),
        ("192.0.2.7", "192.0.2.7", 443, True),
        ("192.0.2.0/24", "192.0.2.7", 443, True),
        ("192.0.2.0/24", "192.0.3.7", 443, False),
        ("2001:db8::/32", "2001:db8::7", 443, True),
        ("[2001:db8::7]", "2001:db8::7", 443, True),
        ("2001:db8::7", "2001:db8::8", 443, False),
        ("", "127.0.0.1", 443, True),
        ("", "::1", 443, True),
        ("", "localhost", 443, True),
        ("", "169.254.169.254", 80, True),
        ("", "metadata.google.internal", 80, True),
        ("nonsense/300,,", HOST, 443, False),
    ],
)
def test_who_is_excepted(monkeypatch: pytest.MonkeyPatch, exceptions: str, host: str, port: int, direct: bool) -> None:
    """As curl does, networks too; this machine and a cloud's metadata service always."""
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example.test:3128")
    monkeypatch.setenv("NO_PROXY", exceptions)
    found = Proxies().find(host, port)
    assert (found is None) is direct
    assert found is None or found.url == "http://proxy.example.test:3128"


def test_a_setting_stands_for_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.test:3128")
    monkeypatch.setenv("NO_PROXY", "other.example.test")
    assert Proxies("direct").find(HOST, 443) is None
    own = Proxies("http://own.example.test:8080")
    for host in (HOST, "other.example.test"):
        assert own.find(host, 443) == parse_proxy("http://own.example.test:8080")


@pytest.mark.parametrize(
    ("text", "url", "pair"),
    [
        ("proxy:3128", "http://proxy:3128", None),
        ("http://proxy", "http://proxy:80", None),
        ("https://proxy", "https://proxy:443", None),
        ("http://u:p%40%3A@proxy:3128/", "http://proxy:3128", "u:p@:"),
        ("http://DOMAIN%5Cu:p@proxy:3128", "http://proxy:3128", "DOMAIN\\u:p"),
        ("http://u@proxy:3128", "http://proxy:3128", "u:"),
        ("http://[2001:db8::1]:3128", "http://[2001:db8::1]:3128", None),
    ],
)
def test_what_a_proxy_may_be_called(text: str, url: str, pair: str | None) -> None:
    authorization = f"Basic {base64.b64encode(pair.encode()).decode()}" if pair else ""
    found = parse_proxy(text)
    assert (found.url, found.authorization) == (url, authorization)


@pytest.mark.parametrize(
    "text", ["socks5://u:hunter2@proxy:1080", "http://u:hunter2@", "http://u:hunter2@p:x", "ftp://p"]
)
async def test_what_no_proxy_can_be_is_refused_without_its_password(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    with pytest.raises(ValueError, match=r"proxy|port") as error:
        parse_proxy(text)
    monkeypatch.setenv("HTTPS_PROXY", text)
    with pytest.raises(NotSent, match="HTTPS_PROXY") as told:
        await ask(f"https://{HOST}/", certificates)
    assert "hunter2" not in f"{error.value} {told.value}"
