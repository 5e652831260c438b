"""Rule: a device password is stored as scrypt, verified off the loop at the same cost whatever was wrong, remembered
for five minutes when right, and put off with 454 when too many wait (door.md rows 10, 11)."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import threading
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

from gateway.auth import hash_password, new_password
from gateway.config.values import parse_scrypt
from gateway.model import Refusal
from tests.auth.kit import ANY, House, cheap_hash, token
from tests.auth.test_claims import login
from tests.fakes import until

WORD = "k7hmx2paq9wbt4crn6ez"
HASH = hash_password(WORD, b"sixteen bytes ok")
COPIER = {"copier": {"password_hash": HASH}}


@pytest.fixture
def derived(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """Each scrypt that ran: thread and parameters."""
    runs: list[tuple[str, Any]] = []
    real = hashlib.scrypt

    def counted(password: bytes, *, salt: bytes, **cost: int) -> bytes:
        runs.append((threading.current_thread().name, (len(salt), cost)))
        return real(password, salt=salt, **cost)

    monkeypatch.setattr(hashlib, "scrypt", counted)
    return runs


TRIES = [
    ("copier", WORD, "copier"),
    ("copier", WORD + " ", "auth_failed"),
    ("copier", WORD.upper(), "auth_failed"),
    ("copier", "", "auth_failed"),
    ("copier", HASH, "auth_failed"),
    ("copier", "\udcff\ud800", "auth_failed"),
    ("copier", "a.b.c.d", "auth_failed"),
    ("copier", "x" * 12_000, "auth_failed"),
    ("Copier", WORD, "copier"),
    ("COPIER", WORD.upper(), "auth_failed"),
    ("scan@example.com", WORD, "scanner"),
    ("Scan@Example.COM", WORD, "scanner"),
    ("scanner", WORD, "auth_failed"),
    ("nobody", WORD, "auth_failed"),
    ("", WORD, "auth_failed"),
    ("jwt", WORD, "auth_failed"),
    ("tokens", WORD, "auth_failed"),
]


@pytest.mark.parametrize(("user", "password", "expected"), TRIES, ids=[f"{t[0]} {t[1][:8]!a}" for t in TRIES])
async def test_the_password_of_the_named_client_and_no_other(
    tmp_path: Path, user: str, password: str, expected: str
) -> None:
    """A user name that is an address, or comes with other capitals, is what devices with one field for both send."""
    scanner = {"scanner": {"user": "Scan@example.com", "password_hash": HASH}}
    assert await login(House(tmp_path, clients=COPIER | scanner | ANY), password, user) == expected


async def test_an_unknown_name_costs_the_same_work_off_the_loop(tmp_path: Path, derived: list[tuple[str, Any]]) -> None:
    house = House(tmp_path, clients=COPIER | ANY)
    for user in ("copier", "nobody", "tokens", ""):
        assert await login(house, "wrong", user) == "auth_failed"
    assert len(derived) == 4
    assert all(cost == derived[0][1] for _, cost in derived)
    assert all(thread.startswith("scrypt") for thread, _ in derived)


async def test_without_any_password_configured_nothing_is_derived(
    tmp_path: Path, derived: list[tuple[str, Any]]
) -> None:
    assert await login(House(tmp_path), "guess", "copier") == "auth_failed"
    assert derived == []


async def test_a_verdict_is_remembered_five_minutes_for_the_neighbour_who_asked(
    tmp_path: Path, derived: list[tuple[str, Any]]
) -> None:
    house = House(tmp_path, clients=COPIER)
    tries = [(WORD, "copier", "192.0.2.1"), ("wrong", "auth_failed", "192.0.2.1"), (WORD, "copier", "192.0.2.2")]
    for work in (3, 3, 3, 6):
        for password, expected, peer in tries:
            for _ in range(20):
                assert await login(house, password, "copier", peer) == expected
        assert len(derived) == work
        house.clock.advance(100)


async def test_what_is_remembered_belongs_to_one_name(tmp_path: Path, derived: list[tuple[str, Any]]) -> None:
    other = HASH.rpartition("$")[0] + "$" + "A" * 43
    house = House(tmp_path, clients=COPIER | {"other": {"password_hash": other}})
    assert await login(house, WORD, "copier") == "copier"
    assert await login(house, WORD, "other") == "auth_failed"
    assert len(derived) == 2


def texts_in(root: object) -> set[bytes]:
    """Every text and all bytes that can be reached from there, except by way of code."""
    seen: dict[int, object] = {}
    todo = [root]
    while todo:
        one = todo.pop()
        if id(one) not in seen and not isinstance(one, type | ModuleType | FunctionType):
            seen[id(one)] = one
            todo += gc.get_referents(one)
    found = (one.encode("utf-8", "replace") if isinstance(one, str) else one for one in seen.values())
    return {one for one in found if isinstance(one, bytes)}


async def test_the_password_itself_is_kept_nowhere(tmp_path: Path) -> None:
    house = House(tmp_path, clients=COPIER)
    await login(house, WORD, "copier")
    kept = texts_in(house.auth)
    assert parse_scrypt(HASH)[4] in kept
    assert not {WORD.encode(), hashlib.sha256(WORD.encode()).digest()} & kept


async def test_a_flood_is_put_off_and_the_rest_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than 32 at once: 454 4.7.0 for the excess; a client that hangs up gives its place back."""
    release = threading.Event()
    monkeypatch.setattr(hashlib, "scrypt", lambda *_, dklen, **__: bytes(dklen * release.wait(30)))
    house = House(tmp_path, clients=COPIER)
    tasks = [asyncio.create_task(house.auth.login("copier", "wrong", f"192.0.2.{n}")) for n in range(40)]
    await until(lambda: sum(task.done() for task in tasks) == 8)
    for task in filter(asyncio.Task.done, tasks):
        refusal = task.exception()
        assert isinstance(refusal, Refusal)
        assert (refusal.code, refusal.enhanced, refusal.reason) == (454, "4.7.0", "busy")
    queued = tasks[31]  # the last one that found room; the two threads hold earlier ones
    queued.cancel()
    await asyncio.wait([queued])
    again = asyncio.create_task(house.auth.login("copier", "wrong", "192.0.2.1"))
    await asyncio.sleep(0)
    release.set()
    results = await asyncio.gather(*tasks[:31], again, return_exceptions=True)
    assert {getattr(result, "code", None) for result in results} == {535}


async def test_closing_lets_what_is_queued_end(tmp_path: Path) -> None:
    """A reload closes the old settings while sessions still wait for their answer."""
    house = House(tmp_path, clients=COPIER)
    tasks = [asyncio.create_task(login(house, WORD, "copier")) for _ in range(6)]
    await asyncio.sleep(0)
    await house.auth.aclose()
    assert await asyncio.gather(*tasks) == ["copier"] * 6


MIXED = {
    "dear": {"password_hash": cheap_hash(WORD, 11), "networks": ["10.0.0.1"]},
    "cheap": {"password_hash": cheap_hash(WORD), "networks": ["10.0.0.1"]},
}


@pytest.mark.parametrize("clients", [{"cheap": MIXED["cheap"]}, MIXED], ids=["one cost", "two costs"])
async def test_whatever_is_wrong_costs_the_same(
    tmp_path: Path, derived: list[tuple[str, Any]], clients: dict[str, Any]
) -> None:
    """A right password from a wrong network, a wrong one, a name that does not exist: the first time, again, later."""
    tries = [("cheap", WORD, "wrong_network"), ("cheap", "wrong", "auth_failed"), ("nobody", WORD, "auth_failed")]
    house, work = House(tmp_path, clients=clients), []
    for pause in (0, 0, 200, 100, 0):
        house.clock.advance(pause)
        for user, password, expected in tries:
            before = len(derived)
            assert await login(house, password, user, "192.0.2.9") == expected
            work.append(len(derived) - before)
    assert work == [1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0]
    for number in range(40):
        await login(house, WORD, f"name{number}", f"192.0.2.{number}")
    costs = {cost["n"] for _, (_, cost) in derived[6:]}
    assert len(costs) == len(clients), "a name that does not exist may cost what any of the others costs"


NETWORKS = [
    ("192.0.2.17", "copier"),
    ("::ffff:192.0.2.17", "copier"),
    ("192.0.2.18", "wrong_network"),
    ("", "wrong_network"),
]


@pytest.mark.parametrize(("peer", "expected"), NETWORKS)
async def test_a_password_is_bound_to_its_networks(tmp_path: Path, peer: str, expected: str) -> None:
    house = House(tmp_path, clients={"copier": {"password_hash": HASH, "networks": ["192.0.2.17"]}})
    for _ in range(2):  # the second time from memory
        assert await login(house, WORD, "copier", peer) == expected


async def test_the_format_is_the_one_others_write(tmp_path: Path) -> None:
    """``password`` hashed by passlib 1.7 (its documentation), and RFC 7914 section 12 in the same form."""
    passlib = "$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E"
    digest = bytes.fromhex(
        "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"
        "d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887"
    )
    salt, text = (base64.b64encode(raw).rstrip(b"=").decode() for raw in (b"SodiumChloride", digest))
    rfc = f"$scrypt$ln=14,r=8,p=1${salt}${text}"
    house = House(tmp_path, clients={"passlib": {"password_hash": passlib}, "rfc": {"password_hash": rfc}})
    assert await login(house, "password", "passlib") == "passlib"
    assert await login(house, "Password", "passlib") == "auth_failed"
    assert await login(house, "pleaseletmein", "rfc") == "rfc"


def test_a_hash_is_made_of_its_salt() -> None:
    assert hash_password("a", b"s" * 16) == hash_password("a", b"s" * 16)
    assert hash_password("a", b"s" * 16) != hash_password("a", b"t" * 16)
    assert HASH.startswith("$scrypt$ln=14,r=8,p=1$")
    assert WORD not in HASH


def test_a_password_that_looks_like_a_token_is_not_hashed() -> None:
    with pytest.raises(ValueError, match="taken for a token"):
        hash_password("a.b.c", b"s" * 16)


def test_new_passwords() -> None:
    """20 characters nobody mixes up, about 99 bits."""
    made = [new_password() for _ in range(500)]
    assert len(set(made)) == 500
    assert all(len(word) == 20 and word.isalnum() and word == word.lower() for word in made)
    used = set("".join(made))
    assert len(used) == 31
    assert used.isdisjoint("0o1il")


async def test_a_token_goes_its_own_way(tmp_path: Path, derived: list[tuple[str, Any]]) -> None:
    assert await login(House(tmp_path, clients=COPIER | ANY), token()) == "tokens"
    assert derived == []
