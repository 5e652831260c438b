"""A backend whose name server gives no answer, beside others: their mail goes on, and so does the talk at the door."""

from __future__ import annotations

import asyncio
import shutil
import smtplib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.app import App
from gateway.backends import settings_types
from gateway.config.loading import Loaded, load
from gateway.names import Names
from tests.backends.kit import SmtpFake
from tests.fakes import until
from tests.flow.kit import Gateway, free_port, smtp_sink, sunk
from tests.names_kit import NameServer
from tests.smtp.kit import Peer

WAITING = 10  # as many sends as a backend makes at a time
SMALL = b"From: a@example.com\r\nSubject: x\r\n\r\nhello\r\n"
LARGE = SMALL + b"a line of the large message\r\n" * 4000


@asynccontextmanager
async def running(folder: Path, names: Names, backends: str) -> AsyncIterator[App]:
    """A gateway in this process. Each recipient's domain says by which backend."""
    (folder / "api.key").write_text("0123456789abcdef0123456789abcdef")
    (folder / "api.key").chmod(0o600)
    (folder / "config.yaml").write_text(
        f"""
hostname: relay.test
state_dir: {folder / "state"}
listeners: {{local: {{bind: "127.0.0.1:0"}}}}
http: {{bind: "127.0.0.1:0"}}
log: {{level: error}}
backends:
{backends}
routes:
  - {{recipients: ["*@js2.test"], backend: js2}}
  - {{recipients: ["*@hung.test"], backend: hung}}
  - {{recipients: ["*@box.test"], backend: box}}
  - {{backend: good}}
"""
    )

    def read() -> Loaded:
        return load(folder / "config.yaml", {}, settings_types())

    app = App(read(), read, names=names)
    try:
        await app.start()
        yield app
    finally:
        await app.stop(0)


async def asked(folder: Path, request: str) -> bytes:
    """The first line of the answer on the admin socket."""
    reader, writer = await asyncio.open_unix_connection(folder / "state" / "admin.sock")
    writer.write(f"{request} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode())
    line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return line.strip()


async def test_a_name_that_hangs_delays_only_its_own_backend(tmp_path: Path) -> None:
    """Two backends, one by SMTP and one by HTTP, hang with all their sends, each at the look-up of its host.

    Another finds its host and delivers, one that only writes files does, and a message of 100 kB gets its reply,
    although the settings demand that it be looked through. Health and reload are answered, too. All that while nothing
    hung has been answered.
    """
    server = NameServer()
    async with SmtpFake() as upstream:
        backends = f"""
  js2: {{type: js2mail, api_key_file: api.key, base_url: "https://hangs.js2.test"}}
  hung: {{type: smtp, host: hangs.smtp.test, tls: none}}
  good: {{type: smtp, host: good.test, port: {upstream.port}, tls: none}}
  box: {{type: capture, directory: captured}}"""
        async with running(tmp_path, Names(server), backends) as app, asyncio.timeout(60):  # fail, and clean up
            assert app.dispatcher is not None
            status = app.dispatcher.status
            peer = Peer(*await asyncio.open_connection("127.0.0.1", app.listeners["local"].port))
            try:
                await peer.reply()
                for _ in range(WAITING):
                    for domain in ("js2", "hung"):
                        reply = await peer.deliver(SMALL, "<a@x.test>", f"<b@{domain}.test>")
                        assert reply.startswith("250 ")
                await until(lambda: all(status()[name].in_flight == WAITING for name in ("js2", "hung")))
                await until(lambda: len(server.asked) == 2)

                reply = await peer.deliver(LARGE, "<a@x.test>", "<b@good.test>", "<b@box.test>")
                assert reply.startswith("250 ")
                await until(lambda: len(upstream.done) == 1)
                await until(lambda: len(list((tmp_path / "state" / "captured").glob("*.eml"))) == 1)

                # Neither a look at the health nor a reload waits for it.
                assert await asked(tmp_path, "GET /readyz") == b"HTTP/1.1 200 OK"
                file = tmp_path / "config.yaml"
                file.write_text(file.read_text() + "limits: {idle: 9m}\n")
                assert await asked(tmp_path, "POST /api/v1/reload") == b"HTTP/1.1 200 OK"
                assert app.settings.limits.idle == timedelta(minutes=9)
                reply = await peer.deliver(SMALL, "<a@x.test>", "<b@good.test>")
                assert reply.startswith("250 ")
                await until(lambda: len(upstream.done) == 2)

                assert server.silent
                assert all(status()[name].in_flight == WAITING for name in ("js2", "hung"))
                assert sorted(server.asked) == ["good.test", "hangs.js2.test", "hangs.smtp.test"]
            finally:
                server.answer()
                await peer.close()


# -- a real name server ------------------------------------------------------------------------------------------------

SILENT = "127.0.0.77"


@pytest.fixture
def silence(tmp_path: Path) -> Iterator[tuple[Path, socket.socket]]:
    """A Python for whose process the only name server takes questions and never answers; and that server's socket."""
    if not shutil.which("unshare"):
        pytest.skip("unshare (Debian package util-linux) is not installed")
    resolv, program = tmp_path / "resolv.conf", tmp_path / "python"
    resolv.write_text(f"nameserver {SILENT}\noptions timeout:30 attempts:5\n")
    command = f'mount --bind {resolv} /etc/resolv.conf && exec {sys.executable} "$@"'
    program.write_text(f"#!/bin/sh\nexec unshare --mount sh -c '{command}' sh \"$@\"\n")
    program.chmod(0o755)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        try:
            server.bind((SILENT, 53))
            subprocess.run([program, "-c", ""], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"port 53 and a mount of one's own are for root: {error}")
        yield program, server


@pytest.mark.slow
def test_the_same_with_the_system_s_own_resolver(tmp_path: Path, silence: tuple[Path, socket.socket]) -> None:
    """A real process, a real getaddrinfo that waits 150 s for its answer, and Postfix's own server for the others."""
    python, name_server = silence
    sink = free_port()
    config = f"""
        backends:
          hung: {{type: smtp, host: hung.example, tls: none}}
          good: {{type: smtp, host: localhost, port: {sink}, tls: none}}
          box: {{type: capture, directory: captured}}
        routes:
          - {{recipients: ["*@hung.test"], backend: hung}}
          - {{recipients: ["*@box.test"], backend: box}}
          - {{backend: good}}
        """
    with smtp_sink(tmp_path / "sink", sink), Gateway(tmp_path, config, python=str(python)) as gateway:
        with smtplib.SMTP("127.0.0.1", gateway.port) as smtp:
            for _ in range(WAITING):
                smtp.sendmail("a@x.test", "b@hung.test", LARGE)
            name_server.settimeout(60)
            assert b"\x04hung\x07example\x00" in name_server.recv(512)
            smtp.sendmail("a@x.test", ["b@good.test", "b@box.test"], LARGE)
        gateway.wait(lambda: sunk(tmp_path / "sink"))
        gateway.wait(lambda: list((tmp_path / "state" / "captured").glob("*.eml")))
        why = "the name server gave no answer for hung.example within 20 s; see /etc/resolv.conf"
        gateway.wait(lambda: any(why in row["detail"] for row in gateway.messages()), 50)
        assert gateway.stop() == 0
