"""check-config, config, version, healthcheck, reload, and what every command has in common."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import gateway
from gateway.cli.root import cli
from tests.cli.kit import Commands
from tests.flow.kit import Gateway, free_port


@pytest.fixture
def run(tmp_path: Path) -> Commands:
    file = tmp_path / "config.yaml"
    file.write_text(f"state_dir: {tmp_path / 'state'}\nbackends:\n  box: {{type: capture, directory: captured}}\n")
    return Commands(file)


def test_check_config(run: Commands, tmp_path: Path) -> None:
    """A good file is called ok before the service ever ran; --online asks the backends."""
    note, ok = run.ok("check-config").splitlines()
    assert (note.startswith("note: nobody but this machine may send: "), ok) == (True, f"{run.file}: ok")
    assert "box: ok" in run.ok("check-config", "--online")
    with run.file.open("a") as file:
        file.write(
            f"  gone: {{type: smtp, host: 127.0.0.1, port: {free_port()}, tls: none}}\nroutes: [{{backend: box}}]\n"
        )
    done = run("check-config", "--online")
    assert (done.exit_code, "gone: FAILED" in done.stdout) == (1, True)
    assert "warning: " in done.stdout


def test_whom_mail_would_go_to(run: Commands) -> None:
    """By the file, before anything is reloaded: for each client, with the setting that says so."""
    with run.file.open("a") as file:
        file.write("aliases: {root: [admin@example.com, b@example.com]}\nclients:\n  here: {networks: [127.0.0.1]}\n")
        file.write("  test: {networks: [127.0.0.2], redirect_to: t@example.com}\n")
        file.write("  copied: {networks: [127.0.0.3], copy_to: c@example.com, default_domain: example.net}\n")

    def told(whom: str) -> list[str]:
        return run.ok("check-config", "--whom", whom).partition(": ok\n")[2].splitlines()

    host = socket.gethostname()
    assert told(f"Root@{host}") == [
        f"from here: Root@{host} -> admin@example.com, b@example.com (aliases)",
        f"from test: Root@{host} -> t@example.com (clients.test.redirect_to)",
        f"from copied: Root@{host} -> admin@example.com, b@example.com (aliases), and a copy to c@example.com",
    ]
    assert told("bob") == [
        "from here, test: bob is refused: it has no domain and is no alias; set default_domain",
        "from copied: bob@example.net, and a copy to c@example.com",
    ]
    assert run.json("check-config", "--whom", "root")["whom"][1]["by"] == "clients.test.redirect_to"
    assert run("check-config", "--whom", "a b").exit_code == 2


def test_check_config_for_programs(run: Commands) -> None:
    """Warnings and errors as objects: where, which key, the words, and what to do; also the answers of backends."""
    with run.file.open("a") as file:
        file.write("clients: {}\n")
    found = run.json("check-config", "--online")
    where = {"file": str(run.file), "line": 4, "column": 1, "key": "clients"}
    assert found["warnings"] == [{**where, "text": "nobody may send, for no client is listed", "fix": ""}]
    assert (found["ok"], found["file"], found["errors"], len(found["notes"])) == (True, str(run.file), [], 1)
    assert found["backends"]["box"]["ok"] is True
    run.file.write_text("limits: {idel: 5m, max_size: 9 MBit}\nhostname: [\n")
    done = run("check-config", "--json")
    assert (done.exit_code, json.loads(done.stdout)["errors"][0]["line"]) == (78, 3)
    run.file.write_text("limits: {idel: 5m, max_size: 9 MBit}\n")
    done = run("check-config", "--json")
    assert [(one["column"], one["key"], one["text"], one["fix"]) for one in json.loads(done.stdout)["errors"]] == [
        (10, "limits.idel", "unknown key", 'did you mean "idle"?'),
        (20, "limits.max_size", '"9 MBit" is not a size', "write for example 25MB or 512KB"),
    ]
    assert (done.exit_code, json.loads(done.stdout)["ok"]) == (78, False)


def test_reload_for_programs(service: Gateway) -> None:
    """What changed, or the errors as objects."""
    run = Commands(service.file)
    with run.with_more("limits: {idle: 7m}"):
        assert run.json("reload")["changes"] == ["limits.idle: changed"]
    with run.with_more("limits: {idel: 7m}"):
        done = run("reload", "--json")
        (error,) = json.loads(done.stdout)["errors"]
        assert (done.exit_code, error["key"], error["fix"]) == (78, "limits.idel", 'did you mean "idle"?')
        assert error["line"] > 0


@pytest.mark.parametrize("command", ["check-config", "queue list", "reload"])
def test_nul(run: Commands, command: str) -> None:
    """A path that no file can have is refused where it is given, by every command."""
    with run.file.open("a") as file:
        file.write('http: {socket: "a\\0b"}\n')
    done = run(*command.split())
    assert (done.exit_code, done.stderr) == (78, f"Error: {run.file}:4:16: http.socket: holds a NUL character\n")


def test_show(run: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in effect and where it comes from; no secret in any form."""
    with run.file.open("a") as file:
        file.write("auth: {keys: {app: {algorithm: HS256, secret: correct-horse-battery-staple-and-more}}}\n")
    monkeypatch.setenv("GATEWAY_LIMITS__IDLE", "7m")
    text = run.ok("config", "show")
    assert 'idle: "7m"  # environment GATEWAY_LIMITS__IDLE' in text
    found = run.json("config", "show")
    assert found["settings"]["limits"]["idle"] == "7m"
    assert found["origins"]["limits.idle"] == "environment GATEWAY_LIMITS__IDLE"
    assert "correct-horse" not in text + json.dumps(found)


def test_schema(run: Commands) -> None:
    """A JSON schema on standard output."""
    assert json.loads(run.ok("config", "schema"))["$schema"].endswith("2020-12/schema")


def test_version(run: Commands) -> None:
    """The same number everywhere."""
    assert run.json("version")["gateway"] == gateway.__version__
    assert run.ok("version").splitlines()[0] == run.ok("--version").strip() == f"gateway {gateway.__version__}"


def test_config_option_may_stand_anywhere(run: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--config before or behind the command, or $GATEWAY_CONFIG; the nearest to the command wins."""
    other = Commands(tmp_path / "none.yaml")
    assert other("check-config").exit_code == 78
    assert other("check-config", "--config", str(run.file)).exit_code == 0
    monkeypatch.setenv("GATEWAY_CONFIG", str(run.file))
    assert json.loads(CliRunner().invoke(cli, ["config", "show", "--json"]).stdout)["file"] == str(run.file)


def test_healthcheck(service: Gateway) -> None:
    """Exit code 0 and every check."""
    run = Commands(service.file)
    assert run.ok("healthcheck").splitlines() == ["spool: ok", "listeners: ok", "delivery: ok", "draining: ok"]
    assert run.json("healthcheck")["ready"] is True


def test_reload(service: Gateway) -> None:
    """What changed is said; a wrong file changes nothing and is explained."""
    run = Commands(service.file)
    with run.with_more("limits: {idle: 7m}"):
        assert "limits.idle" in run.ok("reload")
    with run.with_more("limits: {idel: 7m}"):
        done = run("reload")
        assert (done.exit_code, done.stderr.count('did you mean "idle"?')) == (78, 1)
        assert done.stderr.endswith("\nthe running service keeps its old settings\n")
        assert service.get("/readyz")[0] == 200


@pytest.mark.parametrize("command", ["reload", "healthcheck", "queue list"])
def test_moved_settings(service: Gateway, tmp_path: Path, command: str) -> None:
    """Where state_dir has changed under a running service, commands do not find it: they say where they looked."""
    file = tmp_path / "config.yaml"
    file.write_text(service.file.read_text().replace(str(service.directory / "state"), str(tmp_path / "moved")))
    done = Commands(file)(*command.split())
    said = f"Error: no service is running at {tmp_path / 'moved' / 'admin.sock'}"
    assert (done.exit_code, done.stderr.startswith(said), "may still run" in done.stderr) == (75, True, True), (
        done.output
    )


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    found: list[tuple[tuple[str, ...], click.Command]] = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found += commands(command, (*path, name)) if isinstance(command, click.Group) else [((*path, name), command)]
    return found


BARE = {
    ("version",),
    ("demo",),
    ("config", "schema"),
    ("password", "mint"),
    ("man",),
    ("completion",),
    ("migrate-from",),
}
READING = [
    "check-config",
    "reload",
    "list",
    "summary",
    "show",
    "trace",
    "check",
    "version",
    "healthcheck",
    "inspect",
    "send-test",
]


@pytest.mark.parametrize(
    ("path", "command"), commands(cli), ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_every_command(path: tuple[str, ...], command: click.Command) -> None:
    """Each has a help text; what reads has --json; what needs the settings has --config."""
    options = {option for parameter in command.params for option in parameter.opts}
    assert command.help
    assert path[-1] not in READING or "--json" in options
    assert "--config" in options or path in BARE


def test_other_services_are_left_alone(run: Commands) -> None:
    """Wrong settings never lead a command to another service: their errors are said."""
    run.file.write_text("nonsense: true\n")
    done = run("queue", "delete", "--all", "--yes")
    assert (done.exit_code, "nonsense" in done.stderr) == (78, True)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("stauts", "status"),
        ("queue lst", "list"),
        ("list", "gateway queue list"),
        ("retry", "gateway queue retry"),
        ("restart", "systemctl restart gateway"),
        ("login", "gateway ui-login"),
        ("xyzzy", ""),
        ("stat", "status"),
        ("text", ""),
        ("queue read", ""),
        ("backend lost", "list"),
    ],
)
def test_what_is_no_command(run: Commands, typed: str, meant: str) -> None:
    """The nearest one, or where it stands: all are known, those too whose file is not loaded yet."""
    done = run(*typed.split())
    hint = f" Did you mean '{meant}'?" if meant else ""
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (
        2,
        f"Error: No such command '{typed.rsplit(maxsplit=1)[-1]}'.{hint}",
    )
