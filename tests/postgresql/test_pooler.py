"""pgbouncer before the server: in session mode all holds, in transaction mode nothing does, and it is refused."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from gateway.postgresql import starting
from gateway.postgresql.server import Server
from gateway.spool import SpoolError
from tests import postgres_kit
from tests.flow.kit import free_port

SETTINGS = """
[databases]
* = host={server} port=5432 user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
ignore_startup_parameters = extra_float_digits
"""


@contextmanager
def pooler(mode: str, database: str) -> Iterator[str]:
    """The URL that leads through it."""
    if not (program := shutil.which("pgbouncer", path="/usr/sbin:/usr/bin")):
        pytest.skip("pgbouncer is not installed (apt-get install pgbouncer)")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="gateway-tests-", dir="/var/tmp") as name:
        folder, file = Path(name), Path(name) / "ini"
        file.write_text(SETTINGS.format(server=postgres_kit.shared().folder, port=port, mode=mode))
        file.chmod(0o644)
        postgres_kit.give(folder)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([program, str(file)], **postgres_kit.account(), stdout=log, stderr=log)
        url = f"postgresql://postgres@127.0.0.1:{port}/{database}"
        try:
            for _ in range(500):
                assert process.poll() is None, (folder / "log").read_text()
                with suppress(psycopg.OperationalError), psycopg.connect(url):
                    break
                time.sleep(0.02)
            yield url
        finally:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "refused"), [("session", ""), ("transaction", "a pooler in transaction mode stands")])
def test_a_pooler(mode: str, refused: str) -> None:
    with postgres_kit.database() as url, pooler(mode, psycopg.conninfo.conninfo_to_dict(url)["dbname"]) as through:
        server = Server(through, "a", timedelta(seconds=2), durable=False)
        if not refused:
            assert starting.check(server)
            return
        with pytest.raises(SpoolError, match=f"{refused} .*: connect to PostgreSQL itself, or to a pooler in session"):
            starting.check(server)
