"""What an operator sees of a service whose queue is in a database: from a file there, and back, by real processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import postgres_kit
from tests.flow.kit import Gateway

SUBJECT = "a@example.org"


@pytest.mark.slow
def test_into_a_database_and_back(tmp_path: Path) -> None:
    """The queue moves with its history; status, metrics, doctor and commands speak of a database, not of a disk."""
    with postgres_kit.cluster() as server:
        server.create("queue")
        url = server.url("queue")
        gateway = Gateway(tmp_path, "backends: {box: {type: capture}}\n")
        plain = gateway.file.read_text()
        gateway.start()
        first = gateway.json("send-test", "--to", SUBJECT)["id"]
        state = tmp_path / "state"
        assert "in use by process" in gateway.run("spool", "copy", str(state), url).stderr
        assert gateway.stop() == 0

        done = gateway.run("spool", "copy", str(state), url)
        assert done.returncode == 0, done.stderr
        gateway.file.write_text(f"{plain}spool: {{url: '{url}', instance: gw-a}}\n")
        (state / "spool.db").rename(state / "spool.db.moved")
        gateway.start()
        try:
            _while_it_runs(gateway, first, url, state)
        finally:
            assert gateway.stop() == 0
        absent = gateway.run("queue", "list")
        assert absent.returncode == 75
        assert "Its queue is in a database: ask where another instance runs." in absent.stderr

        done = gateway.run("spool", "copy", url, str(state))
        assert done.returncode == 0, done.stderr
        gateway.file.write_text(plain)
        gateway.start()
        try:
            assert len(gateway.json("queue", "list", "--state", "all")) == 2
            assert gateway.json("trace", first)
            assert gateway.json("spool", "info")["engine"] == "sqlite"
        finally:
            assert gateway.stop() == 0


def _while_it_runs(gateway: Gateway, first: str, url: str, state: Path) -> None:
    assert gateway.json("trace", first)
    assert gateway.json("send-test", "--to", SUBJECT)["id"] > first
    spool = gateway.json("status")["spool"]
    assert (spool["free_bytes"], spool["room_bytes"], spool["shut"]) == (None, None, "")
    assert spool["database"].startswith("queue on ")
    shown = gateway.run("status").stdout
    assert "Database   queue on " in shown
    assert "Disk" not in shown
    assert "gateway_spool_free_bytes NaN" in gateway.get("/metrics")[1]
    (member,) = gateway.json("spool", "info")["instances"]
    assert (member["name"], member["lives"]) == ("gw-a", True)
    assert gateway.json("spool", "check")["damaged"] == []
    found = {one["key"] for one in json.loads(gateway.run("doctor", "--area", "spool", "--json").stdout)["findings"]}
    assert {"database_good", "database_vacuum"} <= found
    assert not found & {"part_failed", "spool_good"}

    busy = gateway.run("spool", "copy", url, str(state / "other"))
    assert busy.returncode == 1
    assert ": gw-a; stop every instance first" in busy.stderr
    assert not (state / "other").exists()
    before = gateway.file.read_text()
    gateway.file.write_text(before.replace("gw-a", "gw-b"))
    assert "spool.instance: needs a restart" in gateway.run("reload").stdout
    gateway.file.write_text(before)
