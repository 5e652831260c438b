"""smtp over TLS with real handshakes: without a trusted certificate, or without TLS at all, nothing secret leaves."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from gateway.backends import build
from gateway.backends.smtp.smarthost import Smtp, SmtpSettings
from gateway.model import Outcome, Scope, Verdict
from tests.backends import kit
from tests.backends.kit import ALL, RAW, Certificates, SmtpFake, spooled
from tests.fakes import START

OFFERS = (*ALL, "AUTH PLAIN LOGIN")
PAST = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


@contextlib.asynccontextmanager
async def both(path: Path, certificates: Certificates, server: SmtpFake, **settings: Any) -> AsyncIterator[Smtp]:
    values = {"host": "127.0.0.1", "username": "user", "password": "hunter2", "timeout": "5s"}
    values |= {"ca_file": certificates.ca_file} | settings
    async with server, kit.context(path) as context:
        way = Smtp("smart", SmtpSettings.model_validate(values | {"port": server.port}), context)
        try:
            yield way
        finally:
            await way.aclose()


async def one(way: Smtp) -> Outcome:
    return (await way.send(spooled(), RAW))["b@x.example"]


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_a_verified_connection_carries_login_and_message(
    tmp_path: Path, certificates: Certificates, tls: str
) -> None:
    context = certificates.server(not_after=datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC))
    server = SmtpFake(offers=OFFERS, **{"starttls" if tls == "starttls" else "tls": context})
    async with both(tmp_path, certificates, server, tls=tls) as way:
        for _ in range(2):
            assert (await one(way)).verdict is Verdict.SENT
        said = dict(zip(server.commands, server.encrypted, strict=True))
        clear = [command for command, encrypted in said.items() if not encrypted]
        assert clear == (["STARTTLS"] if tls == "starttls" else [])  # EHLO is said again inside
        assert server.connections == 1
        check = await way.check()
        assert check.ok, check
        assert check.facts["tls"] == "TLSv1.3"
        assert (
            check.facts["certificate_expires"]
            == f"2100-01-01 (in {(datetime.date(2100, 1, 1) - START.date()).days - 1} days)"
        )
        assert "STARTTLS" not in check.facts["extensions"]


def own(_: Certificates) -> ssl.SSLContext:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    return tls


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (own, "unable to get local issuer certificate"),
        (lambda c: c.server("other.example"), "not valid for '127.0.0.1'"),
        (lambda c: c.server("127.0.0.1", not_after=PAST), "certificate has expired"),
    ],
    ids=["unknown authority", "wrong name", "expired"],
)
async def test_an_untrusted_certificate_stops_the_backend(
    tmp_path: Path, certificates: Certificates, tls: str, make: Any, words: str
) -> None:
    """0 bytes of AUTH, MAIL or anything else after the handshake. It may pass, as a portal or a clock does."""
    server = SmtpFake(offers=OFFERS, **{"starttls" if tls == "starttls" else "tls": make(certificates)})
    async with both(tmp_path, certificates, server, tls=tls) as way:
        outcome = await one(way)
        assert (outcome.verdict, outcome.scope, outcome.enhanced) == (Verdict.DEFERRED, Scope.BACKEND, "4.7.5")
        assert f"certificate of 127.0.0.1:{server.port} not trusted: " in outcome.detail
        assert words in outcome.detail
        assert server.commands == (["EHLO relay.example", "STARTTLS"] if tls == "starttls" else [])
        check = await way.check()
        assert (check.ok, ("clock" if "expired" in words else "ca_file") in check.fix) == (False, True)


async def test_the_system_does_not_trust_a_private_authority(tmp_path: Path, certificates: Certificates) -> None:
    server = SmtpFake(offers=OFFERS, starttls=certificates.server())
    async with both(tmp_path, certificates, server, ca_file=None) as way:
        assert (await one(way)).verdict is Verdict.DEFERRED


@pytest.mark.parametrize("offers", [OFFERS, (), ("XXXXXXXX",)])
async def test_stripped_starttls_is_never_cleartext(
    tmp_path: Path, certificates: Certificates, offers: tuple[str, ...]
) -> None:
    """Somebody between us and the server removed the line: no login, no message, an alarm."""
    server = SmtpFake(offers=offers)
    async with both(tmp_path, certificates, server) as way:
        outcome = await one(way)
        assert (outcome.verdict, outcome.code, outcome.enhanced) == (Verdict.MISCONFIGURED, None, "4.7.4")
        assert "offers no STARTTLS" in outcome.detail
        assert server.commands == ["EHLO relay.example"]


@pytest.mark.parametrize(
    ("reply", "verdict", "code"),
    [
        ("454 4.7.0 TLS not available", "THROTTLED", 454),
        ("502 5.5.1 no", "MISCONFIGURED", 502),
        ("220 go\r\n235 2.7.0 injected\r\n250-evil\r\n250 AUTH PLAIN", "DEFERRED", None),
    ],
)
async def test_a_starttls_that_does_not_come_about_ends_the_conversation(
    tmp_path: Path, certificates: Certificates, reply: str, verdict: str, code: int | None
) -> None:
    class Refusing(SmtpFake):
        def _ehlo(self, secure: bool) -> str:
            return "250-fake\r\n250-AUTH PLAIN\r\n250 STARTTLS"

        async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if reply.startswith("220"):  # plain text behind the 220, then no handshake
                await self.say(writer, reader, "220 hello")
                self.commands += [(await reader.readline()).decode().strip()]
                await self.say(writer, reader, self._ehlo(False))
                self.commands += [(await reader.readline()).decode().strip()]
                await self.say(writer, reader, reply)
                self.commands += [str(await reader.read(1))]
                return
            await super().connected(reader, writer)

    server = Refusing({"STARTTLS": reply})
    async with both(tmp_path, certificates, server) as way:
        outcome = await one(way)
        assert (outcome.verdict.name, outcome.code) == (verdict, code)
        assert server.commands[:2] == ["EHLO relay.example", "STARTTLS"]
        assert not any(command.startswith(("AUTH", "MAIL")) for command in server.commands)


async def test_tls_where_the_server_speaks_none_is_a_failed_connection(
    tmp_path: Path, certificates: Certificates
) -> None:
    server = SmtpFake()
    async with both(tmp_path, certificates, server, tls="implicit") as way:
        outcome = await one(way)
        assert (outcome.verdict, outcome.code, outcome.enhanced) == (Verdict.DEFERRED, None, "4.7.5")
        assert outcome.detail.startswith(f"TLS with 127.0.0.1:{server.port} failed: ")
        assert outcome.fix == "check host, port and tls of backends.smart"


async def test_a_ca_file_that_cannot_be_read_is_told_at_start(tmp_path: Path) -> None:
    settings = SmtpSettings(host="h", ca_file=tmp_path / "absent.pem")
    async with kit.context(tmp_path) as context:
        with pytest.raises(FileNotFoundError):
            build("smart", settings, context)


async def test_large_messages_cross_tls_whole(tmp_path: Path, certificates: Certificates) -> None:
    raw = RAW + (b"." + b"x" * 77 + b"\r\n") * 20_000
    server = SmtpFake(offers=OFFERS, starttls=certificates.server())
    async with both(tmp_path, certificates, server) as way:
        assert (await way.send(spooled(), raw))["b@x.example"].verdict is Verdict.SENT
        assert server.done[0].body == raw


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
async def test_the_certificate_is_for_the_name_that_was_configured(
    tmp_path: Path, certificates: Certificates, tls: str, name: str
) -> None:
    """The connection is made to an address that was looked up before; TLS asks for the name all the same."""
    context = certificates.server(name)
    server = SmtpFake(offers=OFFERS, **{"starttls" if tls == "starttls" else "tls": context})
    async with both(tmp_path, certificates, server, tls=tls, host="localhost") as way:
        assert (await one(way)).verdict is (Verdict.SENT if name == "localhost" else Verdict.DEFERRED)


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
@pytest.mark.parametrize(("name", "sent"), [("mail.example.com", True), ("other.example.com", False)])
async def test_server_name_is_asked_for_and_verified_in_the_place_of_host(
    tmp_path: Path, certificates: Certificates, tls: str, name: str, sent: bool
) -> None:
    """RFC 6066, 3: the server is told which of its certificates is meant."""
    asked: list[str | None] = []
    context = certificates.server("mail.example.com")
    context.sni_callback = lambda _, wanted, __: asked.append(wanted)
    server = SmtpFake(offers=OFFERS, **{"starttls" if tls == "starttls" else "tls": context})
    async with both(tmp_path, certificates, server, tls=tls, server_name=name) as way:
        assert ((await one(way)).verdict is Verdict.SENT) is sent
        assert asked == [name]


async def test_a_changed_ca_file_counts_at_the_next_connection(tmp_path: Path, certificates: Certificates) -> None:
    """No restart; a file that is damaged while it is written takes nothing away."""
    file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(file))
    server = SmtpFake(offers=OFFERS, starttls=certificates.server())
    async with both(tmp_path, certificates, server, ca_file=file) as way:
        assert (await one(way)).verdict is Verdict.DEFERRED
        file.write_bytes(certificates.ca_file.read_bytes())
        assert (await way.check()).ok
        for damaged in (b"-----BEGIN CERTIFICATE-----", b""):
            file.write_bytes(damaged)
            assert (await way.check()).ok
        file.unlink()
        assert (await way.check()).ok
        trustme.CA().cert_pem.write_to_path(str(file))
        assert not (await way.check()).ok


@pytest.mark.parametrize("apart", [False, True])
async def test_a_client_certificate_is_shown_to_who_asks(
    tmp_path: Path, certificates: Certificates, apart: bool
) -> None:
    """As Postfix does with smtp_tls_cert_file; servers know relays by it (relay_clientcerts)."""
    ours = certificates.ca.issue_cert("relay.example.com")
    pem, key = tmp_path / "relay.pem", tmp_path / "relay.key"
    chain = b"".join(blob.bytes() for blob in ours.cert_chain_pems)
    pem.write_bytes(chain if apart else chain + ours.private_key_pem.bytes())
    key.write_bytes(ours.private_key_pem.bytes())
    context = certificates.server()
    context.verify_mode = ssl.CERT_REQUIRED
    certificates.ca.configure_trust(context)
    server = SmtpFake(offers=OFFERS, starttls=context)
    settings = {"certificate_file": pem} | ({"private_key_file": key} if apart else {})
    async with both(tmp_path, certificates, server, **settings) as way:
        assert (await one(way)).verdict is Verdict.SENT
    server = SmtpFake(offers=OFFERS, starttls=context)
    async with both(tmp_path, certificates, server) as way:
        assert (await one(way)).verdict is not Verdict.SENT


async def test_a_renewed_client_certificate_counts_at_the_next_connection(
    tmp_path: Path, certificates: Certificates
) -> None:
    """No restart, as a connector of Exchange needs it once a year; half a pair leaves the old one in force."""
    pem, key = tmp_path / "relay.pem", tmp_path / "relay.key"

    def renew(name: str, *, whole: bool = True) -> None:
        ours = certificates.ca.issue_cert(name)
        pem.write_bytes(b"".join(blob.bytes() for blob in ours.cert_chain_pems))
        if whole:
            key.write_bytes(ours.private_key_pem.bytes())

    shown: list[str] = []

    class Connector(SmtpFake):
        async def say(self, writer: Any, reader: Any, reply: str) -> None:
            if reply.startswith("221") or "SIZE" in reply:
                found = writer.get_extra_info("peercert") or {}
                shown.extend(value for kind, value in found.get("subjectAltName", ()) if kind == "DNS")
            await super().say(writer, reader, reply)

    context = certificates.server()
    context.verify_mode = ssl.CERT_REQUIRED
    certificates.ca.configure_trust(context)
    renew("first.example.com")
    settings = {"certificate_file": pem, "private_key_file": key}
    async with both(tmp_path, certificates, Connector(offers=OFFERS, starttls=context), **settings) as way:
        assert (await way.check()).ok
        renew("second.example.com")
        assert (await way.check()).ok
        renew("third.example.com", whole=False)
        assert (await way.check()).ok
    assert list(dict.fromkeys(shown)) == ["first.example.com", "second.example.com"]
