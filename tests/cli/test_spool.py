"""``gateway spool``: what the queue is kept in, whether it is whole, and how it gets somewhere else."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from gateway.cli.spool import spool
from tests import postgres_kit
from tests.builders import new_message
from tests.spool_kit import blank, opened, peer


@pytest.fixture(scope="module")
def durable() -> Iterator[postgres_kit.Cluster]:
    """A server as it comes: the shared one of the tests is refused, for a power cut would cost it mail."""
    with postgres_kit.cluster() as server:
        yield server


@pytest.fixture
def url(durable: postgres_kit.Cluster) -> Iterator[str]:
    durable.create("queue")
    yield durable.url("queue")
    durable.drop("queue")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(spool, [str(one) for one in arguments])


def told(*arguments: object) -> Any:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


async def filled(directory: Path) -> Path:
    async with opened(blank(directory)) as at:
        for n in range(5):
            await at.spool.put(new_message(raw=b"X: %d\r\n\r\n" % n + bytes(50_000 * (n % 2))))
        await at.claim(limit=1)
    return directory


async def test_a_queue_goes_into_a_database_and_back(tmp_path: Path, url: str) -> None:
    """What was compared is said, what to bring along, and that the old one is not to be used any more."""
    old = await filled(tmp_path / "old")
    done = run("copy", old, url)
    assert done.exit_code == 0, done.output
    where = f"queue on {Path(url.partition('host=')[2].partition('&')[0])}"
    lines = done.stdout.splitlines()
    assert lines[0].endswith(f"rows from {old} to {where}, and compared each")
    assert lines[1] == "5 messages, 5 of them with their bytes: each meets its checksum"
    assert lines[2] == "interrupted: 1 were being sent when the service ended, and may arrive twice"
    assert f"bring along from {old} to the state_dir of every instance" in done.stdout
    assert "spool.key: without it" in done.stdout
    assert lines[-1] == f"Never start a service with {old} again: it would send the same mail once more."

    found = told("info", url)
    assert (found["engine"], found["messages"], found["bodies"]) == ("postgresql", {"queued": 5}, 5)
    assert found["version"].startswith(postgres_kit.program("postgres").split("/")[4])
    assert told("check", url) == {"verified": 5, "damaged": [], "wrong": []}

    again = told("copy", url, tmp_path / "new")
    assert (again["verified"], again["bring"]) == (5, ["spool.key", "token.key"])
    found = told("info", tmp_path / "new")
    assert (found["engine"], found["messages"]) == ("sqlite", {"queued": 5})
    assert "interrupted" not in run("copy", url, tmp_path / "other").stdout


async def test_who_uses_a_database_is_listed(tmp_path: Path, url: str) -> None:
    assert run("copy", await filled(tmp_path / "old"), url).exit_code == 0
    with psycopg.connect(url, autocommit=True, application_name="gateway a member") as one:
        for number, name in enumerate("ab"):
            given = (name, number)
            one.execute(
                "INSERT INTO instance (name, number, backends, settings, version, started_at)"
                " VALUES (%s, %s, '[]', '', '1.0', 0)",
                given,
            )
        one.execute("INSERT INTO backend VALUES ('office', 1, 'a', FALSE, 0, NULL, '')")
        lines = run("info", url).stdout.splitlines()
    assert [line.split() for line in lines[2:]] == [
        ["INSTANCE", "ALIVE", "VERSION", "WORKS"],
        ["a", "yes", "1.0", "office"],
        ["b", "NO", "1.0", "-"],
    ]


async def test_damage_is_named(tmp_path: Path, url: str) -> None:
    """Exit code 1, and which message it is: in a file, and after a copy of it."""
    old = await filled(tmp_path / "old")
    assert run("check", old).stdout == f"{old}: 5 messages are whole\n"
    ((ident,),) = peer(old, "SELECT min(message_id) FROM body")
    peer(old, "UPDATE message SET sender = 'x@example.com' WHERE id = ?", ident)
    for place in (old, url):
        if place is url:
            assert f"damaged before already, and so still: {ident}" in run("copy", old, url).stdout
        done = run("check", place)
        assert done.exit_code == 1
        assert f"damaged: {ident}; what to do: gateway trace {ident}" in done.stdout
        assert "4 messages are whole" in done.stdout


async def test_a_queue_in_use_can_be_looked_at_and_is_not_copied(tmp_path: Path, url: str) -> None:
    async with opened(blank(tmp_path / "old")) as at:
        await at.spool.put(new_message())
        assert told("info", tmp_path / "old")["messages"] == {"queued": 1}
        assert told("check", tmp_path / "old")["verified"] == 1
        done = run("copy", tmp_path / "old", url)
        assert (done.exit_code, f"in use by process {os.getpid()}: stop it" in done.stderr) == (1, True)


WRONG = [
    (("copy", "mysql://db", "/x"), 2, '"mysql:" is not PostgreSQL'),
    (("copy", "postgresql://u:S3CR3T@db/x", "/x"), 2, "carries a password"),
    (("copy", "/nonexistent", "/x"), 1, "there is no spool in /nonexistent: no file spool.db"),
    (("info", "/nonexistent"), 1, "there is no spool in /nonexistent: no file spool.db"),
    (("check", "postgresql:///x?host=/nonexistent"), 1, "the database x on /nonexistent cannot be used: "),
    (("info", "postgresql:///x?hots=/y"), 2, 'invalid URI query parameter: "hots"'),
    (("info", "postgresql:///x", "--password-file", "/nonexistent"), 2, "/nonexistent cannot be read: No such file"),
]


@pytest.mark.parametrize(("arguments", "code", "said"), WRONG)
def test_what_cannot_be_done_is_said(arguments: tuple[str, ...], code: int, said: str) -> None:
    done = run(*arguments)
    assert (done.exit_code, said in done.stderr, "S3CR3T" in done.output) == (code, True, False), done.output


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("psycopg", "gateway.postgresql."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    done = run("info", "postgresql:///x")
    assert done.exit_code == 2
    assert "pip install 'smtp-api-gateway[postgresql]'" in done.stderr


async def test_an_empty_or_foreign_database_is_no_queue(tmp_path: Path, url: str) -> None:
    assert "is empty: no instance has used it yet" in run("info", url).stderr
    with psycopg.connect(url) as one:
        one.execute("CREATE TABLE message (n int)")
    done = run("copy", await filled(tmp_path / "old"), url)
    assert (done.exit_code, "has a table message, but is no spool of gateway" in done.stderr) == (1, True)


async def test_another_key_is_refused_before_anything_is_copied(tmp_path: Path, url: str) -> None:
    """What was sealed with one could not be opened with another."""
    old = await filled(tmp_path / "old")
    assert run("copy", old, url).exit_code == 0
    (tmp_path / "new").mkdir(0o700)
    (tmp_path / "new" / "spool.key").write_bytes(bytes(32))
    done = run("copy", url, tmp_path / "new")
    assert done.exit_code == 1
    assert "spool.key is another key than the one that secrets there were sealed with" in done.stderr
    (tmp_path / "new" / "spool.key").write_bytes((old / "spool.key").read_bytes())
    assert run("copy", url, tmp_path / "new").exit_code == 0
