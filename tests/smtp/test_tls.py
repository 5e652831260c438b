"""TLS: STARTTLS once, implicit, minimum version, failed handshakes, certificates that change (RFC 3207, 8314)."""

from __future__ import annotations

import asyncio
import logging
import os
import smtplib
import socket
import ssl
import tracemalloc
import warnings
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from gateway.config.finding import Ending, Finding, Unfit
from gateway.config.models import ListenerSettings
from gateway.smtp.tls import Certificate, examine
from tests.fakes import until
from tests.smtp.kit import MESSAGE, PASSWORD, Peer, Rig, rig

HOST = "relay.example.com"
LOGIN = f"AUTH PLAIN {b64encode(f'{chr(0)}copier{chr(0)}{PASSWORD}'.encode()).decode()}"


class Authority:
    """A certificate authority, the files of a listener and a client that trusts it."""

    def __init__(self, directory: Path) -> None:
        self.ca = trustme.CA()
        self.certificate = directory / "tls.crt"
        self.private_key = directory / "tls.key"
        self.renew()
        self.context = ssl.create_default_context()
        self.ca.configure_trust(self.context)

    def renew(self, **options: Any) -> None:
        self.renew_for("relay.example.com", **options)

    def renew_for(self, name: str, **options: Any) -> None:
        leaf = self.ca.issue_cert(name, **options)
        self.certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(self.private_key)

    def listener(self, tls: str = "starttls", **more: Any) -> dict[str, Any]:
        return {"tls": tls, "certificate": self.certificate, "private_key": self.private_key, **more}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture(autouse=True)
def no_tracebacks(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """asyncio reports nothing of what clients do wrong."""
    with caplog.at_level(logging.WARNING):
        yield
    assert caplog.records == []


async def test_starttls(authority: Authority) -> None:
    """Advertised before and not after; the greeting is due again; AUTH appears; the trace names the cipher."""
    async with rig(listener=authority.listener()) as made:
        peer = await made.connect()
        assert "STARTTLS" in await peer.ehlo()
        await peer.start_tls(authority.context)
        await peer.talk(("MAIL FROM:<a@b.c>", "503 5.5.1"))
        reply = await peer.ehlo()
        assert "STARTTLS" not in reply
        assert "AUTH PLAIN LOGIN XOAUTH2 OAUTHBEARER" in reply
        await peer.talk((LOGIN, "235"), ("STARTTLS", "503 5.5.1"), ("STARTTLS now", "501 5.5.4"))
        assert (await peer.deliver()).startswith("250")
        received = made.messages[0].raw.replace(b"\r\n\t", b" ")
        assert b"(TLSv1.3 TLS_" in received
        assert b" with ESMTPSA id " in received


async def test_injected_commands_are_forgotten(authority: Authority) -> None:
    """What comes in one segment with STARTTLS is neither obeyed nor answered."""
    async with rig(listener=authority.listener()) as made:
        peer = await made.connect()
        await peer.ehlo()
        peer.send("STARTTLS\r\nEHLO evil\r\nMAIL FROM:<e@x>\r\nRCPT TO:<f@x>")
        assert (await peer.reply()).startswith("220 2.0.0")
        await peer.writer.start_tls(authority.context, server_hostname="relay.example.com")
        await peer.talk(("RCPT TO:<b@c.d>", "503 5.5.1"), ("NOOP", "250"))


async def test_implicit(authority: Authority) -> None:
    async with rig(listener=authority.listener("implicit")) as made:
        peer = await made.connect(tls=authority.context)
        assert peer.greeting.startswith("220 relay.example.com")
        assert "STARTTLS" not in await peer.ehlo()
        await peer.talk(("STARTTLS", "503 5.5.1"), (LOGIN, "235"))
        assert (await peer.deliver(b"From: a@b.c\r\n\r\n" + b"x" * 76 * 1000 + b"\r\n"))[:3] in ("250", "554")
        assert (await peer.deliver()).startswith("250")
        await peer.talk(("QUIT", "221"))
        assert await peer.rest() == b""


async def test_no_password_in_the_clear(authority: Authority) -> None:
    """538 5.7.11 for a peer elsewhere; its MAIL is told to start TLS first."""
    async with rig(listener=authority.listener(proxy_protocol_from=["127.0.0.9"])) as made:
        elsewhere = b"PROXY TCP4 198.51.100.9 192.0.2.1 40000 587\r\n"
        peer = await made.connect(address="127.0.0.9", header=elsewhere)
        assert "AUTH" not in await peer.ehlo()
        await peer.talk((LOGIN, "538 5.7.11"), ("MAIL FROM:<a@b.c>", "530 5.7.0 Must issue STARTTLS"))
        await peer.start_tls(authority.context)
        assert "AUTH" in await peer.ehlo()
        await peer.talk(("MAIL FROM:<a@b.c>", "530 5.7.0 Auth"), (LOGIN, "235"), ("MAIL FROM:<a@b.c>", "250"))


async def shaking(made: Rig, tls: str) -> Peer:
    """A client in the middle of its handshake."""
    peer = await made.connect(greet=tls == "starttls")
    if tls == "starttls":
        await peer.talk(("STARTTLS", "220"))
    await until(lambda: len(made.listener.tasks) == 1)
    return peer


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
@pytest.mark.parametrize("garbage", [b"EHLO x\r\nMAIL FROM:<a@b.c>\r\n", b"\x16\x03\x01\x00\x05hello", b""])
async def test_failed_handshakes(authority: Authority, tls: str, garbage: bytes) -> None:
    """Cleartext, nonsense or a hang-up instead of a handshake: counted and closed, no traceback."""
    async with rig(listener=authority.listener(tls)) as made:
        peer = await shaking(made, tls)
        if garbage:
            peer.send(garbage)
            assert b"250" not in await peer.rest()
        else:
            peer.writer.close()
        await until(lambda: made.metric("smtp_connections_open") == 0)
        assert made.metric("smtp_rejected_total", stage="connect", reason="tls_failed") == 1
        assert [line["event"] for line in made.logged() if "detail" in line] == ["rejected"]
        peer = await made.connect(tls=authority.context if tls == "implicit" else None)
        await peer.talk(("NOOP", "250"))


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_a_silent_handshake_ends(authority: Authority, tls: str) -> None:
    """Who never speaks keeps the connection for limits.idle and no longer, and hears nothing that is no TLS."""
    async with rig(listener=authority.listener(tls)) as made:
        peer = await shaking(made, tls)
        made.clock.advance(299)
        made.listener.sweep()
        await made.connect(greet=False)
        await until(lambda: len(made.listener.tasks) == 2)
        assert made.metric("smtp_connections_open") == 2
        made.clock.advance(1)
        made.listener.sweep()
        assert await peer.rest() == b""
        await until(lambda: made.metric("smtp_connections_open") == 1)
        (refused,) = (line for line in made.logged() if line["event"] == "rejected")
        assert refused["reason"] == "tls_failed"
        assert "waits for a greeting" in refused["detail"]


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_many_handshakes_take_few_descriptors(authority: Authority) -> None:
    """One each, as a connection does, and up to a hundred more; each is served as ever when its client speaks."""
    count = 250
    async with rig(listener=authority.listener("implicit"), limits={"connections_per_ip": 1000}) as made:
        clients, before = [socket.socket() for _ in range(count)], descriptors()
        try:
            for sock in clients:
                sock.setblocking(False)
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", made.listener.port))
            await until(lambda: len(made.listener.tasks) == count)
            peer = await made.connect(tls=authority.context)
            await peer.talk(("QUIT", "221"))
            assert descriptors() - before <= count + 110
        finally:
            for sock in clients:
                sock.close()
        await until(lambda: not made.listener.tasks)


@pytest.mark.asyncio(loop_factories=["asyncio"])  # uvloop does not fill its buffers, so they take no memory
async def test_a_connection_holds_little(authority: Authority) -> None:
    """Some hundred clients that stay connected with TLS are no reason for a larger machine. Both ends are counted."""
    async with rig(listener=authority.listener("implicit")) as made:
        first = await made.connect(tls=authority.context)
        tracemalloc.start()
        try:
            peers = [await made.connect(tls=authority.context) for _ in range(8)]
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert held / len(peers) < 2 * 100_000
        for peer in (first, *peers):
            await peer.talk(("QUIT", "221"))


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_a_handshake_does_not_hold_up_the_stop(authority: Authority, tls: str) -> None:
    async with rig(listener=authority.listener(tls)) as made:
        peer = await shaking(made, tls)
        await made.listener.drain(0.01)
        assert await peer.rest() == b""
        assert not made.listener.tasks


def only(context: ssl.SSLContext, version: ssl.TLSVersion, ciphers: str) -> None:
    """The client speaks nothing else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")


OLD = "PROTOCOL_VERSION"
NO_CIPHER = "HANDSHAKE_FAILURE"
DEVICES = [
    ("implicit", ssl.TLSVersion.TLSv1, "ALL", OLD),
    ("starttls", ssl.TLSVersion.TLSv1_1, "ALL", OLD),
    ("implicit", ssl.TLSVersion.TLSv1_2, "AES128-SHA", NO_CIPHER),
    ("starttls", ssl.TLSVersion.TLSv1_2, "AES256-SHA256", NO_CIPHER),
    ("implicit", ssl.TLSVersion.TLSv1_2, "AES128-GCM-SHA256", NO_CIPHER),
    ("starttls", ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-AES256-SHA", NO_CIPHER),
    ("implicit", ssl.TLSVersion.TLSv1_2, "DHE-RSA-AES128-SHA", NO_CIPHER),
]


@pytest.mark.parametrize(("tls", "version", "ciphers", "alert"), DEVICES)
async def test_old_devices_only_where_asked_for(
    authority: Authority, tls: str, version: ssl.TLSVersion, ciphers: str, alert: str
) -> None:
    """Old versions and ciphers get in through a listener made for them; elsewhere the device gets an alert (RFC 8446
    6.2) and the log names cause and way out."""
    authority.renew(key_type=trustme.KeyType.RSA)
    only(authority.context, version, ciphers)

    async def connected(made: Rig) -> Peer:
        peer = await made.connect(tls=authority.context if tls == "implicit" else None)
        if tls == "starttls":
            await peer.start_tls(authority.context)
        return peer

    async with rig(listener=authority.listener(tls, min_tls="1.0")) as made:
        peer = await connected(made)
        assert (await peer.deliver()).startswith("250")
        assert f"({version.name.replace('_', '.').replace('v1 ', 'v1.0 ')}" in made.messages[0].raw.decode()
    async with rig(listener=authority.listener(tls)) as made:
        with pytest.raises(ssl.SSLError, match=f"ALERT_{alert}"):
            await connected(made)
        await until(lambda: made.metric("smtp_connections_open") == 0)
        (refused,) = (line for line in made.logged() if line["event"] == "rejected")
        assert refused["detail"].startswith("unsupported protocol: " if alert == OLD else "no shared cipher: ")
        assert 'min_tls: "1.0"' in refused["detail"]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("authority", "alert unknown ca: the client does not trust the certificate"),
        ("name", "alert bad certificate: the client does not trust the certificate, or was given another name"),
        ("date", "alert certificate expired: the client finds the certificate out of date"),
    ],
)
async def test_what_the_client_has_against_the_certificate(authority: Authority, fault: str, words: str) -> None:
    """Its alert is translated. (A blocking client: asyncio's sends none.)"""
    context = authority.context
    if fault == "authority":
        context = ssl.create_default_context()
    elif fault == "name":
        authority.renew_for("other.example.com")
    else:
        now = datetime.now(UTC)
        authority.renew(not_before=now - timedelta(days=2), not_after=now - timedelta(days=1))
    async with rig(listener=authority.listener("implicit")) as made:

        def connect(port: int) -> None:
            with socket.create_connection(("127.0.0.1", port)) as sock:
                context.wrap_socket(sock, server_hostname="relay.example.com")

        with pytest.raises(ssl.SSLCertVerificationError):
            await anyio.to_thread.run_sync(connect, made.listener.port)
        await until(lambda: made.metric("smtp_connections_open") == 0)
        (refused,) = (line for line in made.logged() if line["event"] == "rejected")
        assert words in refused["detail"]


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
@pytest.mark.parametrize(
    "text", [b"EHLO x\r\n", b"GET / HTTP/1.0\r\n\r\n", b"CONNECT x:25 HTTP/1.0\r\n\r\n", b"\r\n" * 9]
)
async def test_plain_text_where_tls_is_due(authority: Authority, tls: str, text: bytes) -> None:
    async with rig(listener=authority.listener(tls)) as made:
        peer = await shaking(made, tls)
        peer.send(text)
        await until(lambda: made.metric("smtp_connections_open") == 0)
        (refused,) = (line for line in made.logged() if line["event"] == "rejected")
        assert "no TLS came but plain text" in refused["detail"]


async def test_a_renewed_certificate_is_used(authority: Authority) -> None:
    """The next handshake after the file changed gets it; open connections stay; the expiry is a metric."""
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    async with rig(listener=authority.listener("implicit")) as made:
        old = await made.connect(tls=authority.context)
        authority.renew(not_after=soon)
        sweep(made)
        new = await made.connect(tls=authority.context)
        serials = [peer.writer.get_extra_info("peercert")["serialNumber"] for peer in (old, new)]
        assert serials[0] != serials[1]
        await old.talk(("NOOP", "250"))
        assert made.metric("tls_certificate_not_after_timestamp_seconds") == soon.timestamp()


@pytest.mark.parametrize("damage", ["no certificate", "wrong key", "gone"])
async def test_a_bad_new_file_keeps_the_old_certificate(authority: Authority, damage: str) -> None:
    """Warned once; mended, it is used."""
    async with rig(listener=authority.listener("implicit")) as made:
        if damage == "no certificate":
            authority.certificate.write_text("oops")
        elif damage == "wrong key":
            trustme.CA().issue_cert("x").private_key_pem.write_to_path(authority.private_key)
        else:
            authority.certificate.unlink()
        sweep(made)
        sweep(made)
        peer = await made.connect(tls=authority.context)
        await peer.talk(("NOOP", "250"))
        assert [line["event"] for line in made.logged()].count("tls_certificate_kept") == 1
        authority.renew()
        sweep(made)
        assert "tls_certificate_loaded" in [line["event"] for line in made.logged()]


def sweep(made: Rig) -> None:
    """File systems may give two writes the same time; the size or inode usually differs, the test makes sure."""
    for path in (made.listener.site.settings.certificate, made.listener.site.settings.private_key):
        assert path
        if path.exists():
            stat = path.stat()
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + (stat.st_mtime_ns % 2 == 0)))
    made.listener.sweep()


def test_errors_at_start_name_the_setting(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    other = trustme.CA().issue_cert("relay.example.com").private_key_pem
    other.write_to_path(tmp_path / "other.key")
    locked = load_pem_private_key(other.bytes(), None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
    )
    (tmp_path / "locked.key").write_bytes(locked)
    (tmp_path / "cut.pem").write_bytes(authority.certificate.read_bytes()[:300])
    (tmp_path / "bad.pem").write_text("no certificate")
    (good,) = examine({"a": ListenerSettings(bind="127.0.0.1:0"), "b": _tls(authority.listener())}, HOST)
    assert isinstance(good, Ending)
    assert good.keys == ("listeners", "b", "certificate")
    for listener, words in (
        ({"tls": "starttls"}, r"listeners\.mail\.certificate: needed for tls: starttls"),
        ({"tls": "implicit", "certificate": tmp_path / "none.pem"}, r"listeners\.mail\.certificate: .*none\.pem"),
        (
            {"tls": "implicit", "certificate": tmp_path / "bad.pem"},
            r"listeners\.mail\.certificate: .*bad\.pem is not a PEM certificate: it has no line",
        ),
        (
            authority.listener(certificate=tmp_path / "cut.pem"),
            r"listeners\.mail\.certificate: .*cut\.pem is not a PEM certificate: it is damaged",
        ),
        (
            authority.listener(private_key=tmp_path / "other.key"),
            r"^listeners\.mail\.certificate: does not belong to private_key .*other\.key; take both",
        ),
        (
            authority.listener(private_key=tmp_path / "locked.key"),
            r"listeners\.mail\.private_key: .*locked\.key is not a PEM private key: it needs a passphrase",
        ),
        (authority.listener(private_key=tmp_path / "none"), r"listeners\.mail\.private_key: .*none: No such file"),
    ):
        with pytest.raises(Unfit, match=words) as caught:
            Certificate("mail", _tls(listener), events=None)  # type: ignore[arg-type]
        assert list(examine({"mail": _tls(listener)}, HOST)) == [caught.value.finding]


@pytest.mark.parametrize(
    ("name", "hostname", "told"),
    [
        ("relay.example.com", "Relay.example.com", False),
        ("*.example.com", HOST, False),
        ("*.example.com", "example.com", True),
        ("mail.example.com", HOST, True),
        ("192.0.2.1", HOST, False),
    ],
)
def test_a_certificate_for_another_name_is_spoken_of(tmp_path: Path, name: str, hostname: str, told: bool) -> None:
    """With listener, names and hostname; it may be meant so, and one for an address alone says nothing of names."""
    authority = Authority(tmp_path)
    authority.renew_for(name)
    _, *findings = examine({"b": _tls(authority.listener())}, hostname)
    assert len(findings) == told
    for one in findings:
        assert isinstance(one, Finding)
        assert (one.keys, one.fatal) == (("listeners", "b", "certificate"), False)
        assert one.text.startswith(f"is for {name}, not for hostname {hostname}: ")


def _tls(listener: dict[str, Any]) -> ListenerSettings:
    return ListenerSettings.model_validate({"bind": "127.0.0.1:0", **listener})


async def test_half_closing_and_large_mail_over_tls(authority: Authority) -> None:
    async with rig(listener=authority.listener("implicit")) as made:
        peer = await made.connect(tls=authority.context)
        body = MESSAGE + b"0123456789" * 7 + b"\r\n"
        body += (b"0123456789" * 7 + b"\r\n") * 100_000
        assert (await peer.deliver(body)).startswith("250")
        assert made.messages[0].raw.endswith(body[-1000:])
        assert len(made.messages[0].raw) > len(body)


async def test_smtplib(authority: Authority) -> None:
    """An independent client: SMTP with starttls and login."""
    async with rig(listener=authority.listener(auth="required")) as made:

        def script(port: int) -> None:
            context = ssl.create_default_context()
            context.check_hostname = False  # smtplib checks the name it connected to
            authority.ca.configure_trust(context)
            with smtplib.SMTP("127.0.0.1", port) as server:
                server.starttls(context=context)
                server.login("copier", PASSWORD)
                server.sendmail("a@b.c", ["b@c.d"], MESSAGE)

        await anyio.to_thread.run_sync(script, made.listener.port)
        assert len(made.messages) == 1
