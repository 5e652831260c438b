"""Clients and settings over HTTP: in words and in numbers, with where each comes from; never a secret."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.auth import hash_password
from gateway.model import Client
from gateway.spool import TokenRow
from tests.builders import new_message
from tests.fakes import START
from tests.http.kit import Service, ask, service

PASSWORD = "k7hmx2paq9wbt4crn6ez"
HASH = hash_password(PASSWORD, b"sixteen bytes ok")
KEY = "api-0123456789abcdef"
FILE = f"""\
hostname: relay.example.com
clients:
  localhost: {{networks: ["127.0.0.0/8", "::1/128"]}}
  printers:
    networks: [192.0.2.0/27]
    senders: ["*@example.com"]
    recipients: ["*@example.com", "*@example.net"]
    rewrite_sender: {{to: scanner@example.com}}
    rate: 60/minute
    quota: {{messages: [40/minute, 500/day], recipients: 900/day, per: address, over: hold}}
    connections: 7
    max_size: 20MB
  billing: {{token: billing, key: own, backend: s2g, senders: [invoice@example.com]}}
  copier: {{password_hash: "{HASH}", user: scan@example.com}}
backends:
  s2g: {{type: smtp2go, api_key_file: s2g.key, region: eu}}
retry: {{lifetime: 3d, jitter: 0.2}}
"""


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Service]:
    (tmp_path / "s2g.key").write_text(KEY)
    (tmp_path / "config.yaml").write_text(FILE)
    async with service(tmp_path / "config.yaml") as made:
        yield made


async def get(running: Service, path: str) -> Any:
    reply = await ask(running, "GET", f"/api/v1/{path}")
    assert reply.status == 200, reply.body
    assert not [secret for secret in (HASH, HASH.rpartition("$")[2], KEY) if secret in reply.body.decode()]
    return reply.json


async def known(running: Service) -> dict[str, Any]:
    return {one["name"]: one for one in (await get(running, "clients"))["clients"]}


async def test_clients_in_words(running: Service) -> None:
    """How each is known, and what it may send as, to whom and by what."""
    words = ("known_by", "sends_as", "sends_to", "sends_by", "rate", "max_size")
    assert {name: [one[word] for word in words] for name, one in (await known(running)).items()} == {
        "localhost": [["127.0.0.0/8", "::1"], "any", "any", "routes", "", ""],
        "printers": [
            ["192.0.2.0/27"],
            "*@example.com, others become scanner@example.com",
            "*@example.com, *@example.net",
            "routes",
            "60/minute",
            "20MB",
        ],
        "billing": [["token billing of key own"], "invoice@example.com", "any", "s2g", "", ""],
        "copier": [["password of scan@example.com"], "any", "any", "routes", "", ""],
    }


async def test_numbers_of_clients(running: Service) -> None:
    """What is used of the rate now, what came today, and when it last came from where."""
    rate = running.settings.clients["printers"].rate
    for _ in range(3):
        running.quotas.rates.allow("printers", rate, running.clock.monotonic())
    await running.spool.put(new_message(client="printers", peer="192.0.2.17", backend="s2g"))
    await running.authenticator.login("scan@example.com", PASSWORD, "192.0.2.40")
    found = await known(running)
    one = found["printers"]
    assert (one["rate_used"], one["rate_limit"]) == (3, 60)
    assert (one["last_accepted_at"], one["last_accepted_from"]) == ("2026-11-20T12:00:00Z", "192.0.2.17")
    assert (found["copier"]["password_used_at"], found["copier"]["password_used_from"]) == (
        "2026-11-20T12:00:00Z",
        "192.0.2.40",
    )
    assert (found["localhost"]["last_accepted_at"], found["localhost"]["rate_used"]) == (None, 0)
    running.clock.advance(61)
    assert (await get(running, "clients/printers"))["rate_used"] == 0
    assert (found["localhost"]["quota"], found["localhost"]["quota_per"], found["localhost"]["quota_over"]) == (
        [],
        "",
        "",
    )


async def test_the_quota_of_a_client(running: Service) -> None:
    """Each number with the one who has used most of it, and what becomes of the rest."""
    section = running.settings.clients["printers"]
    client = Client("printers", quota=section.quota.quota)
    for peer, times in (("192.0.2.17", 3), ("192.0.2.18", 1)):
        for _ in range(times):
            with running.quotas.taking(client, new_message(peer=peer), "a@b.c", 2, running.clock.monotonic()):
                pass
    one = await get(running, "clients/printers")
    assert [(each["counts"], each["rate"], each["limit"], each["used"], each["who"]) for each in one["quota"]] == [
        ("messages", "40/minute", 40, 3, "192.0.2.17"),
        ("messages", "500/day", 500, 3, "192.0.2.17"),
        ("recipients", "900/day", 900, 6, "192.0.2.17"),
    ]
    assert (one["quota_per"], one["quota_over"], one["connections"], one["max_connections"]) == (
        "address",
        "hold",
        0,
        7,
    )


async def test_there_is_no_other_client(running: Service) -> None:
    """And it is said."""
    assert (await ask(running, "GET", "/api/v1/clients/plotter")).status == 404


@pytest.mark.parametrize(
    ("days", "silence", "silent"), [(10, 6, False), (10, 7, True), (3, 30, False)], ids=["yet", "silent", "never often"]
)
async def test_silence(running: Service, days: int, silence: int, silent: bool) -> None:
    """Who used to send daily and has not for a week is pointed at."""
    for day in range(days, 0, -1):
        at = running.clock.now() - timedelta(days=silence + day - 1)
        running.spool.uses.note("client", "printers", at, "192.0.2.17")
    assert [name for name, one in (await known(running)).items() if one["silent"]] == ["printers"] * silent


async def test_settings_that_differ(running: Service) -> None:
    """What is not as by default, each with its place; a secret by the name of its file only."""
    found = await get(running, "settings")
    assert (found["read_at"], found["failed"]) == ("2026-11-20T12:00:00Z", None)
    assert found["file"].endswith("/config.yaml")
    rows = {one.pop("key"): one for one in found["settings"]}
    one = {"default": None, "secret": False, "changed": True}
    assert rows["hostname"] == one | {"value": "relay.example.com", "origin": "config.yaml:1"}
    assert rows["retry.lifetime"] == one | {"value": "3d", "default": "5d", "origin": "config.yaml:17"}
    assert rows["clients.printers.rate"] == one | {"value": "60/minute", "origin": "config.yaml:9"}
    assert rows["backends.s2g.api_key"] == one | {
        "value": None, "origin": "s2g.key, from config.yaml:16", "secret": True,
    }  # fmt: skip
    assert rows["clients.copier.password_hash"]["value"] is None
    assert rows["state_dir"]["origin"] == "command line"
    assert {"retry.jitter", "retry.delays", "log.level", "auth.keys.own.algorithm"} & set(rows) == set()
    everything = await get(running, "settings?all=1")
    assert len(everything["settings"]) == len(rows) + found["hidden"]
    assert everything["hidden"] == 0


@pytest.mark.parametrize(
    ("query", "keys"),
    [
        ("q=lifetime", ["retry.lifetime"]),
        ("q=S2G%20region", ["backends.s2g.region"]),
        ("q=invoice@", ["clients.billing.senders"]),
        ("q=yaml:17", ["retry.jitter", "retry.lifetime"]),
        (f"q={KEY}", []),
        ("q=log.", ["log.format", "log.level"]),
    ],
)
async def test_a_setting_is_found(running: Service, query: str, keys: list[str]) -> None:
    """By words in its name, value or place, also if it is as by default; a secret never by its value."""
    reply = await ask(running, "GET", f"/api/v1/settings?{query}")
    assert sorted(one["key"] for one in reply.json["settings"]) == keys


@pytest.mark.parametrize("query", ["all=2", "word=x"])
async def test_settings_asked_wrongly(running: Service, query: str) -> None:
    assert (await ask(running, "GET", f"/api/v1/settings?{query}")).status == 400


async def test_a_reload_that_failed_is_told(running: Service) -> None:
    """With every error and when, until one succeeds."""
    running.in_force = running.in_force.after_failure(START, ["config.yaml:3:1: wrong"])
    assert (await get(running, "settings"))["failed"] == {
        "at": "2026-11-20T12:00:00Z",
        "errors": ["config.yaml:3:1: wrong"],
    }


async def test_tokens_tell_their_state_and_last_use(running: Service) -> None:
    """Never used is null; ended and revoked ones are told apart, also those that are void with all of their subject."""
    hour = timedelta(hours=1)
    rows = [("good", "app", None), ("over", "app", START), ("void", "leaver", None), ("gone", "app", None)]
    for jti, subject, ends in rows:
        await running.spool.add_token(TokenRow(jti, "own", subject, "", START - hour, ends))
    running.spool.uses.note("token", "good", START, "192.0.2.1")
    running.spool.uses.note("revoked", "gone", START, "192.0.2.2")
    await running.revoke(jti="gone", subject="")
    await running.revoke(jti="", subject="leaver")
    found = {row["jti"]: row for row in (await get(running, "tokens"))["tokens"]}
    assert {jti: row["state"] for jti, row in found.items()} == {
        "good": "valid", "over": "ended", "void": "revoked", "gone": "revoked",
    }  # fmt: skip
    noon = "2026-11-20T12:00:00Z"
    assert [(found[jti]["revoked_at"], found[jti]["used_at"], found[jti]["tried_at"]) for jti, *_ in rows] == [
        (None, noon, None), (None, None, None), (noon, None, None), (noon, None, noon),
    ]  # fmt: skip
