"""Lists in the room there is, and orders about many messages, as an operator at a terminal gives them."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import smtplib
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from gateway.cli import alert, backend, client, token, trace
from gateway.cli.listing import STATES, Listing
from gateway.spool import STATES as KNOWN
from tests.cli.kit import Commands
from tests.flow.kit import Gateway


def send(service: Gateway, *recipients: str) -> str:
    with smtplib.SMTP("127.0.0.1", service.port) as client:
        client.ehlo()
        client.mail("app@example.com")
        for each in recipients:
            client.rcpt(each)
        return client.data("Subject: s\r\n\r\nhello\r\n")[1].decode().split()[-1]


def state(run: Commands, ident: str) -> str:
    return str(run.json("queue", "show", ident)["state"])


def failed(run: Commands, service: Gateway) -> str:
    ident = send(service, "x@strict.example")
    service.wait(lambda: state(run, ident) == "failed")
    return ident


def test_states_are_those_that_the_service_knows() -> None:
    """The commands know them without loading it."""
    assert tuple(KNOWN) == STATES


ROW = {
    "id": "1K1EQM5KE2HT7", "state": "queued", "in_doubt": False, "sender": "scanner-in-the-basement@long.example.com",
    "recipients": ["somebody.with.a.long.name@example.org"], "recipient_count": 1, "size": 1200, "backends": ["office"],
    "received_at": "2026-11-20T12:00:00Z", "next_attempt_at": None, "detail": "451 4.7.1 come back later, much later",
    "fix": "wait for it",
}  # fmt: skip


@pytest.mark.parametrize("width", [None, 200, 120, 100, 80, 60, 40, 20])
def test_a_list_is_as_wide_as_the_terminal(width: int | None) -> None:
    """The long columns give way first, then the less important go; the id is always whole."""
    lines = list(Listing([ROW, ROW], 4812, False, {}).lines(width))
    header, first, fix, second, total = lines
    assert (first, total) == (second, "showing 2 of 4,812; more with --limit")
    assert first.startswith("1K1EQM5KE2HT7")
    assert fix.startswith("  to do: wait")
    if width is None:
        assert "scanner-in-the-basement@long.example.com" in first
        assert first.endswith("much later")
    else:
        assert all(len(line) <= width for line in lines[:-1])
        assert ("LAST ANSWER" in header) == (width >= 100)


def test_who_paused_what_waits_and_how_to_resume_it() -> None:
    """Once, below the list."""
    paused = {"office": {"state": "paused", "who": "anna", "paused_by": "operator", "paused_until": None}}
    said = "office: Paused by anna until it is resumed; to resume it now: gateway backend resume office"
    assert [line for line in Listing([ROW, ROW], 2, False, paused).lines(None) if "anna" in line] == [said]


TABLES = {"backend": backend, "client": client, "token": token, "act": trace, "alert": alert}


@pytest.mark.parametrize("width", [100, 80, 60, 40, 30])
@pytest.mark.parametrize("name", TABLES)
def test_every_list_is_as_wide_as_the_terminal(name: str, width: int) -> None:
    """What tells one row from the others is whole, and the header says what is left."""
    columns = getattr(TABLES[name], "ACTS" if name == "act" else "COLUMNS")
    cells = [f"{n}{'x' * (30 if one in columns.least else 6)}" for n, one in enumerate(columns.names)]
    rows = [["name-of-row", *cells[1:]]]
    header, line = columns.lines(rows, width)
    assert line.startswith("name-of-row")
    assert header.startswith(columns.names[0])
    assert max(len(line), len(header)) <= width
    whole = list(columns.lines(rows, None))
    assert all(str(cell) in whole[1] for cell in rows[0])


def test_more_than_can_be_counted() -> None:
    """It is said, and never a number that is wrong."""
    assert list(Listing([ROW], 1000, True, {}).lines(None))[-1].startswith("showing 1 of more than 1,000;")


def test_oldest_first_and_how_many_there_are(run: Commands, service: Gateway) -> None:
    """Of more than fit the first are shown, from the end that was asked for, and how many there are in all."""
    run.ok("backend", "pause", "away")
    ids = [send(service, "n@away.example") for _ in range(3)]
    which = ["--to", "n@away.example"]
    assert [row["id"] for row in run.json("queue", "list", *which, "--oldest")] == ids
    text = run.ok("queue", "list", *which, "--oldest", "--limit", "2")
    assert [word for word in text.split() if word in ids] == ids[:2]
    assert text.endswith("showing 2 of 3; more with --limit\n")
    assert "showing" not in run.ok("queue", "list", *which)
    run.ok("queue", "delete", *ids)
    run("backend", "resume", "away")  # which waits in vain: nobody is there


def test_failed_mail_is_tried_again(run: Commands, service: Gateway) -> None:
    """By its id or its state, never by --all; sent mail and unknown mail are other answers, with exit code 1."""
    ident = failed(run, service)
    run.ok("queue", "retry", "--all", "--yes")
    assert state(run, ident) == "failed"
    assert run.ok("queue", "retry", ident).startswith("retry: 1 of 1 messages\n")
    service.wait(lambda: state(run, ident) == "failed")
    detail = run.json("queue", "show", ident)
    assert [row["verdict"] for row in detail["attempts"]] == ["rejected", "rejected"]
    sent = send(service, "a@example.net")
    service.wait(lambda: state(run, sent) == "done")
    done = run("queue", "retry", sent, "1K0000000000")
    told = set(done.stderr.removeprefix("Error: ").splitlines())
    assert (done.exit_code, told) == (
        1,
        {f"it is sent: {sent}; what does that: gateway queue resend {sent}", "no such message: 1K0000000000"},
    )
    done = run("queue", "resend", ident)
    assert (done.exit_code, f"it has failed: {ident}" in done.stderr) == (1, True)


def test_sent_mail_is_sent_again(run: Commands, service: Gateway) -> None:
    """As a new message, which names the old one, and it is said that it may arrive twice."""
    sent = send(service, "again@example.net")
    service.wait(lambda: state(run, sent) == "done")
    done = run.ok("queue", "resend", sent)
    assert "may arrive twice" in done
    copy = done.split()[-1]
    service.wait(lambda: state(run, copy) == "done")
    assert run.json("queue", "show", copy)["resend_of"] == sent


def test_failed_and_waiting_mail_goes_another_way(run: Commands, service: Gateway) -> None:
    """By the backend that is named; where it waits there already it says so."""
    ident = failed(run, service)
    assert run.ok("queue", "reroute", ident, "--backend", "box") == "reroute: 1 of 1 messages\n"
    service.wait(lambda: state(run, ident) == "done")
    run.ok("backend", "pause", "away")
    waiting = send(service, "x@away.example")
    done = run("queue", "reroute", waiting, "--backend", "away")
    assert (done.exit_code, f"it waits for that backend already: {waiting}" in done.stderr) == (1, True)
    told = run.ok("queue", "reroute", "--waits-for", "away", "--to", "x@away.example", "--backend", "box", "--yes")
    assert told.startswith("reroute: ")
    service.wait(lambda: state(run, waiting) == "done")
    run("backend", "resume", "away")  # which waits in vain: nobody is there


# -- at a terminal --------------------------------------------------------------------------------------------------

Talk = Callable[[str], str]


@contextmanager
def terminal(run: Commands, *arguments: str, columns: int = 70) -> Iterator[tuple[subprocess.Popen[bytes], Talk]]:
    """The command with a terminal of its own; the function returns what came on it up to some words."""
    ours, its = pty.openpty()
    environ = {**os.environ, "COLUMNS": str(columns), "LINES": "20", "TERM": "xterm"}
    command = [sys.executable, "-m", "gateway.cli", "--config", str(run.file), *arguments]
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environ, start_new_session=True)
    os.close(its)
    seen = ""

    def until(words: str) -> str:
        nonlocal seen
        while words not in seen:
            assert select.select([ours], [], [], 30)[0], seen
            try:
                seen += os.read(ours, 4096).decode()
            except OSError:  # it has ended
                assert words in seen, seen
        before, seen = seen.split(words, 1)
        return before + words

    def talk(words: str) -> str:
        if words.startswith(">"):
            os.write(ours, words[1:].encode())
            return ""
        return until(words)

    try:
        yield process, talk
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_watch_draws_again_until_it_is_interrupted(run: Commands, service: Gateway) -> None:
    """Over what is there, in the terminal's width; new mail turns up, and ^C is a good end."""
    run.ok("backend", "pause", "away")
    first = send(service, "x@away.example")
    with terminal(run, "queue", "list", "--watch", "--to", "x@away.example") as (process, talk):
        drawn = talk(first)
        assert "\x1b[?1049h" in drawn
        assert all(len(re.sub("\x1b\\[[?0-9]*[a-zA-Z]", "", line)) <= 70 for line in drawn.splitlines())
        talk("\x1b[J")
        second = send(service, "x@away.example")
        assert "\x1b[2J" not in talk(second)  # nothing is wiped before it is drawn
        process.send_signal(signal.SIGINT)
        talk("\x1b[?1049l")
        assert process.wait(30) == 0
    run.ok("queue", "delete", first, second)
    run("backend", "resume", "away")  # which waits in vain: nobody is there


def test_what_came_in_after_the_question_is_left_alone(run: Commands, service: Gateway) -> None:
    """The number is told, and nothing is done to what was not counted."""
    run.ok("backend", "pause", "away")
    asked = send(service, "ask@away.example")
    with terminal(run, "queue", "delete", "--to", "ask@away.example") as (process, talk):
        talk("delete 1 message?")
        later = send(service, "ask@away.example")
        talk(">y\n")
        talk("delete: 1 of 1 messages")
        assert process.wait(30) == 0
    assert [row["id"] for row in run.json("queue", "list", "--to", "ask@away.example")] == [later]
    assert run("queue", "show", asked).exit_code == 1
    run.ok("queue", "delete", later)
    run("backend", "resume", "away")  # which waits in vain: nobody is there


def test_json_has_the_reasons(run: Commands) -> None:
    """As the API gives them."""
    done = run("queue", "hold", "1K0000000000", "--json")
    assert json.loads(done.stdout)["why"] == [{"why": "no such message", "count": 1, "ids": ["1K0000000000"]}]
