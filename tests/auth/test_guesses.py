"""Rule: who guesses passwords is slowed, by neighbour and user name, before any work is done; a device that repeats its
old password, a good token and everybody else at that address notice nothing of it (issue 9, B9)."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gateway.auth import Guesses, LoginRefused
from tests.auth.kit import ANY, NOW, House, cheap_hash, token
from tests.auth.test_passwords import WORD, derived  # noqa: F401 - a fixture

HASH = cheap_hash(WORD)
HOUSE = ANY | {"copier": {"password_hash": HASH}, "scanner": {"password_hash": HASH}}
LISTED = {"lan": {"networks": ["198.51.100.0/24"]}, "cam": {"password_hash": HASH, "networks": ["10.0.0.0/8"]}}
PEER = "203.0.113.5"


async def tried(house: House, password: str, user: str = "copier", peer: str = PEER) -> str:
    """The client's name, or code and reason of the refusal."""
    try:
        return (await house.auth.login(user, password, peer)).name
    except LoginRefused as caught:
        refusal = caught
    assert (refusal.code, refusal.enhanced) in ((535, "5.7.8"), (454, "4.7.0"))
    return f"{refusal.code} {refusal.reason}"


async def guessed(house: House, count: int, user: str = "copier", peer: str = PEER) -> Counter[str]:
    """What becomes of so many different passwords at once."""
    guesses = (tried(house, f"guess{number}", user, peer) for number in range(count))
    return Counter(await asyncio.gather(*guesses))


async def exhaust(house: House, user: str = "copier", peer: str = PEER) -> None:
    for number in range(10):
        assert await tried(house, f"wrong{number}", user, peer) == "535 auth_failed"
    assert await tried(house, "wrong10", user, peer) == "454 too_many_failures"


async def test_only_the_guesser_waits(tmp_path: Path) -> None:
    """Not the same user elsewhere, not others there; and of the guesser a token is judged whatever it is."""
    house = House(tmp_path, clients=HOUSE)
    await exhaust(house)
    assert await tried(house, WORD) == "454 too_many_failures"
    assert await tried(house, WORD, "COPIER") == "454 too_many_failures"
    assert await tried(house, WORD, "scanner") == "scanner"
    assert await tried(house, WORD, peer="203.0.113.6") == "copier"
    assert await tried(house, token(), "jwt") == "tokens"
    assert await tried(house, token(exp=NOW - 60), "jwt") == "535 token_expired"
    assert await tried(house, token()[:-4] + "AAAA", "copier") == "535 token_signature"
    house.clock.advance(30)
    assert await tried(house, WORD) == "copier"


async def test_a_name_that_does_not_exist_is_slowed_alike(tmp_path: Path) -> None:
    house = House(tmp_path, clients=HOUSE)
    await exhaust(house, "nobody")


async def test_tokens_are_never_guesses(tmp_path: Path) -> None:
    """A hundred expired or forged ones beside a password that is right."""
    house = House(tmp_path, clients=HOUSE)
    for number in range(100):
        assert await tried(house, token(exp=NOW - 60, jti=str(number))) == "535 token_expired"
        assert await tried(house, token(jti=str(number))[:-4] + "AAAA") == "535 token_signature"
    assert await tried(house, WORD) == "copier"


async def test_a_device_that_repeats_its_old_password_locks_nobody_out(
    tmp_path: Path,
    derived: list[tuple[str, Any]],  # noqa: F811
) -> None:
    """Every ten seconds, and the same device gets in with the right one; the work is not done again each time."""
    house = House(tmp_path, clients=HOUSE)
    for _ in range(180):
        assert await tried(house, "old") == "535 auth_failed"
        house.clock.advance(10)
    assert len(derived) == 6, "once in five minutes"
    assert await tried(house, WORD) == "copier"


async def test_parallel_connections_get_no_more_guesses(
    tmp_path: Path,
    derived: list[tuple[str, Any]],  # noqa: F811
) -> None:
    """Counted before they are judged: 48 at once are no more than one after another."""
    house = House(tmp_path, clients=HOUSE)
    assert await guessed(house, 48) == {"535 auth_failed": 8, "454 busy": 40}
    assert await guessed(house, 48) == {"535 auth_failed": 10, "454 too_many_failures": 38}, "8 of them known already"
    assert len(derived) == 10


async def test_a_right_password_from_many_connections_at_once_is_looked_at_once(
    tmp_path: Path,
    derived: list[tuple[str, Any]],  # noqa: F811
) -> None:
    house = House(tmp_path, clients=HOUSE)
    assert await asyncio.gather(*(tried(house, WORD) for _ in range(48))) == ["copier"] * 48
    assert len(derived) == 1


async def test_who_got_in_lately_gets_in_while_somebody_guesses_there(tmp_path: Path) -> None:
    """Behind one address of a NAT; and being right is no credit for further guesses."""
    house = House(tmp_path, clients=HOUSE)
    assert await tried(house, WORD) == "copier"
    await exhaust(house)
    assert await tried(house, WORD) == "copier"
    assert await tried(house, "one more") == "454 too_many_failures"


async def test_many_user_names_do_not_take_all_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One neighbour has at most 8 passwords looked at at once: somebody else's is looked at meanwhile."""
    house, go = House(tmp_path, clients=HOUSE), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(*_: Any, dklen: int, **__: Any) -> bytes:
        asyncio.run_coroutine_threadsafe(go.wait(), loop).result(30)
        return bytes(dklen)

    monkeypatch.setattr(hashlib, "scrypt", slow)
    flood = [asyncio.create_task(tried(house, "x", f"user{number}")) for number in range(40)]
    other = asyncio.create_task(tried(house, "x", peer="203.0.113.6"))
    await asyncio.sleep(0)
    go.set()
    assert Counter(await asyncio.gather(*flood)) == {"454 busy": 32, "535 auth_failed": 8}
    assert await other == "535 auth_failed"


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "198.51.100.7", "10.1.2.3"])
async def test_this_host_and_listed_networks_are_not_slowed(tmp_path: Path, peer: str) -> None:
    house = House(tmp_path, clients=HOUSE | LISTED)
    for number in range(12):
        assert await tried(house, f"wrong{number}", peer=peer) == "535 auth_failed"
    assert await tried(house, WORD, peer=peer) == "copier"


async def test_a_listed_internet_is_nobody_we_know(tmp_path: Path) -> None:
    await exhaust(House(tmp_path, clients=HOUSE | {"all": {"token": "x", "networks": ["0.0.0.0/0", "::/0"]}}))


async def test_ipv6_is_counted_by_network(tmp_path: Path) -> None:
    house = House(tmp_path, clients=HOUSE)
    for number in range(10):
        assert await tried(house, f"wrong{number}", peer=f"2a00::{number}") == "535 auth_failed"
    assert await tried(house, WORD, peer="2a00::ffff:1") == "454 too_many_failures"
    assert await tried(house, WORD, peer="2a00:0:0:1::1") == "copier"


async def test_a_reload_forgives_nothing_but_what_it_changed(tmp_path: Path) -> None:
    """What was wrong is looked at again when the password, or where it is good, has changed."""
    guesses, other = Guesses(), {"copier": {"password_hash": HASH, "networks": ["10.0.0.1"]}}
    house = House(tmp_path, clients=other, guesses=guesses)
    assert await tried(house, WORD) == "535 wrong_network"
    changed = House(tmp_path, clients=HOUSE, guesses=guesses)
    assert await tried(changed, WORD) == "copier"
    await exhaust(House(tmp_path, clients=HOUSE, guesses=guesses), peer="203.0.113.9")
    later = House(tmp_path, clients=HOUSE, guesses=guesses)
    assert await tried(later, WORD, peer="203.0.113.9") == "454 too_many_failures"


def test_memory_is_bounded() -> None:
    """Ten thousand of each; a flood of wrong ones does not displace the right ones."""
    guesses = Guesses()
    right, wrong = guesses.mark("right"), guesses.mark("wrong")
    guesses.learn(right, True, 0.0, admitted=True)
    guesses.learn(wrong, False, 0.0, admitted=False)
    for number in range(10_000):
        guesses.learn(guesses.mark(number), False, 0.0, admitted=False)
    assert (guesses.recall(right, 1.0), guesses.recall(wrong, 1.0)) == (True, None)
    assert guesses.recall(right, 300.0) is None


SHOWN = [
    ("copier", "x", "copier"),
    ("Copier", "x", "Copier"),
    ("jwt", "x", "jwt"),
    ("billing", "x", "billing"),
    ("scan@example.com", "x", "scan@example.com"),
    ("copeir", "x", "unknown, 6 characters"),
    (WORD, "x", "unknown, 20 characters"),
    (WORD, "copier", "unknown, 20 characters"),
    ("pass@word.example", "copier", "unknown, 17 characters"),
    ("p@ssw0rd", "x", "unknown, 8 characters"),
    (token(), "x", f"unknown, {len(token())} characters"),
    ("a\nb@example.com", "x", "unknown, 15 characters"),
    ("\udcff", "x", "unknown, 1 characters"),
    ("", "x", ""),
]


@pytest.mark.parametrize(("user", "password", "shown"), SHOWN, ids=range(len(SHOWN)))
async def test_a_log_sees_only_user_names_that_are_no_secret(
    tmp_path: Path, user: str, password: str, shown: str
) -> None:
    """Known names and addresses; people type passwords and tokens where the name belongs, or swap the two."""
    house = House(tmp_path, clients=HOUSE | {"bill": {"token": "billing"}})
    with pytest.raises(LoginRefused) as caught:
        await house.auth.login(user, password, PEER)
    assert caught.value.user == shown
