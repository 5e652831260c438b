"""Where the database is, and how it is reached.

https://www.postgresql.org/docs/current/libpq-connect.html (34.1.2 for the words of a URL).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from gateway.postgresql.terms import ENCODING

# Seconds: a connection whose other end is gone without a word is found to be so.
_ALIVE = {"keepalives": 1, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}


@dataclass(frozen=True, slots=True)
class Server:
    """``url`` as libpq takes it, without a password. ``instance`` is the name of this one among those that share the
    queue; ``failover`` is after how long another takes over from one of which nothing is heard. ``durable``: one
    that may lose what it confirmed is refused."""

    url: str
    instance: str
    failover: timedelta
    password: str = field(default="", repr=False)
    durable: bool = True

    @property
    def shown(self) -> str:
        """For people, without what is secret."""
        known = conninfo_to_dict(self.url)
        hosts = known.get("host") or known.get("hostaddr") or "localhost"
        return f"{known.get('dbname') or known.get('user') or 'postgres'} on {hosts}"

    def conninfo(self, role: str) -> str:
        """For a connection of this role, which the server's list of connections shows."""
        gone = int(self.failover.total_seconds() * 1000)
        name = f"gateway {self.instance} {role}"
        known: dict[str, str | int] = {
            "connect_timeout": 5,
            "tcp_user_timeout": gone,
            "application_name": name,
            "client_encoding": ENCODING,
        }
        told = make_conninfo(self.url, **known, **_ALIVE)
        return make_conninfo(told, password=self.password) if self.password else told
