"""A scripted SMTP server, and one running gateway for all commands: one on each engine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import postgres_kit
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
aliases: {{root: admin@example.com, team: [a@away.example, b@box.example]}}
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


@pytest.fixture(scope="session", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def service(refusing: Server, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    """``gateway serve``: away is not there, strict refuses, box and spare take everything."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="gw-"))
        config = CONFIG.format(away=free_port(), strict=refusing.server_address[1])
        if request.param == "postgresql":
            server = stack.enter_context(postgres_kit.cluster())
            server.create("spool")
            config += f"spool: {{url: '{server.url('spool')}', instance: a}}\n"
        yield stack.enter_context(Gateway(Path(folder), config))


@pytest.fixture
def run(service: Gateway) -> Commands:
    return Commands(service.file)
