"""What a command loads: only what it needs. Counted, because time depends on the machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flow.kit import Gateway, free_port

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
        "setup --help",
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
    if " resume " in arguments:  # who works cannot be resumed
        service.run("backend", "pause", "spare")
    assert loaded(service, *arguments.replace("ID", sent).split()) == []


@pytest.mark.parametrize("arguments", ["--help", "version"])
def test_what_speaks_to_nobody(arguments: str) -> None:
    """It opens no connection and reads no file, so it loads nothing for that."""
    code = RUN.replace(str(HEAVY), str(("http.client", "email.message", "asyncio", "yaml")))
    done = subprocess.run([sys.executable, "-c", code, arguments], capture_output=True, text=True, check=True)
    assert done.stderr == "\n"


# What a service needs only for an upgrade of its spool, for the doctor, or to ask somebody over HTTP.
AT_NEED = (
    "aiohttp", "aiosmtplib", "alembic", "dns", "gateway.calling", "gateway.doctor.dns", "gateway.doctor.examine",
    "google", "httpx", "httpx_aiohttp", "mako", "msal", "sqlalchemy.dialects.mssql", "sqlalchemy.dialects.mysql",
    "sqlalchemy.dialects.oracle", "sqlalchemy.dialects.postgresql",
)  # fmt: skip
SERVE = f"""
import asyncio, os, signal, sys
from pathlib import Path
from gateway import service
from gateway.cli import local

def up(app):
    print(*(name for name in {AT_NEED} if name in sys.modules), sep=",")
    os.kill(os.getpid(), signal.SIGTERM)

sys.exit(asyncio.run(service.serve(local.usable(Path(sys.argv[1])), load=lambda: None, on_ready=up)))
"""
WAYS = {  # and what the mail of these settings leaves by, which is there before the first
    "box: {type: capture, directory: captured}": "",
    "box: {type: smtp2go, api_key: api-0123456789ABCDEF}": "aiohttp,gateway.calling,httpx,httpx_aiohttp",
}


def test_what_serves(tmp_path: Path) -> None:
    """A restart is a gap at the door: on a new spool as on an old one, nothing is loaded that no mail asks for."""
    file = tmp_path / "config.yaml"
    head = f'listeners: {{local: {{bind: "127.0.0.1:{free_port()}"}}}}\nhttp: {{bind: "127.0.0.1:{free_port()}"}}\n'
    head += f"state_dir: {tmp_path}/state\nlimits: {{spool_free: 0}}\nlog: {{level: error}}\n"
    for backend, more in WAYS.items():
        file.write_text(f"{head}backends: {{{backend}}}\n")
        done = subprocess.run([sys.executable, "-c", SERVE, str(file)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, f"{more}\n"), done.stderr
