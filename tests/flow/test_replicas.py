"""A replica takes over while mail flows: with a synchronous one nothing is lost, and nobody touches a gateway."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from aiosmtpd.controller import Controller

from tests import postgres_kit
from tests.flow.instances import Client, Sink
from tests.flow.kit import Gateway, free_port
from tests.postgres_kit import Cluster


@contextmanager
def replica(of: Cluster) -> Iterator[Cluster]:
    """That follows it, and is called ``standby``."""
    with tempfile.TemporaryDirectory(prefix="gateway-tests-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o711)
        postgres_kit.give(folder)
        source = f"host={of.folder} port={of.port} user=postgres application_name=standby"
        command = [
            postgres_kit.program("pg_basebackup"),
            "-D",
            "data",
            "-R",
            "-X",
            "stream",
            "-c",
            "fast",
            "-d",
            source,
        ]
        subprocess.run(command, cwd=folder, check=True, **postgres_kit.account())
        made = Cluster(folder, {}, free_port())
        made.start()
        try:
            yield made
        finally:
            made.crash()


@pytest.mark.slow
def test_a_synchronous_one_is_promoted(tmp_path: Path) -> None:
    """The first is killed, the second promoted 3 s later: lost 0, twice 0, and mail flows again by itself."""
    sink = Sink(0.05)
    with postgres_kit.cluster(port=free_port()) as first, replica(first) as second:
        first.ask("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'")
        first.ask("SELECT pg_reload_conf()")
        first.create("spool")
        controller = Controller(sink, hostname="127.0.0.1", port=sink.port)
        controller.start()
        hosts = f"127.0.0.1:{first.port},127.0.0.1:{second.port}"
        url = f"postgresql://postgres@{hosts}/spool?target_session_attrs=read-write"
        try:
            with Gateway(
                tmp_path,
                f"""
                backends: {{up: {{type: smtp, host: 127.0.0.1, port: {sink.port}, tls: none}}}}
                clients: {{local: {{networks: [127.0.0.1], senders: ["*"], recipients: ["*"]}}}}
                routes: [{{backend: up}}]
                spool: {{url: "{url}", instance: a, failover: 10s}}
                """,
            ) as gateway:
                clients = [Client(f"c{n}", [gateway.port]) for n in range(3)]
                for client in clients:
                    client.start()
                gateway.wait(lambda: len(sink.answered) > 30)
                first.stop(signal.SIGQUIT)
                killed = time.monotonic()
                time.sleep(3)
                second.ask("SELECT pg_promote()")
                promoted = time.monotonic()
                gateway.wait(lambda: any(times[0] > promoted for times in sink.came.values()), 60)
                back = time.monotonic()
                time.sleep(2)
                for client in clients:
                    client.over.set()
                for client in clients:
                    client.join(90)
                accepted = {name for client in clients for name in client.accepted}
                gateway.wait(lambda: accepted <= sink.answered.keys(), 90)
                refused = [text for client in clients for text in client.refused]
                print(f"{len(accepted)} accepted, {len(refused)} refused, {len(sink.twice)} twice")
                print(f"killed to promoted {promoted - killed:.1f} s, promoted to mail {back - promoted:.1f} s")
                assert all(" (451, " in text or "451" in text for text in refused), refused
                assert sink.twice == set()
                assert '"event":"bug"' not in gateway.log.read_text()
        finally:
            controller.stop()


def committed(server: Cluster) -> int:
    return int(server.ask("SELECT count(*) FROM mail")[0][0])


@pytest.mark.slow
def test_an_asynchronous_one_loses_what_it_did_not_hear(tmp_path: Path) -> None:
    """What the docs say of it: with its receiver held up, commits that were confirmed are not there."""
    with postgres_kit.cluster(port=free_port()) as first, replica(first) as second:
        first.ask("CREATE TABLE mail (n int)")
        first.ask("INSERT INTO mail VALUES (1)")
        deadline = time.monotonic() + 30
        while True:
            try:
                if committed(second) == 1:
                    break
            except psycopg.errors.UndefinedTable:
                pass
            assert time.monotonic() < deadline
            time.sleep(0.05)
        second.ask("ALTER SYSTEM SET primary_conninfo = ''")
        second.ask("SELECT pg_reload_conf()")
        while first.ask("SELECT 1 FROM pg_stat_replication"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        first.ask("INSERT INTO mail VALUES (2)")
        first.crash()
        second.ask("SELECT pg_promote()")
        assert committed(second) == 1
