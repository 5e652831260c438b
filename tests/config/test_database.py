"""``spool``: where a database is, how its password is given, and what another instance is called."""

from __future__ import annotations

import json
import platform
import sys
from datetime import timedelta
from typing import Any

import pytest

from gateway.config.database import parse_database, this_machine
from gateway.config.loading import Loaded
from gateway.config.models import SpoolSettings
from gateway.config.show import diff, restart_keys, show
from gateway.config.staying import in_place
from gateway.postgresql.examining import examine
from tests.config.kit import SECRET, Files

URL = "postgresql://gateway@db.example.org/gateway"


@pytest.mark.parametrize(
    "text",
    [
        URL,
        "postgres://db",
        "postgresql:///gateway",
        "postgresql://gateway@db1:5432,db2:5433/gateway?target_session_attrs=read-write",
        "postgresql://gateway@[2001:db8::1]:5432/gateway?sslmode=verify-full&sslrootcert=/etc/ssl/db.pem",
        "postgresql://gateway@/gateway?host=/var/run/postgresql",
        "postgresql://%2Fvar%2Frun%2Fpostgresql/gateway",
        "host=db.example.org dbname=gateway user=gateway",
        "host = 'a b' dbname=gateway",
        "service=gateway",
    ],
)
def test_what_libpq_takes(text: str) -> None:
    """As given, whatever it says of hosts and TLS: libpq is asked the same."""
    assert parse_database(text) == text
    assert list(examine(SpoolSettings(url=text))) == []


def test_without_it_nothing_is_asked_for(files: Files) -> None:
    """And the defaults are those of one instance alone."""
    spool = files.load().settings.spool
    assert (spool.url, spool.password, spool.failover) == (None, None, timedelta(seconds=10))


@pytest.mark.parametrize(
    ("node", "name"),
    [("mx1.example.org", "mx1"), ("mx1", "mx1"), ("my host", "my-host"), ("", "localhost"), ("x" * 70, "x" * 63)],
)
def test_an_instance_is_called_as_its_machine(
    files: Files, monkeypatch: pytest.MonkeyPatch, node: str, name: str
) -> None:
    """And not by ``hostname``, the name in the greeting: behind a load balancer all instances have the same."""
    monkeypatch.setattr(platform, "node", lambda: node)
    assert this_machine() == name
    assert files.load("hostname: relay.example.com").settings.spool.instance == name


def _with_password(files: Files, mode: int = 0o600) -> Loaded:
    files.write("pg.pw", f"{SECRET}\n", mode)
    return files.load(f"spool: {{url: '{URL}', password_file: pg.pw, instance: a, failover: 30s}}")


def test_the_password_stands_in_a_file_and_is_never_shown(files: Files) -> None:
    loaded = _with_password(files)
    assert loaded.settings.spool.password is not None
    assert loaded.settings.spool.password.get_secret_value() == SECRET
    shown = show(loaded)
    assert f'  url: "{URL}"  # config.yaml:1' in shown
    assert '  password: "********"  # pg.pw, from config.yaml:1' in shown
    everything = [shown, repr(loaded), json.dumps(loaded.settings.model_dump(mode="json")), *loaded.warnings]
    assert SECRET not in "".join(everything)


def test_a_password_that_everybody_can_read(files: Files) -> None:
    said = f"{files.directory}/pg.pw: every user of this machine can read it, chmod 600 it"
    assert said in _with_password(files, 0o644).warnings
    assert said not in _with_password(files).warnings


def test_room_that_nobody_sees(files: Files) -> None:
    """``limits.spool_free`` is of a disk. Its default, as the example has it, is no wish."""
    text = f"limits: {{spool_free: 20%}}\nspool: {{url: '{URL}'}}"
    (said,) = (line for line in files.load(text).warnings if "spool" in line)
    assert said.removeprefix(f"{files.directory}/") == (
        "config.yaml:1:10: limits.spool_free: has no meaning with spool.url, for nobody sees the disk of a database "
        "from here; take it out, limits.spool_size says how large that may grow"
    )
    for fine in ("limits: {spool_free: 20%}", f"limits: {{spool_free: 10%, spool_size: 5GB}}\nspool: {{url: '{URL}'}}"):
        assert "spool" not in "".join(files.load(fine).warnings)


def test_another_spool_needs_a_restart(files: Files) -> None:
    """A running service stays with the one that it has, and says so."""
    before, after = files.load().settings, _with_password(files).settings
    changed = diff(before, after)
    assert restart_keys(changed) == ["spool.url", "spool.password", "spool.instance", "spool.failover"]
    assert in_place(after, before).spool == before.spool


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"{URL}?sslmodus=require", 'libpq does not know what to do with it: invalid URI query parameter: "sslmodus"'),
        ("hostt=db dbname=x", 'libpq does not know what to do with it: invalid connection option "hostt"'),
    ],
)
def test_an_option_that_libpq_does_not_know(url: str, said: str) -> None:
    (found,) = examine(SpoolSettings(url=url))
    assert (found.keys, found.text) == (("spool", "url"), said)  # type: ignore[union-attr]


def test_without_the_extra_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    found: Any = next(examine(SpoolSettings(url=URL)))
    assert found.text == "needs psycopg, which is not installed: pip install 'smtp-api-gateway[postgresql]'"
    assert found.fatal
    assert list(examine(SpoolSettings())) == []
