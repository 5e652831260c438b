"""The way to a provider, what it grants, and the addresses it lets out: real TLS, real proxies, strict fakes."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme

from gateway.backends.shared.probe import Observed, Probes
from gateway.checks import Check
from gateway.doctor import Finding
from gateway.doctor.examine import examine
from gateway.doctor.reach import Way, reach
from gateway.events import Events
from gateway.model import Capabilities
from gateway.names import Names
from gateway.spool import Spool
from tests.backends.kit import Web, http
from tests.builders import new_message
from tests.doctor.kit import found, levels, of, settings, subject
from tests.fakes import FakeClock, ScriptedBackend
from tests.names_kit import NameServer

HOST = "api.provider.com"


@asynccontextmanager
async def provider(ca: trustme.CA, *names: str, **options: Any) -> AsyncIterator[Web]:
    """Somebody who answers by HTTPS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*names, **options).configure_cert(context)
    async with Web(lambda request: http(200, {}), context) as web:
        yield web


def by(folder: Path, ca: trustme.CA | None, proxy: str = "direct") -> Way:
    file = None
    if ca is not None:
        file = folder / "ca.pem"
        ca.cert_pem.write_to_path(str(file))
    return Way("backends.way", Names(NameServer()), file, proxy)


async def told(url: str, way: Way) -> Finding:
    results: list[Finding] = []
    await reach(url, way, results.append)
    [one] = results
    return one


@pytest.mark.parametrize(
    ("names", "trusted", "key"),
    [
        ([HOST], True, "backend_inspected"),  # by this machine, but not by the world
        ([HOST], False, "backend_certificate"),
        (["portal.hotel.example"], True, "backend_certificate"),
    ],
)
async def test_whose_certificate_is_shown(tmp_path: Path, names: list[str], trusted: bool, key: str) -> None:
    """A proxy or portal in between is called by the name of its authority."""
    ca = trustme.CA(organization_name="Nosy Proxy Inc")
    async with provider(ca, *names) as web:
        one = await told(f"https://{HOST}:{web.port}", by(tmp_path, ca if trusted else None))
    assert one.key == key
    assert "Nosy Proxy Inc" in one.said


async def test_a_certificate_of_another_time(tmp_path: Path) -> None:
    """It may be this machine's clock."""
    ca = trustme.CA()
    async with provider(ca, HOST, not_after=datetime(2020, 1, 1, tzinfo=UTC)) as web:
        one = await told(f"https://{HOST}:{web.port}", by(tmp_path, ca))
    assert (one.key, "clock" in one.fix) == ("backend_certificate", True)


async def test_this_machine_is_known_to_nobody_else(tmp_path: Path) -> None:
    """What listens here needs no authority that the world knows."""
    ca = trustme.CA()
    async with provider(ca, "localhost", "127.0.0.1") as web:
        one = await told(f"https://127.0.0.1:{web.port}", by(tmp_path, ca))
    assert one.key == "backend_reached"


@asynccontextmanager
async def proxy(answer: str, port: int = 0) -> AsyncIterator[tuple[int, list[str]]]:
    """It tunnels to a port of this machine, whatever it is asked for."""
    heard: list[str] = []
    ended: list[asyncio.Event] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.append(end := asyncio.Event())
        heard.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(f"HTTP/1.1 {answer}\r\n\r\n".encode())
        if answer.startswith("200"):
            far, there = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(pump(reader, there), pump(far, writer))
        writer.close()
        end.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        server.close()
        await asyncio.gather(*(end.wait() for end in ended))


async def test_by_a_proxy(tmp_path: Path) -> None:
    """The tunnel is asked for with its password, and what is shown at its end is looked at."""
    ca = trustme.CA(organization_name="Nosy Proxy Inc")
    async with provider(ca, HOST) as web, proxy("200 ok", web.port) as (port, heard):
        one = await told(f"https://{HOST}", by(tmp_path, ca, f"http://me:secret@127.0.0.1:{port}"))
    assert one.key == "backend_inspected"
    assert heard[0].startswith(f"CONNECT {HOST}:443 HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic " in heard[0]


async def test_a_proxy_that_refuses(tmp_path: Path) -> None:
    """Its own words, and no password."""
    async with proxy("407 Proxy Authentication Required") as (port, _):
        one = await told(f"https://{HOST}", by(tmp_path, None, f"http://me:secret@127.0.0.1:{port}"))
    assert (one.key, "407 Proxy Authentication Required" in one.what) == ("backend_unreachable", True)
    assert "secret" not in str(one)


async def test_a_proxy_that_has_tls_of_its_own(tmp_path: Path) -> None:
    """Nothing is said of a way that was not tried; the check goes it all the same."""
    results: list[Finding] = []
    await reach(f"https://{HOST}", by(tmp_path, None, "https://proxy.example:3129"), results.append)
    assert results == []


async def test_a_name_that_is_not_found(tmp_path: Path) -> None:
    """It is called by its name, with the line that shows it."""

    def nobody(host: str) -> Sequence[Any]:
        return ()

    one = await told(f"https://{HOST}", Way("backends.way", Names(nobody), None, "direct"))
    assert (one.key, one.paste) == ("backend_name", f"getent ahosts {HOST}")


# -- backends ----------------------------------------------------------------------------------------------------------

BOX = "backends: {way: {type: capture, directory: x}}\n"


@dataclass(frozen=True)
class Told(Probes):
    """What a provider says."""

    granted: tuple[Observed, ...] = ()
    verified: tuple[Observed, ...] = ()
    asked: Any = None

    async def permissions(self, largest: int) -> Sequence[Observed]:
        return self.granted

    async def may_send_as(self, addresses: Sequence[str]) -> Sequence[Observed]:
        self.asked.append(list(addresses))
        return self.verified


class Provider(ScriptedBackend):
    def __init__(self, *senders: str, granted: tuple[Observed, ...] = (), verified: tuple[Observed, ...] = ()) -> None:
        super().__init__("way")
        self.capabilities = Capabilities(max_bytes=35_000_000, senders=senders)
        self.asked: list[list[str]] = []
        self._told = Told(granted=granted, verified=verified, asked=self.asked)

    def probes(self) -> Probes:
        return self._told


MISSING = Observed(key="permission_missing", level="bad", what="no Mail.Send", fix="grant it", paste="x")


@pytest.mark.parametrize(
    ("built", "expected"),
    [
        (Provider(), {"backend_good backends.way": "good"}),
        (Provider(granted=(MISSING,)), {"backend_good backends.way": "good", "permission_missing backends.way": "bad"}),
        ("x.pem: no such file", {"backend_unbuilt backends.way": "bad"}),
        (ScriptedBackend("way"), {"backend_good backends.way": "good"}),
    ],
)
async def test_backends(tmp_path: Path, built: Any, expected: Mapping[str, str]) -> None:
    """Its own check first, then what its provider tells besides."""
    assert levels(await found(subject(settings(tmp_path, BOX), backends={"way": built}), "backends")) == expected


async def test_a_backend_that_does_not_take_us(tmp_path: Path) -> None:
    """Its words and its fix, and the order that follows; permissions of nobody are not asked for."""
    backend = Provider(granted=(MISSING,))
    backend.checked = Check(False, "the key is not valid", "put a valid key there")
    read = settings(tmp_path, BOX)
    result = await found(subject(read, backends={"way": backend}, at_start=read().settings), "backends")
    [one] = result
    assert (one.key, one.what, one.fix) == ("backend_fails", "the key is not valid", "put a valid key there")
    assert one.paste == "gateway backend check way\ngateway backend resume way"


async def test_a_backend_that_is_replaced_meanwhile(tmp_path: Path) -> None:
    """A reload ends what the old one does: that is said, and the rest of the report is there."""

    class Replaced(ScriptedBackend):
        async def check(self) -> Check:
            raise asyncio.CancelledError

    boxes = "way: {type: capture, directory: x}, other: {type: capture, directory: y}"
    text = f"backends: {{{boxes}}}\nroutes: [{{backend: way}}]\n"
    both = {"way": Replaced("way"), "other": ScriptedBackend("other")}
    result = await found(subject(settings(tmp_path, text), backends=both), "backends")
    assert levels(result) == {"part_late backends.way": "unknown", "backend_good backends.other": "good"}


# -- senders -----------------------------------------------------------------------------------------------------------


def clients(text: str) -> str:
    return f"{BOX}clients: {{app: {{token: '*', {text}}}}}\n"


@pytest.mark.parametrize(
    ("text", "senders", "expected"),
    [
        ("senders: ['a@x.com']", ["a@x.com"], {"sender_good clients.app.senders": "good"}),
        ("senders: ['a@x.com']", [], {"sender_good clients.app.senders": "good"}),
        ("senders: ['a@x.com']", ["b@x.com"], {"sender_refused clients.app.senders": "bad"}),
        ("senders: ['*@x.com']", ["b@x.com"], {"sender_refused clients.app.senders": "warn"}),
        ("senders: ['*@x.com']", ["*@x.com"], {}),
        ("senders: ['{sub}@x.com', '*@*.x.com']", ["b@x.com"], {}),
        (
            "rewrite_sender: {to: c@x.com, when: always}",
            ["b@x.com"],
            {"sender_refused clients.app.rewrite_sender": "bad"},
        ),
        ("backend: way", ["b@x.com"], {"sender_pattern clients.app": "note"}),
        ("backend: way", [], {}),
    ],
)
async def test_senders_and_what_backends_send_as(
    tmp_path: Path, text: str, senders: list[str], expected: Mapping[str, str]
) -> None:
    """What a client may send as, and no backend on its way takes, is told with what would help."""
    looked_at = subject(settings(tmp_path, clients(text)), backends={"way": Provider(*senders)})
    result = await found(looked_at, "senders")
    assert levels(result) == expected
    for one in result:
        if one.key == "sender_pattern":
            assert one.paste == "clients:\n  app:\n    rewrite_sender: {to: b@x.com, when: always}"


async def test_the_provider_is_asked_about_those_in_use(tmp_path: Path, log: Events) -> None:
    """Those of the settings, and those under which mail left of late, each once; none that would be odd to paste."""
    backend = Provider(verified=(Observed(key="sender_unverified", level="bad", what="a@x.com", fix="verify it"),))
    text = clients("senders: ['a@x.com', '*@y.com']") + "bounces: {from: b@x.com}\n"
    clock = FakeClock()
    spool = await Spool.open(tmp_path / "state", clock, events=log, reserve=1.0)
    message = new_message("to@example.net", backend="way", ident="M1", sender="root@z.com", received_at=clock.now())
    await spool.put(message)
    for number, odd in enumerate(("$(reboot)@z.com", "x@`id`.com", "a;b@z.com")):
        odd_one = new_message("to@example.net", backend="way", ident=f"O{number}", sender=odd, received_at=clock.now())
        await spool.put(odd_one)
    looked_at = subject(settings(tmp_path, text), clock, backends={"way": backend}, spool=spool)
    result = await found(looked_at, "senders")
    await spool.aclose()
    assert of(result, "sender_unverified").about == "backends.way"
    assert backend.asked == [["a@x.com", "b@x.com", "root@z.com", "anybody@y.com"]]


@pytest.fixture
def log(tmp_path: Path) -> AsyncIterator[Events]:
    """Events that nobody reads."""
    from prometheus_client import CollectorRegistry

    with (tmp_path / "log").open("w") as stream:
        events = Events(CollectorRegistry(), format="json", level="error", clock=FakeClock(), stream=stream)
        events.declare(listeners=["local"], backends=["way"], clients=["app"], keys=[])
        yield events
        events.close()


async def test_everything_at_once_with_nothing_set_up(tmp_path: Path) -> None:
    """The default settings on a machine without a service: no fault of ours, and nothing is wrong."""
    looked_at = subject(settings(tmp_path))
    result = await examine(looked_at)
    await looked_at.fetch.aclose()
    assert looked_at.signals.found == []  # type: ignore[attr-defined]
    assert not [one for one in result if one.level == "bad" and one.area not in ("listeners", "machine")]
    assert json.dumps([one.what for one in result])
