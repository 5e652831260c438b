"""The same commands while no service runs: they open the spool themselves, carefully."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Thread

import pytest

from gateway.clock import SystemClock
from gateway.events import Events
from gateway.model import Envelope, NewMessage, Recipient
from gateway.spool import Spool
from tests.cli.kit import Commands
from tests.http.test_client import UnixServer

CONFIG = "state_dir: {state}\nbackends: {{box: {{type: capture, directory: captured}}}}\n"


@pytest.fixture
def run(tmp_path: Path) -> Commands:
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG.format(state=tmp_path / "state"))
    return Commands(file)


@pytest.fixture
def spooled(run: Commands, tmp_path: Path) -> Commands:
    """Two messages wait."""

    async def put() -> None:
        clock = SystemClock()
        spool = await Spool.open(tmp_path / "state", clock, events=Events(level="error"), reserve=1.0)
        for number in (1, 2):
            now = clock.now()
            message = NewMessage(
                id=f"1K0000000000{number}",
                envelope=Envelope("app@example.com", (Recipient("bob@example.net"),)),
                raw=b"Subject: x\r\n\r\nbody\r\n",
                deliveries={"box": ("bob@example.net",)},
                received_at=now,
                expires_at=now + timedelta(days=5),
                client="localhost",
            )
            await spool.put(message)
        await spool.aclose()

    (tmp_path / "state").mkdir(mode=0o700)
    asyncio.run(put())
    return run


def test_reading(spooled: Commands) -> None:
    """The queue can be looked at; nothing is sent meanwhile."""
    assert [row["id"] for row in spooled.json("queue", "list")] == ["1K00000000002", "1K00000000001"]
    done = spooled("trace", "bob@example.net")
    assert done.stderr == (
        f"note: no service is running, nothing is being sent; reading the spool in {spooled.file.parent / 'state'}\n"
    )
    assert "No service runs, so nothing is sent." in done.stdout
    assert "Next try" not in done.stdout
    assert spooled("queue", "cat", "1K00000000001").stdout_bytes == b"Subject: x\r\n\r\nbody\r\n"
    assert spooled.ok("queue", "summary").splitlines()[1].split()[:3] == ["box", "2", "0"]
    assert "no service is running" in spooled.ok("backend", "list")


def test_changing(spooled: Commands) -> None:
    """Hold, release and delete last: the next command sees them."""
    spooled.ok("queue", "hold", "--all", "--yes")
    spooled.ok("queue", "release", "1K00000000001")
    spooled.ok("queue", "delete", "1K00000000002")
    assert [(row["id"], row["state"]) for row in spooled.json("queue", "list")] == [("1K00000000001", "queued")]


def test_mail_of_a_removed_backend(spooled: Commands) -> None:
    """It is reached by that name as long as there is any; then the name is as unknown as a slip."""
    spooled.file.write_text(spooled.file.read_text().replace("box", "crate"))
    for found in (2, 0):
        assert spooled.ok("queue", "hold", "--backend", "box", "--yes") == f"hold: {found} of {found} messages\n"
    assert spooled.ok("queue", "list", "--backend", "box", "--to", "x@example.net").startswith("No such message")
    assert spooled.ok("queue", "delete", "--backend", "box", "--yes") == "delete: 2 of 2 messages\n"
    for command in (["list"], ["delete", "--yes"]):
        done = spooled("queue", *command, "--backend", "box")
        assert (done.exit_code, "no backend box; there are crate" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["healthcheck"],
        ["reload"],
        ["backend", "pause", "box"],
        ["backend", "resume", "box"],
        ["send-test", "--to", "a@example.net"],
        ["queue", "bounce", "1K00000000001"],
    ],
)
def test_what_needs_the_service(spooled: Commands, arguments: list[str]) -> None:
    """Exit code 75, and how to start it."""
    done = spooled(*arguments)
    assert (done.exit_code, "gateway serve" in done.stderr) == (75, True)


def test_no_spool_yet(run: Commands, tmp_path: Path) -> None:
    """Looking never makes a spool: it would hide a wrong --config, or belong to the wrong user."""
    done = run("queue", "list")
    assert (done.exit_code, str(tmp_path / "state") in done.stderr) == (75, True)
    assert not (tmp_path / "state").exists()


def test_spool_in_use_without_socket(spooled: Commands, tmp_path: Path) -> None:
    """A service that is starting or stopping: exit code 75, try again."""

    async def hold() -> None:
        spool = await Spool.open(tmp_path / "state", SystemClock(), events=Events(level="error"), reserve=1.0)
        done = await asyncio.to_thread(spooled, "queue", "list")
        await spool.aclose()
        assert (done.exit_code, str(os.getpid()) in done.stderr) == (75, True)

    asyncio.run(hold())


def test_a_spool_that_cannot_be_used_is_closed_again(spooled: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 75, and the next command finds it free."""

    async def unreadable(_spool: Spool) -> None:
        raise OSError("the disk is broken")

    with monkeypatch.context() as broken:
        broken.setattr(Spool, "revocations", unreadable)
        done = spooled("queue", "list")
    assert (done.exit_code, "the disk is broken" in done.stderr) == (75, True)
    assert len(spooled.json("queue", "list")) == 2


def test_a_service_too_busy_to_listen(spooled: Commands, tmp_path: Path) -> None:
    """Exit code 75: a command does not join those that wait, and leaves the spool alone."""
    path = os.path.relpath(tmp_path / "state" / "admin.sock")
    with ExitStack() as stack:
        busy = stack.enter_context(socket.socket(socket.AF_UNIX))
        busy.bind(path)
        busy.listen(0)
        while True:
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            if waiting.connect_ex(path) == errno.EAGAIN:
                break
        done = spooled("queue", "list")
    assert (done.exit_code, "no service answers at" in done.stderr) == (75, True), done.output


def test_socket_left_behind(spooled: Commands, tmp_path: Path) -> None:
    """A socket file of a service that crashed is no service."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.path.relpath(tmp_path / "state" / "admin.sock"))
    assert len(spooled.json("queue", "list")) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
def test_root_leaves_another_users_spool_alone(spooled: Commands, tmp_path: Path) -> None:
    """Files made by root would keep the service from starting."""
    os.chown(tmp_path / "state", 65534, 65534)
    done = spooled("queue", "list")
    assert (done.exit_code, "To do this while it stands still: sudo -u nobody " in done.stderr) == (75, True), done


_HOLD = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"


@pytest.mark.parametrize("command", ["queue list", "healthcheck", "backend pause box", "status"])
@pytest.mark.parametrize("owner", [os.geteuid(), *([65534] if os.geteuid() == 0 else [])])
def test_a_service_that_does_not_listen_yet(spooled: Commands, tmp_path: Path, command: str, owner: int) -> None:
    """It has the spool: nobody is told to start it, nor that it does not run; also root, whose it is not."""
    state = tmp_path / "state"
    os.chown(state, owner, -1)
    holding = [sys.executable, "-c", _HOLD, str(state / "spool.lock"), "serve"]
    with subprocess.Popen(holding, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as service:
        assert service.stdout
        service.stdout.readline()
        done = spooled(*command.split())
        service.communicate()
    said = f"the service is starting, or stopping (process {service.pid}): nothing listens at {state}/admin.sock"
    assert (done.exit_code, f"{said}; try again in a moment" in done.output) == (75, True), done.output
    assert "No service is running" not in done.output


def test_a_service_of_another_version(run: Commands, tmp_path: Path) -> None:
    """Between an upgrade and the restart: it is no fault of ours that it knows nothing of what is new."""
    (tmp_path / "state").mkdir(mode=0o700)

    class Older(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    with UnixServer(str(tmp_path / "state/admin.sock"), Older) as server:  # type: ignore[arg-type]
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        done = run("status")
        server.shutdown()
        thread.join()
    assert done.exit_code == 1
    assert "it is of another version than this command; restart it: systemctl restart gateway" in done.stderr
