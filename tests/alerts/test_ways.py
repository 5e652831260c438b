"""A webhook gets what it can check, a command what it can read; neither holds anybody up, and failures are words."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.alerts import ways
from gateway.alerts.notice import Notice
from gateway.alerts.ways import Command, Webhook
from gateway.config.models import WebhookSettings
from gateway.fetch import Fetch
from tests.alerts.test_ledger import DISK, STOPPED, changed
from tests.fakes import START

NOTICE = Notice(id="N1", at=START, hostname="relay.example.com", news=(STOPPED,), over=(DISK,))


@asynccontextmanager
async def receiver(status: str = "204 No Content") -> AsyncIterator[tuple[str, list[tuple[Mapping[str, str], bytes]]]]:
    """An HTTP server that takes everything: its URL, and what it got."""
    got: list[tuple[Mapping[str, str], bytes]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head)}
        got.append((headers, await reader.readexactly(int(headers["content-length"]))))
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook", got


async def by_webhook(url: str) -> str:
    fetch = Fetch()
    try:
        return await Webhook(WebhookSettings(url=url, secret="s3cret-of-the-hook"), fetch).tell(NOTICE)
    finally:
        await fetch.aclose()


async def test_a_webhook_can_tell_that_it_is_ours() -> None:
    """Signed over the time and the body, so that neither another body nor an old one passes."""
    async with receiver() as (url, got):
        assert await by_webhook(url) == ""
    [(headers, body)] = got
    at, _, signed = headers["gateway-signature"].partition(",")
    assert at == f"t={int(START.timestamp())}"
    expected = hmac.new(b"s3cret-of-the-hook", at[2:].encode() + b"." + body, hashlib.sha256).hexdigest()
    assert signed == f"v1={expected}"
    found = json.loads(body)
    assert [(one["key"], one["state"]) for one in found["alerts"]] == [("backend:office", "new"), ("disk", "over")]
    assert (found["host"], headers["gateway-delivery"]) == ("relay.example.com", "N1")


def test_the_url_of_a_webhook_is_nobodys_business() -> None:
    """At many services whoever knows it may post there."""
    settings = WebhookSettings(url="https://hooks.example.com/T0/B0/secret-part", secret="s3cret-of-the-hook")
    assert "secret-part" not in f"{settings} {settings.model_dump_json()}"


@pytest.mark.parametrize("status", ["500 Internal Server Error", "302 Found", "401 Unauthorized"])
async def test_only_2xx_is_taken(status: str) -> None:
    """What it answered is said, so that somebody can mend it."""
    async with receiver(status) as (url, _):
        assert await by_webhook(url) == f"HTTP {status[:3]}"


async def test_a_webhook_that_is_away() -> None:
    """Words, no exception."""
    async with receiver() as (url, _):
        pass
    assert "Connect" in await by_webhook(url) or "refused" in await by_webhook(url)


async def test_a_command_reads_json_and_has_the_subject(tmp_path: Path) -> None:
    """On its standard input and in its environment, where no shell interprets what strangers wrote."""
    out = tmp_path / "out"
    script = f"import os,sys; open({str(out)!r}, 'w').write(os.environ['GATEWAY_ALERT'] + '\\n' + sys.stdin.read())"
    notice = replace(NOTICE, news=(changed(STOPPED, what="office said $(touch x) `id` \0."),))
    assert await Command((sys.executable, "-c", script)).tell(notice) == ""
    subject, _, body = out.read_text().partition("\n")
    assert subject == "office said $(touch x) `id` "
    assert json.loads(body)["subject"].startswith("office said $(touch x)")


async def test_a_command_has_no_secret_of_ours(tmp_path: Path) -> None:
    """Of the environment only what every program needs."""
    environ = {"PATH": "/usr/bin:/bin", "GATEWAY_BACKENDS__S2G__API_KEY": "key", "CREDENTIALS_DIRECTORY": "/run"}
    out = tmp_path / "out"
    assert await Command(("/bin/sh", "-c", f"env > {out}"), environ).tell(NOTICE) == ""
    assert "GATEWAY_BACKENDS" not in out.read_text()
    assert "CREDENTIALS" not in out.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("/nonexistent/page-me",), "cannot run /nonexistent/page-me: No such file or directory"),
        (("/bin/sh", "-c", "echo no pager >&2; exit 3"), "/bin/sh ended with 3: no pager"),
        (("/bin/sh", "-c", "cat >/dev/null; kill -9 $$"), "/bin/sh ended with -9: "),
    ],
)
async def test_a_command_that_fails_says_why(arguments: tuple[str, ...], said: str) -> None:
    """What it wrote to standard error is what the operator needs."""
    assert await Command(arguments).tell(NOTICE) == said


async def test_a_command_that_hangs_is_ended_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither it nor its children stay."""
    monkeypatch.setattr(ways, "DEADLINE", 0.5)
    fifo = tmp_path / "alive"
    script = f"mkfifo {fifo}; (exec 3<>{fifo}; exec sleep 300) & echo $! > {tmp_path}/child; wait"
    assert await Command(("/bin/sh", "-c", script)).tell(NOTICE) == "/bin/sh did not end within 0 s"
    child = int((tmp_path / "child").read_text())
    for _ in range(1000):
        status = Path(f"/proc/{child}/stat")
        if not status.exists() or ") Z " in status.read_text():
            return
        await asyncio.sleep(0.005)
    pytest.fail("its child lives")
