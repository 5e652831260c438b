"""`gateway backend pause` through real processes: after a stop, and after a power cut."""

from __future__ import annotations

import smtplib
from pathlib import Path

import pytest

from tests.flow.kit import Gateway

CONFIG = """
    backends: {box: {type: capture}}
    clients: {local: {networks: [127.0.0.1], senders: ["*"], recipients: ["*"]}}
    routes: [{backend: box}]
"""


@pytest.mark.slow
def test_a_paused_backend_is_paused_after_a_restart(tmp_path: Path) -> None:
    """With who ordered it and since when, until it is resumed; the mail waits, and goes then."""
    with Gateway(tmp_path, CONFIG) as gateway:
        done = gateway.run("backend", "pause", "box")
        assert "also after a restart" in done.stdout + done.stderr
        before = gateway.json("backend", "list")["box"]
        with smtplib.SMTP("127.0.0.1", gateway.port) as smtp:
            smtp.sendmail("s@x.test", ["r@y.test"], "Subject: waits\r\n\r\ntext\r\n")
        for end in (gateway.stop, gateway.kill):
            end()
            gateway.start()
            after = gateway.json("backend", "list")["box"]
            same = ("state", "who", "reason", "paused_until", "queued")
            assert [after[key] for key in same] == [before["state"], before["who"], before["reason"], None, 1]
            assert (after["state"], after["since"][:16]) == ("paused", before["since"][:16])
        assert not list((tmp_path / "state").glob("captured/*.eml"))
        assert gateway.run("backend", "resume", "box").returncode == 0
        assert len(list((tmp_path / "state").glob("captured/*.eml"))) == 1
        gateway.stop()
        gateway.start()
        assert gateway.json("backend", "list")["box"]["state"] == "working"
