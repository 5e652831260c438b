"""The commands' client: by the admin socket, or by calling an application in this process."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gateway.http.client import AdminClient, DirectWay, Lost, NotSent, SocketWay


class Admin(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.reply(201, json.dumps({"path": self.path, "body": json.loads(body or b"null")}).encode())

    def do_GET(self) -> None:
        if self.path == "/gone":
            return self.wfile.write(b"")
        return self.reply(200, b"From: raw\r\n\r\n" if self.path == "/raw" else b"")

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class UnixServer(HTTPServer):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        self.socket.bind(self.server_address)

    def get_request(self) -> tuple[socket.socket, Any]:
        return self.socket.accept()[0], ("unix", 0)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[AdminClient]:
    path = tmp_path / "admin.sock"
    server = UnixServer(str(path), Admin)  # type: ignore[arg-type]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield AdminClient(SocketWay(path))
    server.shutdown()
    thread.join()
    server.server_close()


def test_by_the_socket(client: AdminClient) -> None:
    """Status and JSON, the query in the path, bytes as they are."""
    assert client.call("POST", "/x", {"a": 1}, {"n": 2}) == (201, {"path": "/x?n=2", "body": {"a": 1}})
    assert client.call("GET", "/empty") == (200, None)
    assert client.raw("/raw") == (200, b"From: raw\r\n\r\n")


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("/m/a b", "/m/a%20b"),
        ("/m/a?state=x", "/m/a%3Fstate%3Dx"),
        ("/m/a\r\nX: y", "/m/a%0D%0AX%3A%20y"),
        ("/m/\u00fc", "/m/%C3%BC"),
        ("/m/\udcff", "/m/%FF"),
    ],
)
def test_what_was_typed_stays_in_the_path(client: AdminClient, typed: str, sent: str) -> None:
    """Neither a query, nor a header field, nor an error, whatever an operator pastes in the place of a queue id."""
    assert client.call("POST", typed) == (201, {"path": sent, "body": None})


def test_no_usable_answer(client: AdminClient) -> None:
    """No JSON, or no answer at all: it may have been done."""
    with pytest.raises(Lost, match="unintelligible"):
        client.call("GET", "/raw")
    with pytest.raises(Lost, match="gave no answer"):
        client.call("GET", "/gone")


@pytest.mark.parametrize("name", ["absent.sock", "x" * 200])
def test_no_service(tmp_path: Path, name: str) -> None:
    """Nobody there, or a path that no socket can have: nothing was done."""
    with pytest.raises(NotSent, match="no service answers at"):
        AdminClient(SocketWay(tmp_path / name)).call("GET", "/")


def test_by_an_application_in_this_process() -> None:
    """What it gets and gives is the same as by a socket; a runner of the caller's may run it."""

    async def echo(request: Request) -> JSONResponse:
        found = {"q": request.query_params["q"], "name": request.path_params["name"], "body": await request.json()}
        return JSONResponse(found, 202)

    app = Starlette(routes=[Route("/echo/{name}", echo, methods=["POST"])])
    with asyncio.Runner() as runner:
        for run in (asyncio.run, runner.run):
            answer = AdminClient(DirectWay(app, run)).call("POST", "/echo/a b", [1], {"q": "\u00fc z"})
            assert answer == (202, {"q": "\u00fc z", "name": "a b", "body": [1]})
