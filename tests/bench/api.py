"""Row 5: from SMTP to an HTTP API, all delivered and recorded, against a stock aiosmtpd that forgets.

As a program, ``python -m tests.bench.api PORT``, it is the API: SMTP2GO's, that takes everything at once.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

from tests.bench.accept import aiosmtpd
from tests.bench.kit import Effort, gateway, race, scratch, sent, smtp_source, started, wait_until
from tests.bench.table import Row
from tests.flow.kit import free_port

_SORTS = {"http-1k": (1024, 0.7), "http-10k": (10_240, 1.0)}
NAMES = tuple(_SORTS)
_COUNT = 2000
_CONFIG = "backends:\n  out: {{type: smtp2go, api_key: api-bench, base_url: 'http://127.0.0.1:{port}'}}\n"
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


def run(wanted: set[str], effort: Effort) -> Iterator[Row]:
    with ExitStack() as stack:
        disk, port = stack.enter_context(scratch()), free_port()
        stack.enter_context(started([sys.executable, "-m", __name__, str(port)], port))
        ours = stack.enter_context(gateway(disk / "gateway", _CONFIG.format(port=port)))
        stock = stack.enter_context(aiosmtpd())
        for name, (size, goal) in _SORTS.items():
            if name in wanted:

                def through(count: int, size: int = size) -> float:
                    known, began = sent(ours) + count, time.monotonic()
                    smtp_source(ours.port, count, size)
                    wait_until(lambda: sent(ours) >= known, "the record of the last delivery")
                    return count / (time.monotonic() - began)

                def forgotten(count: int, size: int = size) -> float:
                    return count / smtp_source(stock, count, size)

                found = race({"ours": through, "stock": forgotten}, _COUNT, effort)
                us, them = found["ours"], found["stock"]
                what = f"SMTP -> HTTP {size // 1024} KiB, all delivered : stock aiosmtpd accepting"
                yield Row(name, what, f"{us:.0f}/s", f"{them:.0f}/s", us / them, goal)


class _Api(asyncio.Protocol):
    """Answers each request; a server that does more would be measured instead of us."""

    def __init__(self) -> None:
        said = json.dumps({"request_id": "1", "data": {"succeeded": 1, "failed": 0, "failures": [], "email_id": "1-a"}})
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(said)}\r\n\r\n"
        self._answer = (head + said).encode()
        self._in = bytearray()
        self._link: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._link = transport

    def data_received(self, data: bytes) -> None:
        self._in += data
        while (head := self._in.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._in, 0, head)
            end = head + 4 + (int(length[1]) if length else 0)
            if len(self._in) < end:
                return
            del self._in[:end]
            self._link.write(self._answer)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Api, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
