"""Seven real clients come to a service that knows none of them, are heard out, and are let in by what it proposes."""

from __future__ import annotations

import re
import shutil
import smtplib
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.flow.kit import Gateway
from tests.migrate.test_peers import Postfix

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
PERL = """
use Net::SMTP;
my $s = Net::SMTP->new("127.0.0.1", Port => $ARGV[0], LocalAddr => "127.0.0.15", Hello => "oldbox") or die;
$s->mail("perl\\@example.com") or die $s->message; $s->to("a\\@example.net") or die $s->message;
$s->data("From: perl\\@example.com\\n\\nx\\n") or die $s->message; $s->quit;
"""
PRINTER = """EHLO oldprinter
MAIL FROM:<printer@example.com>
RCPT TO:<a@example.net>
DATA
From: printer@example.com

x
.
QUIT
"""


def done(command: list[str], text: str = "") -> str:
    """All it said. A program that is not there is a reason to skip."""
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    run = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
    return run.stdout + run.stderr


def swaks(port: int, _: Path) -> str:
    login = ["--auth", "LOGIN", "--auth-user", "swaks@example.com", "--auth-password", "hush-hush"]
    where = ["--server", f"127.0.0.1:{port}", "--local-interface", "127.0.0.11", "--helo", "box1"]
    return done(["swaks", *where, *login, "-f", "swaks@example.com", "-t", "a@example.net,b@example.org"])


def without_login(port: int, _: Path) -> str:
    where = ["--server", f"127.0.0.1:{port}", "--local-interface", "127.0.0.11", "--helo", "box1"]
    return done(["swaks", *where, "-f", "swaks@example.com", "-t", "a@example.net,b@example.org"])


def curl(port: int, folder: Path) -> str:
    (folder / "mail").write_text("From: Curl <curl@example.com>\r\n\r\nx\r\n")
    who = ["--mail-from", "curl@example.com", "--mail-rcpt", "a@example.net", "--interface", "127.0.0.12"]
    return done(["curl", "-sv", f"smtp://127.0.0.1:{port}/box2", *who, "-T", str(folder / "mail")])


def msmtp(port: int, folder: Path) -> str:
    file = folder / "msmtprc"
    file.write_text(
        f"account default\nhost 127.0.0.1\nport {port}\nfrom msmtp@example.com\nsource_ip 127.0.0.13\ntls on\n"
        "tls_certcheck off\ndomain box3\n"
    )
    file.chmod(0o600)
    return done(["msmtp", "-d", "-C", str(file), "a@example.net"], "From: msmtp@example.com\n\nx\n")


def python(port: int, _: Path) -> str:
    try:
        with smtplib.SMTP("127.0.0.1", port, "box4", 30, ("127.0.0.14", 0)) as one:
            one.sendmail("py@example.com", ["a@example.net"], "From: py@example.com\r\n\r\nx\r\n")
    except smtplib.SMTPDataError as error:
        return f"{error.smtp_code} {error.smtp_error!r}"
    return "250 2.0.0 Ok: queued"


def perl(port: int, _: Path) -> str:
    return done(["perl", "-e", PERL, str(port)]) or "250 2.0.0 Ok: queued"


def openssl(port: int, _: Path) -> str:
    """A printer of 2008: TLS 1.0, every command at once."""
    old = ["-tls1", "-cipher", "DEFAULT@SECLEVEL=0", "-bind", "127.0.0.17:0", "-quiet", "-crlf"]
    return done(["openssl", "s_client", "-starttls", "smtp", "-connect", f"127.0.0.1:{port}", *old], PRINTER)


CLIENTS: list[Callable[[int, Path], str]] = [swaks, curl, msmtp, python, perl, openssl]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that other users may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="gw-learn-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_real_clients_are_heard_out_and_let_in_by_the_proposal(tmp_path: Path, place: Path) -> None:
    """Each hears 451 first; pasted, the report lets all of them in, Postfix by itself; and still nobody else."""
    certificate = ["-keyout", str(tmp_path / "k.pem"), "-out", str(tmp_path / "c.pem"), "-subj", "/CN=relay.test"]
    done(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *certificate])
    tls = f'tls: starttls, min_tls: "1.0", certificate: {tmp_path}/c.pem, private_key: {tmp_path}/k.pem'
    one = Gateway(tmp_path, "")
    head = (
        one.file.read_text().partition("listeners:")[0]
        + f'listeners: {{lan: {{bind: "127.0.0.1:{one.port}", {tls}}}}}\n'
    )
    one.file.write_text(f'{head}limits: {{spool_free: 0}}\nclients: {{none: {{networks: ["192.0.2.1"]}}}}\n')
    relay = f"relayhost = [127.0.0.1]:{one.port}\nsmtp_bind_address = 127.0.0.16\nsmtp_tls_security_level = may\n"
    with one, Postfix(place, relay, "") as postfix:
        one.json("learn", "--for", "1h", "--hear-out", "127.0.0.0/8")
        for client in CLIENTS:
            said = client(one.port, tmp_path)
            assert "4.7.1 Learning only" in said, (client.__name__, said)
        postfix.send("a@example.net", data=b"From: alerts@example.com\n\nx\n")
        one.wait(lambda: "4.7.1 Learning only" in postfix.log())
        assert one.messages() == []
        found = one.json("learn", "report")
        assert set(found["clients"]) == {"box1", "box2", "box3", "box4", "oldbox", "oldprinter", "web1"}
        assert any("TLSv1:" in hint or "speaks TLSv1" in hint for hint in found["hints"])
        assert "hush" not in str(found) + one.log.read_text() + (tmp_path / "state" / "learn.json").read_text()
        report = one.run("learn", "report").stdout
        one.file.write_text(f"{head}limits: {{spool_free: 0}}\n{report}")
        assert one.run("check-config").returncode == one.run("reload").returncode == 0
        assert one.run("learn", "stop").returncode == 0
        for client in [without_login, *CLIENTS[1:]]:
            said = client(one.port, tmp_path)
            assert re.search("Ok: queued", said), (client.__name__, said)
        postfix.postfix("flush")
        one.wait(lambda: len({row["sender"] for row in one.messages()}) == 7, 60)
        other = smtplib.SMTP("127.0.0.1", one.port, timeout=30, source_address=("127.0.0.99", 0))
        other.ehlo()
        assert other.mail("py@example.com")[0] == 550
        other.close()
