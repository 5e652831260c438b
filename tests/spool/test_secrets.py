"""Secrets that all instances on a spool share: sealed by name, and never replaced by something older."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.spool.secrets import WHATEVER, Sealed
from tests.spool_kit import At, opened, peer

NAME, FIRST, SECOND = "graph:office", b"\x00first\xff", b"second"


async def test_what_was_put_comes_back_and_outlives_the_process(tmp_path: Path) -> None:
    async with opened(tmp_path) as at:
        assert await at.spool.secrets.get(NAME) is None
        assert await at.spool.secrets.put(NAME, FIRST, expected=None)
        assert await at.spool.secrets.put("other", b"", expected=None)
    async with opened(tmp_path) as at:
        assert await at.spool.secrets.get(NAME) == FIRST
        assert await at.spool.secrets.get("other") == b""
        assert await at.spool.secrets.delete(NAME)
        assert not await at.spool.secrets.delete(NAME)
        assert await at.spool.secrets.get(NAME) is None


async def test_only_who_has_read_the_last_one_may_replace_it(at: At) -> None:
    """By comparing what was read: nothing, an older one, and one that has gone since."""
    kept = at.spool.secrets
    assert not await kept.put(NAME, SECOND, expected=FIRST)
    assert await kept.get(NAME) is None
    assert await kept.put(NAME, FIRST, expected=None)
    assert not await kept.put(NAME, SECOND, expected=None)
    assert not await kept.put(NAME, SECOND, expected=b"older")
    assert await kept.get(NAME) == FIRST
    assert await kept.put(NAME, SECOND, expected=FIRST)
    assert not await kept.put(NAME, FIRST, expected=FIRST)
    assert await kept.get(NAME) == SECOND
    assert await kept.put(NAME, FIRST, expected=WHATEVER)
    assert await kept.get(NAME) == FIRST


@pytest.mark.parametrize("known", [None, FIRST])
async def test_of_many_that_write_at_once_one_wins(at: At, known: bytes | None) -> None:
    kept = at.spool.secrets
    if known is not None:
        await kept.put(NAME, known, expected=None)
    values = [bytes([n]) for n in range(20)]
    won = await asyncio.gather(*(kept.put(NAME, value, expected=known) for value in values))
    assert won.count(True) == 1
    assert await kept.get(NAME) == values[won.index(True)]


async def test_nothing_of_it_can_be_read_in_the_file(tmp_path: Path) -> None:
    """Neither in the database nor in its log; two sealings of the same are not alike."""
    secret = b"0.AXoA-refresh-token"
    async with opened(tmp_path) as at:
        sealed = []
        for _ in range(2):
            await at.spool.secrets.put(NAME, secret, expected=WHATEVER)
            sealed += peer(tmp_path, "SELECT sealed FROM secret")
        assert sealed[0] != sealed[1]
        assert not any(secret in file.read_bytes() for file in tmp_path.iterdir() if file.is_file())


@pytest.mark.parametrize("wrong", [b"", b"short", b"x" * 40, "text", 7])
async def test_what_cannot_be_opened_is_not_nothing(tmp_path: Path, at: At, wrong: object) -> None:
    """Only a person replaces it; the log says so once and names no value."""
    await at.spool.secrets.put(NAME, FIRST, expected=None)
    peer(tmp_path, "UPDATE secret SET sealed = ?", wrong)
    for _ in range(2):
        with pytest.raises(Sealed, match=NAME):
            await at.spool.secrets.get(NAME)
    assert len(at.logged("unsealable")) == 1
    assert not await at.spool.secrets.put(NAME, SECOND, expected=None)
    assert not await at.spool.secrets.put(NAME, SECOND, expected=FIRST)
    assert await at.spool.secrets.put(NAME, SECOND, expected=WHATEVER)
    assert await at.spool.secrets.get(NAME) == SECOND


async def test_one_opens_under_its_own_name_only(tmp_path: Path, at: At) -> None:
    await at.spool.secrets.put(NAME, FIRST, expected=None)
    peer(tmp_path, "UPDATE secret SET name = 'graph:other'")
    with pytest.raises(Sealed):
        await at.spool.secrets.get("graph:other")
