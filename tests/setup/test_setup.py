"""gateway setup: answers become settings that work; secrets stay out of them, and nothing is left half."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.backends import settings_types
from gateway.cli.root import cli
from gateway.config.loading import Loaded, load
from gateway.setup import certificate
from tests.backends.gmail_fake import authorized_user_info, service_account_info
from tests.flow.kit import Gateway, free_port

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"
KEY = "api-0123456789ABCDEF0123456789ABCDEF"
SENDER = "noreply@example.com"
LISTEN = ["--listen", f"127.0.0.1:{free_port()}"]


def setup(file: Path, *arguments: str, stdin: str | None = None) -> Result:
    given = ["--config", str(file), "setup", "--sender", SENDER, "--yes", "--no-check", *arguments]
    return CliRunner().invoke(cli, given, input=stdin)


def loaded(file: Path) -> Loaded:
    return load(file, {}, settings_types())


SMTP = ["--provider", "smtp", "--host", "smtp.example.net"]
CLIENT = ["--client-id", "00000000-0000-0000-0000-000000000000"]
GRAPH = ["--provider", "microsoft365", "--tenant", "contoso.onmicrosoft.com", *CLIENT]
FILES = {
    "PEM": lambda: certificate.make(datetime.now(UTC)),
    "ACCOUNT": lambda: json.dumps(service_account_info()).encode(),
    "USER": lambda: json.dumps(authorized_user_info()).encode(),
}
WAYS: list[tuple[list[str], str]] = [
    (["--provider", "smtp2go", "--secret-file", "-", "--region", "eu"], "smtp2go"),
    ([*SMTP, "--username", "relay", "--secret-file", "-", "--port", "2525"], "smtp"),
    ([*SMTP, "--tls", "none"], "smtp"),
    (["--provider", "js2mail", "--secret-file", "-"], "js2mail"),
    (["--provider", "justemails", "--secret-file", "-"], "justemails"),
    (["--provider", "mailpass", "--secret-file", "-"], "mailpass"),
    (["--provider", "capture"], "capture"),
    ([*GRAPH, "--certificate-file", "PEM"], "graph"),
    (["--provider", "outlook", *CLIENT], "graph"),
    (["--provider", "workspace", "--service-account-file", "ACCOUNT"], "gmail"),
    (["--provider", "gmail", "--authorized-user-file", "USER"], "gmail"),
]


@pytest.mark.parametrize(("way", "kind"), WAYS, ids=[f"{kind}-{n}" for n, (_, kind) in enumerate(WAYS)])
@pytest.mark.parametrize("old", ["", pytest.param("example", marks=pytest.mark.slow)])
def test_each_way_is_usable(tmp_path: Path, way: list[str], kind: str, old: str) -> None:
    """In a new file, and in the one that installing put there, whose every line stays."""
    file = tmp_path / "config.yaml"
    given = tmp_path / "given"
    given.write_bytes(FILES[way[-1]]() if way[-1] in FILES else b"")
    if old:
        shutil.copy(EXAMPLE, file)
    done = setup(file, *(str(given) if one in FILES else one for one in way), *LISTEN, stdin=KEY)
    assert done.exit_code == 0, done.output
    settings = loaded(file).settings
    name = settings.routes[0].backend[0]
    assert settings.backends[name].type == kind
    assert KEY not in file.read_text() + done.output
    secrets = [path for path in tmp_path.iterdir() if path != given and not path.name.startswith("config")]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in secrets)
    if old:
        lines = file.read_text().splitlines()
        assert [line for line in EXAMPLE.read_text().splitlines() if line not in lines] == []
        assert len(list(tmp_path.glob("config.yaml.*"))) == 1


def test_the_example_keeps_its_every_line(tmp_path: Path) -> None:
    """Each way is in the slow run."""
    test_each_way_is_usable(tmp_path, *WAYS[0], "example")


def test_who_may_send(tmp_path: Path) -> None:
    """What a printer says that it is goes out as the sender; the password is in a file, its hash in the settings."""
    file = tmp_path / "config.yaml"
    done = setup(file, "--provider", "capture", "--network", "192.0.2.0/24", "--login", "copier", *LISTEN)
    assert done.exit_code == 0, done.output
    clients = loaded(file).settings.clients
    assert set(clients) == {"localhost", "tokens", "copier"}
    assert [str(one) for one in clients["copier"].networks] == ["192.0.2.0/24"]
    password = (tmp_path / "copier.password").read_text().strip()
    assert password not in done.output + file.read_text()
    assert "copier.password" in done.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give --provider"),
        (["--provider", "smtp"], "give --host"),
        (["--provider", "smtp2go"], "give --secret-file"),
        ([*SMTP, "--region", "eu"], "--region does not belong to --provider smtp"),
        (["--provider", "capture", "--network", "192.0.2.1/24"], 'did you mean "192.0.2.0/24"'),
        (["--provider", "capture", "--listen", "25"], "127.0.0.1:25"),
        (["--provider", "capture", "--login", "copier"], "--tls-certificate"),
        (["--provider", "workspace", "--service-account-file", "/nowhere"], "No such file"),
        ([*SMTP, "--port", "70000"], "is no port"),
    ],
)
def test_what_is_missing_or_wrong_is_named(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = setup(tmp_path / "config.yaml", *arguments, stdin=KEY)
    assert re.search(words, done.output), done.output
    assert done.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_where_the_settings_are_refused(tmp_path: Path) -> None:
    """A relay for everybody: the file stays, the secret is gone again."""
    file = tmp_path / "config.yaml"
    file.write_text("log: {level: info}\n")
    done = setup(file, "--provider", "smtp2go", "--secret-file", "-", "--network", "0.0.0.0/0", *LISTEN, stdin=KEY)
    assert done.exit_code == 1, done.output
    assert "nothing was changed" in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
    assert file.read_text() == "log: {level: info}\n"


def test_whoever_sends_today_is_not_limited(tmp_path: Path) -> None:
    """A file without clients lets this machine and tokens send as anybody; so it stays, also with a network more."""
    file = tmp_path / "config.yaml"
    file.write_text("log: {level: info}\n")
    before = loaded(file).settings.clients
    assert setup(file, "--provider", "capture", "--network", "192.0.2.0/24", *LISTEN).exit_code == 0
    after = dict(loaded(file).settings.clients)
    assert str(after.pop("lan").networks[0]) == "192.0.2.0/24"
    assert after == before


def test_a_certificate_that_is_none_changes_nothing(tmp_path: Path) -> None:
    """It is read before the settings name it."""
    (tmp_path / "given").write_text("no PEM\n")
    done = setup(tmp_path / "config.yaml", *GRAPH, "--certificate-file", str(tmp_path / "given"), *LISTEN)
    assert (done.exit_code, [path.name for path in tmp_path.iterdir()]) == (1, ["given"]), done.output
    assert "no PEM in it" in done.output


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_gives_secrets_to_the_user_of_the_service(tmp_path: Path) -> None:
    """Whose it is, is seen by the state directory."""
    file, state = tmp_path / "config.yaml", tmp_path / "state"
    state.mkdir()
    os.chown(state, 4242, 4242)
    file.write_text(f"state_dir: {state}\n")
    done = setup(file, "--provider", "smtp2go", "--secret-file", "-", *LISTEN, stdin=KEY)
    assert done.exit_code == 0, done.output
    assert ((tmp_path / "s2g.key").stat().st_uid, file.stat().st_uid) == (4242, 0)


def test_a_file_in_braces_is_left_alone(tmp_path: Path) -> None:
    """What cannot be put in exactly goes beside it."""
    file = tmp_path / "config.yaml"
    before = '{"log": {"level": "info"}, "backends": {"a": {"type": "capture", "directory": "a"}}}'
    file.write_text(before)
    done = setup(file, *SMTP, *LISTEN)
    assert (done.exit_code, file.read_text()) == (1, before), done.output
    assert set(loaded(tmp_path / "config.yaml.new").settings.backends) == {"a", "smart"}


def test_dry_run_does_nothing(tmp_path: Path) -> None:
    done = setup(tmp_path / "config.yaml", *SMTP, *LISTEN, "--dry-run")
    assert "host: smtp.example.net" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_test_mail_goes_by_a_running_service(tmp_path: Path) -> None:
    """It takes the new settings over; the mail is found by what is printed."""
    with Gateway(tmp_path, "limits: {spool_free: 0}\nbackends: {a: {type: capture, directory: a}}\n") as service:
        done = setup(service.file, "--provider", "capture", "--test-to", "you@example.com")
        assert done.exit_code == 0, done.output
        found = re.search(r"test mail (\w+): sent", done.output)
        assert found, done.output
        assert "Sent to everybody" in service.run("trace", found[1]).stdout


def talk(file: Path, answers: list[tuple[str, str]]) -> tuple[int, str]:
    """At a real terminal: each answer when its question is there."""
    parent, child = pty.openpty()
    own = ["setsid", "--ctty", "--wait"]  # a terminal of its own, so that ^C is a signal
    command = [*own, sys.executable, "-m", "gateway.cli", "--config", str(file), "setup", "--no-check"]
    process = subprocess.Popen(command, stdin=child, stdout=child, stderr=child)
    os.close(child)
    shown = ""
    for question, answer in [*answers, ("\0", "")]:
        while question not in shown:
            try:
                piece = os.read(parent, 4096).decode()
            except OSError:  # it has ended
                piece = ""
            if not piece:
                return process.wait(30), shown
            shown += piece
        _, _, shown = shown.partition(question)
        os.write(parent, answer.encode() if answer == "\x03" else f"{answer}\n".encode())
    return process.wait(30), shown


@pytest.mark.slow
def test_at_a_terminal(tmp_path: Path) -> None:
    """A wrong answer is asked for again, and ^C at the last question leaves nothing."""
    file = tmp_path / "config.yaml"
    answers = [
        ("Which (", "smtp2mail"), ("Which (", "smtp2go"), ("API key", KEY), ("Region", ""),
        ("address of yours", "noreply"), ("address of yours", SENDER), ("Which networks", ""),
        ("Where does", f"127.0.0.1:{free_port()}"),
    ]  # fmt: skip
    code, shown = talk(file, [*answers, ("Make this?", "\x03")])
    assert (code, list(tmp_path.iterdir())) == (1, []), shown
    code, shown = talk(file, [*answers, ("Make this?", "y"), ("test mail", "")])
    assert code == 0, shown
    assert loaded(file).settings.backends.keys() == {"s2g"}
    assert KEY not in shown
