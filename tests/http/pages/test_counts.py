"""Counts add up: what was accepted is handed over, waits, is held, failed or was deleted, whoever is asked."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import smtplib
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from aiosmtpd.controller import Controller

from gateway.app import App
from gateway.http.signins import hashed
from tests.flow.kit import free_port
from tests.http.pages.test_browser import gateway


class Upstream:
    """Takes, refuses for good or puts off as the recipient's name says."""

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _: Any) -> str:  # noqa: N802
        envelope.rcpt_tos.append(address)
        return {"no": "550 5.1.1 no such user", "later": "452 4.2.2 full"}.get(address.partition("@")[0], "250 ok")


async def overview(app: App, base: str) -> str:
    key = secrets.token_urlsafe(32)
    await app.spool.add_link(hashed(key), "root", "read", timedelta(minutes=5))
    async with httpx.AsyncClient(base_url=base, follow_redirects=True) as client:
        return (await client.post("/ui/login", data={"k": key}, headers={"origin": base})).text


async def summary(folder: Path) -> Any:
    words = ("-m", "gateway.cli", "queue", "summary", "--json", "--config", str(folder / "config.yaml"))
    made = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=asyncio.subprocess.PIPE)
    text, _ = await made.communicate()
    return json.loads(text)


def summed(metrics: str, name: str, *labels: str) -> int:
    lines = [line for line in metrics.splitlines() if line.startswith(name) and all(one in line for one in labels)]
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines)


async def test_counts_add_up(tmp_path: Path) -> None:
    """On the overview and its table, in /metrics, in ``queue summary`` and in the spool, at the same moment."""
    controller = Controller(Upstream(), hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        async with gateway(tmp_path, controller.port) as (app, base):

            def send(*names: str) -> None:
                with smtplib.SMTP("127.0.0.1", app.listeners["devices"].port) as client:
                    for name in names:
                        client.sendmail("a@example.com", [f"{name}@example.com"], "Subject: x\r\n\r\ny\r\n")

            async def until(true: Callable[[dict[str, int]], bool]) -> dict[str, int]:
                async with asyncio.timeout(20):
                    while True:
                        found: dict[str, int] = {}
                        for row in await app.spool.find(limit=100):
                            found[row.state] = found.get(row.state, 0) + 1
                        if true(found):
                            return found
                        await asyncio.sleep(0.02)

            await asyncio.to_thread(send, "yes", "yes", "yes", "no", "no", "later", "later", "later", "later")
            await until(lambda found: found == {"done": 3, "failed": 2, "queued": 4})
            waiting = [row.id for row in await app.spool.find(limit=100) if row.state == "queued"]
            way = httpx.AsyncHTTPTransport(uds=str(tmp_path / "state/admin.sock"))
            async with httpx.AsyncClient(transport=way, base_url="http://localhost/api/v1/messages/") as client:
                for ident, verb in zip(waiting, ("hold", "delete"), strict=False):
                    assert (await client.post(f"{ident}/{verb}", json={})).status_code == 200
            await until(lambda found: found == {"done": 3, "failed": 2, "queued": 2, "held": 1})
            flow = await app.spool.flow(app.clock.now(), 24, timedelta(hours=1))
            counts = flow.total
            assert (counts.accepted, counts.sent, counts.failed, counts.deleted) == (9, 3, 2, 1)
            assert dict(flow.waiting) == {"queued": 2, "held": 1, "corrupt": 0}
            told = await summary(tmp_path)
            assert told["messages"] == dict(flow.waiting)
            assert told["queue"]["up"] == {"queued": 2, "held": 1}
            async with httpx.AsyncClient() as client:
                metrics = (await client.get(f"{base}/metrics")).text
            assert summed(metrics, "gateway_messages_received_total") == counts.accepted
            for result, count in (("sent", counts.sent), ("failed", counts.failed)):
                assert summed(metrics, "gateway_deliveries_total", f'result="{result}"') == count
            for state, count in flow.waiting.items():
                assert summed(metrics, "gateway_queue_messages", f'state="{state}"') == count
            page = await overview(app, base)
            assert [int(n) for n in re.findall(r"<figcaption><b>(\d+)</b>", page)] == [9, 3, 2]
            assert "2 waiting, 1 held" in page
    finally:
        controller.stop()
