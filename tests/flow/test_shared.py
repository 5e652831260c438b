"""Two instances on one database, as real processes: what one is told the other knows, and who has other keys is out."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Sink as Discard
from aiosmtpd.smtp import AuthResult

from tests import postgres_kit
from tests.backends.graph_fake import CLIENT, MAILBOX, GraphFake
from tests.backends.kit import Web
from tests.flow.kit import Gateway, free_port

CONFIG = """
    clients: {{app: {{token: billing}}}}
    backends: {{box: {{type: capture}}}}
    routes: [{{backend: box}}]
    spool: {{url: "{url}", instance: {name}, failover: 2s}}
"""
SEEN = """
    clients: {{here: {{networks: [127.0.0.0/8], senders: ["*"], recipients: ["*"]}}}}
    backends: {{box: {{type: capture}}, down: {{type: smtp, host: 127.0.0.1, port: {down}, tls: none,
            username: u, password_file: pw}}}}
    routes: [{{recipients: ["*@down.example"], backend: down}}, {{backend: box}}]
    spool: {{url: "{url}", instance: NAME, failover: 2s}}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[postgres_kit.Cluster]:
    with postgres_kit.cluster() as made:
        yield made


@pytest.fixture
def url(server: postgres_kit.Cluster, request: pytest.FixtureRequest) -> str:
    server.create(request.node.name)
    return server.url(request.node.name)


def instance(folder: Path, name: str, config: str, keys: Path | None = None) -> Gateway:
    """With the keys of another one, as its operator was told."""
    (folder / name / "state").mkdir(parents=True, mode=0o700, exist_ok=True)
    for key in ("spool.key", "token.key") if keys else ():
        assert keys is not None
        shutil.copy(keys / "state" / key, folder / name / "state" / key)
    return Gateway(folder / name, config.replace("NAME", name))


def minted(gateway: Gateway) -> str:
    done = gateway.run("token", "mint", "--sub", "billing", "--expires", "1h")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def login(smtp: smtplib.SMTP, token: str) -> int:
    try:
        return smtp.login("jwt", token)[0]
    except smtplib.SMTPAuthenticationError as error:
        return error.smtp_code


def test_what_one_instance_is_told_holds_at_the_other(tmp_path: Path, url: str) -> None:
    """A token made at one lets in at the other; revoked there it is dead here within a second, in an open connection,
    too. Settings that differ are said, and so is what an instance with other keys has to do."""
    config = CONFIG.format(url=url, name="NAME")
    with instance(tmp_path, "a", config) as a, instance(tmp_path, "b", config, tmp_path / "a") as b:
        token = minted(a)
        with smtplib.SMTP("127.0.0.1", b.port) as smtp:
            assert login(smtp, token) == 235
            assert smtp.mail("a@x.test")[0] == 250
            smtp.rset()
            done = a.run("token", "revoke", "--sub", "billing")
            assert done.returncode == 0, done.stderr
            began = time.monotonic()
            while smtp.mail("a@x.test")[0] == 250:
                smtp.rset()
                time.sleep(0.02)
            assert time.monotonic() - began < 5  # a second where nobody else needs the processors
        with smtplib.SMTP("127.0.0.1", b.port) as smtp:
            assert login(smtp, token) == 535
        b.file.write_text(b.file.read_text() + "retry: {lifetime: 3d}\n")
        assert b.run("reload").returncode == 0
        a.wait(lambda: "retry: a / b" in a.get("/api/v1/problems")[1])
        assert [one.run("backend", "check", "box").returncode for one in (a, b)] == [0, 0]
        other = instance(tmp_path, "c", config)
        command = [sys.executable, "-m", "gateway.cli", "--config", str(other.file), "serve"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=os.environ)
        assert done.returncode != 0
        assert f"copy spool.key from instance a to {tmp_path / 'c' / 'state' / 'spool.key'}" in done.stderr
        shutil.copy(tmp_path / "a" / "state" / "spool.key", tmp_path / "c" / "state" / "spool.key")
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=os.environ)
        assert "copy token.key from instance a" in done.stderr


GRAPH = """
    clients: {{here: {{networks: [127.0.0.0/8]}}}}
    backends:
      me: {{type: graph, tenant: consumers, client_id: {client}, device_login: true, mailbox: me,
            senders: ["{mailbox}"], authority: "{graph}", api_base: "{graph}"}}
    routes: [{{backend: me}}]
    spool: {{url: "{url}", instance: {name}, failover: 2s}}
"""


@pytest.mark.slow
async def test_a_sign_in_is_one_at_all_instances(tmp_path: Path, url: str) -> None:
    """By a command at one of them. Refresh tokens are good once here: services and commands at both go on with the last
    one, whoever got it. No file is written."""
    fake = GraphFake(once=True, mailboxes={"me"})
    fake.signed_in = True
    async with Web(fake) as web:
        fake.url = web.url
        config = GRAPH.format(client=CLIENT, mailbox=MAILBOX, graph=web.url, url=url, name="NAME")
        with instance(tmp_path, "a", config) as a, instance(tmp_path, "b", config, tmp_path / "a") as b:
            await asyncio.to_thread(_signed_in_at_both, a, b)
    used = [form["refresh_token"] for form in fake.forms if form.get("grant_type") == "refresh_token"]
    assert used == [f"rt-{n}" for n in range(1, len(used) + 1)]
    assert len(used) > 4
    assert len(fake.delivered) == 2
    assert list(tmp_path.rglob("oauth*")) == []


def _signed_in_at_both(a: Gateway, b: Gateway) -> None:
    assert "nobody has signed in" in a.run("check-config", "--online").stdout
    done = a.run("auth", "microsoft", "--backend", "me")
    assert done.returncode == 0, done.stderr
    for count, gateway in enumerate((b, a, b, a)):
        done = gateway.run("check-config", "--online")
        assert done.returncode == 0, done.stdout + done.stderr
        if count == 1:
            mail(b)
            b.wait(lambda: states(b) == ["done"])
    assert a.stop() == 0  # so that b works the backend, or still does
    mail(b)
    b.wait(lambda: states(b) == ["done"] * 2)


def states(gateway: Gateway) -> list[str]:
    return [row["state"] for row in gateway.messages()]


def mail(gateway: Gateway, to: str = "b@x.example") -> None:
    with smtplib.SMTP("127.0.0.1", gateway.port) as smtp:
        smtp.sendmail(MAILBOX, [to], f"From: {MAILBOX}\r\nTo: {to}\r\n\r\nHello\r\n")


def test_a_backend_is_seen_and_steered_at_any_instance(tmp_path: Path, url: str) -> None:
    """The one that works it obeys whom the other one was told by, and both show it."""
    with pair(tmp_path, url, free_port()) as (a, b):
        told = b if backends(a)["box"]["owner"] == "a" else a
        for order, state in (("pause", "paused"), ("resume", "working")):
            more = ("--no-wait",) if order == "resume" else ()
            assert told.run("backend", order, "box", *more).returncode == 0
            everywhere(a, b, "box", state)
        mail(a, "r@down.example")
        everywhere(a, b, "down", "stopped")


@contextmanager
def pair(folder: Path, url: str, down: int) -> Iterator[tuple[Gateway, Gateway]]:
    """Two that share the backends out: of ``down`` nobody listens at the port."""
    config = SEEN.format(url=url, down=down)
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / name / "pw").write_text("first-secret")
        (folder / name / "pw").chmod(0o600)
    with instance(folder, "a", config) as a, instance(folder, "b", config, folder / "a") as b:
        a.wait(lambda: {one["owner"] for one in backends(a).values()} == {"a", "b"})
        yield a, b


def backends(gateway: Gateway) -> Any:
    """By HTTP, which costs no process."""
    return json.loads(gateway.get("/api/v1/backends")[1])


def everywhere(a: Gateway, b: Gateway, name: str, state: str) -> None:
    for one in (a, b):
        one.wait(lambda one=one: backends(one)[name]["state"] == state)


@contextmanager
def listening(port: int) -> Iterator[None]:
    def known(*_: object) -> AuthResult:
        return AuthResult(success=True)

    more = {"authenticator": known, "auth_require_tls": False}
    controller = Controller(Discard(), hostname="127.0.0.1", port=port, **more)
    controller.start()
    try:
        yield
    finally:
        controller.stop()


@pytest.mark.slow
def test_what_stops_a_backend_is_known_and_put_right_at_any_instance(
    tmp_path: Path, url: str, server: postgres_kit.Cluster
) -> None:
    """Both say the same of it, in the same words. A check and a fix are made where it is worked, and at the other one,
    too, they say what came of it; a new secret that only one machine has is said to be missing at the other."""
    down = free_port()
    with pair(tmp_path, url, down) as (a, b):
        mail(a, "r@down.example")
        everywhere(a, b, "down", "stopped")
        first, second = (one.json("backend", "list")["down"] for one in (a, b))
        same = ("owner", "paused_by", "reason", "fix", "in_flight")
        assert [first[key] for key in same] == [second[key] for key in same]
        assert [one.run("status").returncode for one in (a, b)] == [1, 1]
        assert all("down cannot send" in one.run("status").stdout for one in (a, b))
        owner = first["owner"]
        works, asked = (a, b) if owner == "a" else (b, a)
        checks = [one.run("backend", "check", "down") for one in (works, asked)]
        assert [done.returncode for done in checks] == [1, 1]
        assert [f"checked by instance {owner}" in done.stdout for done in checks] == [False, True]
        (asked.directory / "pw").write_text("second-secret")
        renewed = f"password was renewed on the machine that you asked, not on that of {owner}: copy its file there"
        assert renewed in asked.run("backend", "fix", "down").stdout
        assert (
            f"not the same on the machine that you asked and at {owner}" in asked.run("backend", "fix", "down").stdout
        )
        (works.directory / "pw").write_text("second-secret")
        with listening(down):
            done = asked.run("backend", "fix", "down")
            assert f"read anew from the disk of {owner}: password" in done.stdout
            assert "to do" not in done.stdout
            assert (done.returncode, "down works: first message sent" in done.stdout) == (0, True), done.stdout
            everywhere(a, b, "down", "working")
        mail(a, "r@down.example")
        everywhere(a, b, "down", "stopped")
        done = asked.run("backend", "resume", "down")
        assert (done.returncode, "down: stopped again" in done.stdout) == (1, True), done.stdout
        told = str(
            server.ask("SELECT standing, wanted FROM backend", database=url.partition("?")[0].rpartition("/")[2])
        )
        assert ("down" in told, "-secret" in told) == (True, False)
        works.kill()
        asked.wait(lambda: asked.json("backend", "list")["down"]["owner"] == asked.directory.name)
