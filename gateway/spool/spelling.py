"""What the marks of a statement stand for (engine.py), in a database's own words."""

from __future__ import annotations

import re
from functools import lru_cache

_PAIRS = r"SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(\1)"


@lru_cache(maxsize=512)
def sqlite(statement: str) -> str:
    """Lists are bound as JSON."""
    listed = re.sub(r"@in\((:\w+)\)", r"IN (SELECT value FROM json_each(\1))", statement)
    listed = re.sub(r"@pairs\((:\w+)\)", rf"IN ({_PAIRS})", listed)
    told = re.sub(r"@by\((\w+)\)", r"INDEXED BY \1", listed)
    return told.replace("@least(", "min(").replace("@greatest(", "max(")
