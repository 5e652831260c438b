"""A quota in a real process: held, shown, released, and not whole again after a kill."""

from __future__ import annotations

import smtplib
from pathlib import Path

import pytest

from tests.flow.kit import Gateway

CONFIG = """
clients:
  pcs:
    networks: ["127.0.0.0/8"]
    recipients: ["*", "!*@blocked.example"]
    quota: {messages: 3/day, per: address, over: hold}
backends:
  box: {type: capture, directory: box}
"""


def send(gateway: Gateway, address: str, *, to: str = "b@example.org") -> None:
    with smtplib.SMTP("127.0.0.1", gateway.port, source_address=(address, 0)) as smtp:
        smtp.sendmail("a@example.com", [to], b"Subject: x\r\n\r\nx\r\n")


@pytest.mark.slow
def test_an_infected_machine_is_stopped_seen_and_let_go(tmp_path: Path) -> None:
    """Two of five are held, a neighbour goes on; after a kill the next one is held, too; released they are sent."""
    gateway = Gateway(tmp_path, CONFIG.replace("directory: box", f'directory: "{tmp_path / "box"}"'))
    with gateway:
        for _ in range(5):
            send(gateway, "127.0.0.5")
        send(gateway, "127.0.0.6")
        with pytest.raises(smtplib.SMTPRecipientsRefused, match="blocks it by"):
            send(gateway, "127.0.0.6", to="b@blocked.example")
        gateway.wait(lambda: sorted(row["state"] for row in gateway.messages()) == ["done"] * 4 + ["held"] * 2)
        shown = gateway.run("queue", "list", "--state", "held").stdout
        assert '127.0.0.5 of client "pcs" has sent its 3 messages a day (clients.pcs.quota)' in shown
        assert "pcs sends more than its quota: 2 times too many. 2 messages are held." in gateway.run("status").stdout
        assert "3 of 3/day (127.0.0.5)" in gateway.run("client", "show", "pcs").stdout
        assert 'gateway_over_quota_total{client="pcs",result="hold"} 2.0' in gateway.get("/metrics")[1]
        gateway.wait((tmp_path / "state" / "quotas.json").exists)
        gateway.kill()
    with gateway:
        send(gateway, "127.0.0.5")
        send(gateway, "127.0.0.6")
        assert sum(row["state"] == "held" for row in gateway.messages()) == 3
        life = gateway.run("trace", next(row["id"] for row in gateway.messages() if row["state"] == "held")).stdout
        assert "It came over quota: 127.0.0.5 of client" in life
        assert gateway.run("queue", "release", "--client", "pcs", "--state", "held", "--yes").returncode == 0
        gateway.wait(lambda: {row["state"] for row in gateway.messages()} == {"done"})
        assert gateway.stop() == 0
