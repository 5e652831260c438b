"""Tokens and device passwords: made, used, listed, revoked, explained."""

from __future__ import annotations

import json
import re
import smtplib
from pathlib import Path

import pytest

from tests.cli.kit import Commands
from tests.flow.kit import Gateway


def login(service: Gateway, token: str) -> int:
    with smtplib.SMTP("127.0.0.1", service.port) as client:
        try:
            return client.login("jwt", token)[0]
        except smtplib.SMTPAuthenticationError as refused:
            return refused.smtp_code


def test_life_of_a_token(service: Gateway, run: Commands) -> None:
    """Minted, it logs in; it is listed by its id; revoked, it is refused at once."""
    done = run("token", "mint", "--sub", "billing", "--sender", "invoice@example.com", "--note", "the billing app")
    token = done.stdout.strip()
    assert (done.exit_code, done.stdout) == (0, token + "\n")
    assert "gateway password mint" in done.stderr
    assert login(service, token) == 235
    report = run.json("token", "inspect", token)
    assert report["claims"]["senders"] == ["invoice@example.com"]
    jti = report["claims"]["jti"]
    (line,) = (line for line in run.ok("token", "list").splitlines() if line.startswith(jti))
    assert line.split()[1:4] == ["billing", "own", "valid"]
    assert re.search(r"\(in 90 d\)  [0-9] s ago +the billing app$", line)
    row = next(row for row in run.json("token", "list") if row["jti"] == jti)
    assert (row["used_from"], row["tried_at"]) == ("127.0.0.1", None)
    run.ok("token", "revoke", jti)
    assert login(service, token) == 535
    assert [row["jti"] for row in run.json("token", "list") if row["revoked_at"] and row["tried_at"]] == [jti]
    done = run("token", "inspect", stdin=token)
    assert (done.exit_code, done.stdout.splitlines()[0]) == (1, "not accepted: revoked")


def test_revoke_a_subject(service: Gateway, run: Commands) -> None:
    """All tokens of a subject until now."""
    token = run.ok("token", "mint", "--sub", "leaver", "--expires", "2h").strip()
    assert login(service, token) == 235
    run.ok("token", "revoke", "--sub", "leaver")
    assert login(service, token) == 535


def test_admin_token(service: Gateway, run: Commands) -> None:
    """--admin is for the HTTP interface, and no login."""
    token = run.ok("token", "mint", "--sub", "ops", "--admin").strip()
    assert login(service, token) == 535
    assert "HTTP interface" in run.ok("token", "inspect", token)


def test_role_of_an_admin_token(service: Gateway, run: Commands) -> None:
    """--role says what it may; without --admin there is none to give."""
    token = run.ok("token", "mint", "--sub", "ops", "--admin", "--role", "read").strip()
    assert "accepted: valid for the HTTP interface only, to read" in run.ok("token", "inspect", token)
    done = run("token", "mint", "--sub", "ops", "--role", "read")
    assert (done.exit_code, "role is for tokens of the HTTP interface: add --admin" in done.stderr) == (1, True)


def test_token_never_shown_again(service: Gateway, run: Commands) -> None:
    """Neither list, nor inspect, nor the log repeat a token."""
    token = run.ok("token", "mint", "--sub", "quiet").strip()
    login(service, token)
    shown = run.ok("token", "list") + run.ok("token", "inspect", token) + service.log.read_text()
    assert token.rpartition(".")[2] not in shown


def test_inspect_explains_times(run: Commands, service: Gateway) -> None:
    """Times are read as times, with how long there is left."""
    token = run.ok("token", "mint", "--sub", "billing", "--expires", "1h").strip()
    lines = dict(line.split(": ", 1) for line in run.ok("token", "inspect", token).splitlines())
    assert lines["accepted"] == "valid"
    assert lines["sub"] == "billing"
    assert lines["exp"].endswith("(in 60 min)")


@pytest.mark.parametrize("text", ["", "hello", "a.b.c", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0."])
def test_inspect_of_something_else(run: Commands, service: Gateway, text: str) -> None:
    """Exit code 1 and a reason, whatever is given."""
    done = run("token", "inspect", stdin=text)
    assert (done.exit_code, done.stdout.startswith("not accepted: ")) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["mint"], 2, "--sub"),
        (["mint", "--sub", "x", "--expires", "soon"], 1, "not a duration"),
        (["mint", "--sub", "x", "--expires", "never"], 1, "exp"),
        (["mint", "--sub", "x", "--key", "none"], 1, "auth.keys.none"),
        (["mint", "--sub", "x", "--network", "192.0.2.0/99"], 1, "192.0.2.0/99"),
        (["mint", "--sub", "x", "--expires", "0s"], 1, "expires: must be longer than 0"),
        (["mint", "--sub", "x", "--sender", "foo"], 1, '"foo" is not an address pattern'),
        (["mint", "--sub", "x", "--recipient", "a*@example.com"], 1, "a*@example.com"),
        (["mint", "--sub", "x", "--backend", "nix"], 1, 'there is no backend "nix"'),
        (["revoke"], 2, "--sub"),
        (["revoke", "a", "--sub", "b"], 2, "--sub"),
    ],
)
def test_wrong_use(run: Commands, service: Gateway, arguments: list[str], code: int, words: str) -> None:
    """Nothing is printed on standard output, where a script would take it for a token."""
    before = run.json("token", "list")
    done = run("token", *arguments)
    assert (done.exit_code, done.stdout, words in done.stderr) == (code, "", True), done.output
    assert run.json("token", "list") == before


@pytest.mark.parametrize("option", [[], ["--sub"]])
def test_revoke_of_a_pasted_token(run: Commands, service: Gateway, option: list[str]) -> None:
    """The id is told; the token is neither stored nor shown, whole or cut off."""
    token = run.ok("token", "mint", "--sub", "pasted").strip()
    jti = run.json("token", "inspect", token)["claims"]["jti"]
    done = run("token", "revoke", *option, token)
    assert (done.exit_code, done.output) == (
        1,
        f"Error: that is a token, not an id; its id is {jti}: gateway token revoke {jti}\n",
    )
    done = run("token", "revoke", *option, token[:-1] + "!")
    assert (done.exit_code, token[:20] in done.output) == (1, False)
    assert token[:20] not in run.ok("token", "list", "--json") + service.log.read_text()
    assert login(service, token) == 235


def test_revoke_of_an_unknown_id(run: Commands, service: Gateway) -> None:
    """It may be somebody else's token; a slip is seen all the same, also the second time."""
    for _ in range(2):
        said = run.ok("token", "revoke", "nope")
        assert said == 'revoked: nope (no token with this id was minted here; see "gateway token list")\n'


@pytest.mark.parametrize("command", ["mint --sub early", "list", "revoke x", "inspect x"])
def test_before_the_first_start(tmp_path: Path, command: str) -> None:
    """Only a service makes a spool and a key: whose a command made could be another's, which the service never sees."""
    file = tmp_path / "config.yaml"
    file.write_text(f"state_dir: {tmp_path / 'state'}\n")
    done = Commands(file)("token", *command.split())
    assert (done.exit_code, done.stdout) == (75, "")
    assert f"There is no spool in {tmp_path / 'state'} yet: the service makes it when it starts" in done.stderr
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["Copier 1"], '"Copier 1" is no name of a client'),
        (["copier", "--network", "192.0.2.1/24"], 'did you mean "192.0.2.0/24"?'),
        (["copier", "--sender", "foo"], '"foo" is not an address pattern'),
    ],
)
def test_password_for_nobody(run: Commands, arguments: list[str], words: str) -> None:
    """What the configuration would refuse is refused before a password is shown."""
    done = run("password", "mint", *arguments)
    assert (done.exit_code, done.stdout, words in done.stderr) == (2, "", True), done.output


def test_password(service: Gateway, run: Commands) -> None:
    """What is printed can be pasted into the configuration, and logs in after a reload."""
    text = run.ok("password", "mint", "lobby", "--network", "127.0.0.1", "--sender", "copier@example.com")
    assert "list localhost and tokens too" in text
    password = next(line.split()[1] for line in text.splitlines() if line.startswith("password:"))
    with run.with_more(text[text.index("clients:") :]):
        run.ok("reload")
        with smtplib.SMTP("127.0.0.1", service.port) as client:
            assert client.login("lobby", password)[0] == 235
    shown = json.loads(run.ok("password", "mint", "--json"))
    assert shown["user"] == "copier"
    assert shown["password"] not in shown["client"]["password_hash"]
