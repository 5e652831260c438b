"""Keys that all instances on a spool must have: one with others is refused, and told which file to bring from where."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway import auth
from gateway.postgresql import schema
from gateway.postgresql.link import writing
from gateway.postgresql.server import Server
from gateway.spool import SpoolError, spelling
from gateway.spool.agreed import HeldKey, HeldKeys, agree
from gateway.spool.engine import Connection
from gateway.spool.sqlite import SQLite
from tests import postgres_kit
from tests.auth.kit import settings

SPOOL = Path("/var/lib/gateway/spool.key")
TOKEN = SPOOL.with_name("token.key")
KEYS = HeldKeys(HeldKey(SPOOL, bytes(32)), {"own": HeldKey(TOKEN, b"first")})
INSTANCE = """
INSERT INTO instance (name, number, backends, settings, version, started_at) VALUES (:name, :number, '[]', '', '', 0)"""


class Table:
    """An empty spool on one of the engines."""

    def __init__(self, connection: Connection, render: Callable[[str], str]) -> None:
        self.connection, self.render = connection, render

    def agree(self, keys: HeldKeys = KEYS, me: str = "a") -> None:
        with self.connection.begin():
            agree(self.connection, self.render, keys, me=me, now=1)

    def ask(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        with self.connection.begin():
            return [dict(row) for row in self.connection.all(self.render(statement), values)]

    def joined(self, *names: str) -> None:
        for name in names:
            self.ask(INSTANCE, name=name, number=len(self.ask("SELECT name FROM instance")))

    @property
    def key(self) -> dict[str, str]:
        [row] = self.ask("SELECT key FROM cluster")
        found: dict[str, str] = json.loads(row["key"])
        return found


@contextmanager
def on(engine: str, folder: Path) -> Iterator[Table]:
    if engine == "sqlite":
        made = SQLite(folder)
        with closing(made), closing(made.open()) as line:
            yield Table(line, spelling.sqlite)
        return
    with postgres_kit.database() as url:
        link = writing(Server(url, "a", timedelta(seconds=5), durable=False))
        with closing(link):
            schema.bring_up(link, "tests")
            yield Table(link, spelling.postgresql)


@pytest.fixture(params=["sqlite", "postgresql"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Table]:
    with on(request.param, tmp_path) as made:
        yield made


def test_the_first_says_which_keys_they_are(table: Table) -> None:
    """What is written down tells nobody the keys; who has the same ones may join, and start again."""
    table.agree()
    assert set(table.key) == {"spool.key", "auth.keys.own"}
    assert not any(secret.hex() in str(table.key) for secret in (bytes(32), b"first"))
    table.joined("a")
    for me in ("a", "b", "b"):
        table.agree(me=me)


def test_another_spool_key_is_refused(table: Table) -> None:
    """Also where nobody else is there: what is sealed in the database would be lost."""
    table.agree()
    other = replace(KEYS, spool=HeldKey(SPOOL, b"other".ljust(32)))
    with pytest.raises(SpoolError, match=r"its backup to /var/lib/gateway/spool\.key .* gone for good") as told:
        table.agree(other)
    assert "DELETE FROM cluster" in str(told.value)
    table.joined("a", "b")
    with pytest.raises(SpoolError, match=r"copy spool\.key from instance a to /var/lib/gateway/spool\.key") as told:
        table.agree(other, me="c")
    assert "DELETE" not in str(told.value)
    with pytest.raises(SpoolError, match="from instance b"):
        table.agree(other, me="a")
    table.ask("DELETE FROM cluster")
    table.agree(other)


def test_a_signing_key_is_replaced_only_where_nobody_else_is_there(table: Table) -> None:
    table.agree()
    other = replace(KEYS, signing={"own": HeldKey(TOKEN, b"second")})
    table.joined("a", "b")
    with pytest.raises(SpoolError, match=r"\(auth\.keys\.own\), .*copy token\.key from instance a .*stop all"):
        table.agree(other, me="b")
    table.ask("DELETE FROM instance WHERE name = 'a'")
    table.agree(other, me="b")
    with pytest.raises(SpoolError, match="from instance b"):
        table.agree(me="a")


def test_a_signing_key_that_one_has_more_is_known_from_then_on(table: Table) -> None:
    """Instances take a new setting one after another."""
    table.agree()
    table.joined("a")
    more = replace(KEYS, signing={**KEYS.signing, "next": HeldKey(TOKEN.with_name("next.pem"), b"next")})
    table.agree(more, me="b")
    table.agree(me="a")
    table.joined("b")
    with pytest.raises(SpoolError, match=r"copy next\.pem from instance a"):
        table.agree(replace(more, signing={"next": HeldKey(TOKEN.with_name("next.pem"), b"no")}), me="c")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"'])
def test_what_cannot_be_read_is_no_agreement(table: Table, text: str) -> None:
    table.agree()
    table.ask("UPDATE cluster SET key = :text", text=text)
    with pytest.raises(SpoolError, match="DELETE FROM cluster"):
        table.agree()


def test_a_key_is_the_same_however_its_file_is_written(tmp_path: Path) -> None:
    """As a copy by way of Windows; another key is another. Keys that nobody can sign with here are none."""
    keys = {"own": {"algorithm": "EdDSA", "private_key_file": "token.key"}}
    keys |= {"app": {"algorithm": "HS256", "secret": "s" * 32}}
    digests = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        configured = settings(tmp_path / name, keys)
        auth.ensure_own_key(configured)
        [(file, der)] = auth.signing_keys(configured).values()
        assert file == tmp_path / name / "token.key"
        file.write_bytes(b"\r\n".join(file.read_bytes().splitlines()) + b"\r\n")
        assert auth.signing_keys(configured) == {"own": (file, der)}
        digests.add(HeldKey(file, der).digest())
    assert len(digests) == 2
