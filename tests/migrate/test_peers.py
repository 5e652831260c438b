"""Postfix, Exim, msmtp, nullmailer and dma hand their mail to a real gateway, with the lines of docs/migrate.md."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import smtplib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flow.kit import Gateway, free_port, smtp_sink, sunk
from tests.migrate.kit import migrate, put
from tests.migrate.peers import PASSWORD, Relay, Room, message, relay, unpacked


@pytest.fixture(scope="module")
def gateway() -> Iterator[Relay]:
    with tempfile.TemporaryDirectory(prefix="gw-peers-") as folder, relay(Path(folder)) as one:
        yield one


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that other users may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="gw-peer-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def msmtp(one: Relay, folder: Path, *recipients: str, data: bytes) -> subprocess.CompletedProcess[bytes]:
    if not shutil.which("msmtp"):
        pytest.skip("msmtp is not installed")
    file = folder / "msmtprc"
    file.write_text(one.lines("msmtp msmtprc"))
    file.chmod(0o600)
    command = ["msmtp", "-C", str(file), *recipients]
    return subprocess.run(command, input=data, capture_output=True, timeout=60, check=False)


def test_msmtp(gateway: Relay, place: Path) -> None:
    """TLS that is checked, a login, 8-bit text, two recipients; a refusal is an error of the caller, with our words."""
    done = msmtp(gateway, place, "a@example.net", "b@example.net", data=message("msmtp one"))
    assert done.returncode == 0, done.stderr
    found = gateway.wait("msmtp one")
    assert "<a@example.net>" in found[0]
    assert "<b@example.net>" in found[0]
    assert "Grüße aus Köln" in found[0]
    refused = msmtp(gateway, place, "x@example.org", data=message("msmtp two"))
    assert refused.returncode == os.EX_DATAERR
    assert b"5.7.1" in refused.stderr


MASTER = """
postlog unix-dgram n - n - 1 postlogd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 1 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
scache unix - - n - 1 scache
anvil unix - - n - 1 anvil
"""


class Postfix:
    """An instance of its own; the machine's is left alone."""

    def __init__(self, folder: Path, lines: str, sasl: str) -> None:
        self.folder = folder
        if os.geteuid() != 0 or not shutil.which("postfix", path="/usr/sbin"):
            pytest.skip("Postfix is not installed, or this is not root")
        try:
            owner, group = pwd.getpwnam("postfix").pw_uid, grp.getgrnam("postdrop").gr_gid
        except KeyError:
            pytest.skip("there is no user postfix")
        for name in ("queue", "data", "etc"):
            (folder / name).mkdir()
        os.chown(folder / "data", owner, group)
        etc = folder / "etc"
        (etc / "master.cf").write_text(MASTER)
        (etc / "sasl_passwd").write_text(sasl)
        (etc / "main.cf").write_text(
            f"compatibility_level = 3.6\nqueue_directory = {folder}/queue\ndata_directory = {folder}/data\n"
            f"myhostname = web1.example.com\nmyorigin = example.com\nmydestination =\ninet_interfaces = loopback-only\n"
            f"inet_protocols = ipv4\nmaillog_file = {folder}/log\nmaillog_file_prefixes = {folder}\nalias_maps =\n"
            f"smtp_host_lookup = native\n"
            f"minimal_backoff_time = 2s\nmaximal_backoff_time = 2s\nqueue_run_delay = 2s\n{lines}"
            .replace("/etc/postfix/sasl_passwd", str(etc / "sasl_passwd"))
        )  # fmt: skip

    def postfix(self, verb: str) -> None:
        subprocess.run(
            ["/usr/sbin/postfix", "-c", str(self.folder / "etc"), verb], capture_output=True, timeout=60, check=False
        )

    def __enter__(self) -> Postfix:
        self.postfix("start")
        return self

    def __exit__(self, *_: object) -> None:
        self.postfix("abort")

    def send(self, *recipients: str, data: bytes) -> None:
        command = ["/usr/sbin/sendmail", "-C", str(self.folder / "etc"), "-i", "-f", "alerts@example.com", *recipients]
        done = subprocess.run(command, input=data, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr

    def log(self) -> str:
        file = self.folder / "log"
        return file.read_text(errors="replace") if file.exists() else ""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_postfix_with_a_login(gateway: Relay, place: Path) -> None:
    """Two recipients and a large message; a refused one bounces; what is put off with 452 is delivered later."""
    lines, sasl = (gateway.lines(f"postfix {name}") for name in ("main.cf", "sasl_passwd"))
    with Postfix(place, lines, sasl) as peer:
        try:
            peer.send("a@example.net", "b@example.net", data=message("postfix one", 4_000_000))
            found = gateway.wait("postfix one")[0]
            assert "<a@example.net>" in found
            assert "<b@example.net>" in found
            assert "Grüße aus Köln" in found
            peer.send("x@example.org", data=message("postfix two"))
            bounce = gateway.wait("Undelivered Mail Returned to Sender")[0]
            assert "5.7.1" in bounce
            assert "<alerts@example.com>" in bounce
            gateway.full(True)
            peer.send("a@example.net", data=message("postfix three"))
            gateway.service.wait(lambda: "status=deferred" in peer.log())
            assert "452" in peer.log()
            gateway.full(False)
            gateway.wait("postfix three")
            assert "Verified TLS connection" in peer.log() or "smtp_tls_loglevel" not in lines
        except AssertionError as error:
            raise AssertionError(f"{error}\n{peer.log()[-3000:]}") from None


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_postfix_known_by_its_network(gateway: Relay, place: Path) -> None:
    lines = gateway.lines("postfix network")
    with Postfix(place, lines, "") as peer:
        peer.send("a@example.net", data=message("postfix four"))
        try:
            gateway.wait("postfix four")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{peer.log()[-3000:]}") from None


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_exim(gateway: Relay, place: Path) -> None:
    """Debian's update-exim4.conf with these files; a refusal bounces, what is put off stays in its queue."""
    with unpacked(place, "exim4-daemon-light", "exim4-base", "exim4-config") as root:
        room = Room(place / "room", root)
        for name in ("update-exim4.conf.conf", "passwd.client", "exim4.conf.localmacros"):
            room.put(f"/etc/exim4/{name}", gateway.lines(f"exim {name}"))
        room.put("/etc/mailname", "example.com\n")
        room.put("/etc/passwd", Path("/etc/passwd").read_text() + "Debian-exim:x:9901:9901::/:/bin/false\n")
        room.put("/etc/group", Path("/etc/group").read_text() + "Debian-exim:x:9901:\n")
        # Exim sends to no address of its own machine, where this gateway happens to be.
        folders = "/var/spool/exim4/db /var/spool/exim4/input /var/spool/exim4/msglog /var/lib/exim4"
        prefix = "mount -t tmpfs tmpfs /var/log; mkdir -p /var/log/exim4; chown 9901:9901 /var/log/exim4\n"
        made = room.run(
            f"{prefix}mkdir -p {folders}; chown -R 9901:9901 /var/spool/exim4; chmod 644 /etc/exim4/passwd.client\n"
            "sed -i 's/host_find_failed = ignore/&\\n  self = send/' /etc/exim4/exim4.conf.template\nupdate-exim4.conf"
        )
        assert made.returncode == 0, made.stderr.decode()

        def send(*recipients: str, data: bytes) -> str:
            script = prefix + 'exim4 -odf -i -f alerts@example.com "$@"; cat /var/log/exim4/mainlog; exim4 -bpc'
            done = room.run(script, *recipients, data=data)
            assert done.returncode == 0, done.stderr.decode()
            return done.stdout.decode()

        said = send("a@example.net", "b@example.net", data=message("exim one", 4_000_000))
        assert "A=plain" in said or "A=login" in said, said
        assert "CV=yes" in said
        assert "<b@example.net>" in gateway.wait("exim one")[0]
        send("x@example.org", data=message("exim two"))
        room.run(f"{prefix}exim4 -qff")
        assert "5.7.1" in gateway.wait("Mail delivery failed")[0]
        gateway.full(True)
        assert "452" in send("a@example.net", data=message("exim three"))
        gateway.full(False)
        room.run(f"{prefix}exim4 -qff")
        gateway.wait("exim three")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nullmailer(gateway: Relay, place: Path) -> None:
    """Its own queue: sent, refused and bounced, put off and sent later."""
    with unpacked(place, "nullmailer") as root:
        room = Room(place / "room", root)
        room.put("/etc/nullmailer/remotes", gateway.lines("nullmailer remotes"))
        room.put("/etc/nullmailer/defaultdomain", "example.com\n")
        room.put("/etc/nullmailer/pausetime", "0\n")
        room.put("/etc/ssl/certs/ca-certificates.crt", gateway.authority.read_text())
        room.put("/etc/mailname", "web1.example.com\n")
        queue = "cd /var/spool; mkdir -p nullmailer/queue nullmailer/tmp nullmailer/failed\n"
        queue += "[ -p nullmailer/trigger ] || mkfifo nullmailer/trigger; chown -R mail:mail nullmailer\n"
        send = queue + 'nullmailer-inject -f alerts@example.com "$@"; nullmailer-send || true\n'

        def put(*recipients: str, marker: str) -> str:
            done = room.run(send + "ls /var/spool/nullmailer/queue", *recipients, data=message(marker))
            return (done.stdout + done.stderr).decode()

        said = put("a@example.net", marker="nullmailer one")
        try:
            gateway.wait("nullmailer one", seconds=20)
        except AssertionError as error:
            raise AssertionError(f"{said}\n{error}") from None
        refused = put("x@example.org", marker="nullmailer two")
        assert "5.7.1" in refused
        gateway.full(True)
        assert "452" in put("a@example.net", marker="nullmailer three")
        gateway.full(False)
        room.run(f"{queue}nullmailer-send || true")
        gateway.wait("nullmailer three")


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_dma(gateway: Relay, place: Path) -> None:
    """TLS and login; what is put off waits in its queue."""
    with unpacked(place, "dma") as root:
        room = Room(place / "room", root)
        room.put("/etc/dma/dma.conf", gateway.lines("dma dma.conf"))
        room.put("/etc/dma/auth.conf", gateway.lines("dma auth.conf"))
        script = "mkdir -p /var/spool/dma; chown root:mail /var/spool/dma; chmod 2775 /var/spool/dma\n"
        script += 'dma -D -f alerts@example.com "$@"\n'
        done = room.run(script, "a@example.net", "b@example.net", data=message("dma one"))
        began = time.monotonic()
        try:
            gateway.wait("dma one", seconds=20)
        except AssertionError as error:
            raise AssertionError(f"{done} {time.monotonic() - began}\n{error}") from None


PYTHON = """
import smtplib, ssl, sys
host, port, ca, user, password, sender, recipient = sys.argv[1:]
with smtplib.SMTP(host, int(port)) as one:
    one.starttls(context=ssl.create_default_context(cafile=ca))
    one.login(user, password)
    one.sendmail(sender, [recipient], sys.stdin.buffer.read())
"""
NODE = """
const [host, port, ca, user, pass, from, to] = process.argv.slice(1);
const way = require("nodemailer").createTransport({host, port, requireTLS: true, auth: {user, pass},
  tls: {ca: require("fs").readFileSync(ca)}});
const raw = require("fs").readFileSync(0);
way.sendMail({envelope: {from, to}, raw}).catch(e => { console.error(e); process.exit(1) });
"""
PERL = """
use Net::SMTP; my ($host, $port, $ca, $user, $password, $from, $to) = @ARGV;
binmode STDIN; my $text = do { local $/; <STDIN> };
my $one = Net::SMTP->new($host, Port => $port, SSL_ca_file => $ca) or die "connect";
$one->starttls(SSL_ca_file => $ca) or die $one->message; $one->auth($user, $password) or die $one->message;
$one->mail($from) && $one->to($to) && $one->data($text) or die $one->message; $one->quit;
"""
WORDS = ["{host}", "{port}", "{ca}", "{user}", "{password}", "{sender}", "{recipient}"]
PROGRAMS = {
    "python": ["python3", "-c", PYTHON, *WORDS],
    "perl Net::SMTP": ["perl", "-e", PERL, *WORDS],
    "nodemailer": ["node", "-e", NODE, *WORDS],
    "curl": ["curl", "-sS", "smtp://{host}:{port}", "--ssl-reqd", "--cacert", "{ca}", "-u", "{user}:{password}",
             "--mail-from", "{sender}", "--mail-rcpt", "{recipient}", "-T", "-"],
    "swaks": ["swaks", "--server", "{host}:{port}", "--tls", "--tls-verify", "--tls-ca-path", "{ca}", "--auth", "LOGIN",
              "--auth-user", "{user}", "--auth-password", "{password}", "--from", "{sender}", "--to", "{recipient}",
              "--data", "-"],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("program", PROGRAMS)
def test_programs(gateway: Relay, program: str) -> None:
    """What applications send with: TLS that is checked, a login, 8-bit text."""
    command = PROGRAMS[program]
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    fill = {"host": "localhost", "port": gateway.port, "ca": gateway.authority, "user": "web1", "password": PASSWORD,
            "sender": "alerts@example.com", "recipient": "a@example.net"}  # fmt: skip
    words = [word.format(**fill) if word.startswith(("{", "smtp://")) else word for word in command]
    modules = os.environ.get("GATEWAY_NPM", "")
    if (
        command[0] == "perl"
        and subprocess.run(["perl", "-MIO::Socket::SSL", "-MAuthen::SASL", "-e", "1"], check=False).returncode
    ):
        pytest.skip("libio-socket-ssl-perl or libauthen-sasl-perl is not installed")
    if program == "nodemailer" and not Path(modules, "node_modules", "nodemailer").is_dir():
        pytest.skip("nodemailer is not in $GATEWAY_NPM")
    environ = os.environ | {"NODE_PATH": f"{modules}/node_modules"}
    text = message(f"program {program}").replace(b"\n", b"\r\n")
    done = subprocess.run(words, input=text, env=environ, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done
    assert "Grüße aus Köln" in gateway.wait(f"program {program}")[0]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_php_by_msmtp(gateway: Relay, place: Path) -> None:
    """mail() with sendmail_path: header fields and recipients stand in the message (-t)."""
    if not shutil.which("php") or not shutil.which("msmtp"):
        pytest.skip("php or msmtp is not installed")
    file = place / "msmtprc"
    file.write_text(gateway.lines("msmtp msmtprc"))
    file.chmod(0o600)
    code = 'exit(mail("a@example.net", "program php", "Hello", "From: alerts@example.com") ? 0 : 1);'
    command = ["php", "-d", f"sendmail_path=msmtp -C {file} -t", "-r", code]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done
    gateway.wait("program php")


def test_what_was_migrated_does_what_theirs_did(tmp_path: Path) -> None:
    """Settings made of Postfix's, served as they are: who could send can, names are completed, others are refused."""
    port, sink = free_port(), free_port()
    put(tmp_path / "postfix", main__cf=f"""
        myorigin = example.com
        mynetworks = 127.0.0.1/32
        relayhost = [127.0.0.1]:{sink}
        smtp_tls_security_level = none
    """, master__cf=f"127.0.0.1:{port} inet n - y - - smtpd\n[::1]:{port} inet n - y - - smtpd\n")  # fmt: skip
    text = migrate("postfix", tmp_path / "postfix").text
    with smtp_sink(tmp_path / "sunk", sink), Gateway(tmp_path, text, port=port) as service:
        with smtplib.SMTP("127.0.0.1", port) as client:
            client.sendmail("root", ["a@example.net"], "Subject: cron\n\nx\n")
        service.wait(lambda: sunk(tmp_path / "sunk"))
        assert "root@example.com" in sunk(tmp_path / "sunk")[0]
        with smtplib.SMTP("::1", port) as client, pytest.raises(smtplib.SMTPSenderRefused):
            client.sendmail("root@example.com", ["a@example.net"], "x")
