"""A scripted SMTP server, and one running gateway for all commands."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.kit import Commands, Server
from tests.flow.kit import Gateway, free_port

CONFIG = """
backends:
  box: {{type: capture, directory: captured}}
  away: {{type: smtp, host: 127.0.0.1, port: {away}, tls: none}}
  strict: {{type: smtp, host: 127.0.0.1, port: {strict}, tls: none}}
  spare: {{type: capture, directory: spare}}
routes:
  - {{recipients: ["*@away.example"], backend: away}}
  - {{recipients: ["*@strict.example"], backend: strict}}
  - {{backend: box}}
retention: {{sent_body: 1d}}
bounces: {{mode: "off"}}
"""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server().running() as running:
        yield running


@pytest.fixture(scope="session")
def refusing() -> Iterator[Server]:
    """An upstream server that knows nobody."""
    with Server().running() as running:
        running.replies = {"RCPT": "550 5.1.1 nobody of that name here"}
        yield running


@pytest.fixture(scope="session")
def service(refusing: Server) -> Iterator[Gateway]:
    """``gateway serve``: away is not there, strict refuses, box and spare take everything."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        config = CONFIG.format(away=free_port(), strict=refusing.server_address[1])
        with Gateway(Path(folder), config) as running:
            yield running


@pytest.fixture
def run(service: Gateway) -> Commands:
    return Commands(service.file)
