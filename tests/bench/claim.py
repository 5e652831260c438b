"""Row 6: what a claim costs with a million messages queued, against a thousand. Fills a spool of 2 GB first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from tests.bench.kit import Effort, scratch
from tests.bench.spool import claims
from tests.bench.table import Row

NAMES = ("claim",)
_SIZES = (1000, 1_000_000)
_GOAL = 1.1


def run(_: set[str], effort: Effort) -> Iterator[Row]:
    small, large = _SIZES if effort.share == 1 else (_SIZES[0], 100_000)
    with scratch() as disk:
        cost = asyncio.run(claims(disk, (small, large)))
    what = f"a claim with {large} queued : with {small}"
    few, many = cost[small], cost[large]
    yield Row("claim", what, f"{many * 1e6:.1f} us", f"{few * 1e6:.1f} us", many / few, _GOAL, at_least=False)
