"""How a database is set up and gets on, for the doctor: what costs speed or mail one day, and nobody sees until then.

https://www.postgresql.org/docs/current/monitoring-stats.html
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

import psycopg

from gateway.postgresql.link import connect
from gateway.postgresql.server import Server
from gateway.postgresql.starting import refused

_ASKED = """
SELECT current_setting('autovacuum') = 'on' AS vacuums,
    (SELECT CAST(setting AS INT) FROM pg_settings WHERE name = 'autovacuum_naptime') AS naptime,
    current_setting('synchronous_standby_names') <> '' AS synchronous,
    (SELECT count(*) FROM pg_stat_replication) AS replicas,
    CAST(current_setting('max_connections') AS INT) - CAST(current_setting('superuser_reserved_connections') AS INT)
        - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS spare,
    (SELECT count(*) FROM instance) AS instances"""
_OLDEST = """
SELECT pid, coalesce(nullif(application_name, ''), usename, '') AS who,
    CAST(extract(epoch FROM clock_timestamp() - xact_start) AS BIGINT) AS seconds
FROM pg_stat_activity WHERE datname = current_database() AND backend_xmin IS NOT NULL AND pid <> pg_backend_pid()
    AND backend_type = 'client backend' AND xact_start IS NOT NULL
ORDER BY xact_start LIMIT 1"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """``naptime`` in seconds. ``spare`` connections are left to users like ours. ``oldest``: for so many seconds
    somebody (``who``, process ``pid``) looks at one moment, behind which nothing can be tidied up."""

    version: str
    vacuums: bool
    naptime: int
    synchronous: bool
    replicas: int
    spare: int
    instances: int
    oldest: int = 0
    who: str = ""
    pid: int = 0


def look(server: Server) -> Condition:
    """Blocks. Raises SpoolError."""
    try:
        with closing(connect(server, "doctor")) as one:
            found = one.execute(_ASKED).fetchone() or {}
            oldest = one.execute(_OLDEST).fetchone() or {"seconds": 0, "who": "", "pid": 0}
            version = one.info.parameter_status("server_version") or ""
    except psycopg.Error as error:
        raise refused(server, error) from error
    return Condition(version=version, oldest=oldest["seconds"], who=oldest["who"], pid=oldest["pid"], **found)
