"""The main job as a user sees it: a real process, real clients, real sockets."""

from __future__ import annotations

import shutil
import signal
import smtplib
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path

import jwt
import pytest

from tests.flow.kit import Gateway, free_port, smtp_sink, sunk

SECRET = "a-secret-of-at-least-thirty-two-octets-here"


def token(**claims: object) -> str:
    soon = datetime.now(UTC) + timedelta(hours=1)
    return jwt.encode({"sub": "billing", "exp": soon} | claims, SECRET, algorithm="HS256")


def send(port: int, *, password: str = "", source: str = "127.0.0.1", to: str = "to@example.org") -> bytes:
    """The documented script; returns what the server said after the data."""
    message = MIMEMultipart("alternative")
    message["From"], message["To"], message["Subject"] = "app@example.com", to, "Report"
    message.attach(MIMEText("<h1>Report ready</h1>", "html"))
    with smtplib.SMTP("127.0.0.1", port, source_address=(source, 0)) as smtp:
        if password:
            smtp.login("jwt", password)
        smtp.sendmail("app@example.com", [to], message.as_string())
        code, text = smtp.noop()
        assert code == 250
        return text


def captured(gateway: Gateway) -> list[bytes]:
    return [file.read_bytes() for file in sorted((gateway.directory / "state" / "captured").glob("*.eml"))]


def test_documented_script_with_only_a_secret(tmp_path: Path) -> None:
    """smtplib, login("jwt", token), MIMEMultipart, sendmail: delivered with nothing but an HS256 key configured."""
    (tmp_path / "app.secret").write_text(SECRET)
    (tmp_path / "app.secret").chmod(0o600)
    with Gateway(tmp_path, "auth: {keys: {app: {algorithm: HS256, secret_file: app.secret}}}") as gateway:
        send(gateway.port, password=token())
        gateway.wait(lambda: len(captured(gateway)) == 1)
        raw = captured(gateway)[0]
        assert raw.startswith(b"Received: ")
        assert b"ESMTPA" in raw.split(b"\r\n\r\n")[0]
        with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
            send(gateway.port, password=token(sub="x", exp=1))
        assert refused.value.smtp_code == 535


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[Gateway]:
    """Without any settings of its own."""
    with Gateway(tmp_path_factory.mktemp("plain")) as gateway:
        yield gateway


def test_revoked_token_dies_in_an_open_connection(plain: Gateway) -> None:
    """After ``token revoke`` the next MAIL of the same connection is refused."""
    minted = plain.run("token", "mint", "--sub", "me", "--expires", "1h")
    assert minted.returncode == 0, minted.stderr
    password = minted.stdout.strip()
    with smtplib.SMTP("127.0.0.1", plain.port) as smtp:
        smtp.login("jwt", password)
        assert smtp.mail("a@example.com")[0] == 250
        smtp.rset()
        jti = plain.json("token", "list")[0]["jti"]
        assert plain.run("token", "revoke", jti).returncode == 0
        code, text = smtp.mail("a@example.com")
        assert code == 530, text
    with pytest.raises(smtplib.SMTPAuthenticationError):
        send(plain.port, password=password)


def test_upstream_away_restart_and_back(tmp_path: Path) -> None:
    """Deferred with the reason in ``queue show``; kept over a restart; delivered once when the upstream is back.

    SIGTERM: exit code 0, idle sessions are told 421.
    """
    port = free_port()
    config = f"""
        backends: {{smart: {{type: smtp, host: 127.0.0.1, port: {port}, tls: none}}}}
        retry: {{delays: [1s]}}
        """
    gateway = Gateway(tmp_path, config)
    with gateway:
        send(gateway.port)
        gateway.wait(lambda: "refused" in "".join(row["detail"] for row in gateway.messages()).lower())
        queue_id = gateway.messages()[0]["id"]
        assert "refused" in gateway.run("queue", "show", queue_id).stdout.lower()
        with closing(smtplib.SMTP("127.0.0.1", gateway.port)) as idle:
            idle.ehlo()
            gateway.signal(signal.SIGTERM)
            assert idle.getreply()[0] == 421
        assert gateway.process is not None
        assert gateway.process.wait(timeout=40) == 0
    raw = gateway.run("queue", "cat", queue_id).stdout
    with smtp_sink(tmp_path / "sink", port), gateway:
        gateway.wait(lambda: gateway.messages(f"id={queue_id}")[0]["state"] == "done")
        messages = sunk(tmp_path / "sink")
        assert len(messages) == 1
        assert raw.replace("\r\n", "\n").strip() in messages[0].replace("\r\n", "\n")
        life = gateway.run("trace", queue_id).stdout
        assert "refused" in life.lower()
        assert "smart" in life


def test_metrics_show_what_happened(plain: Gateway) -> None:
    """The counts of what happened are on /metrics, and promtool accepts the text."""
    send(plain.port)
    plain.wait(lambda: len(captured(plain)) == 1)
    wanted = 'gateway_deliveries_total{backend="box",result="sent"} 1.0'
    plain.wait(lambda: wanted in plain.get("/metrics")[1])
    text = plain.get("/metrics")[1]
    assert 'gateway_messages_received_total{client="localhost",listener="local"} 1.0' in text
    if not (promtool := shutil.which("promtool")):
        pytest.skip("promtool (Debian package prometheus) is not installed")
    checked = subprocess.run([promtool, "check", "metrics"], input=text, text=True, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_reload_is_all_or_nothing(tmp_path: Path) -> None:
    """SIGHUP with a wrong file keeps the old settings and says so; a right one takes effect.

    By it a device in the allowed network needs no login; one from elsewhere is denied with 550 5.7.1.
    """
    gateway = Gateway(tmp_path)
    good = gateway.file.read_text()
    with gateway:
        gateway.file.write_text(good + "clientz: {}\n")
        gateway.signal(signal.SIGHUP)
        gateway.wait(lambda: "gateway_config_last_reload_successful 0.0" in gateway.get("/metrics")[1])
        send(gateway.port)
        gateway.file.write_text(good + "clients: {printers: {networks: [127.0.0.2/32]}}\n")
        gateway.signal(signal.SIGHUP)
        gateway.wait(lambda: "gateway_config_last_reload_successful 1.0" in gateway.get("/metrics")[1])
        send(gateway.port, source="127.0.0.2")
        for elsewhere in ("127.0.0.1", "127.0.0.3"):
            with pytest.raises(smtplib.SMTPException) as refused:
                send(gateway.port, source=elsewhere)
            assert "550" in str(refused.value)
            assert "5.7.1" in str(refused.value)
        gateway.wait(lambda: len(captured(gateway)) == 2)
        gateway.wait(lambda: bool(gateway.json("acts")))
        [act] = gateway.json("acts")
        assert (act["name"], act["way"], act["verb"]) == ("SIGHUP", "signal", "reload")
        assert act["what"].startswith("clients")


def test_a_second_signal_cuts_it_short(tmp_path: Path) -> None:
    """Nobody is waited for, neither a client in the middle of a message nor a provider that is silent: exit code 0."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        upstream = f"{{type: smtp, host: 127.0.0.1, port: {silent.getsockname()[1]}, tls: none}}"
        with Gateway(tmp_path, f"backends: {{smart: {upstream}}}") as gateway:
            send(gateway.port)
            silent.settimeout(30)
            connection, _ = silent.accept()
            with connection, smtplib.SMTP("127.0.0.1", gateway.port) as smtp:
                smtp.ehlo()
                smtp.mail("a@example.com")
                smtp.rcpt("b@example.com")
                assert smtp.docmd("DATA")[0] == 354
                gateway.signal(signal.SIGTERM)
                gateway.wait(lambda: gateway.get("/readyz")[0] == 503)
                gateway.signal(signal.SIGTERM)
                assert gateway.process is not None
                assert gateway.process.wait(timeout=20) == 0
                smtp.close()
        assert "Traceback" not in gateway.log.read_text()
