"""Whether ``spool.url`` can be used from here at all: asked before the start, of nobody. Loads psycopg only then."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.finding import Finding
from gateway.config.models import SpoolSettings

INSTALL = "pip install 'smtp-api-gateway[postgresql]'"


def examine(settings: SpoolSettings) -> Iterator[Finding]:
    """What is wrong, with keys of the whole configuration."""
    if settings.url is None:
        return
    try:
        import psycopg  # noqa: PLC0415 - not everybody has it, and nobody else needs it
        from psycopg import conninfo  # noqa: PLC0415
    except ImportError:
        yield Finding(("spool", "url"), f"needs psycopg, which is not installed: {INSTALL}")
        return
    try:
        conninfo.conninfo_to_dict(settings.url)
    except psycopg.Error as error:
        said = " ".join(str(error).split())
        yield Finding(("spool", "url"), f"libpq does not know what to do with it: {said}")
