"""Real processes: serve, demo, and gateway-sendmail against a real service."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from gateway.drop import folder
from tests.flow.kit import Gateway

GATEWAY = [sys.executable, "-m", "gateway.cli"]


# With the disk nearly full: it wants a few megabytes, and not the tenth of the disk that a service leaves free.
DEMO = """
import os
from types import SimpleNamespace
os.statvfs = lambda _: SimpleNamespace(f_bavail=20_000_000, f_frsize=1, f_blocks=500_000_000_000)
from gateway.cli.__main__ import main
main(["demo"])
"""


def test_demo(tmp_path: Path) -> None:
    """One message through everything, whatever is configured here and although the disk is nearly full: exit 0, the
    life line, no warning, nothing left.
    """
    (tmp_path / "wrong.yaml").write_text("nonsense: true\n")
    environment = {**os.environ, "GATEWAY_CONFIG": str(tmp_path / "wrong.yaml"), "GATEWAY_HOSTNAME": "-"}
    command = [sys.executable, "-c", DEMO]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert 'login("jwt", token): 235 2.7.0' in done.stdout
    assert "250 2.0.0 Ok: queued as " in done.stdout
    assert "  => now                Sent to everybody\n" in done.stdout
    folder = done.stdout.partition("kept in ")[2].split()[0]
    assert not Path(folder).exists()


def test_demo_that_stays() -> None:
    """--keep uses the ports of the documentation; when they are taken it says so."""
    with ExitStack() as stack:
        with suppress(OSError):  # then somebody else has it, which is as good
            stack.enter_context(socket.create_server(("127.0.0.1", 8025)))
        done = subprocess.run([*GATEWAY, "demo", "--keep"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "8025" in done.stderr) == (1, True), done.stderr


def test_second_service_is_refused(service: Gateway) -> None:
    """Two writers on one spool would lose mail: the second ends with 1 and names the first, by its process or name."""
    done = service.run("serve")
    assert service.process is not None
    named = "instance a runs already" if "spool: {url" in service.config else str(service.process.pid)
    assert (done.returncode, named in done.stderr) == (1, True)
    assert service.get("/readyz")[0] == 200


def test_sendmail_to_a_real_service(service: Gateway) -> None:
    """What cron does: the message is in the queue, with the envelope of the call."""
    code = "from gateway.cli.sendmail import main; main()"
    environment = {**os.environ, "GATEWAY_SENDMAIL": f"127.0.0.1:{service.port}", "GATEWAY_CONFIG": str(service.file)}
    call = [sys.executable, "-c", code]
    message = b"From: root (Cron Daemon)\nTo: admin@away.example\nSubject: Cron\n\n.\nhello\n"
    arguments = ["-i", "-FCronDaemon", "-oem", "-f", "root@example.com", "admin@away.example"]
    done = subprocess.run([*call, *arguments], input=message, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    (row,) = service.json("queue", "list", "--from", "root@example.com", "--state", "all")
    assert row["recipients"] == ["admin@away.example"]
    listed = subprocess.run([*call, "-bp"], env=environment, capture_output=True, text=True, check=False)
    assert (listed.returncode, row["id"] in listed.stdout) == (0, True), listed.stderr


CRON = b"From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@box> true\nMIME-Version: 1.0\n\nhello\n"


def sendmail(gateway: Gateway, *arguments: str, stdin: bytes = CRON) -> tuple[int, bytes]:
    code = "from gateway.cli.sendmail import main; main()"
    environment = {**os.environ, "GATEWAY_SENDMAIL": f"127.0.0.1:{gateway.port}", "GATEWAY_CONFIG": str(gateway.file)}
    call = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(call, input=stdin, env=environment, capture_output=True, check=False)
    return done.returncode, done.stderr


def test_cron_writes_to_root(service: Gateway) -> None:
    """With one line of settings it reaches the administrator, and is found by the name that was asked for."""
    host = socket.gethostname()
    assert sendmail(service, "-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root") == (0, b"")
    row = service.json("trace", f"root@{host}", "--all")[0]
    assert [one["address"] for one in row["recipients"]] == ["admin@example.com"]
    assert [one["address"] for one in row["asked"]] == [f"root@{host}"]
    told = service.run("trace", row["id"]).stdout
    assert f"root@{host} became admin@example.com, because aliases says so" in " ".join(told.split())


@pytest.mark.slow
def test_cron_with_a_domain(tmp_path: Path) -> None:
    """``default_domain`` completes what cron writes, in envelope and header, whether the service runs or is away."""
    config = "aliases: {root: admin@example.com}\ndefault_domain: example.org\nretention: {sent_body: 1d}\n"
    running = Gateway(tmp_path, config + "backends: {box: {type: capture, directory: b}}")
    folder.make_maildrop(folder.maildrop(tmp_path / "state"))
    call = ["-f", "cron", "-oem", "root", "bob", "ann@example.net"]
    assert sendmail(running, *call) == (0, b"")
    with running:
        running.wait(lambda: len(running.messages()) == 1)
        assert sendmail(running, *call) == (0, b"")
        rows = running.messages()
        assert [row["sender"] for row in rows] == ["cron@example.org"] * 2
        for row in rows:
            assert row["recipients"] == ["admin@example.com", "bob@example.org", "ann@example.net"]
            raw = running.run("queue", "cat", row["id"]).stdout
            assert "From: root@example.org (Cron Daemon)" in raw
            assert "To: root@example.org" in raw


def test_mail_while_the_service_is_away() -> None:
    """Any user's waits in the maildrop, which mailq shows; the service takes it at its start, others cannot read it.

    Ctrl-C ends the service with 0, and it takes its socket along.
    """
    call = [sys.executable, "-c", "from gateway.cli.sendmail import main; main()"]
    # Another user may not be let in to where Python is: all is there before it is that user.
    become = "import os, encodings.idna, encodings.utf_8_sig, gateway.cli.maildrop, gateway.config.locate; "
    become += "from gateway.cli.sendmail import main; "
    become += "os.setgroups([]); os.setgid({0}); os.setuid({0}); main()"
    users = (65533, 0) if os.geteuid() == 0 else (os.geteuid(),)
    with TemporaryDirectory() as place:  # pytest's own lets no other user in
        running, state = Gateway(Path(place)), Path(place, "state")
        folder.make_maildrop(folder.maildrop(state))
        Path(place).chmod(0o755)
        state.chmod(0o711)  # as the unit has it
        environment = os.environ | {
            "GATEWAY_SENDMAIL": f"127.0.0.1:{running.port}",
            "GATEWAY_CONFIG": str(running.file),
        }
        for user in users:
            code = [sys.executable, "-c", become.format(user)] if os.geteuid() == 0 else call
            arguments = [*code, "-f", f"s{user}@example.com", "a@away.example", "b@away.example"]
            done = subprocess.run(arguments, input=b"A: b\n\nx\n", env=environment, capture_output=True, check=False)
            assert (done.returncode, done.stderr) == (0, b"")
        assert {path.stat().st_mode & 0o007 for path in (state / "maildrop" / "new").iterdir()} == {0}
        listed = subprocess.run([*call, "-bp"], env=environment, capture_output=True, text=True, check=False)
        assert (listed.returncode, "no service is running" in listed.stderr) == (75, True)
        assert f"maildrop: {len(users)} waiting" in listed.stdout
        with running:
            running.wait(lambda: len(running.messages()) == len(users))
            rows = {row["sender"]: row["recipients"] for row in running.messages()}
            assert rows == {f"s{user}@example.com": ["a@away.example", "b@away.example"] for user in users}
            (found,) = running.json("queue", "dropped")
            assert (found["name"], found["waiting"], found["corrupt"], found["reason"]) == ("maildrop", 0, 0, "")
            running.signal(signal.SIGINT)
            assert running.process is not None
            assert running.process.wait(timeout=60) == 0
            assert not (state / "admin.sock").exists()


@pytest.mark.parametrize(
    ("command", "streams", "said"),
    [
        ("queue list", ">/dev/full", "No space left on device"),
        ("queue summary --json", ">/dev/full", "No space left on device"),
        ("--help", ">/dev/full", "No space left on device"),
        ("queue list", ">&-", "Bad file descriptor"),
        ("queue cat {id}", ">/dev/full", "No space left on device"),
        ("queue cat {id}", ">&-", "Bad file descriptor"),
        ("queue hold -", "<&-", "Bad file descriptor"),
        ("token inspect", "<&-", "Bad file descriptor"),
    ],
)
def test_streams_that_are_full_or_closed(service: Gateway, command: str, streams: str, said: str) -> None:
    """One line says it and the exit code is EX_IOERR: nobody takes half an answer, or none, for the whole."""
    found = service.json("send-test", "--to", "x@box.example") if "{id}" in command else {"id": ""}
    line = f'exec "$@" {streams}'
    arguments = ["sh", "-c", line, "sh", *GATEWAY, "--config", str(service.file), *command.format(**found).split()]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (74, f"Error: input or output: {said}\n")


def test_sendmail_with_streams_that_are_full_or_closed(service: Gateway) -> None:
    """mailq tells it as ``gateway queue list`` does; without a standard input there is no message to send."""
    environment = {**os.environ, "GATEWAY_CONFIG": str(service.file)}
    code = "from gateway.cli.sendmail import main; main()"
    for line, status, said in (
        ('exec "$@" -bp >/dev/full', 74, "No space left"),
        ('exec "$@" a@b.example <&-', 64, "closed"),
    ):
        arguments = ["sh", "-c", line, "sh", sys.executable, "-c", code]
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (status, True, False), done.stderr


def test_closed_pipe_is_silent(service: Gateway) -> None:
    """``gateway ... | head`` is no error."""
    reading, writing = os.pipe()
    os.close(reading)
    arguments = [*GATEWAY, "--config", str(service.file), "queue", "summary"]
    done = subprocess.run(arguments, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert done.stderr == b""
