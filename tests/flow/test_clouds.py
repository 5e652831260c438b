"""Gmail and Graph as a user meets them: a real process, smtplib at its door, strict fakes of both clouds behind it."""

from __future__ import annotations

import asyncio
import smtplib
from pathlib import Path

import pytest
from cryptography import x509

from gateway.backends.microsoft import keypair
from gateway.clock import SystemClock
from gateway.model import Verdict
from tests.backends.entra_keys_fake import FIRST, KeysFake
from tests.backends.gmail_fake import GoogleFake, authorized_user_info, service_account_info, stored
from tests.backends.graph_fake import CLIENT, SECRET, TENANT, GraphFake
from tests.backends.kit import Web, http, reset_at_once
from tests.fakes import FakeClock
from tests.flow.kit import Gateway

MESSAGE = (
    b"From: Corp <a@corp.example>\r\nTo: ann@one.test, Bob <bob@two.test>\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n"
    b"Message-ID: <%d@corp.example>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Transfer-Encoding: 8bit\r\n\r\n.dot\r\n..\r\nGr\xc3\xbc\xc3\x9fe\r\n"
)
PEOPLE = ["ann@one.test", "bob@two.test", "blind@three.test"]
SETTINGS = """
    backends:
      google: {{type: gmail, {google}, api_base: "{gmail}", token_url: "{gmail}/token"}}
      office: {{type: graph, tenant: {tenant}, client_id: {client}, client_secret_file: graph.secret,
                mailbox: a@corp.example, mailbox_rate: 1000/minute, api_base: "{graph}", authority: "{graph}"}}
    routes:
      - {{senders: ["*@gmail.test"], backend: google}}
      - {{backend: office}}
    retry: {{delays: [1s]}}
"""
SIGNED_IN = "authorized_user_file: google.json, mailbox: me"


def configure(folder: Path, gmail: str, graph: str, google: str = SIGNED_IN) -> Gateway:
    stored(folder, authorized_user_info())
    stored(folder, service_account_info(), "sa.json")
    (folder / "graph.secret").write_text(SECRET)
    (folder / "graph.secret").chmod(0o600)
    return Gateway(folder, SETTINGS.format(gmail=gmail, graph=graph, google=google, tenant=TENANT, client=CLIENT))


def send(gateway: Gateway, sender: str, number: int = 1, author: str = "a@corp.example") -> None:
    with smtplib.SMTP("127.0.0.1", gateway.port) as smtp:
        smtp.sendmail(sender, PEOPLE, (MESSAGE % number).replace(b"<a@corp.example>", f"<{author}>".encode()))


def done(gateway: Gateway) -> bool:
    return [row["state"] for row in gateway.messages()] == ["done"]


async def test_one_script_by_either_cloud(tmp_path: Path) -> None:
    """The envelope gets it, the blind one is hidden, body and Message-ID stay, and both checks say that all is well.

    A foreign From is refused at the door: Gmail would answer 200 and send as somebody else.
    """
    google, office = GoogleFake(SystemClock()), GraphFake(FakeClock())
    async with Web(google) as gmail, Web(office) as graph:
        with configure(tmp_path, gmail.url, graph.url) as gateway:
            await asyncio.to_thread(send, gateway, "app@gmail.test")
            await asyncio.to_thread(send, gateway, "app@corp.example", 2)
            with pytest.raises(smtplib.SMTPDataError, match=r"boss@corp.example>: backend .google. sends only") as no:
                await asyncio.to_thread(send, gateway, "app@gmail.test", 3, author="boss@corp.example")
            assert no.value.smtp_code == 553
            await asyncio.to_thread(
                gateway.wait, lambda: [row["state"] for row in gateway.messages()] == ["done", "done"]
            )
            check = await asyncio.to_thread(gateway.run, "backend", "check")
            assert check.returncode == 0, check.stdout
            told = await asyncio.to_thread(gateway.run, "trace", "<2@corp.example>")
            assert "Sent to everybody" in told.stdout
            metrics = gateway.get("/metrics")[1]
    (mailed,) = google.delivered
    assert sorted(mailed.people) == sorted(PEOPLE)
    ((people, raw),) = office.delivered
    assert sorted(people) == sorted(PEOPLE)
    for seen in (mailed.seen, raw):
        assert seen.partition(b"\r\n\r\n")[2] == MESSAGE.partition(b"\r\n\r\n")[2]
    assert b"blind" not in mailed.seen
    for name in ("google", "office"):
        assert f'gateway_oauth_token_refresh_total{{backend="{name}",result="ok"}} 1.0' in metrics
        assert f'gateway_oauth_token_expiry_timestamp_seconds{{backend="{name}"}}' in metrics


@pytest.mark.slow
async def test_tokens_that_cannot_be_had_lose_and_bounce_nothing(tmp_path: Path) -> None:
    """The token endpoint is down, then refuses us: the mail waits, the operator is told, and then it is delivered."""
    google = GoogleFake(SystemClock())
    async with Web(google) as gmail, Web(GraphFake(FakeClock())) as graph:
        google.token_answers = [http(503)] * 3
        with configure(tmp_path, gmail.url, graph.url) as gateway:
            await asyncio.to_thread(send, gateway, "app@gmail.test")
            await asyncio.to_thread(
                gateway.wait, lambda: gateway.messages() and "503" in gateway.messages()[0]["detail"]
            )
            google.token_answers = [http(400, {"error": "invalid_grant", "error_description": "revoked"})] * 9
            await asyncio.to_thread(
                gateway.wait, lambda: gateway.run("backend", "resume", "google", "--no-wait").returncode == 0
                and "invalid_grant" in gateway.messages()[0]["detail"]
            )  # fmt: skip
            listed = await asyncio.to_thread(gateway.json, "backend", "list")
            assert listed["google"]["paused_by"] == "misconfigured"
            check = await asyncio.to_thread(gateway.run, "backend", "check", "google")
            assert check.returncode == 1
            assert "gateway auth google --backend google" in check.stdout
            google.token_answers = []
            await asyncio.to_thread(
                gateway.wait, lambda: done(gateway) or (gateway.run("backend", "resume", "google") and False)
            )
    assert len(google.delivered) == 1


async def test_a_lost_answer_is_shown_as_in_doubt(tmp_path: Path) -> None:
    """In doubt is an outcome of its own in ``queue show`` and ``trace``, and nobody's bounce."""
    office = GraphFake(FakeClock())
    async with Web(GoogleFake(SystemClock())) as gmail, Web(office) as graph:
        office.answers["sendMail"] = [reset_at_once]
        with configure(tmp_path, gmail.url, graph.url) as gateway:
            await asyncio.to_thread(send, gateway, "app@corp.example")
            await asyncio.to_thread(gateway.wait, lambda: gateway.messages()[0]["detail"])
            shown = await asyncio.to_thread(gateway.json, "queue", "show", gateway.messages()[0]["id"])
            assert shown["attempts"][0]["verdict"] == Verdict.IN_DOUBT.value
            told = await asyncio.to_thread(gateway.run, "trace", "<1@corp.example>")
            assert "no usable answer came" in told.stdout
            assert "sendMail" in office.calls


async def test_a_certificate_is_renewed_by_order(tmp_path: Path) -> None:
    """The running service uses the new one, says until when it is good, and keeps who ordered it; no key is shown."""
    fake, clock = KeysFake(SystemClock(), proof_lag=0.0), SystemClock()  # type: ignore[arg-type]
    first = keypair.make(clock.now())
    (tmp_path / "graph.pem").write_text(first.certificate + first.private_key)
    fake.hold(FIRST, x509.load_pem_x509_certificate(first.certificate.encode()))
    async with Web(fake) as graph:
        with Gateway(tmp_path, RENEWS.format(graph=graph.url, tenant=TENANT, client=CLIENT)) as gateway:
            renewed = await asyncio.to_thread(gateway.run, "backend", "renew", "office")
            assert renewed.returncode == 0, renewed.stderr
            assert "office: renewed: good until 20" in renewed.stdout
            fake.keys.pop(FIRST)
            check = await asyncio.to_thread(gateway.run, "backend", "check", "office")
            assert check.returncode == 0, check.stdout
            assert "certificate: good until 20" in check.stdout
            nothing = await asyncio.to_thread(gateway.run, "backend", "renew", "box")
            assert (nothing.returncode, "certificate_renew" in nothing.stderr) == (1, True)
            acts = await asyncio.to_thread(gateway.run, "acts")
            assert "backend office: good until 20" in acts.stdout
            metrics = gateway.get("/metrics")[1]
            status = await asyncio.to_thread(gateway.json, "status")
    assert 'gateway_certificate_renewals_total{backend="office",result="renewed"} 1.0' in metrics
    assert [one["key"] for one in status["ends"]] == ["backends.office.certificate_renew"]
    assert not [one for one in status["problems"] if one["kind"] == "ends"]
    (kept,) = tmp_path.rglob("certificate-*.json")
    assert kept.stat().st_mode & 0o777 == 0o600


RENEWS = """
    backends:
      office: {{type: graph, tenant: {tenant}, client_id: {client}, certificate_file: graph.pem,
                mailbox: a@corp.example, certificate_renew: true, object_id: 0b1ec700-0000-4000-8000-00000000aaaa,
                certificate_id: f1c5717d-0000-4000-8000-000000000001, api_base: "{graph}", authority: "{graph}"}}
      box: {{type: capture, directory: captured}}
    routes: [{{backend: office}}]
"""
