"""PostgreSQL on a disk that is full: no accepted mail is lost, clients hear that they shall come again, and all goes on
by itself once there is room. Where its log (WAL) has no room either, PostgreSQL ends, and somebody has to start it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import postgres_kit
from tests.flow.kit import Gateway, free_port, smtp_sink
from tests.flow.test_full_disk import CONFIG, Senders, arrived, emptied, ready, volume
from tests.postgres_kit import Cluster

OCTETS = 100_000


@contextmanager
def small(megabytes: int) -> Iterator[Path]:
    """A file system that is PostgreSQL's."""
    with tempfile.TemporaryDirectory(prefix="gateway-tests-", dir="/var/tmp") as name:
        Path(name).chmod(0o711)
        with volume(Path(name) / "disk", megabytes) as where:
            postgres_kit.give(where)
            where.chmod(0o711)
            yield where


def grow(where: Path, megabytes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={megabytes}m", str(where)], check=True)


def gateway_on(folder: Path, url: str, port: int) -> Gateway:
    more = f"spool: {{url: '{url}', instance: a, failover: 5s}}"
    return Gateway(folder, CONFIG.format(port=port, more=more))


@pytest.mark.slow
def test_its_tables_have_no_room(tmp_path: Path) -> None:
    """The log is elsewhere: 452, again and again; PostgreSQL goes on, and so do we when there is room."""
    port, sink = free_port(), tmp_path / "sink"
    with small(60) as disk, postgres_kit.cluster() as server:
        server.ask(f"CREATE TABLESPACE small LOCATION '{disk}'")
        server.ask("CREATE DATABASE spool TABLESPACE small")
        with gateway_on(tmp_path, server.url("spool"), port) as gateway:
            senders = Senders(gateway.port, OCTETS)
            assert senders.fill() > 100
            print(senders.refused, gateway.get("/readyz"))
            assert all(" 452 4.3.1" in said for said in senders.refused)
            assert senders.fill() < 20
            with smtp_sink(sink, port):
                gateway.run("backend", "resume", "smart")
                time.sleep(5)  # for as long as it likes: what is sent now would have to be written down
                print(len(arrived(sink)), "of", len(senders.accepted), "went out while it was full")
                grow(disk, 300)
                gateway.run("backend", "resume", "smart")
                gateway.wait(lambda: emptied(gateway), 120)
            assert arrived(sink).keys() == senders.accepted
            print(sum(n - 1 for n in arrived(sink).values()), "twice")
            gateway.wait(lambda: ready(gateway))
            assert senders.fill(1) == 4
            assert '"event":"bug"' not in gateway.log.read_text()


@pytest.mark.slow
def test_its_log_has_no_room(tmp_path: Path) -> None:
    """PostgreSQL ends itself (PANIC). Clients hear 4xx; when it was given room and started, all that was accepted goes
    out."""
    port, sink = free_port(), tmp_path / "sink"
    with small(40) as disk, small(900) as folder:
        server = Cluster(folder, {"max_wal_size": "2GB", "full_page_writes": "on"})
        subprocess.run(["cp", "-a", str(folder / "data/pg_wal"), str(disk)], check=True)
        shutil.rmtree(folder / "data/pg_wal")
        (folder / "data/pg_wal").symlink_to(disk / "pg_wal")
        server.start()
        try:
            server.create("spool")
            with gateway_on(tmp_path, server.url("spool"), port) as gateway:
                senders = Senders(gateway.port, OCTETS)
                senders.fill()
                print(len(senders.accepted), senders.refused, gateway.get("/readyz"))
                assert senders.accepted
                assert all(" 452 4.3.1" in said or " 451 4.3.0" in said for said in senders.refused)
                assert "PANIC:" in server.log
                assert server.process is not None
                server.process.wait(60)
                grow(disk, 600)
                server.start()
                with smtp_sink(sink, port):
                    gateway.wait(lambda: ready(gateway), 60)
                    gateway.run("backend", "resume", "smart")
                    gateway.wait(lambda: emptied(gateway), 120)
                assert arrived(sink).keys() >= senders.accepted
                print(Counter(arrived(sink).values()))
                assert '"event":"bug"' not in gateway.log.read_text()
        finally:
            server.crash()
