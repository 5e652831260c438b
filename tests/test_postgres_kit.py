"""The PostgreSQL of the tests keeps what it promises to them: without that, what they show would be of no worth."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from tests import postgres_kit


def test_what_was_committed_outlives_a_crash_and_nothing_else_does() -> None:
    with postgres_kit.cluster() as server:
        server.ask("CREATE TABLE kept (n int)")
        with server.connect() as one, server.connect() as other:
            one.execute("INSERT INTO kept VALUES (1)")
            other.execute("BEGIN")
            other.execute("INSERT INTO kept VALUES (2)")
            server.crash()
            with pytest.raises(psycopg.OperationalError):
                other.execute("COMMIT")
        server.start()
        assert server.ask("SELECT n FROM kept") == [(1,)]
        assert server.ask("SHOW fsync") + server.ask("SHOW listen_addresses") == [("on",), ("",)]


def test_each_test_has_a_database_of_its_own_which_is_a_copy() -> None:
    server = postgres_kit.shared()
    made: list[str] = []

    def make(url: str) -> None:
        made.append(url)
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE given AS SELECT 1 AS n")

    names = [server.template("kit", make) for _ in range(2)]
    with postgres_kit.database(names[0]) as one, postgres_kit.database(names[1]) as other:
        with psycopg.connect(one) as first, psycopg.connect(other) as second:
            first.execute("INSERT INTO given VALUES (2)")
            assert second.execute("SELECT n FROM given").fetchall() == [(1,)]
        cut = psycopg.connect(one)
        assert server.cut(cut.info.dbname) == 1
        with pytest.raises(psycopg.OperationalError):
            cut.execute("SELECT 1")
        cut.close()
    assert len(made) == 1
    assert not {one, other} & {server.url(name) for (name,) in server.ask("SELECT datname FROM pg_database")}


@pytest.mark.parametrize(("value", "outcome"), [("", pytest.skip.Exception), ("1", pytest.fail.Exception)])
def test_where_it_is_not_installed_a_test_is_skipped_but_not_where_it_must_run(
    monkeypatch: pytest.MonkeyPatch, value: str, outcome: type[BaseException]
) -> None:
    monkeypatch.delenv(postgres_kit.BIN, raising=False)
    monkeypatch.setenv(postgres_kit.NEEDED, value)
    with pytest.raises(outcome, match="apt-get install postgresql"):
        postgres_kit.program("no-such-program")


def test_it_does_not_outlive_tests_that_were_killed(tmp_path: Path) -> None:
    """A killed run must not leave servers on the machine."""
    text = "import sys, time; from tests import postgres_kit as kit; server = kit.shared()\n"
    text += "print(server.process.pid, server.folder, flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child, child.stdout:
        pid, folder = child.stdout.readline().split()
        child.kill()
    deadline = time.monotonic() + 30
    while (Path(folder) / "data" / "postmaster.pid").exists():
        assert time.monotonic() < deadline, f"{pid} goes on"
        time.sleep(0.02)
    subprocess.run(["rm", "-r", folder], check=True)
