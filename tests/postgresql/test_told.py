"""What senders are to hear of, and addresses that are close to one, on PostgreSQL as on SQLite."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.spool.near import closest
from gateway.spool.records import Told
from tests.spool_kit import message, on, opened


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_digests_and_near_addresses_are_found(tmp_path: Path, kind: str) -> None:
    with on(kind):
        async with opened(tmp_path) as at:
            assert await at.spool.untold(10) == []
            one = message("anna@example.org", "bob@example.org")
            await at.spool.put(one, told=[Told("failed", "", "digest")])
            (found,) = await at.spool.untold(10)
            assert (found.sender, found.count, len(found.ids), len(found.over)) == (one.envelope.sender, 0, 0, 1)
            assert await at.spool.pieces(found, 5) == []
            wanted, keys = await at.spool.addresses("ann@example.org")
            near = closest(wanted, keys)
            assert [name for name, _ in await at.spool.counted(near)] == ["anna@example.org"]
            assert await at.spool.first_untold() is not None
