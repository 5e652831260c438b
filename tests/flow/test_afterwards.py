"""What became of mail after the provider took it, from a real process: a signed call of JS2Mail, shown by trace."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import http.client
import json
import smtplib
import time
from pathlib import Path

from tests.backends.json_fakes import SECRET, Js2mailFake
from tests.backends.kit import Web
from tests.flow.kit import Gateway

HOOK = "the webhook's secret, 32 characters"


def call_back(gateway: Gateway, body: bytes, secret: str, delivery: str = "d-1") -> int:
    moment = int(time.time())
    signature = hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    connection = http.client.HTTPConnection("127.0.0.1", gateway.http_port, timeout=10)
    headers = {
        "X-JS2Mail-Signature": f"t={moment},v1={signature}",
        "X-JS2Mail-Delivery-Id": delivery,
        "Content-Type": "application/json",
        "Host": "relay.example.com",  # as a reverse proxy passes it on
    }
    try:
        connection.request("POST", "/hooks/js2", body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


async def test_a_signed_call_goes_into_the_life_line(tmp_path: Path) -> None:
    """Whoever does not know the secret is sent away; a call that comes twice is told once."""
    for name, text in (("js2.key", SECRET), ("js2.hook", HOOK)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    fake = Js2mailFake()
    async with Web(fake) as web:
        config = f"""
            backends:
              js2: {{type: js2mail, api_key_file: js2.key, webhook_secret_file: js2.hook, base_url: "{web.url}"}}
            """
        with Gateway(tmp_path, config) as gateway:

            def job() -> str:
                with smtplib.SMTP("127.0.0.1", gateway.port) as smtp:
                    raw = (
                        b"From: a@corp.example\r\nTo: b@x.example\r\nSubject: s\r\nMessage-ID: <1@corp>\r\n\r\nbody\r\n"
                    )
                    smtp.sendmail("a@corp.example", ["b@x.example"], raw)
                gateway.wait(lambda: [row["state"] for row in gateway.messages()] == ["done"])
                [row] = gateway.messages()
                sent = gateway.json("queue", "show", row["id"])["recipients"][0]["remote_id"]
                body = json.dumps({"event": "mail.failed", "data": {"id": sent, "error": "mailbox full"}}).encode()
                assert call_back(gateway, body, "another secret") == 401
                assert [call_back(gateway, body, HOOK, delivery) for delivery in ("d-1", "d-1", "d-2")] == [200] * 3
                return gateway.run("trace", "<1@corp>").stdout

            told = await asyncio.to_thread(job)
            metrics = gateway.get("/metrics")[1]
    assert (told.count("js2 reports: failed"), told.count("mailbox full")) == (1, 1)
    assert 'gateway_delivery_events_total{backend="js2",state="failed"} 1.0' in metrics
    assert len(fake.taken) == 1
