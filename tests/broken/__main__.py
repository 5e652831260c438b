"""``python -m tests.broken``: makes docs/broken.md anew."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.broken.judge import faults
from tests.broken.kit import look
from tests.broken.table import PAGE, SHOWN, page

with tempfile.TemporaryDirectory(prefix="gw-") as folder:
    seen = asyncio.run(look(SHOWN, Path(folder)))
PAGE.write_text(page(seen))
for one in seen.values():
    for fault in faults(one):
        print(f"{one.case.name}: {fault}", file=sys.stderr)
