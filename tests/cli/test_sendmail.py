"""gateway-sendmail behaves like the sendmail its callers know: arguments, dots, Bcc, sysexits codes."""

from __future__ import annotations

import errno
import getpass
import io
import os
import socket
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest

from gateway.cli import maildrop
from gateway.cli.sendmail import main
from gateway.config import locate
from gateway.drop import folder, letter
from gateway.drop.folder import Places
from gateway.model import Envelope, Recipient
from tests.cli.kit import Server
from tests.test_line_ends import TABLE

HOST = socket.gethostname()
ME = f"{getpass.getuser()}@{HOST}"
MESSAGE = b"""Subject: hi
To: a@example.com, B <b@example.com>
Cc: c@example.com
Bcc: d@example.com,
 e@example.com

body
"""


class Done(NamedTuple):
    returncode: int
    stderr: str


def sendmail(target: str, *arguments: str, stdin: bytes = MESSAGE, name: str = "sendmail", keep: str = "no") -> Done:
    """In this process; that the real command works too is shown in test_process.py. ``keep`` is the maildrop."""
    errors = io.StringIO()
    with (
        mock.patch.object(sys, "argv", [f"/usr/bin/{name}", *arguments]),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin))),
        mock.patch.dict(os.environ, {"GATEWAY_SENDMAIL": target, "GATEWAY_MAILDROP": keep}),
        redirect_stderr(errors),
    ):
        try:
            main()
        except SystemExit as ended:
            return Done(int(ended.code or 0), errors.getvalue())
    return Done(0, errors.getvalue())


def run(server: Server, *arguments: str, stdin: bytes = MESSAGE, keep: str = "no") -> Done:
    return sendmail(f"127.0.0.1:{server.server_address[1]}", *arguments, stdin=stdin, keep=keep)


@pytest.mark.parametrize(
    ("arguments", "sender", "recipients"),
    [
        (["x@example.com"], ME, ["x@example.com"]),
        (
            ["-i", "-f", "f@example.com", "x@example.com", "y@example.com"],
            "f@example.com",
            ["x@example.com", "y@example.com"],
        ),
        (["-ff@example.com", "-oi", "-oem", "-odb", "x@example.com"], "f@example.com", ["x@example.com"]),
        (["-r", "r@example.com", "-bm", "-N", "failure", "--", "x@example.com"], "r@example.com", ["x@example.com"]),
        (["-f", "<>", "x@example.com"], "", ["x@example.com"]),
        (["-f", "", "x@example.com"], "", ["x@example.com"]),
        (["-f", "root", "root"], f"root@{HOST}", [f"root@{HOST}"]),
        (["-t"], ME, ["a@example.com", "b@example.com", "c@example.com", "d@example.com", "e@example.com"]),
        (["-ti", "a@example.com"], ME, [f"{letter}@example.com" for letter in "abcde"]),
        (["-B8BITMIME", "-v", "-U", "-G", "-Ac", "x@example.com"], ME, ["x@example.com"]),
    ],
)
def test_envelope(server: Server, arguments: list[str], sender: str, recipients: list[str]) -> None:
    """The envelope comes from -f/-r and the arguments, with -t also from To, Cc and Bcc; each recipient once."""
    done = run(server, *arguments)
    assert done.returncode == 0, done.stderr
    assert [c for c in server.commands if c.lower().startswith("mail")] == [f"MAIL FROM:<{sender}>"]
    assert [c for c in server.commands if c.lower().startswith("rcpt")] == [f"RCPT TO:<{r}>" for r in recipients]


@pytest.mark.parametrize(
    ("arguments", "stdin", "sent"),
    [
        (["-t"], MESSAGE, b"Subject: hi\r\nTo: a@example.com, B <b@example.com>\r\nCc: c@example.com\r\n\r\nbody\r\n"),
        ([], MESSAGE, b"Subject: hi\r\nTo: a@example.com, B <b@example.com>\r\nCc: c@example.com\r\n\r\nbody\r\n"),
        (["-t"], b"A: b\r\r\nBcc: d@example.com\r\r\n\r\r\none\rtwo\r\r\n", b"A: b\r\n\r\none\r\ntwo\r\n"),
        (
            [],
            b'From: root (Cron Daemon)\nTo: Root <root>, B\n <b@example.com>\nCc: A B, "x"\nReply-To:\n me\n\n',
            f'From: root@{HOST} (Cron Daemon)\r\nTo: Root <root@{HOST}>, B\r\n <b@example.com>\r\nCc: A B, "x"\r\n'
            f"Reply-To:\r\n me@{HOST}\r\n\r\n".encode(),
        ),
        ([], b"A: b\n\n.hidden\nBcc: x\nend", b"A: b\r\n\r\n..hidden\r\nBcc: x\r\nend\r\n"),
        ([], b"A: b\n\none\n.\ntwo\n", b"A: b\r\n\r\none\r\n"),
        (["-i"], b"A: b\n\none\n.\ntwo\n", b"A: b\r\n\r\none\r\n..\r\ntwo\r\n"),
        (["-oi"], b"A: b\r\n\r\none\r\n.\r\ntwo", b"A: b\r\n\r\none\r\n..\r\ntwo\r\n"),
        (
            ["-F", "Kläs", "-f", "f@example.com"],
            b"A: b\n\nx\n",
            b"From: =?utf-8?b?S2zDpHM=?= <f@example.com>\r\nA: b\r\n\r\nx\r\n",
        ),
        (["-F", "N"], b"From: me@example.com\n\nx\n", b"From: me@example.com\r\n\r\nx\r\n"),
        ([], b"no header at all\n", f"From: <{ME}>\r\n\r\nno header at all\r\n".encode()),
        (["-f", "f@example.com", "-F", "N"], b"text: no\n", b"From: N <f@example.com>\r\ntext: no\r\n"),
        (["-f", "jörg@example.com"], b"text\n", "From: <jörg@example.com>\r\n\r\ntext\r\n".encode()),
        (["-f", "<>"], b"text only\nTo: x\n", b"Subject:\r\n\r\ntext only\r\nTo: x\r\n"),
        ([], b"\nBcc: only a body\n", f"From: <{ME}>\r\n\r\nBcc: only a body\r\n".encode()),
        ([], b"", f"From: <{ME}>\r\n".encode()),
        ([], b"A: b\n\none\r.\rtwo\n.\r\r\nthree\n", b"A: b\r\n\r\none\r\n..\r\ntwo\r\n"),
        ([], b"A: b\n\none\n.", b"A: b\r\n\r\none\r\n"),
        (["-t"], b"From root Fri Nov 20 13:00:00 2026\nA: b\nBcc: x@example.com\n\nx\n", b"A: b\r\n\r\nx\r\n"),
    ],
)
def test_content(server: Server, arguments: list[str], stdin: bytes, sent: bytes) -> None:
    """Lines end in CRLF, a lone dot ends the message unless -i, Bcc goes, -F only fills in a From.

    Text without a header gets one, as from every sendmail; a From line of an mbox goes. Local names get this machine's.
    """
    assert run(server, *arguments, "x@example.com", stdin=stdin).returncode == 0
    assert server.content == sent


@pytest.mark.parametrize(("sent", "kept", "postfix"), TABLE.values(), ids=TABLE)
def test_line_ends(server: Server, sent: bytes, kept: bytes, postfix: bytes | None) -> None:
    """What a program writes with odd line ends arrives whole."""
    assert run(server, "-i", "x@example.com", stdin=sent).returncode == 0
    assert server.content == kept.replace(b"\n.", b"\n..")


ONE, TWO, THREE = (f"{name}@example.com" for name in ("one", "two", "three"))


@pytest.mark.parametrize(
    ("arguments", "to", "recipients"),
    [
        ([f"{ONE},{TWO}"], "", [ONE, TWO]),
        ([f"{ONE}, {TWO}", THREE], "", [ONE, TWO, THREE]),
        (["-h", "5", ONE], "", [ONE]),
        (["A <one@example.com>", '"a b"@example.com'], "", [ONE, '"a b"@example.com']),
        (["root,two@example.com"], "", [f"root@{HOST}", TWO]),
        (["-t"], f"To: {ONE},, {TWO}, \n", [ONE, TWO]),
        (["-t"], f'To: Jane (a, b) <{ONE}>, "Doe, Jack" <{TWO}>\n', [ONE, TWO]),
        (["-t"], f"To: {ONE},\n {TWO}\nTo: {THREE}\n", [ONE, TWO, THREE]),
        (["-t"], f"To: Team: {ONE}, {TWO};, undisclosed-recipients:;\n", [ONE, TWO]),
        (["-t"], f"To: {ONE}\nResent-Cc: {TWO}\nResent-Bcc: {THREE}\nBcc: four@example.com\n", [TWO, THREE]),
        (["-t", TWO], f"To: Caf\u00e9 & Co., Ltd <{ONE}>\n", [TWO, ONE]),
        (["-t"], f"To: old@example.com <{ONE}>\n", [ONE]),
    ],
)
def test_everybody_named_gets_it(server: Server, arguments: list[str], to: str, recipients: list[str]) -> None:
    """sendmail(8): an argument is a list of addresses; -t adds those of the header, the Resent ones where there are."""
    done = run(server, *arguments, stdin=f"{to}Subject: x\n\nx\n".encode())
    assert done.returncode == 0, done.stderr
    assert [c for c in server.commands if c.startswith("RCPT")] == [f"RCPT TO:<{one}>" for one in recipients]
    assert b"Bcc" not in server.content


@pytest.mark.parametrize(
    ("arguments", "stdin", "code"),
    [
        (["a b@example.com"], MESSAGE, 64),
        (["a@example.com b@example.com"], MESSAGE, 64),
        (["a\x01b@example.com"], MESSAGE, 64),
        (["a\udcffb@example.com"], MESSAGE, 64),
        (["|/bin/cat"], MESSAGE, 64),
        (["a@@example.com"], MESSAGE, 64),
        (["-f", "a@example.com, b@example.com", ONE], MESSAGE, 64),
        (["-N", "sometimes", ONE], MESSAGE, 64),
        (["-V", "a b", ONE], MESSAGE, 64),
        (["-t"], b"To: a@example.com\rBcc: b@example.com\n\n", 65),
        (["-t"], b"To: a@example.com, somebody else\n\n", 65),
        (["-t"], b"To: a@example.com <b@example.com> c@example.com\n\n", 65),
        (["-t"], b"To: a\xffb@example.com\n\n", 65),
        (["-t"], b"To: a\0b@example.com\n\n", 65),
        (["-t"], b"To: \n\n", 64),
        (["-t"], b"To: " + b"x" * 200_000 + b"\n\n", 65),
    ],
)
def test_nobody_is_left_out_or_guessed(server: Server, arguments: list[str], stdin: bytes, code: int) -> None:
    """What is not an address stops everything, with a code that is not 0."""
    done = run(server, *arguments, stdin=stdin)
    assert (done.returncode, server.commands) == (code, []), done.stderr


def test_what_a_bounce_is_to_say_is_handed_on(server: Server) -> None:
    """-N, -R and -V of sendmail(8), to a server that offers DSN (RFC 3461)."""
    server.replies = {"EHLO": "250-test\r\n250 DSN"}
    assert run(server, "-N", "failure,delay", "-R", "hdrs", "-V", "id-1", ONE, stdin=b"A: b\n\nx\n").returncode == 0
    assert server.commands[1:3] == [f"MAIL FROM:<{ME}> RET=HDRS ENVID=id-1", f"RCPT TO:<{ONE}> NOTIFY=FAILURE,DELAY"]


def test_no_smtp_command_can_be_smuggled_in_by_an_address(server: Server) -> None:
    """Web applications pass on what visitors typed as -f."""
    assert run(server, "-f", "a@example.com>\r\nRCPT TO:<b@example.com", "x@example.com").returncode == 64
    assert not any("b@example.com" in command for command in server.commands)


def test_unusual_characters_are_announced(server: Server) -> None:
    """RFC 6531 and RFC 6152: SMTPUTF8 for such addresses, BODY=8BITMIME for such content."""
    assert run(server, "-f", "jörg@example.com", "x@example.com", stdin="A: b\n\nä\n".encode()).returncode == 0
    assert server.commands[1] == "MAIL FROM:<jörg@example.com> BODY=8BITMIME SMTPUTF8"


@pytest.mark.parametrize(
    ("replies", "code", "words"),
    [
        ({"MAIL": "553 5.7.1 sender not allowed"}, 77, "553 5.7.1 sender not allowed"),
        ({"MAIL": "452 4.3.1 spool full"}, 75, "452 4.3.1 spool full"),
        ({"RCPT": "550 5.7.1 relay denied"}, 67, "x@example.com: 550 5.7.1 relay denied"),
        ({"RCPT": "451 4.3.0 later"}, 75, "451 4.3.0 later"),
        ({"RCPT": "452 4.5.3 At most 20 recipients"}, 69, "452 4.5.3 At most"),
        ({"DATA": "554 5.6.0 no"}, 69, "554 5.6.0 no"),
        ({"content": "552 5.3.4 too big"}, 65, "message: 552 5.3.4 too big"),
        ({"content": "451 4.3.0 our fault"}, 75, "451 4.3.0 our fault"),
        ({"connect": "421 4.7.0 too many connections"}, 75, "421 4.7.0 too many connections"),
        ({"connect": "554 5.7.1 go away"}, 69, "554 5.7.1 go away"),
    ],
)
def test_refusals(server: Server, replies: dict[str, str], code: int, words: str) -> None:
    """Every refusal ends in the sysexits code of its kind, with the server's words; 4xx is always 75 (try again)."""
    server.replies = replies
    done = run(server, "x@example.com")
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr


def test_one_refused_recipient_stops_all(server: Server) -> None:
    """Nothing is sent unless all recipients are accepted: the exit code speaks for the whole message."""
    server.replies = {"RCPT": "550 5.1.1 unknown"}
    assert run(server, "x@example.com", "y@example.com").returncode == 67
    assert server.content == b""


@pytest.fixture
def kept(tmp_path: Path) -> Places:
    """The maildrop of a service that is away."""
    places = folder.maildrop(tmp_path)
    folder.make_maildrop(places)
    return places


@pytest.mark.parametrize(
    "replies",
    [
        {"connect": "421 4.3.2 stopping"},
        {"connect": "hello"},
        {"MAIL": "452 4.3.1 spool full"},
        {"MAIL": "450 4.7.1 too fast"},
        {"RCPT": "451 4.3.5 later"},
        {"DATA": "451 4.3.0 our fault"},
        {"content": "452 4.3.1 spool full"},
        {"content": "421 4.3.2 stopping"},
    ],
)
def test_what_cannot_be_taken_now_is_kept(server: Server, kept: Places, replies: dict[str, str]) -> None:
    """Cron, mdadm and PHP do not try again: it is in the maildrop, with its envelope, and the code is 0."""
    server.replies = {"EHLO": "250-test\r\n250 DSN"} | replies
    arguments = ["-f", "f@example.com", "-R", "hdrs", "-V", "id", "-N", "failure", ONE, TWO]
    assert run(server, *arguments, stdin=b"A: b\nBcc: x@example.com\n\n\xe4\n", keep=str(kept.new.parent)) == (0, "")
    (path,) = kept.new.iterdir()
    data = path.read_bytes()
    assert data.endswith(b"A: b\r\n\r\n\xe4\r\n")
    envelope = letter.read(data, len(data)).envelope
    recipients = (Recipient(ONE, "FAILURE"), Recipient(TWO, "FAILURE"))
    assert envelope == Envelope("f@example.com", recipients, eightbit=True, ret="HDRS", envid="id")


@pytest.mark.parametrize(
    ("replies", "code"),
    [({"MAIL": "553 5.7.1 no"}, 77), ({"RCPT": "550 5.7.1 no"}, 67), ({"content": "554 5.6.0 no"}, 65)],
)
def test_what_is_refused_is_not_kept(server: Server, kept: Places, replies: dict[str, str], code: int) -> None:
    """The caller hears it, and trying again would not help."""
    server.replies = replies
    assert run(server, ONE, keep=str(kept.new.parent)).returncode == code
    assert list(kept.new.iterdir()) == []


def test_what_cannot_be_kept_either(kept: Places) -> None:
    """Then, and only then, it is 75; nothing half done is left."""
    with mock.patch("os.fsync", side_effect=OSError(errno.ENOSPC, "No space left on device")):
        done = sendmail("127.0.0.1:1", ONE, keep=str(kept.new.parent))
    assert (done.returncode, "No space left on device" in done.stderr) == (75, True), done.stderr
    assert list(kept.new.iterdir()) == []
    kept.new.rmdir()
    assert sendmail("127.0.0.1:1", ONE, keep=str(kept.new.parent)).returncode == 75


@pytest.mark.parametrize(
    ("host", "config", "found"),
    [
        ("127.0.0.1", "state_dir: {folder}/state", True),
        ("::1", "state_dir: {folder}/state", True),
        ("localhost", "state_dir: {folder}/state\nbackends: [wrong", False),
        ("localhost", "state_dir: {folder}/other", False),
        ("192.0.2.1", "state_dir: {folder}/state", False),
        ("relay.example.com", "state_dir: {folder}/state", False),
    ],
)
def test_where_the_maildrop_is(tmp_path: Path, host: str, config: str, found: bool) -> None:
    """That of the service the settings are of, on this machine only, and never one that no service has made."""
    folder.make_maildrop(places := folder.maildrop(tmp_path / "state"))
    file = tmp_path / "config.yaml"
    file.write_text(config.format(folder=tmp_path))
    environ = {"GATEWAY_CONFIG": str(file), "HOME": str(tmp_path / "home")}
    with mock.patch.object(locate, "STATE_DIRECTORY", tmp_path / "none"):
        assert maildrop.find(host, environ) == (places if found else None)


def test_the_machines_own_maildrop_where_its_settings_are_not_for_us(tmp_path: Path) -> None:
    """A settings file with mode 640: the usual place comes first, then our own."""
    file = tmp_path / "config.yaml"
    file.write_text("state_dir: [unreadable")
    environ = {"GATEWAY_CONFIG": str(file), "HOME": str(tmp_path)}
    with mock.patch.object(locate, "STATE_DIRECTORY", tmp_path / "var"):
        assert maildrop.find("localhost", environ) is None
        folder.make_maildrop(own := folder.maildrop(tmp_path / ".local/state/gateway"))
        assert maildrop.find("localhost", environ) == own
        folder.make_maildrop(usual := folder.maildrop(tmp_path / "var"))
        assert maildrop.find("localhost", environ) == usual


@pytest.mark.parametrize(
    ("arguments", "target", "code", "words"),
    [
        (["x@example.com"], "127.0.0.1:1", 75, "is `gateway serve` running?"),
        ([], "127.0.0.1:1", 64, "no recipients"),
        (["--nonsense"], "127.0.0.1:1", 64, "--nonsense"),
        (["x@example.com"], "nowhere", 64, "host:port"),
        (["-bi"], "127.0.0.1:1", 0, ""),
    ],
)
def test_without_a_service(arguments: list[str], target: str, code: int, words: str) -> None:
    """Wrong use is 64; a service that is down, and no maildrop, is 75."""
    done = sendmail(target, *arguments)
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr


def test_a_user_without_a_name(server: Server) -> None:
    """Containers run as any user id: the sender must be told, and nothing else goes wrong."""
    nameless = mock.patch("pwd.getpwuid", side_effect=KeyError("uid not found"))
    with nameless, mock.patch.dict(os.environ, dict.fromkeys(("LOGNAME", "USER", "LNAME", "USERNAME"), "")):
        done = run(server, "x@example.com")
        assert (done.returncode, "give the sender with -f" in done.stderr) == (64, True)
        assert run(server, "-f", "f@example.com", "x@example.com") == (0, "")


def test_newaliases() -> None:
    """Packages call it when they are installed: there are no aliases here, so there is nothing to do or to read."""
    assert sendmail("127.0.0.1:1", stdin=b"", name="newaliases") == (0, "")


def test_smtp_on_standard_input(server: Server) -> None:
    """-bs hands the SMTP conversation through."""
    environment = {**os.environ, "GATEWAY_SENDMAIL": f"127.0.0.1:{server.server_address[1]}"}
    call = [sys.executable, "-c", "from gateway.cli.sendmail import main; main()", "-bs"]
    done = subprocess.run(call, input=b"EHLO me\r\nQUIT\r\n", env=environment, capture_output=True, check=True)
    assert done.stdout.splitlines() == [b"220 test", b"250-test", b"250-8BITMIME", b"250 SMTPUTF8", b"221 bye"]


def test_starts_without_the_heavy_libraries() -> None:
    """It runs at every cron mail: neither the commands nor the service are loaded."""
    heavy = ("click", "pydantic", "httpx", "sqlmodel")
    code = f"import sys, gateway.cli.sendmail; print(*(m for m in {heavy} if m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.split() == []
