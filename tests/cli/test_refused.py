"""refused: who was turned away by a running service, why, and what to do; and where to look when it was nobody."""

from __future__ import annotations

import json
import smtplib
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.cli.kit import Commands
from tests.flow.kit import Gateway

ODD = "\u202eevil<script>@dev.example"


def turned_away(service: Gateway, *commands: str) -> None:
    with smtplib.SMTP("127.0.0.1", service.port) as client:
        client.ehlo("printer.example")
        client.command_encoding = "utf-8"  # a rude client
        for command in commands:
            client.putcmd(command)
            code, _ = client.getreply()
        assert code >= 400


def kept(run: Commands, what: str, count: int) -> dict[str, Any]:
    """The row, once it is written: that takes a second."""
    while True:
        found = run.json("refused", what)["refusals"]
        if found and found[0]["count"] == count:
            return dict(found[0])


@pytest.fixture(scope="session")
def printer(service: Gateway) -> Callable[[Commands], dict[str, Any]]:
    """Three times the same mistake."""
    for _ in range(3):
        turned_away(service, "MAIL FROM:<scan@dev.example> SIZE=4000000", "RCPT TO:<a@@b.example>")
    return lambda run: kept(run, "dev.example", 3)


def test_one_line_with_a_count_reason_and_fix(run: Commands, printer: Callable[[Commands], dict[str, Any]]) -> None:
    """In words for people, and in JSON for programs."""
    row = printer(run)
    assert (row["reason"], row["stage"], row["sender"], row["size"]) == (
        "bad_address",
        "rcpt",
        "scan@dev.example",
        4000000,
    )
    assert (row["client"], row["peer"], row["helo"]) == ("localhost", "127.0.0.1", "printer.example")
    text = run.ok("refused", "dev.example")
    assert "3 times since" in text
    assert "localhost (127.0.0.1), at local" in text
    assert "from scan@dev.example, 4.0 MB" in text
    assert "[501 5.1.3 bad_address]" in text
    assert "to do: Correct it at the device" in text
    assert "1 line; refusals by reason: bad_address 3" in text
    assert "helo: printer.example" in run.ok("refused", "dev.example", "--wide")


@pytest.mark.parametrize(
    "what",
    ["dev.example", "*@dev.example", "scan@dev.example", "SCAN@DEV.EXAMPLE", "scan", "localhost", "127.0.0.1",
     "127.0.0.0/8", "printer.example", "bad_address", "scan@*", ""],
)  # fmt: skip
def test_found_by_whatever_is_known(run: Commands, printer: Callable[[Commands], dict[str, Any]], what: str) -> None:
    """Device, network, client, HELO, reason, domain, local part, pattern."""
    wanted = printer(run)["id"]
    assert wanted in [row["id"] for row in run.json("refused", what, "--since", "1d")["refusals"]]


@pytest.mark.parametrize(
    "arguments",
    [["nobody@dev.example"], ["ev.example"], ["127.0.0.2"], ["10.0.0.0/8"], ["--reason", "no_route"],
     ["--until", "2020-01-01"], ["dev.example", "--until", "2h"]],
)  # fmt: skip
def test_nobody_is_told_with_what_was_looked_at(
    run: Commands, printer: Callable[[Commands], dict[str, Any]], arguments: list[str]
) -> None:
    """And that it may never have reached this machine, with what is open here."""
    printer(run)
    done = run("refused", *arguments)
    assert done.exit_code == 1
    assert "lines since" in done.output
    assert "never reached this machine: look at server name and port" in done.output
    assert "Open here: local 127.0.0.1:" in done.output
    assert run.json("refused", *arguments)["refusals"] == []


def test_while_the_door_is_shut(
    run: Commands, service: Gateway, printer: Callable[[Commands], dict[str, Any]], request: pytest.FixtureRequest
) -> None:
    """Then nothing is written: who is not listed may have been turned away all the same."""
    if "postgresql" in request.node.name:
        pytest.skip("nobody sees the disk of a database (spool_size: tests/postgresql/test_engine.py)")
    printer(run)
    file = run.file.read_text()
    run.file.write_text(f"{file}\nlimits: {{spool_free: 90000GB}}\n")
    try:
        assert run.ok("reload").startswith("limits.spool_free")
        service.wait(lambda: json.loads(run("status", "--json").stdout)["spool"]["shut"])
        done = run("refused", "nobody@dev.example")
        assert (done.exit_code, "is listed here once there is room" in done.output) == (1, True)
        assert "never reached" not in done.output
    finally:
        run.file.write_text(file)
        run.ok("reload")
        service.wait(lambda: not json.loads(run("status", "--json").stdout)["spool"]["shut"])


@pytest.mark.parametrize(
    "arguments", [["--since", "yesterday"], ["--until", "25:99"], ["--limit", "0"], ["--reason", ""]]
)
def test_wrong_use(run: Commands, arguments: list[str]) -> None:
    """Exit code 2 names the fix."""
    assert run("refused", *arguments).exit_code == 2


def test_what_strangers_wrote_is_only_shown(run: Commands, service: Gateway) -> None:
    """Nothing of it steers the terminal, turns a line round, or is taken for settings."""
    turned_away(service, f"MAIL FROM:<{ODD}>")
    while "evil" not in (text := run("refused", "--wide", "--since", "1h").output):
        pass
    assert "\u202e" not in text


def test_lines_to_paste(run: Commands, service: Gateway) -> None:
    """They are whole YAML as they stand in the output."""
    turned_away(service, "MAIL FROM:<x@y.example> BODY=NONSENSE")
    turned_away(service, "MAIL FROM:<root>")
    while "default_domain" not in (text := run("refused", "bad_address").output):
        pass
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if line.strip() == "clients:")
    end = next(n for n in range(start, len(lines)) if "then: gateway reload" in lines[n])
    found = yaml.safe_load("\n".join(line.removeprefix(" " * 12) for line in lines[start:end]))
    assert found["clients"]["localhost"]["networks"] == ["127.0.0.0/8", "::1/128"]
    assert set(found["clients"]["localhost"]) == {"networks", "default_domain"}
