"""The spool in a database: does it answer, and is it set up so that it stays quick and loses nothing?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from gateway.config.models import Settings
from gateway.doctor.finding import Finding, Level, finding
from gateway.pools import read_files
from gateway.spool import SpoolError

if TYPE_CHECKING:
    from gateway.postgresql.condition import Condition

_LONG = 600  # seconds
_NAP = 10  # seconds
_NEEDED = 8  # connections: of one instance more, and of an administrator
_RELOAD = "SELECT pg_reload_conf();"
_DO = "see that PostgreSQL runs, and that this machine reaches it"


async def look(settings: Settings) -> list[Finding]:
    return await read_files(partial(_look, settings))


def _look(settings: Settings) -> list[Finding]:
    from gateway.postgresql import condition  # noqa: PLC0415 - psycopg, which not everybody has
    from gateway.postgresql.server import Server  # noqa: PLC0415

    spool = settings.spool
    password = spool.password.get_secret_value() if spool.password else ""
    try:
        found = condition.look(Server(spool.url or "", spool.instance, spool.failover, password))
    except SpoolError as error:
        return [
            finding(
                "database_silent",
                "bad",
                "the database does not answer",
                _DO,
                said=str(error),
                paste="gateway spool info",
            )
        ]
    return list(judge(found))


def judge(found: Condition) -> Iterator[Finding]:
    """What that comes to."""
    good = True
    if found.oldest > _LONG:
        what = f"{found.who} has looked at one moment of the database for {found.oldest // 60} minutes"
        what += ": what is deleted since then stays"
        fix = "let it end (a pg_dump does), or end it"
        yield finding("database_snapshot", "warn", what, fix, paste=f"SELECT pg_terminate_backend({found.pid});")
        good = False
    if not found.vacuums or found.naptime > _NAP:
        what = f"autovacuum looks every {found.naptime} s" if found.vacuums else "autovacuum is off"
        paste = f"ALTER SYSTEM SET autovacuum = on;\nALTER SYSTEM SET autovacuum_naptime = '{_NAP}s';\n{_RELOAD}"
        level: Level = "note" if found.vacuums else "warn"
        yield finding(
            "database_vacuum", level, f"{what}: tables grow under load", f"every {_NAP} s is right", paste=paste
        )
        good = good and found.vacuums
    if found.replicas and not found.synchronous:
        what = "replicas follow some time behind: a failover to one loses mail that was answered with 250"
        paste = "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)';\n" + _RELOAD
        yield finding("database_replicas", "warn", what, "let each commit wait for one (docs/cluster.md)", paste=paste)
        good = False
    if found.spare < _NEEDED:
        what = f"{max(found.spare, 0)} connections of the database are left, and an instance needs 6"
        paste = "ALTER SYSTEM SET max_connections = 200;  -- needs a restart of PostgreSQL"
        yield finding("database_connections", "warn", what, "allow more", paste=paste)
        good = False
    if good:
        shown = f"the database answers (PostgreSQL {found.version}, instances: {found.instances})"
        yield finding("database_good", "good", shown)
