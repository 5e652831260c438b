"""``gateway status`` and the backends' commands against a real service, with a provider that refuses a password."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from tests.flow.kit import Gateway, free_port

NEW = "tomato"
CONFIG = """
backends:
  smart: {{type: smtp, host: 127.0.0.1, port: {port}, tls: none, username: relay, password_file: smart.pw}}
  away: {{type: smtp, host: 127.0.0.1, port: {nobody}, tls: none}}
  box: {{type: capture}}
routes:
- {{recipients: ["*@smart.example"], backend: smart}}
- {{recipients: ["*@away.example"], backend: away}}
- {{backend: box}}
bounces: {{mode: "off"}}
"""


class Provider:
    """Takes mail of who knows the password."""

    def __init__(self) -> None:
        self.delivered: list[str] = []

    async def handle_DATA(  # noqa: N802 - the name is aiosmtpd's
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        self.delivered += envelope.rcpt_tos
        return "250 2.0.0 taken"

    def authenticate(self, _server: SMTP, _session: Session, _envelope: Envelope, _how: str, given: Any) -> AuthResult:
        return AuthResult(success=given.password == NEW.encode(), handled=False)


@pytest.fixture
def provider() -> Iterator[tuple[Provider, int]]:
    made, port = Provider(), free_port()
    controller = Controller(made, "127.0.0.1", port, authenticator=made.authenticate, auth_require_tls=False)
    controller.start()
    yield made, port
    controller.stop()


@pytest.fixture
def seat(tmp_path_factory: pytest.TempPathFactory, provider: tuple[Provider, int]) -> Iterator[Gateway]:
    tmp_path = tmp_path_factory.mktemp("seat")  # which fits a terminal
    gateway = Gateway(tmp_path, CONFIG.format(port=provider[1], nobody=free_port()))
    (tmp_path / "smart.pw").write_text("wrong")
    (tmp_path / "smart.pw").chmod(0o600)
    with gateway:
        yield gateway


def watched(seat: Gateway) -> list[str]:
    """The lines of ``status --watch`` on a terminal, once it is drawn anew."""
    command = [sys.executable, "-m", "gateway.cli", "--config", str(seat.file), "status", "--watch"]
    outer, inner = pty.openpty()
    process = subprocess.Popen(command, stdout=inner, env=os.environ | {"COLUMNS": "80", "LINES": "24"})
    text, verdict = b"", b"Everything is all right."
    try:
        deadline = time.monotonic() + 30
        while text.count(verdict) < 2:
            assert time.monotonic() < deadline, text
            if select.select([outer], [], [], 1)[0]:
                text += os.read(outer, 65536)
    finally:
        process.kill()
        process.wait()
        os.close(outer)
        os.close(inner)
    return text.split(verdict)[1].decode().replace("\r", "").split("\x1b")[0].splitlines()


def test_from_a_wrong_password_to_delivered_mail(seat: Gateway, provider: tuple[Provider, int]) -> None:
    """Status says what needs you and ends with 1; fix with the same password changes nothing; with the new one it is
    read, checked, and the first message goes out. Nothing says "works" before. While all is well it fits a terminal."""
    assert seat.run("status").returncode == 0
    assert seat.run("send-test", "--to", "a@smart.example", "--wait", "0").returncode == 75
    seat.wait(lambda: json.loads(seat.get("/api/v1/backends")[1])["smart"]["state"] == "stopped")
    told = seat.run("status")
    assert told.returncode == 1
    assert told.stdout.splitlines()[0] == "1 thing needs you."
    for words in (
        "!! smart cannot send: SMTP (127.0.0.1",
        "1 message waits. It goes out by itself",
        "backend fix smart",
    ):
        assert words in told.stdout
    [problem] = json.loads(seat.run("status", "--json").stdout)["problems"]
    assert (problem["kind"], problem["backend"], problem["action"]) == ("backend_stopped", "smart", "fix")

    for order in ("fix", "resume"):
        again = seat.run("backend", order, "smart")
        assert again.returncode == 1, again.stdout
        assert "works" not in again.stdout
    assert "stopped again: " in again.stdout
    seen = seat.run("backend", "check", "smart")
    assert seen.returncode == 1
    assert "in the service: Stopped (misconfigured), next try" in seen.stdout
    assert "heard last: " in seen.stdout

    (seat.directory / "smart.pw").write_text("wrong, too")  # it is taken, and is not thought to be good
    other = seat.run("backend", "fix", "smart", "--json")
    assert (other.returncode, json.loads(other.stdout)["read"]) == (1, ["password"])
    assert json.loads(other.stdout)["status"]["state"] == "stopped"
    (seat.directory / "smart.pw").write_text(NEW)
    fixed = seat.run("backend", "fix", "smart")
    assert fixed.returncode == 0, fixed.stdout + fixed.stderr
    assert "read anew from disk: password" in fixed.stdout
    assert fixed.stdout.splitlines()[-1] == "smart works: first message sent"
    assert provider[0].delivered == ["a@smart.example"]
    assert seat.run("status").returncode == 0
    one = json.loads(seat.get("/api/v1/backends/smart")[1])
    answered = one["answers"][0]
    assert (one["word"], one["checked"]["ok"], answered["verdict"]) == ("Working", True, "sent")
    seen = watched(seat)
    assert (len(seen) <= 24, max(map(len, seen)) <= 80) == (True, True), seen
    seat.kill()
    with seat:  # what is known outlives the process
        seat.wait(lambda: json.loads(seat.get("/api/v1/backends")[1])["smart"]["last_success"])
        after = json.loads(seat.get("/api/v1/backends/smart")[1])
        assert (after["last_success"], after["checked"]) == (answered["ended_at"], one["checked"])


@pytest.mark.slow
def test_orders_say_how_they_went(seat: Gateway) -> None:
    """Who paused it; that nothing was tried; that settings on disk say otherwise, or are wrong; who is not there."""
    assert seat.run("backend", "pause", "box").returncode == 0
    assert "Paused by " in seat.run("status").stdout
    assert "Paused by " in seat.run("backend", "list").stdout
    nothing = seat.run("backend", "resume", "box")
    assert (nothing.returncode, nothing.stdout) == (0, "box is resumed. Nothing waits: nothing was tried\n")
    before = seat.file.read_text()
    seat.file.write_text(before.replace("type: capture}", "type: capture, directory: other}"))
    assert "on disk, and not in force before gateway reload: directory" in seat.run("backend", "check", "box").stdout
    seat.file.write_text(before.replace("type: capture}", "type: capture, colour: red}"))
    checked = seat.json("backend", "check", "box")["box"]
    assert "colour: unknown key" in checked["errors"][0]
    assert checked["ok"] is True
    assert "there are" in seat.run("backend", "check", "nobody").stderr
    assert seat.run("backend", "fix", "a/b").returncode == 1


@pytest.mark.slow
def test_without_a_service(seat: Gateway) -> None:
    """Status says so with 75, shows what the spool knows, and what to type; a check tries from here."""
    assert seat.run("send-test", "--to", "a@away.example", "--wait", "0").returncode == 75
    assert seat.stop() == 0
    told = seat.run("status")
    assert told.returncode == 75
    assert told.stdout.splitlines()[0] == "No service is running."
    assert "gateway serve" in told.stdout
    assert "1 waiting" in told.stdout
    assert json.loads(seat.run("status", "--json").stdout)["queue"] == {"away": {"queued": 1}}
    tried = seat.run("backend", "check", "box")
    assert (tried.returncode, "no service is running" in tried.stderr) == (0, True)
    assert seat.run("status", "--watch", "--json").returncode == 2
    good = seat.file.read_text()
    seat.file.write_text(good.replace("routes:", "rutes:"))
    wrong = seat.run("status")
    assert (wrong.returncode, "gateway check-config" in wrong.stdout) == (75, True)
    seat.file.write_text(good)
    (seat.directory / "state" / "spool.db").unlink()
    lost = seat.run("status")
    assert (lost.returncode, lost.stdout.splitlines()[0]) == (75, "No service is running.")
