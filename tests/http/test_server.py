"""Opening and closing: addresses, the socket file, errors that say what to do."""

from __future__ import annotations

import asyncio
import signal
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.checks import Check
from gateway.config.models import HttpSettings
from gateway.http import server as module
from gateway.http.server import HttpServer
from gateway.ports import BindError
from tests.http.kit import Service, ask, serving
from tests.http.test_hooks import Signed


@pytest.mark.parametrize(
    ("bind", "words"),
    [
        ("127.0.0.1:{taken}", "is taken by this gateway itself"),
        ("192.0.2.1:0", "cannot listen on http.bind 192.0.2.1:0"),
    ],
)
async def test_address_that_cannot_be_had(running: Service, bind: str, words: str) -> None:
    """The error names the setting, and nothing is left behind."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = HttpSettings(bind=bind.format(taken=taken.getsockname()[1]), socket=running.settings.http.socket)
        server = HttpServer(running, settings)
        with pytest.raises(BindError, match=words):
            await server.start()
    await server.stop()
    assert not settings.socket.exists()


async def test_only_the_socket(running: Service) -> None:
    """An empty bind means no TCP port."""
    running.settings = running.settings.model_copy(
        update={"http": running.settings.http.model_copy(update={"bind": ""})}
    )
    async with serving(running) as server:
        assert server.port == 0
        assert (await ask(running.settings.http.socket, "GET", "/healthz")).status == 200


async def test_second_service_on_one_socket(running: Service, admin: Path) -> None:
    """A socket somebody listens on is never taken away."""
    with pytest.raises(BindError, match="another gateway is running"):
        await HttpServer(running, HttpSettings(bind="", socket=admin)).start()
    assert (await ask(admin, "GET", "/healthz")).status == 200


async def test_socket_left_behind_by_a_crash(running: Service) -> None:
    """A socket nobody listens on is replaced."""
    path = running.settings.http.socket
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serving(running):
        assert (await ask(path, "GET", "/healthz")).status == 200
    assert not path.exists()


@pytest.mark.parametrize("make", ["file", "long", "nowhere"])
async def test_socket_that_cannot_be_made(running: Service, tmp_path: Path, make: str) -> None:
    """Another file in its place is kept; the error names the setting."""
    path = {"file": tmp_path / "f", "long": tmp_path / ("x" * 108), "nowhere": tmp_path / "no" / "s"}[make]
    if make == "file":
        path.write_text("precious")
    with pytest.raises(BindError, match=r"http\.socket"):
        await HttpServer(running, HttpSettings(bind="", socket=path)).start()
    if make == "file":
        assert path.read_text() == "precious"


async def test_signals_stay_ours(running: Service) -> None:
    """uvicorn would take SIGTERM for itself, and the drain would never run."""
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    async with serving(running):
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


async def test_kept_connections_do_not_delay_the_stop(running: Service) -> None:
    """A client that keeps its connection open is let go."""
    async with serving(running) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
    await reader.read()  # to the end of the stream: the server has closed it
    writer.close()


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"GET /healthz HT",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HTTP/1.1\r\n",
        b"POST /hooks/box HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n",
    ],
)
@pytest.mark.parametrize("trickles", [False, True])
async def test_a_request_has_a_deadline(
    running: Service, monkeypatch: pytest.MonkeyPatch, begun: bytes, trickles: bool
) -> None:
    """Who does not finish the first or a later request is let go, however slowly it trickles in, and is no bug."""
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    assert running.dispatcher
    running.dispatcher.hooks["box"] = Signed()
    async with serving(running) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(begun)
        with suppress(ConnectionError):
            while not reader.at_eof():
                if trickles:
                    writer.write(b"X" if begun else b"\r\n")
                with suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1000), 0.01)
        writer.close()
        assert (await ask(server.port, "GET", "/healthz")).status == 200
    running.events.flush()
    assert '"bug"' not in running.log.read_text()


async def test_an_answer_may_take_longer_than_the_headers(running: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline is for asking; and a check of a backend may take its time."""
    monkeypatch.setattr(module, "PATIENCE", 0.02)

    async def slow(name: str) -> Check:
        await asyncio.sleep(0.1)
        return Check(True, name)

    monkeypatch.setattr(running.dispatcher, "check", slow)
    async with serving(running):
        assert (await ask(running.settings.http.socket, "POST", "/api/v1/backends/box/check")).status == 200


@pytest.mark.parametrize("reads", [False, True])
async def test_an_answer_may_be_read_slowly_but_is_to_be_read(
    running: Service, monkeypatch: pytest.MonkeyPatch, *, reads: bool
) -> None:
    """Who asks and does not read is let go, and makes room; who reads gets all of it, however long that takes."""
    large = b"x" * 8_000_000
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    monkeypatch.setattr(running.events, "render", lambda _accept: ("text/plain", large))
    async with serving(running) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=65536)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2)
        if reads:
            for _ in range(2):
                await reader.readuntil(b"\r\n\r\n")
                for _ in range(len(large) // 50_000):
                    await reader.readexactly(50_000)
                    await asyncio.sleep(0.002)
        else:
            await reader.readuntil(b"\r\n\r\n")
            monkeypatch.setattr(module, "CONNECTIONS", 1)
            while not await has_room(server.port):
                await asyncio.sleep(0.01)
        writer.close()


async def has_room(port: int) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return (await reader.readline()).startswith(b"HTTP/1.1 200")
    except ConnectionError:
        return False
    finally:
        writer.close()


async def test_who_asks_nothing_keeps_nobody_out(running: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit the one that has waited longest makes room, of the address that holds the most; who asks is
    answered, by TCP and by the socket."""
    port = 0
    monkeypatch.setattr(module, "AT_LEAST", 0.0)

    async def hold(address: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"}\n")
        return reader, writer

    async with serving(running) as server:
        port = server.port
        operator, writing = await asyncio.open_unix_connection(running.settings.http.socket)
        alone = await hold("127.0.0.2")
        held = [await hold() for _ in range(module.CONNECTIONS - 1)]
        for number in range(30):
            assert (await ask(port, "GET", "/healthz")).status == 200
            assert (await held[number][0].read(), held[number + 1][0].at_eof()) == (b"", False)
            held.append(await hold())
        assert not alone[0].at_eof()
        assert not operator.at_eof(), "the socket is not counted"
        assert (await ask(running.settings.http.socket, "GET", "/healthz")).status == 200
        for writer in (writing, *(writer for _, writer in (alone, *held))):
            writer.close()


async def test_a_request_has_a_moment_to_come(running: Service) -> None:
    """Who has just come is not sent away by the next ones, while there are less than twice as many as should be."""
    async with serving(running) as server:
        held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(module.CONNECTIONS + 10)]
        assert (await ask(server.port, "GET", "/healthz")).status == 200
        held[0][1].write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await held[0][0].readline() == b"HTTP/1.1 200 OK\r\n"
        for _, writer in held:
            writer.close()
    running.events.flush()
    assert '"bug"' not in running.log.read_text()


async def test_who_never_stops_asking_keeps_nobody_out(running: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a hundred connections full of requests: one more is answered, and those asking at once share the work."""
    rendered = []
    publish = running.dispatcher.publish if running.dispatcher else None
    assert publish

    async def slow() -> None:
        await asyncio.sleep(0.01)
        rendered.append(1)
        await publish()

    monkeypatch.setattr(running.dispatcher, "publish", slow)
    async with serving(running) as server:
        held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(module.CONNECTIONS)]
        for _, writer in held:
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
        assert (await ask(server.port, "GET", "/healthz")).status == 200
        assert (await ask(server.port, "GET", "/metrics")).status == 200
        assert len(rendered) < module.CONNECTIONS
        for _, writer in held:
            writer.transport.abort()
