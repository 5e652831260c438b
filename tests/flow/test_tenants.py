"""Two tenants at a real service: each sees the mail that came since a reload gave it a label, and nothing else."""

from __future__ import annotations

import json
import smtplib
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.flow.kit import Gateway

CONFIG = """
    clients:
      red: {networks: [127.0.0.2/32], senders: ["*"], recipients: ["*"]}
      blue: {networks: [127.0.0.3/32], senders: ["*"], recipients: ["*"]}
    backends: {box: {type: capture}}
    routes: [{backend: box}]
"""
BOTH = "tenants: {reds: {clients: [red]}, blues: {clients: [blue]}}\n"
ADDRESS = {"red": "127.0.0.2", "blue": "127.0.0.3"}


def send(gateway: Gateway, client: str) -> str:
    """Returns the queue id."""
    with smtplib.SMTP("127.0.0.1", gateway.port, source_address=(ADDRESS[client], 0)) as smtp:
        smtp.ehlo()
        smtp.mail(f"{client}@example.com")
        smtp.rcpt(f"to-{client}@example.org")
        return smtp.data(f"Subject: of {client}\r\n\r\nbody\r\n".encode())[1].decode().split()[-1]


def asked(gateway: Gateway, token: str, path: str) -> tuple[int, Any]:
    url = f"http://127.0.0.1:{gateway.http_port}/api/v1/{path}"
    request = urllib.request.Request(url, headers={"authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_each_sees_its_own(tmp_path: Path) -> None:
    """The label begins with the settings that name it; a log-in for a tenant that is named no more is none."""
    with Gateway(tmp_path, CONFIG) as gateway:
        early = send(gateway, "red")
        plain = gateway.file.read_text()
        gateway.file.write_text(plain + BOTH)
        assert gateway.run("reload").returncode == 0
        ids = {client: send(gateway, client) for client in ADDRESS}
        done = gateway.run("token", "mint", "--admin", "--tenant", "reds", "--sub", "r", "--expires", "1h")
        assert done.returncode == 0, done.stderr
        token = done.stdout.strip()
        status, found = asked(gateway, token, "messages")
        assert (status, [one["id"] for one in found["messages"]]) == (200, [ids["red"]])
        each = (ids["red"], ids["blue"], early)
        assert [asked(gateway, token, f"messages/{one}")[0] for one in each] == [200, 404, 404]
        assert [one["name"] for one in asked(gateway, token, "clients")[1]["clients"]] == ["red"]
        assert "blue" not in json.dumps([asked(gateway, token, path) for path in ("clients", "backends", "refusals")])
        assert asked(gateway, token, "status")[0] == 403
        assert {one["id"] for one in gateway.messages()} == {early, *ids.values()}
        assert gateway.stop() == 0
        gateway.start()
        assert asked(gateway, token, f"messages/{ids['red']}")[0] == 200
        assert asked(gateway, token, f"messages/{ids['blue']}")[0] == 404
        gateway.file.write_text(plain + "tenants: {blues: {clients: [blue]}}\n")
        assert gateway.run("reload").returncode == 0
        assert asked(gateway, token, "messages")[0] in (401, 403)
