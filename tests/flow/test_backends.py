"""The same message out by each backend, from one real process: captured file, Postfix's smtp-sink, a strict SMTP2GO."""

from __future__ import annotations

import asyncio
import smtplib
from pathlib import Path

from tests.backends.kit import KEY, Smtp2goFake, Web
from tests.flow.kit import Gateway, free_port, smtp_sink, sunk

MESSAGE = (
    b"From: app@example.com\r\nTo: Ann <ann@box.test>, sam@smart.test, sue@s2g.test\r\nBcc: blind@s2g.test\r\n"
    b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nDate: Fri, 20 Nov 2026 12:00:00 +0000\r\n"
    b"Message-ID: <one@example.com>\r\n"
    b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    b".dot\r\n..\r\nGr\xc3\xbc\xc3\x9fe\r\n"
)
BODY = MESSAGE.partition(b"\r\n\r\n")[2]


async def test_one_message_three_ways(tmp_path: Path) -> None:
    """Each recipient by the backend of their route; the bytes of the body the same; the blind one seen by nobody."""
    sink, fake = free_port(), Smtp2goFake()
    (tmp_path / "s2g.key").write_text(KEY)
    async with Web(fake) as web:
        config = f"""
            backends:
              box: {{type: capture, directory: captured}}
              smart: {{type: smtp, host: 127.0.0.1, port: {sink}, tls: none}}
              s2g: {{type: smtp2go, api_key_file: s2g.key, base_url: "{web.url}/v3"}}
            routes:
              - {{recipients: ["*@box.test"], backend: box}}
              - {{recipients: ["*@smart.test"], backend: smart}}
              - {{backend: s2g}}
            """
        gateway = Gateway(tmp_path, config)
        with smtp_sink(tmp_path / "sink", sink):
            await asyncio.to_thread(_send_and_wait, gateway)
            (captured,) = (tmp_path / "state" / "captured").glob("*.eml")
            (taken,) = sunk(tmp_path / "sink")
    assert captured.read_bytes().partition(b"\r\n\r\n")[2] == BODY
    assert b"Bcc" not in captured.read_bytes()
    assert "sam@smart.test" in taken
    assert "blind" not in taken
    assert BODY.decode().replace("\r\n", "\n").strip() in taken
    ways = {tuple(people): raw for people, raw in fake.delivered}
    assert set(ways) == {("sue@s2g.test",), ("blind@s2g.test",)}
    assert all(raw.partition(b"\r\n\r\n")[2] == BODY for raw in ways.values())
    assert b"blind" not in ways["sue@s2g.test",]


def _send_and_wait(gateway: Gateway) -> None:
    with gateway:
        with smtplib.SMTP("127.0.0.1", gateway.port) as smtp:
            people = ["ann@box.test", "sam@smart.test", "sue@s2g.test", "blind@s2g.test"]
            smtp.sendmail("app@example.com", people, MESSAGE)
        gateway.wait(lambda: [row["state"] for row in gateway.messages()] == ["done"])
        assert gateway.stop() == 0
