"""Row 6: what a claim costs with a million messages queued, against a thousand. Fills a spool of 2 GB first."""

from __future__ import annotations

import asyncio

from tests.bench.kit import scratch
from tests.bench.spool_bench import bench_claims

SIZES = (1000, 1_000_000)
GOAL = 1.1


def main() -> None:
    print(f"\nclaim (goal of the ratio <= {GOAL})")
    with scratch() as disk:
        asyncio.run(bench_claims(disk, SIZES))
