"""``gateway auth microsoft``: what is printed, what is stored, and how it fails."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli.auth_microsoft import microsoft
from gateway.cli.root import check_config
from gateway.clock import SystemClock
from gateway.events import Events
from gateway.postgresql.engine import Postgres
from gateway.postgresql.server import Server
from gateway.spool import spelling
from gateway.spool.agreed import HeldKey, HeldKeys, agree
from gateway.spool.vault import Vault
from tests import postgres_kit
from tests.backends.graph_fake import CLIENT, MAILBOX, GraphFake, refusal
from tests.backends.kit import Web

CONFIG = """
state_dir: {state}
backends:
  me:
    {{type: graph, tenant: consumers, client_id: {client}, device_login: true, mailbox: me, senders: ["{mailbox}"],
      authority: "{url}", api_base: "{url}"}}
  over_smtp:
    {{type: smtp, preset: office365, mailbox: me, senders: ["{mailbox}"],
      microsoft: {{tenant: consumers, client_id: {client}, device_login: true, authority: "{url}"}}}}
  box: {{type: capture, directory: captured}}
routes: [{{backend: box}}]
"""


@pytest.fixture
def fake() -> Iterator[GraphFake]:
    """The provider, in a loop of its own."""
    loop, fake = asyncio.new_event_loop(), GraphFake()
    fake.signed_in = True
    web = Web(fake)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(web.__aenter__(), loop).result(10)
    fake.url = web.url
    yield fake
    asyncio.run_coroutine_threadsafe(web.__aexit__(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []

    async def sleep(_: SystemClock, seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(SystemClock, "sleep", sleep)
    return waits


@pytest.fixture
def file(tmp_path: Path, fake: GraphFake) -> Path:
    file, state = tmp_path / "config.yaml", tmp_path / "state"
    state.mkdir(mode=0o700)
    file.write_text(CONFIG.format(state=state, client=CLIENT, mailbox=MAILBOX, url=fake.url))
    return file


def run(file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(microsoft, ["--config", str(file), *arguments])


def test_a_person_signs_in(file: Path, fake: GraphFake, waits: list[float]) -> None:
    """The provider's words, then a wait for the person, then who it is and what comes next.

    Typed by root it locks the service out of nothing.
    """
    if os.geteuid() == 0:
        os.chown(file.parent / "state", 65534, 65534)
    fake.answers["token"] = [refusal(400, "authorization_pending", 70016)]
    done = run(file, "--backend", "me")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "To sign in, open https://microsoft.com/devicelogin and enter the code ABCD-1234.",
        f"{MAILBOX} has signed in; now try: gateway backend check me",
    ]
    assert waits == [1]
    store = file.parent / "state" / "oauth-me.json"
    assert stat.S_IMODE(store.stat().st_mode) == 0o600
    assert store.stat().st_uid == store.parent.stat().st_uid
    assert "rt-1" in json.dumps(json.loads(store.read_text()))
    assert "rt-1" not in done.output


@pytest.mark.parametrize(
    ("place", "error", "words"),
    [
        ("devicecode", refusal(400, "unauthorized_client", 700016), "check client_id"),
        ("token", refusal(400, "authorization_declined", 70000), "authorization_declined"),
        ("token", refusal(400, "expired_token", 70020), "expired_token"),
        ("token", refusal(401, "invalid_client", 7000218), "allow public client flows"),
        ("discovery", refusal(400, "invalid_tenant", 90002), "check tenant and cloud"),
        ("discovery", refusal(503, "temporarily_unavailable"), "HTTP 503"),
    ],
)
@pytest.mark.usefixtures("waits")
def test_a_failure_is_told_and_nothing_stored(
    file: Path, fake: GraphFake, place: str, error: bytes, words: str
) -> None:
    fake.answers[place] = [error]
    done = run(file, "--backend", "me")
    assert (done.exit_code, words in done.stderr) == (1, True), done.output
    assert list((file.parent / "state").iterdir()) == []


@pytest.mark.parametrize("name", ["box", "nobody"])
def test_another_backend_needs_no_sign_in(file: Path, name: str) -> None:
    done = run(file, "--backend", name)
    assert done.exit_code == 1
    fitting = "of type graph with device_login: true, or smtp with it in microsoft; there are me, over_smtp"
    assert f"no backend {name} {fitting}" in done.stderr


@pytest.mark.usefixtures("waits")
def test_a_person_signs_in_for_smtp(file: Path, fake: GraphFake) -> None:
    """The sign-in is asked for what SMTP needs, and not for Graph's permission."""
    assert run(file, "--backend", "over_smtp").exit_code == 0
    assert "https://outlook.office.com/SMTP.Send" in fake.forms[0]["scope"]
    assert "Mail.Send" not in fake.forms[0]["scope"]
    assert (file.parent / "state" / "oauth-over_smtp.json").exists()


@pytest.mark.parametrize(("failures", "code"), [(9, 0), (10, 1)])
def test_a_line_that_fails_for_a_moment_ends_no_sign_in(
    file: Path, fake: GraphFake, waits: list[float], failures: int, code: int
) -> None:
    fake.answers["token"] = [refusal(503, "temporarily_unavailable")] * failures
    done = run(file, "--backend", "me")
    assert (done.exit_code, waits) == (code, [1] * 9), done.output


def test_nobody_signs_in_for_nothing(file: Path, fake: GraphFake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it could not be stored the provider is not even asked."""
    state, may = file.parent / "state", os.access
    monkeypatch.setattr("os.access", lambda path, mode: path != state and may(path, mode))
    done = run(file, "--backend", "me")
    assert (done.exit_code, "run this as the user of the service" in done.stderr) == (1, True)
    assert fake.calls == []


@pytest.mark.usefixtures("waits")
def test_without_a_state_dir_there_is_nowhere_to_store_it(file: Path) -> None:
    (file.parent / "state").rmdir()
    done = run(file, "--backend", "me")
    assert (done.exit_code, "start the service once" in done.stderr) == (1, True)


def test_a_sign_in_goes_to_the_database_that_instances_share(file: Path, waits: list[float]) -> None:
    """Also while none of them runs, and in no file. Where it cannot go, nobody signs in for nothing."""
    state = file.parent / "state"
    with postgres_kit.database() as url:
        file.write_text(f"{file.read_text()}spool: {{url: '{url}'}}\n")
        done = run(file, "--backend", "me")
        assert (done.exit_code, "start the service once" in done.stderr) == (1, True)
        key = os.urandom(32)
        (state / "spool.key").write_bytes(key)
        link = Postgres(Server(url, "a", timedelta(seconds=5), durable=False)).open()
        held = HeldKeys(HeldKey(state / "spool.key", key), {})
        with link.begin():
            agree(link, spelling.postgresql, held, me="a", now=1)
        for _ in range(2):
            done = run(file, "--backend", "me")
            assert (done.exit_code, f"{MAILBOX} has signed in" in done.stdout) == (0, True), done.output
        assert list(state.glob("oauth*")) == []
        [row] = link.all("SELECT name, sealed FROM secret")
        assert row["name"] == "sign-in:me"
        assert b"rt-2" in (Vault(key, Events()).disclose("sign-in:me", row["sealed"]) or b"")
        link.close()
        checked = CliRunner().invoke(check_config, ["--config", str(file)])
        assert (checked.exit_code, "nobody has signed in" in checked.output) == (0, False), checked.output
        (state / "spool.key").write_bytes(os.urandom(32))
        done = run(file, "--backend", "me")
        assert (done.exit_code, "copy spool.key from instance a" in done.stderr) == (1, True)
    assert run(file, "--backend", "me").exit_code == 1
    assert waits == []
