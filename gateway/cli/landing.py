"""Where a browser lands at the end of a sign-in: a page of this machine, or its address pasted into the terminal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from gateway.cli.plain import say

_DEADLINE = 30.0


async def serve(
    landed: asyncio.Future[dict[str, str]], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """The page that the browser is sent to at the end."""
    with contextlib.suppress(OSError, EOFError, ValueError, IndexError, TimeoutError, asyncio.LimitOverrunError):
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _DEADLINE)
        target = head.split(b" ")[1].decode("ascii")
        query = answer(target) if urlsplit(target).path == "/" else None
        status = "200 OK" if query else "404 Not Found"
        text = "Go back to the terminal. You may close this page." if query else "Not here."
        body = f"<!doctype html><title>gateway</title><p>{text}".encode()
        fields = f"Content-Type: text/html\r\nContent-Length: {len(body)}\r\nConnection: close"
        writer.write(f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n".encode() + body)
        await writer.drain()
        if query and not landed.done():
            landed.set_result(query)
    writer.close()


def answer(url: str) -> dict[str, str] | None:
    """The parameters of a redirect (RFC 6749, 4.1.2), None if that is no such address."""
    with contextlib.suppress(ValueError):
        query = dict(parse_qsl(urlsplit(url.strip()).query))
        return query if "code" in query or "error" in query else None
    return None


@contextlib.contextmanager
def pasted(landed: asyncio.Future[dict[str, str]]) -> Any:
    """Also take the redirect as a line on standard input. A thread would not let go of it at the end."""
    loop, buffer = asyncio.get_running_loop(), bytearray()

    def read() -> None:
        piece = os.read(descriptor, 65536)
        *lines, buffer[:] = (buffer + piece).split(b"\n")
        if not piece:
            loop.remove_reader(descriptor)
            lines = [buffer]
        for line in (found.decode("utf-8", "replace") for found in lines if found.strip()):
            query = answer(line)
            if not query:
                say("That is not the address of the last page: it begins with http://, and has a code= in it.")
            elif not landed.done():
                landed.set_result(query)

    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, ValueError, AttributeError):  # nothing there that can be waited for
            descriptor = sys.stdin.fileno()
            loop.add_reader(descriptor, read)
            stack.callback(loop.remove_reader, descriptor)
        yield
