"""queue, trace, backend and send-test against a running service."""

from __future__ import annotations

import json
import os
import pwd
import re
import smtplib

import pytest

from gateway.cli.queue import say_dropped
from gateway.http.client import SocketWay
from tests.cli.kit import Commands, Server
from tests.flow.kit import Gateway

ME = pwd.getpwuid(os.geteuid()).pw_name
MIXED = (
    "From: app@example.com\r\nTo: x@away.example\r\nSubject: s\r\nMIME-Version: 1.0\r\n"
    'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nhi\r\n'
    '--b\r\nContent-Type: application/pdf; name="r.pdf"\r\n\r\nxxxx\r\n--b--\r\n'
)


@pytest.fixture
def waiting(service: Gateway) -> str:
    """A message that waits because its server is away."""
    with smtplib.SMTP("127.0.0.1", service.port) as client:
        client.ehlo()
        client.mail("app@example.com")
        client.rcpt("x@away.example")
        text = client.data(MIXED)[1].decode()
    return text.split()[-1]


def test_send_test_sent(run: Commands) -> None:
    """Exit code 0 and the whole life line once the message is sent."""
    text = run.ok("send-test", "--to", "bob@example.net", "--from", "app@example.com")
    first, *_, last = text.splitlines()
    assert "from app@example.com to bob@example.net" in first
    assert "box took it" in text
    assert "  => now                Sent to everybody" in text
    assert last.strip().startswith("The text is kept until ")


def test_send_test_by_a_chosen_backend(run: Commands, service: Gateway) -> None:
    """--backend wins over the routes."""
    identifier = json.loads(run.ok("send-test", "--to", "x@away.example", "--backend", "spare", "--json"))["id"]
    assert [file.stem for file in (service.directory / "state" / "spare").rglob("*.eml")] == [identifier]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--to", "x@away.example"], 75, "=> "),
        (["--to", "x@strict.example"], 1, "x@strict.example will not get it"),
        (["--to", "a@example.net", "--to", "x@strict.example"], 1, "took it, for a@example.net"),
        (["--to", "a@example.net", "--backend", "none"], 1, "no backend none; there are box, away, strict, spare"),
        (["--to", "not an address"], 1, ""),
        ([], 2, "--to"),
    ],
)
def test_send_test_not_sent(run: Commands, arguments: list[str], code: int, words: str) -> None:
    """75 when it will be tried again, 1 when it failed, with the provider's words."""
    done = run("send-test", *arguments)
    assert (done.exit_code, words in done.output) == (code, True), done.output


def test_list_and_summary(run: Commands, waiting: str) -> None:
    """A line for each message with the last answer; a line for each backend with what waits."""
    header, *lines = run.ok("queue", "list", "--backend", "away").splitlines()
    assert " ".join(header.split()) == "QUEUE ID STATE ACCEPTED SIZE BACKEND NEXT TRY FROM TO LAST ANSWER"
    (line,) = (line for line in lines if line.startswith(waiting))
    assert "queued" in line
    assert [word for word in line.split() if "@" in word] == ["app@example.com", "x@away.example"]
    assert waiting in [row["id"] for row in run.json("queue", "list")]
    header, *lines, total = run.ok("queue", "summary").splitlines()
    assert [line.split()[0] for line in lines] == ["away"]
    summary, listed = run.json("queue", "summary"), run.json("queue", "list", "--limit", "10000")
    assert summary["queue"]["away"]["queued"] >= 1
    assert sum(summary["messages"].values()) == len(listed) == int(total.split()[0])


@pytest.mark.parametrize("words", ["backend pause a/b", "backend resume a/b", "queue show a/b", "queue retry a/b"])
def test_what_cannot_be_a_name(run: Commands, words: str) -> None:
    """A slash makes it another path: it is said that there is none such, not that a page was not found."""
    done = run(*words.split())
    assert done.exit_code == 1
    assert f"no {'backend a/b' if 'backend' in words else 'message A/B'}" in done.output


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--to", "x@away.example"], True),
        (["--to", "X@AWAY.example", "--from", "app@example.com", "--backend", "away"], True),
        (["--from", "other@example.com"], False),
        (["--older", "1h"], False),
        (["--to", "away.example", "--since", "1h", "--client", "localhost", "--peer", "127.0.0.1"], True),
        (["--to", "*@away.example", "--until", "1h"], False),
        (["--to", "x", "--oldest"], True),
        (["--state", "in_doubt"], False),
        (["--state", "held"], False),
        (["--state", "all"], True),
    ],
)
def test_filters(run: Commands, waiting: str, arguments: list[str], found: bool) -> None:
    """Each filter narrows; an empty answer under filters does not claim that the queue is empty."""
    text = run.ok("queue", "list", *arguments)
    assert (waiting in text) == found
    assert found or text.startswith("No such message")
    assert found or ("--from" in arguments) == ("where else to look: gateway trace other@example.com" in text)


def test_filters_that_nothing_can_fit(run: Commands, waiting: str) -> None:
    """A name that is no client's and no mail's, and what is no address: wrong use is told from nothing found."""
    for verb in (["list"], ["hold", "--yes"]):
        done = run("queue", *verb, "--client", "localhos")
        assert (done.exit_code, "no client localhos; there are localhost" in done.stderr) == (1, True)
        done = run("queue", *verb, "--peer", "127.0.0")
        assert (done.exit_code, '"127.0.0" is no IP address' in done.stderr) == (2, True)


def test_what_was_meant_by_an_order(run: Commands) -> None:
    """Nothing to do for it, and what does it."""
    sent = json.loads(run.ok("send-test", "--to", "meant@example.net", "--json"))["id"]
    assert f"it is sent: {sent}; what does that: gateway queue resend {sent}" in run("queue", "retry", sent).stderr


def test_show(run: Commands, waiting: str) -> None:
    """Life, recipients with the provider's words, MIME parts."""
    text = run.ok("queue", "show", waiting)
    for part in ("localhost, by its network", "127.0.0.1, calls itself ", "local, ESMTP, no TLS"):
        assert part in text
    assert "It waits until away works again" in text or "Next try by away" in text or "away is at it" in text
    assert any(line.split()[:3] == ["x@away.example", "queued", "away"] for line in text.splitlines())
    assert [line.split() for line in text.splitlines()[-2:]] == [
        ["text/plain", "2", "B"],
        ["application/pdf", "4", "B", "r.pdf"],
    ]


def test_cat(run: Commands, waiting: str) -> None:
    """The bytes that will be sent: trace header in front, content untouched."""
    raw = run("queue", "cat", waiting).stdout_bytes
    assert raw.startswith(b"Received: ")
    assert raw.endswith(MIXED.encode())


@pytest.mark.parametrize("command", [["queue", "show"], ["queue", "cat"], ["queue", "hold"], ["trace"]])
def test_unknown_message(run: Commands, command: list[str]) -> None:
    """Exit code 1 and the id that was not found."""
    done = run(*command, "1K0000000000")
    assert (done.exit_code, "1K0000000000" in done.stderr) == (1, True)


def test_hold_release_bounce_delete(run: Commands, waiting: str) -> None:
    """What an operator does with one message, and what the life line says then."""
    run.ok("backend", "pause", "away")  # what is under way at this moment cannot be retried
    assert run.ok("queue", "hold", waiting) == "hold: 1 of 1 messages\n"
    assert f"gateway queue release {waiting}" in run.ok("trace", waiting)
    assert run.ok("queue", "release", "-", stdin=f"{waiting}\n") == "release: 1 of 1 messages\n"
    assert run.ok("queue", "retry", waiting) == "retry: 1 of 1 messages\n"
    told = "senders told: 0 (bounce_suppressed in the log says why not all)"  # the mode is off
    assert run.ok("queue", "bounce", waiting) == f"bounce: 1 of 1 messages\n{told}\n"
    told = run.ok("trace", waiting)
    assert "x@away.example will not get it" in told
    assert "    returned by the operator" in told
    for done in ("held it", "released it", "asked for another try", "returned it to the sender"):
        assert f"{ME} {done}" in told
    assert [row["verb"] for row in run.json("acts", "--of", waiting)] == ["bounce", "retry", "release", "hold"]
    done = run("queue", "retry", waiting, "1K0000000000")
    assert done.exit_code == 1
    assert "1K0000000000" in done.stderr
    run.ok("backend", "resume", "away", "--no-wait")
    run.ok("queue", "delete", waiting)
    assert run("queue", "show", waiting).exit_code == 1
    done = run("trace", waiting)
    assert (done.exit_code, f"{ME} deleted it at " in done.stderr) == (1, True)


def test_bounces_are_given_up_only_by_name(run: Commands, service: Gateway) -> None:
    """A filter leaves them alone, for nobody would hear of what they were to tell; a delete says so."""
    run.ok("backend", "pause", "away")
    with smtplib.SMTP("127.0.0.1", service.port) as client:
        client.sendmail("", "null@away.example", MIXED)
    (row,) = run.json("queue", "list", "--to", "null@away.example")
    words = run.ok("queue", "bounce", "--to", "null@away.example", "--yes")
    assert words.startswith("bounce: 0 of 0 messages\nleft alone: 1 with the null sender or bounces of our own")
    assert "to tell a sender that mail failed: 1 of them; nobody does so now" in run.ok("queue", "delete", row["id"])
    run.ok("backend", "resume", "away", "--no-wait")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "queue ids"),
        (["--all", "1K0000000000"], "queue ids"),
        (["--all"], "--yes"),
        (["--backend", "away"], "--yes"),
    ],
)
def test_bulk_asks_first(run: Commands, waiting: str, arguments: list[str], words: str) -> None:
    """Nothing happens to many messages by a slip: exit code 2, all of them untouched."""
    done = run("queue", "delete", *arguments)
    assert (done.exit_code, words in done.stderr) == (2, True)
    assert run.json("queue", "show", waiting)["state"] == "queued"


def test_bulk(run: Commands, waiting: str) -> None:
    """With --yes, and only where the filter fits."""
    run.ok("queue", "hold", "--to", "x@away.example", "--yes")
    assert run.json("queue", "show", waiting)["state"] == "held"
    assert run.ok("queue", "release", "--from", "nobody@example.com", "--yes") == "release: 0 of 0 messages\n"
    run.ok("queue", "release", "--all", "--yes")
    assert run.json("queue", "show", waiting)["state"] == "queued"
    run.ok("queue", "delete", "--all", "--yes")
    assert run.ok("queue", "list") == "Mail queue is empty\n"
    assert run.ok("queue", "summary") == "Mail queue is empty\n"
    assert run.ok("queue", "list", "--json") == "[]\n"


def test_trace_finds_by_every_name(run: Commands) -> None:
    """Queue id (in any case), Message-ID with and without brackets, address, provider's id."""
    sent = json.loads(run.ok("send-test", "--to", "found@example.net", "--json"))
    names = [sent["id"], sent["id"].lower(), sent["message_id"], sent["message_id"].strip("<>"), "Found@example.net"]
    names += ["<found@example.net>", f" {sent['id']} ", f"<{sent['id']}>,"]
    for name in [*names, sent["attempts"][0]["remote_id"]]:
        assert run.ok("trace", name).startswith(sent["id"]), name
    assert [detail["id"] for detail in run.json("trace", "found@example.net")] == [sent["id"]]


def test_an_id_with_what_was_copied_along(run: Commands) -> None:
    """Brackets, commas, quotes and lower case are no part of it; what cannot be an id is looked for by trace."""
    sent = json.loads(run.ok("send-test", "--to", "copied@example.net", "--json"))["id"]
    for odd in (f"<{sent}>", f"{sent},", f" '{sent.lower()}':"):
        assert run.json("queue", "show", odd)["id"] == sent
        assert f"it is sent: {sent}" in run("queue", "hold", odd).stderr
    done = run("queue", "show", "a b@example.net")
    assert (done.exit_code, "gateway trace 'a b@example.net'" in done.stderr) == (1, True)


def test_trace_names_states_as_the_list_does(run: Commands) -> None:
    """One thing has one name."""
    for _ in range(2):
        run.ok("send-test", "--to", "words@example.net")
    assert [line.split()[3] for line in run.ok("trace", "words@example.net").splitlines()[1:3]] == ["sent", "sent"]


def test_trace_says_when_there_may_be_more(run: Commands) -> None:
    """The newest, and how to see the others: nobody takes a part for the whole."""
    older, newer = (json.loads(run.ok("send-test", "--to", "many@example.net", "--json"))["id"] for _ in range(2))
    told = run.ok("trace", "many@example.net", "--limit", "1")
    assert (newer in told, older in told) == (True, False)
    assert "There are more; see them with --limit 10\n" in told
    both = run.ok("trace", "many@example.net")
    assert [line.split()[0] for line in both.splitlines()[1:3]] == [newer, older]
    assert "There are more" not in both
    assert both.count("Accepted") == 1  # the newest only, and how to see another
    assert f"gateway trace {older}" in both


def test_pause_and_resume(run: Commands) -> None:
    """A paused backend keeps its mail, says who paused it, and sends at once when resumed."""
    said = "spare is paused until you resume it, also after a restart of the service. "
    said += "To resume: gateway backend resume spare\n"
    assert run.ok("backend", "pause", "spare") == said
    done = run("send-test", "--to", "a@example.net", "--backend", "spare", "--wait", "0")
    assert done.exit_code == 75
    assert "It waits until spare works again" in done.output
    assert f"spare is paused by {ME} until it is resumed or the service is restarted." in done.output
    (line,) = (line for line in run.ok("backend", "list").splitlines() if line.startswith("spare"))
    kind, *rest = line.split()[1:4]
    assert (kind, "1" in rest) == ("capture", True)  # behind the instance that works it, where there are several
    assert line.count(f"Paused by {ME}") == 1
    identifier = done.output.split()[0]
    assert run.ok("trace", f" {identifier.lower()} ").count(f"paused by {ME}") == 1
    assert "when spare works" in run.ok("queue", "list", "--backend", "spare")
    retried = run("queue", "retry", f" {identifier.lower()} ")
    assert retried.stderr == "spare is paused by the operator; to try now: gateway backend resume spare\n"
    assert "is paused for 1h, also after a restart" in run.ok("backend", "pause", "spare", "--for", "1h")
    assert re.search(r"until [0-9: -]{19}Z \(in (59 minutes|1 hour)\)", run.ok("trace", "a@example.net"))
    assert re.search("operator until [0-9:]{8}Z; to try now: ", run("queue", "retry", identifier).stderr)
    run.ok("backend", "resume", "spare")
    assert run.json("backend", "list")["spare"]["paused_by"] == ""


def test_retry_of_many_asks_once(run: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the backends that rest, those are named that these messages wait for; each costs one question."""
    for name in ("away", "spare"):
        run.ok("backend", "pause", name)
    ids = [run("send-test", "--to", "x@away.example", "--wait", "0").output.split()[0] for _ in range(3)]
    asked: list[str] = []
    request = SocketWay.request

    def counted(way: SocketWay, method: str, target: str, content: bytes) -> tuple[int, bytes]:
        asked.append(target)
        return request(way, method, target, content)

    with monkeypatch.context() as counting:
        counting.setattr(SocketWay, "request", counted)
        done = run("queue", "retry", *ids)
    assert done.stderr == "away is paused by the operator; to try now: gateway backend resume away\n"
    assert len(asked) == 4, asked
    for name in ("away", "spare"):
        run.ok("backend", "resume", name, "--no-wait")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["queue", "list", "--backend", "nix"], 1, "no backend nix; there are box, away, strict, spare"),
        *(
            (["queue", verb, "--yes", "--backend", "nix"], 1, "no backend nix; there are box, away, strict, spare")
            for verb in ("retry", "hold", "release", "delete", "bounce")
        ),
        (["queue", "list", "--older", "soon"], 2, "not a duration"),
        (["queue", "list", "--since", "soon"], 2, "neither a time"),
        (["queue", "list", "--state", "sending"], 2, "in_doubt"),
        (["queue", "list", "--watch"], 2, "needs a terminal"),
        (["queue", "reroute", "1K0000000000"], 2, "--backend NAME"),
        (["queue", "list", "a@x.example"], 2, "--to a@x.example, from it: --from a@x.example, and whatever became of"),
        (["queue", "list", "a@x.example"], 2, ": gateway trace a@x.example"),
        (["queue", "list", "1K0000000000"], 2, "takes options only; one message: gateway queue show 1K0000000000"),
        (["backend", "list", "box"], 2, "one of them: gateway backend check box"),
        (["client", "list", "x y"], 2, "one of them: gateway client show 'x y'"),
        (["acts", "1K0000000000"], 2, "gateway acts --of 1K0000000000"),
        (["queue", "reroute", "1K0000000000", "--backend", "nix"], 1, "no backend nix; there are box, away"),
        (["queue", "resend", "--all", "--yes"], 1, "never for all"),
        (["queue", "hold", "--older", "soon", "--yes"], 2, "not a duration"),
        (["backend", "pause", "box", "--for", "soon"], 2, "not a duration"),
        (["backend", "pause", "box", "--for", "0s"], 1, "for: must be longer than 0"),
        *(
            (["queue", verb, *more, "--to", "x@away.example", option, ""], 2, words)
            for verb, more in (("list", []), ("delete", ["--yes"]))
            for option, words in (
                ("--backend", "is empty"),
                ("--from", "is empty"),
                ("--to", "is empty"),
                ("--older", "not a duration"),
            )
        ),  # an unset variable never widens what is deleted
        (["backend", "pause", ""], 2, "is empty"),
        (["backend", "resume", " "], 2, "is empty"),
        (["queue", "show", ""], 2, "give a queue id"),
        (["queue", "cat", " "], 2, "give a queue id"),
        (["queue", "hold", ""], 2, "give a queue id"),
    ],
)
def test_slips(run: Commands, arguments: list[str], code: int, words: str) -> None:
    """Said with what would be right; nothing is changed."""
    done = run(*arguments)
    assert (done.exit_code, done.stdout, words in done.stderr) == (code, "", True), done.output


@pytest.mark.parametrize("action", ["pause", "resume", "check"])
def test_unknown_backend(run: Commands, action: str) -> None:
    """The error names those there are."""
    done = run("backend", action, "none")
    assert (done.exit_code, "there are box, away, strict, spare" in done.stderr) == (1, True)


def test_check(run: Commands) -> None:
    """Each backend is asked; one that cannot be used makes exit code 1 and says what to do."""
    text = run.ok("backend", "check", "box")
    assert text.startswith("box: Files, captured\n  in the service: Working; ")
    assert "box: ok: files are written" in text
    done = run("backend", "check", "--json")
    assert done.exit_code == 1
    assert {name: found["ok"] for name, found in json.loads(done.stdout).items()} == {
        "box": True, "away": False, "strict": True, "spare": True,
    }  # fmt: skip
    done = run("backend", "check", "away")
    assert "away: FAILED: " in done.stdout
    assert "  to do: " in done.stdout


def test_log_of_the_service_has_no_bug(service: Gateway) -> None:
    """All of the above went through without an internal error."""
    assert '"event":"bug"' not in service.log.read_text()


def test_retry_is_at_once(service: Gateway, run: Commands, refusing: Server) -> None:
    """A deferred message waits for its time, and not one moment longer than the operator wants."""
    usual, refusing.replies = refusing.replies, {"RCPT": "451 4.7.1 greylisted, come back later"}
    try:
        done = run("send-test", "--to", "x@strict.example")
        assert (done.exit_code, "they said: 451 4.7.1 greylisted, come back later" in done.output) == (75, True)
        identifier = done.output.split()[0]
        assert "Next try by strict at " in done.output
        refusing.replies = {}
        run.ok("queue", "retry", identifier)
        service.wait(lambda: run.json("queue", "show", identifier)["state"] == "done")
        assert refusing.content.startswith(b"Received: ")
    finally:
        refusing.replies = usual


def test_release_is_at_once(service: Gateway, run: Commands) -> None:
    """A held message goes as soon as it is released."""
    run.ok("backend", "pause", "spare")
    identifier = run("send-test", "--to", "a@example.net", "--backend", "spare").output.split()[0]
    run.ok("queue", "hold", identifier)
    run.ok("backend", "resume", "spare")
    assert run.json("queue", "show", identifier)["state"] == "held"
    run.ok("queue", "release", identifier)
    service.wait(lambda: run.json("queue", "show", identifier)["state"] == "done")


@pytest.mark.parametrize(
    ("files", "reason", "text"),
    [
        (0, "", "maildrop: 0 waiting in /d/new"),
        (2, "the spool is full", "maildrop: 2 waiting in /d/new: the spool is full"),
        (0, "Permission denied", "maildrop: /d/new: Permission denied"),
    ],
)
def test_who_cannot_look_into_a_folder_does_not_say_that_it_is_empty(
    capsys: pytest.CaptureFixture[str], files: int, reason: str, text: str
) -> None:
    """Why it cannot is all that it knows."""
    folder = {"name": "maildrop", "path": "/d/new", "waiting": files, "corrupt": 0, "reason": reason, "files": ()}
    say_dropped([folder], everything=True)
    assert capsys.readouterr().out == f"{text}\n"
