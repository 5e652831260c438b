"""What a command loads: only what it needs. Counted, because time depends on the machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.flow.kit import Gateway

# Packages that cost time or belong to the service itself.
HEAVY = (
    "aiohttp", "aiosmtpd", "aiosmtplib", "aiosqlite", "alembic", "cryptography", "google", "httpx", "httpx_aiohttp",
    "jwt", "msal", "prometheus_client", "pydantic", "rich", "sqlalchemy", "sqlmodel", "starlette", "structlog",
    "uvicorn", "gateway.app", "gateway.auth", "gateway.backends", "gateway.delivery", "gateway.fetch",
    "gateway.http.routes", "gateway.policy", "gateway.service", "gateway.smtp", "gateway.spool",
)  # fmt: skip
RUN = f"""
import sys
from gateway.cli.root import cli
try:
    cli(prog_name="gateway")
finally:
    print(*(name for name in {HEAVY} if name in sys.modules), sep=",", file=sys.stderr)
"""


def loaded(service: Gateway, *arguments: str) -> list[str]:
    """Those of ``HEAVY`` that a command loads, which must succeed."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        capture_output=True, text=True, timeout=60, check=False, env=os.environ | {"GATEWAY_CONFIG": str(service.file)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return list(filter(None, done.stderr.splitlines()[-1].split(",")))


@pytest.fixture(scope="module")
def sent(service: Gateway) -> str:
    """The queue id of a message with a life to tell."""
    return str(json.loads(service.run("send-test", "--to", "light@example.net", "--json").stdout)["id"])


@pytest.mark.parametrize(
    "arguments",
    [
        "--help",
        "version",
        "queue --help",
        "token --help",
        "auth --help",
        "auth google --help",
        "auth microsoft --help",
        "queue list",
        "queue list --state all --older 0",
        "queue summary",
        "queue show ID",
        "queue cat ID",
        "queue hold --to nobody@example.net --yes",
        "backend list",
        "backend pause spare --for 1h",
        "backend resume spare",
        "token list",
        "client list",
        "client show localhost",
        "config running",
        "trace ID",
        "trace light@example.net",
        "healthcheck",
        "reload",
        "doctor --area settings",
        "refused --since 2h --json",
        "send-test --to light@example.net",
    ],
)
def test_what_speaks_to_the_service(service: Gateway, sent: str, arguments: str) -> None:
    """It loads no backend, no pydantic, no HTTP library, no database: a command costs a tenth of a second, not one."""
    assert loaded(service, *arguments.replace("ID", sent).split()) == []


@pytest.mark.parametrize("arguments", ["--help", "version"])
def test_what_speaks_to_nobody(arguments: str) -> None:
    """It opens no connection and reads no file, so it loads nothing for that."""
    code = RUN.replace(str(HEAVY), str(("http.client", "email.message", "asyncio", "yaml")))
    done = subprocess.run([sys.executable, "-c", code, arguments], capture_output=True, text=True, check=True)
    assert done.stderr == "\n"
