"""The job of cloudflare_temp_email's own SMTP proxy, done by a real process: the same script, the address JWT as the
password, a Worker that is strict, private, away or in a bad mood."""

from __future__ import annotations

import asyncio
import base64
import json
import smtplib
from email.mime.application import MIMEApplication
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path

import pytest

from tests.backends.json_fakes import TempMailFake
from tests.backends.kit import Web, http
from tests.flow.kit import Gateway

ADDRESS = "me@temp.example"


def address_jwt(address: str = ADDRESS) -> str:
    """As the Worker makes them: HS256, no expiry; only the Worker can check the signature."""
    head, claims = ({"alg": "HS256", "typ": "JWT"}, {"address": address, "address_id": 7})
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (head, claims)]
    return ".".join([*parts, "c2lnbmF0dXJlLW9mLXRoZS13b3JrZXItbm9ib2R5LWVsc2U"])


TOKEN = address_jwt()


def send(gateway: Gateway, *people: str, token: str = TOKEN, sender: str = ADDRESS, attach: bool = False) -> None:
    """The product's own example: smtplib, login("jwt", token), MIMEMultipart, sendmail."""
    message = MIMEMultipart()
    message["From"], message["To"], message["Subject"] = sender, ", ".join(people[:1]), "Grüße"
    message.attach(MIMEText("<h1>Hallo Wörld</h1>", "html", "utf-8"))
    if attach:
        message.attach(MIMEApplication(b"%PDF-", name="report.pdf"))
    with smtplib.SMTP("127.0.0.1", gateway.port) as smtp:
        smtp.login("jwt", token)
        smtp.sendmail(sender, people, message.as_string())


def configure(folder: Path, url: str) -> Gateway:
    (folder / "site.pw").write_text("open sesame")
    (folder / "site.pw").chmod(0o600)
    return Gateway(
        folder,
        f"""
        clients: {{mailboxes: {{login: temp}}}}
        backends: {{temp: {{type: temp_mail, base_url: "{url}", token: client, site_password_file: site.pw}}}}
        retry: {{delays: [1s]}}
        """,
    )


async def test_the_proxy_s_job(tmp_path: Path) -> None:
    """One call for each recipient with the client's own token, which lies nowhere in clear and is gone at the end."""
    worker = TempMailFake(tokens={TOKEN: ADDRESS}, password="open sesame")
    async with Web(worker) as web:
        with configure(tmp_path, web.url) as gateway:
            await asyncio.to_thread(send, gateway, "ann@one.test", "bob@two.test", "blind@three.test")
            await asyncio.to_thread(gateway.wait, lambda: [row["state"] for row in gateway.messages()] == ["done"])
            spool = b"".join(path.read_bytes() for path in (tmp_path / "state").glob("spool.db*"))
            log = gateway.log.read_text()
    assert [body["to_mail"] for body in worker.taken] == ["ann@one.test", "bob@two.test", "blind@three.test"]
    for body in worker.taken:
        assert (body["token"], body["subject"], body["is_html"]) == (TOKEN, "Grüße", True)
        assert "Hallo Wörld" in body["content"]
    assert TOKEN.encode() not in spool
    assert TOKEN not in log


async def test_who_may_not_and_what_cannot(tmp_path: Path) -> None:
    """A token that the Worker does not know, a foreign sender, an attachment: refused, with the reason.

    So is who may send without a token, before anything is accepted: it could only bounce.
    """
    worker = TempMailFake(tokens={TOKEN: ADDRESS}, password="open sesame")
    async with Web(worker) as web:
        gateway = configure(tmp_path, web.url)
        clients = "clients: {anybody: {networks: [127.0.0.1/32]}, mailboxes: {login: temp}}"
        gateway.file.write_text(gateway.file.read_text().replace("clients: {mailboxes: {login: temp}}", clients))
        with gateway:
            for wrong, expected in (
                ({"token": address_jwt("you@temp.example")}, (535, "5.7.8")),
                ({"sender": "boss@temp.example"}, (553, "sender not allowed")),
                ({"attach": True}, (554, "5.6.3 attachments cannot be sent through backend")),
            ):
                with pytest.raises(smtplib.SMTPException) as refused:
                    await asyncio.to_thread(send, gateway, "ann@one.test", **wrong)
                assert str(expected[0]) in str(refused.value)
                assert expected[1] in str(refused.value)
                if "attach" in wrong:
                    assert "report.pdf" in str(refused.value)
            with smtplib.SMTP("127.0.0.1", gateway.port) as smtp:
                smtp.ehlo()
                smtp.mail(ADDRESS)
                code, text = smtp.rcpt("ann@one.test")
                assert (code, text[:5], b"log in with that" in text) == (550, b"5.7.1", True)
    assert worker.taken == []


@pytest.mark.slow
async def test_a_lost_key_bounces_nothing_and_put_back_delivers(tmp_path: Path) -> None:
    """What the log advises works: the message waits until its token can be read.

    It was deferred while the Worker was away, and through two restarts: delivered once, with the token of then.
    """
    worker = TempMailFake(tokens={TOKEN: ADDRESS}, password="open sesame")
    async with Web(worker) as web:
        gateway = configure(tmp_path, web.url)
        key = tmp_path / "state" / "spool.key"
        with gateway:
            worker.answers = [http(503)]
            await asyncio.to_thread(send, gateway, "ann@one.test")
            await asyncio.to_thread(gateway.wait, lambda: "503" in gateway.messages()[0]["detail"])
            gateway.kill()
        kept = key.read_bytes()
        key.unlink()
        with gateway:
            await asyncio.to_thread(gateway.wait, lambda: "cannot be read" in gateway.messages()[0]["detail"])
            (row,) = gateway.messages()
            status, text = gateway.get(f"/api/v1/messages/{row['id']}")
            assert (status, row["state"], "put the spool.key" in text) == (200, "queued", True)
            gateway.kill()
        key.write_bytes(kept)
        with gateway:
            await asyncio.to_thread(gateway.wait, lambda: [row["state"] for row in gateway.messages()] == ["done"])
    assert [body["token"] for body in worker.taken] == [TOKEN]
