"""One truth: whoever types a command on a machine with a service hears of that service, or what to type instead."""

from __future__ import annotations

import json
import os
import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flow.kit import free_port
from tests.machine import Done, Machine, cannot, machine

pytestmark = pytest.mark.skipif(bool(cannot()), reason=cannot())

# Everything that asks the service or its spool, with what it needs to be complete.
COMMANDS = [
    "queue list", "queue summary", "queue dropped", "queue show 1K00000000001", "queue cat 1K00000000001",
    "queue retry --all --yes", "queue hold --all --yes", "queue release --all --yes", "queue delete --all --yes",
    "queue bounce --all --yes", "trace nobody@example.net", "backend list", "backend pause box", "backend resume box",
    "backend fix box",
    "token mint --sub x", "token list", "token revoke x", "token inspect x", "healthcheck", "reload",
    "send-test --to a@example.net --wait 0",
]  # fmt: skip
JUDGING = ["check-config", "config show"]
SERVE = ["serve"]
HOMES = {"home/alice", "home/olga", "home/gina"}


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def host(port: int) -> Iterator[Machine]:
    """A machine with users, and nothing installed."""
    with machine() as one:
        yield one


@pytest.fixture(scope="module")
def installed(host: Machine, port: int) -> Machine:
    """The service is installed as documented, and does not run; its settings name neither state_dir nor socket."""
    host.install(SETTINGS.format(port=port))
    (host.etc / "gateway" / "s2g.key").write_text("api-x")
    (host.etc / "gateway" / "s2g.key").chmod(0o600)
    return host


@pytest.fixture
def running(installed: Machine) -> Machine:
    installed.start()
    return installed


SETTINGS = """
listeners: {{local: {{bind: "127.0.0.1:{port}"}}}}
http: {{bind: ""}}
backends: {{box: {{type: capture, directory: captured}}}}
"""


def lines(done: Done) -> list[str]:
    assert "Traceback" not in done.err
    return done.err.removeprefix("Error: ").splitlines()


def test_nothing_is_installed(host: Machine) -> None:
    """Everybody's own: his state, and what he types to have it. Nothing is made."""
    assert lines(host.run("alice", "token", "mint", "--sub", "x"))[:2] == [
        "no service is running at /home/alice/.local/state/gateway/admin.sock; start it with: gateway serve",
        "There is no spool in /home/alice/.local/state/gateway yet: the service makes it when it starts.",
    ]
    assert host.made() == HOMES


@pytest.mark.parametrize("who", ["root", "gateway", "alice"])
def test_before_the_first_start(installed: Machine, who: str) -> None:
    """Whoever asks whatever: which service, that it does not run, what starts it. Nothing is made, in no home."""
    sudo = "" if who == "root" else "sudo "
    for command in COMMANDS if who == "alice" else COMMANDS[::5]:
        done = installed.run(who, *command.split())
        first = f"no service is running at /var/lib/gateway/admin.sock; start it with: {sudo}systemctl start gateway"
        assert (done.code, done.out, lines(done)[0]) == (75, "", first), command
    assert installed.made() == HOMES


@pytest.mark.parametrize("who", ["root", "gateway"])
def test_a_running_service(running: Machine, who: str, port: int) -> None:
    """Found without --config and without state_dir in the file; what it prints is what the service knows."""
    before = running.made()
    token = running.run(who, "token", "mint", "--sub", who)
    with smtplib.SMTP("127.0.0.1", port) as client:
        assert client.login("jwt", token.out.strip())[0] == 235
    for command in ("queue list", "queue summary", "backend list", "token list", "healthcheck", "reload"):
        done = running.run(who, *command.split())
        assert (done.code, done.err) == (0, ""), command
    assert running.made() == before


def test_who_may_not(running: Machine) -> None:
    """The people who may, and what to type; no key, no traceback, and nothing is made."""
    before = running.made()
    for command in [*COMMANDS, "status"]:
        done = running.run("alice", *command.split())
        assert (done.code, done.out) == (1, ""), command
        first, second, *_ = lines(done)
        assert first == "alice may not operate this gateway: /var/lib/gateway/admin.sock is for root and gateway"
        typed = "token inspect" if command.startswith("token inspect") else command  # a token is not said again
        assert second == f"Type: sudo gateway {typed}"
    assert running.made() == before


@pytest.mark.parametrize("command", [*JUDGING, *SERVE])
def test_settings_that_are_not_for_all(running: Machine, command: str) -> None:
    """What judges the settings itself says who may read them."""
    done = running.run("alice", *command.split())
    typed = "systemctl start gateway" if command == "serve" else f"gateway {command}"
    said = f"alice may not read the settings, root or gateway may: sudo {typed}"
    assert (done.code, lines(done)) == (78, [said])


def test_files_that_the_settings_name(running: Machine, port: int) -> None:
    """Settings for all, and a key for one: neither its name nor that it is there is told to others."""
    file = running.etc / "gateway" / "config.yaml"
    before = file.read_text()
    try:
        file.write_text(f"{before}\nauth: {{keys: {{app: {{algorithm: HS256, secret_file: s2g.key}}}}}}\n")
        file.chmod(0o644)
        done = running.run("alice", "check-config")
        said = ["alice may not read files that the settings name, root or gateway may: sudo gateway check-config"]
        assert (done.code, lines(done)) == (78, said)
    finally:
        file.write_text(before)
        file.chmod(0o640)


def test_mailq(running: Machine) -> None:
    """The same words, and what waits in the maildrop as far as one may see."""
    assert running.run("root", program="mailq").out == "Mail queue is empty\n"
    done = running.run("alice", program="mailq")
    assert (done.code, lines(done)[1]) == (1, "Type: sudo gateway queue list")


@pytest.fixture
def stopped(installed: Machine) -> Iterator[Machine]:
    """It ran, one message waits, and it was stopped. Those who come later find neither message nor pause."""
    installed.start()
    assert installed.run("root", "backend", "pause", "box").code == 0
    assert installed.run("root", "send-test", "--to", "a@example.net", "--wait", "0").code == 75
    installed.stop()
    yield installed
    installed.start()
    installed.run("root", "queue", "delete", "--to", "a@example.net", "--yes")
    installed.run("root", "backend", "resume", "box")


def test_a_stopped_service(stopped: Machine) -> None:
    """Mail waits, and nobody is told that the queue is empty; only the service's own user looks into its spool."""
    before = stopped.made()
    for who, sudo in (("root", ""), ("alice", "sudo ")):
        for command in ("queue list", "token mint --sub x", "healthcheck"):
            done = stopped.run(who, *command.split())
            assert (done.code, done.out) == (75, "")
            assert lines(done)[0].endswith(f"; start it with: {sudo}systemctl start gateway")
    assert lines(stopped.run("root", "queue", "list"))[1:] == [
        "To do this while it stands still: sudo -u gateway gateway queue list",
        "Why it does not run: journalctl -u gateway -n 20",
    ]
    (found,) = json.loads(stopped.run("gateway", "queue", "list", "--json").out)
    assert found["recipients"] == ["a@example.net"]
    token = stopped.run("gateway", "token", "mint", "--sub", "x").out.strip()
    done = stopped.run("root", "serve")
    assert lines(done) == [
        "/var/lib/gateway belongs to user gateway, not to root; start it with: systemctl start gateway"
    ]
    assert stopped.made() == before
    stopped.start()
    assert stopped.run("root", "token", "inspect", token).out.startswith("accepted: valid")
    assert stopped.run("root", "queue", "delete", "--all", "--yes").code == 0


def test_what_no_spool_can_do(stopped: Machine) -> None:
    """Where only a service helps, nothing is proposed that ends the same way."""
    for command in ("reload", "ui-login", "alert test", "backend pause box"):
        assert "stands still" not in stopped.run("root", *command.split()).err, command
    assert (
        "stands still: sudo -u gateway gateway queue list --wide" in stopped.run("root", "queue", "list", "--wide").err
    )


def test_the_spool_of_a_service_with_credentials(stopped: Machine, port: int) -> None:
    """systemd hands secrets to a running service only: its queue can be seen while it stands still all the same."""
    file = stopped.etc / "gateway" / "config.yaml"
    before = file.read_text()
    try:
        file.write_text(before.replace("{box", "{s2g: {type: smtp2go, api_key_file: only-at.systemd}, box"))
        with file.open("a") as more:
            more.write("routes: [{backend: box}]\n")
        assert json.loads(stopped.run("gateway", "queue", "list", "--json").out)[0]["recipients"] == ["a@example.net"]
    finally:
        file.write_text(before)


def test_settings_that_are_broken_meanwhile(running: Machine) -> None:
    """They hinder no command; a reload says what the service found, once."""
    file = running.etc / "gateway" / "config.yaml"
    before = file.read_text()
    try:
        for broken in ("limits: {idel: 7m}", "http: [", "state_dri: /x"):
            file.write_text(f"{before}\n{broken}\n")
            assert running.run("root", "queue", "list").code == 0, broken
            done = running.run("root", "reload")
            assert (done.code, done.err.count("config.yaml:")) == (78, 1), done.err
    finally:
        file.write_text(before)
    assert running.run("root", "reload").code == 0


def test_two_services(running: Machine) -> None:
    """The other one is named by its settings, and neither is taken for the other."""
    running.install(SETTINGS.format(port=free_port()).replace("box", "crate"), "second")
    file = "/etc/second/config.yaml"
    done = running.run("root", "backend", "list", "--config", file)
    assert lines(done)[0] == (
        "no service is running at /var/lib/second/admin.sock; start it with: systemctl start second"
    )
    running.start("second", "--config", file)
    names = [
        json.loads(running.run("root", "backend", "list", "--json", *more).out).keys()
        for more in ((), ("--config", file))
    ]
    assert names == [{"box"}, {"crate"}]
    done = running.run("alice", "backend", "list", "--config", file)
    assert lines(done)[1] == f"Type: sudo gateway backend list --config {file}"
    running.stop("second")
    assert running.run("root", "backend", "list").code == 0


def test_a_secret_that_only_root_may_read(running: Machine) -> None:
    """A check by root finds nothing, so the reload says who may not read it, and what lets him."""
    file = running.etc / "gateway" / "config.yaml"
    before = file.read_text()
    try:
        more = "routes: [{backend: box}]\nbounces: {from: a@example.com}\n"
        file.write_text(before.replace("{box", "{s2g: {type: smtp2go, api_key_file: s2g.key}, box") + more)
        assert running.run("root", "check-config").code == 0
        done = running.run("root", "reload")
        assert (done.code, "user gateway may not read it; chown gateway /etc/gateway/s2g.key" in done.err) == (78, True)
    finally:
        file.write_text(before)
    assert running.run("root", "reload").code == 0


def test_a_file_that_is_not_there(running: Machine) -> None:
    """It is told from one that may not be read, which sudo would help with."""
    for command in ("reload", "queue list"):
        done = running.run("root", *command.split(), "--config", "/etc/gateway/confg.yaml")
        assert (done.code, lines(done)) == (
            78,
            ["there is no /etc/gateway/confg.yaml; --config or $GATEWAY_CONFIG names it"],
        )


def test_what_was_given_is_said_again(running: Machine) -> None:
    """Quoted where a shell needs it: what is to be typed can be pasted."""
    done = running.run("alice", "trace", "*@example.com", "--limit", "3")
    assert lines(done)[1] == "Type: sudo gateway trace '*@example.com' --limit 3"


def test_settings_in_a_place_of_their_own(running: Machine) -> None:
    """Where a file names no state_dir and no place tells it, a command says so, and never asks another service."""
    file = running.place / "home" / "own.yaml"
    file.write_text("backends: {box: {type: capture}}\n")
    done = running.run("root", "queue", "list", "--config", "/home/own.yaml")
    assert (done.code, lines(done)[-1].startswith("One that started")) == (75, True)
    assert "/home/own.yaml names no state_dir, so it depends on who asks. Write state_dir: /... into it." in lines(done)


@pytest.mark.parametrize("group", ["gateway", "mailops"])
def test_a_group_that_may_operate(running: Machine, port: int, group: str) -> None:
    """``http.socket_group``: who is in it needs no sudo, and others hear of it; a reload gives and takes it."""
    file = running.etc / "gateway" / "config.yaml"
    before = file.read_text()
    member = {"gateway": "gina", "mailops": "olga"}[group]
    try:
        file.write_text(before.replace('bind: ""', f'bind: "", socket_group: {group}'))
        done = running.run("root", "reload")
        assert (done.out, done.err) == ("http.socket_group: changed\n", "")
        assert running.run(member, "queue", "list").out == "Mail queue is empty\n"
        assert lines(running.run("alice", "queue", "list")) == [
            "alice may not operate this gateway: "
            f"/var/lib/gateway/admin.sock is for root, gateway and the group {group}",
            "Type: sudo gateway queue list",
            f"Or join the group {group}: sudo usermod -aG {group} alice, then sign in anew",
        ]
        file.write_text(before.replace('bind: ""', 'bind: "", socket_group: nosuch'))
        done = running.run("root", "reload")
        assert 'there is no group "nosuch"; make it: groupadd --system nosuch' in done.err
        assert running.run(member, "queue", "list").code == 0
    finally:
        file.write_text(before)
    assert running.run("root", "reload").code == 0
    assert running.run(member, "queue", "list").code == 1


@pytest.mark.parametrize("mode", [0o700, 0o711])
def test_a_closed_folder(running: Machine, mode: int) -> None:
    """A folder that lets nobody through is named as that."""
    running.state.chmod(mode)
    try:
        done = running.run("alice", "queue", "list")
        closed = "its folder /var/lib/gateway is closed to you" in done.err
        assert (done.code, closed, "Type: sudo gateway queue list" in done.err) == (1, mode == 0o700, True)
    finally:
        running.state.chmod(0o711)


def test_a_service_of_ones_own(host: Machine) -> None:
    """Another user's, by hand: his name stands in what to type."""
    file: Path = host.place / "home" / "alice" / "config.yaml"
    file.write_text(SETTINGS.format(port=free_port()) + "state_dir: /home/alice/state\n")
    file.chmod(0o644)
    (host.place / "home" / "alice").chmod(0o755)
    (host.place / "home" / "alice" / "state").mkdir()
    os.chown(host.place / "home" / "alice" / "state", 1001, 1001)
    done = host.run("root", "queue", "list", "--config", "/home/alice/config.yaml")
    assert lines(done)[0] == (
        "no service is running at /home/alice/state/admin.sock; "
        "start it with: sudo -u alice gateway serve --config /home/alice/config.yaml"
    )
