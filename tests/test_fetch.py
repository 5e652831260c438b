"""gateway.fetch over real sockets: every ending is an Answer, NotSent (nothing can have been processed) or Lost."""

from __future__ import annotations

import asyncio
import datetime
import gc
import gzip
import ssl
import sys
import warnings
import zlib
from typing import Any

import pytest

from gateway import __version__
from gateway.fetch import Answer, Fetch, Lost, NotSent
from gateway.url import check_url
from tests.backends import kit
from tests.backends.kit import Certificates, Web, http
from tests.flow.kit import free_port

certificates = kit.certificates


# What has a body, and what only asks, go through different libraries (gateway.calling): the same holds for both.
both_ways = pytest.mark.parametrize("content", [b"body", None], ids=["sent", "asked"])


async def post(
    url: str, deadline: float = 5, fetch: Fetch | None = None, content: bytes | None = b"body", **options: Any
) -> Answer:
    fetch = fetch or Fetch()
    try:
        return await fetch.request("POST", url, content=content, deadline=deadline, **options)
    finally:
        await fetch.aclose()


@both_ways
async def test_an_answer_comes_whole_with_lower_case_header_names_and_the_request_went_as_given(
    content: bytes | None,
) -> None:
    async with Web(lambda _: http(207, "words", {"Retry-After": "7", "X-Two": "a", "x-two": "\xfc"})) as web:
        answer = await post(web.url + "/p?q=1", headers={"X-Key": "k"}, content=content)
        assert (answer.status, answer.body) == (207, b"words")
        assert (answer.headers["retry-after"], answer.headers["x-two"]) == ("7", "a, \xc3\xbc")
        (request,) = web.requests
        assert (request.method, request.path, request.body) == ("POST", "/p?q=1", content or b"")
        assert (request.headers["x-key"], request.headers["accept-encoding"]) == ("k", "identity")
        assert request.headers["user-agent"] == f"smtp-api-gateway/{__version__}"


async def test_a_large_body_goes_in_pieces_with_its_length_known() -> None:
    """One write of 50 MB would hold the loop while it is copied and encrypted."""
    content = bytes(range(256)) * 8000 + b"end"
    fetch = Fetch()
    async with Web(lambda request: http(200, str(len(request.body)))) as web:
        answer = await fetch.request("POST", web.url, content=content, deadline=20)
        assert answer.body == b"2048003"
        assert web.requests[0].body == content
        await fetch.aclose()


@both_ways
async def test_connections_are_kept_and_used_again(content: bytes | None) -> None:
    fetch = Fetch()
    async with Web(lambda _: http(200, "ok")) as web:
        for _ in range(5):
            await fetch.request("POST", web.url, content=content, deadline=5)
        assert web.connections == 1
        await fetch.aclose()


@both_ways
async def test_a_redirect_is_an_answer_and_is_not_followed(content: bytes | None) -> None:
    """No request reaches the place a backend points to."""
    async with Web(lambda _: http(200, "secret place")) as target:
        async with Web(lambda _: http(302, "", {"Location": target.url})) as web:
            assert (await post(web.url, content=content)).status == 302
        assert target.requests == []


@both_ways
async def test_a_cookie_is_not_sent_back(content: bytes | None) -> None:
    """All backends share the client: what a provider sets for one account must not come with the calls of another."""
    fetch = Fetch()
    async with Web(lambda _: http(200, "ok", {"Set-Cookie": "account=one; Path=/"})) as web:
        for host in ("127.0.0.1", "localhost") * 2:
            await fetch.request("POST", f"http://{host}:{web.port}", content=content, deadline=5)
        assert not any("cookie" in request.headers for request in web.requests)
        await fetch.aclose()


@both_ways
async def test_a_body_over_the_cap_is_cut_off_and_its_connection_given_up(content: bytes | None) -> None:
    async with Web(kit.gigabyte) as web:
        answer = await post(web.url, max_bytes=1000, content=content)
        assert (answer.status, len(answer.body)) == (200, 1000)
        await web.closed.wait()


@both_ways
@pytest.mark.parametrize(("handler", "text"), kit.LOST)
async def test_without_a_usable_answer_to_a_sent_request_it_is_lost(
    handler: kit.Handler, text: str, content: bytes | None
) -> None:
    """The transport calls most of these ConnectTimeout; taken for NotSent they would make duplicates."""
    async with Web(handler) as web:
        with pytest.raises(Lost) as error:
            await post(web.url, deadline=0.2 if handler is kit.hang else 5, content=content)
        assert str(error.value) == f"127.0.0.1:{web.port}: {text}"
        assert len(web.requests) == 1


async def test_a_kept_connection_that_the_server_closes_under_a_request_is_lost_and_not_repeated() -> None:
    answers = [http(200, "first")]

    async def once(request: kit.Request) -> bytes | None:
        return answers.pop() if answers else await kit.reset_at_once(request)

    fetch = Fetch()
    async with Web(once) as web:
        await fetch.request("POST", web.url, content=b"1", deadline=5)
        with pytest.raises(Lost, match="connection lost before the answer"):
            await fetch.request("POST", web.url, content=b"2", deadline=5)
        assert [request.body for request in web.requests] == [b"1", b"2"]
        await fetch.aclose()


@pytest.mark.parametrize("rested", [False, True])
async def test_a_kept_connection_is_used_again_at_once_or_not_at_all(rested: bool) -> None:
    """Mail must not be sent twice, so no request may meet a connection that was given up meanwhile."""
    fetch = Fetch()
    async with Web(lambda _: http(200, "ok")) as web:
        await fetch.request("POST", web.url, content=b"1", deadline=5)
        if rested:
            await asyncio.sleep(0.6)  # the time is what this is about: aiohttp reads it itself
        await fetch.request("POST", web.url, content=b"2", deadline=5)
        assert web.connections == (2 if rested else 1)
        await fetch.aclose()


@both_ways
@pytest.mark.parametrize(
    ("handler", "first", "stale"),
    [
        (kit.reset_at_once, True, False),
        (kit.reset_at_once, False, True),
        (kit.reset_in_body, False, False),
        (kit.garbage, False, False),
        (kit.end_in_header, False, False),
    ],
)
async def test_a_kept_connection_that_ends_without_a_byte_is_called_stale(
    handler: Any, first: bool, stale: bool, content: bytes | None
) -> None:
    fetch = Fetch()
    answers = [] if first else [http(200, "first")]
    async with Web(lambda request: answers.pop() if answers else handler(request)) as web:
        if not first:
            await fetch.request("POST", web.url, content=content, deadline=5)
        with pytest.raises(Lost) as error:
            await fetch.request("POST", web.url, content=content, deadline=5)
        assert error.value.stale is stale
        await fetch.aclose()


WORDS = b'{"error": "quota exceeded"}'
_bare = zlib.compressobj(wbits=-15)
BARE = _bare.compress(WORDS) + _bare.flush()


@pytest.mark.parametrize(
    ("coding", "body", "read"),
    [
        ("gzip", gzip.compress(WORDS, mtime=0), WORDS),
        ("x-gzip", gzip.compress(WORDS, mtime=0), WORDS),
        ("GZIP", gzip.compress(WORDS, mtime=0), WORDS),
        ("deflate", zlib.compress(WORDS), WORDS),
        ("deflate", BARE, WORDS),
        ("deflate, gzip", gzip.compress(zlib.compress(WORDS), mtime=0), WORDS),
        ("identity", WORDS, WORDS),
        ("gzip", gzip.compress(WORDS, mtime=0)[:-8], WORDS),  # cut off behind the last byte
        ("gzip", b"", b""),
        ("br", b"\x0b\x02\x80hello\x03", b"(a body in the content coding br, which cannot be read)"),
        ("gzip", b"not gzip", b"(a body in the content coding gzip, which cannot be read)"),
    ],
)
async def test_what_is_compressed_although_nobody_asked_for_it_is_read(coding: str, body: bytes, read: bytes) -> None:
    """RFC 9110, 12.5.3: "identity" is only a wish, and proxies that answer themselves do not look at it."""
    async with Web(lambda _: http(503, body, {"Content-Encoding": coding})) as web:
        answer = await post(web.url)
        assert (answer.status, answer.body) == (503, read)


async def test_a_bomb_ends_at_the_cap() -> None:
    """A thousand times smaller on the wire."""
    bomb = gzip.compress(bytes(20_000_000), compresslevel=1)
    async with Web(lambda _: http(500, bomb, {"Content-Encoding": "gzip"})) as web:
        answer = await post(web.url, max_bytes=10_000)
        assert len(answer.body) == 10_000


@both_ways
async def test_a_server_that_dribbles_is_cut_off_at_the_deadline(content: bytes | None) -> None:
    """The deadline is for the whole answer, not for each read."""
    stop = asyncio.Event()

    async def dribble(request: kit.Request) -> None:
        request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not stop.is_set() and not request.writer.is_closing():
            request.writer.write(b"x")
            await request.writer.drain()
            await asyncio.sleep(0.02)

    async with Web(dribble) as web:
        with pytest.raises(Lost, match="no answer within"):
            await post(web.url, deadline=0.3, content=content)
        stop.set()


@both_ways
async def test_refused_connections_are_not_sent(content: bytes | None) -> None:
    with pytest.raises(NotSent, match=r"cannot connect to 127\.0\.0\.1:\d+: Connect call failed|refused"):
        await post(f"http://127.0.0.1:{free_port()}", content=content)


@both_ways
async def test_unknown_names_are_not_sent(content: bytes | None) -> None:
    with pytest.raises(NotSent, match=r"^cannot find nowhere\.invalid: "):
        await post("https://nowhere.invalid/", content=content)


@both_ways
async def test_a_peer_that_never_completes_the_handshake_is_not_sent(content: bytes | None) -> None:
    class Silent(kit.Server):
        async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            await reader.read()

    trust = kit.trust()
    trust.load()  # which a busy machine may not do in so short a time
    async with Silent() as server:
        with pytest.raises(NotSent, match="timed out"):
            await post(f"https://127.0.0.1:{server.port}", deadline=1, fetch=Fetch(trust=trust), content=content)


def past() -> datetime.datetime:
    return datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


def later(years: int = 1) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=365 * years)


@pytest.mark.parametrize(
    ("options", "trusted", "text"),
    [
        ({}, False, "unable to get local issuer certificate"),
        ({"names": ("other.example",)}, True, "not valid for '127.0.0.1'"),
        ({"not_after": past()}, True, "certificate has expired"),
        ({"not_before": later(), "not_after": later(2)}, True, "certificate is not yet valid"),
    ],
    ids=["unknown authority", "wrong name", "expired", "not yet"],
)
async def test_certificates_are_verified(
    certificates: Certificates, options: dict[str, Any], trusted: bool, text: str
) -> None:
    """RFC 9110, 4.3.4: refused, and not a byte of the request leaves."""
    names = options.pop("names", ())
    async with Web(lambda _: http(200), certificates.server(*names, **options)) as web:
        with pytest.raises(NotSent, match="certificate not trusted") as error:
            await post(web.url, fetch=Fetch(trust=certificates.trust if trusted else None))
        assert text in str(error.value)
        assert ("clock of this machine" in error.value.fix) == bool(options)
        assert web.requests == []


async def test_a_trusted_certificate_passes(certificates: Certificates) -> None:
    async with Web(lambda _: http(200, "ok"), certificates.server()) as web:
        answer = await post(web.url, fetch=Fetch(trust=certificates.trust))
        assert answer.body == b"ok"


async def test_old_tls_is_not_spoken(certificates: Certificates) -> None:
    tls = certificates.server()
    with warnings.catch_warnings(action="ignore"):
        tls.minimum_version, tls.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    async with Web(lambda _: http(200), tls) as web:
        with pytest.raises(NotSent, match="cannot connect"):
            await post(web.url, fetch=Fetch(trust=certificates.trust))
        assert web.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "http://10.0.0.1/",
        "http://127.0.0.1.example.com/",
        "ftp://localhost/",
        "//localhost/",
        "https://",
        "https://user:hunter2@example.com/",
        "file:///etc/passwd",
    ],
)
async def test_only_https_or_loopback_is_asked(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|not encrypted") as config_error:
        check_url(url)
    with pytest.raises(NotSent) as error:
        await post(url)
    assert "hunter2" not in str(config_error.value) + str(error.value)


async def test_proxies_of_the_environment_are_used_and_their_refusal_is_not_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Web(lambda _: http(407, "who are you")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        with pytest.raises(NotSent, match="the proxy answered 407"):
            await post("https://api.example.com/")
        assert [(request.method, request.path) for request in proxy.requests] == [("CONNECT", "api.example.com:443")]


@pytest.mark.parametrize("way", ["/upload?authtoken=" + "s" * 40, "/" + "p" * 2000])
async def test_a_url_of_one_message_is_not_remembered(way: str) -> None:
    """Where a draft's files go is said by the provider, for each anew: a bearer's secret, of whatever length."""
    fetch = Fetch()
    async with Web(lambda _: http(200, "")) as web:
        url = web.url + way
        for _ in range(2):
            await fetch.request("PUT", url, content=b"x", deadline=5)
        await fetch.aclose()
    gc.collect()
    held = sys.getrefcount(url)
    del fetch
    gc.collect()
    assert sys.getrefcount(url) == held


async def test_many_requests_at_once_share_the_client_and_none_waits_for_another() -> None:
    """How many there are at once is a matter of the backends' settings: a slow provider keeps nobody else waiting."""
    under_way, full = 0, asyncio.Event()

    async def answer(request: kit.Request) -> bytes:
        nonlocal under_way
        under_way += 1
        if under_way == 200:
            full.set()
        await full.wait()
        return http(200, request.body)

    fetch = Fetch()
    async with Web(answer) as web:
        bodies = [b"%d" % number for number in range(200)]
        answers = await asyncio.gather(
            *(fetch.request("POST", web.url, content=body, deadline=20) for body in bodies),
        )
        assert [answer.body for answer in answers] == bodies
        await fetch.aclose()
