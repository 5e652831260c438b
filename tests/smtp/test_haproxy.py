"""A real HAProxy in front: what it sends is understood, in both versions, and its looks leave no trace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.fakes import until
from tests.flow.kit import free_port
from tests.packaging.kit import program
from tests.smtp.kit import Rig, rig

HAPROXY = program("haproxy")
CLIENT = "127.0.0.44"
FILE = """\
defaults
    mode tcp
    timeout connect 5s
    timeout client 20s
    timeout server 20s
listen mail
    bind 127.0.0.1:{port}
    unique-id-format %[uuid()]
    server gateway 127.0.0.1:{target} check inter 50ms {options}
"""


@asynccontextmanager
async def balancer(made: Rig, folder: Path, options: str) -> AsyncIterator[int]:
    """Its port; once it has looked twice whether we are here."""
    assert HAPROXY
    port, file = free_port(), folder / "haproxy.cfg"
    file.write_text(FILE.format(port=port, target=made.listener.port, options=options))
    process = await asyncio.create_subprocess_exec(
        HAPROXY, "-db", "-f", str(file), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await until(lambda: made.metric("smtp_connections_total") >= 2 or process.returncode is not None)
        assert process.returncode is None
        yield port
    finally:
        process.kill()
        await process.wait()


@pytest.mark.skipif(not HAPROXY, reason="haproxy is not installed")
@pytest.mark.parametrize(
    "options",
    [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 proxy-v2-options crc32c,unique-id",
        "send-proxy-v2 check-send-proxy port {target}",
    ],
)
async def test_clients_come_by_haproxy(tmp_path: Path, options: str) -> None:
    """Each client counts as itself, HAProxy's own address as nobody's; its checks are no line in the log."""
    clients = {"here": {"networks": [CLIENT]}, "proxy": {"networks": ["127.0.0.1"], "senders": ["nobody@example.com"]}}
    async with rig(listener={"proxy_protocol_from": ["127.0.0.1"]}, clients=clients) as made:
        options = options.format(target=made.listener.port)
        async with balancer(made, tmp_path, options) as port:
            assert made.logged() == []
            peer = await made.connect(port=port, address=CLIENT)
            assert (await peer.deliver()).startswith("250")
            other = await made.connect(port=port, address="127.0.0.45")
            await other.talk(("EHLO c", "250"), ("MAIL FROM:<a@b.c>", "550 5.7.1 Relay access denied: 127.0.0.45"))
        (message,) = made.messages
        assert (message.peer, message.client) == (CLIENT, "here")
