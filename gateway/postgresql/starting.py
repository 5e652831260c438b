"""Whether this database will do: asked at every start, so that nobody loses mail by a setting of somebody else.

https://www.postgresql.org/docs/current/runtime-config-wal.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing

import psycopg

from gateway.postgresql.link import connect
from gateway.postgresql.server import Server
from gateway.postgresql.terms import ENCODING
from gateway.spool.records import SpoolError

_OLDEST = 14  # idle_session_timeout, by which a server ends the session of an instance that is frozen
_PROBE = "gateway.probe"
_ROUNDS = 3  # a pooler that hands out its sessions in turn may give the same one back once
# By the server's words: an error of connecting has no code. They are English where lc_messages says nothing else.
_HINTS = (  # the first that fits
    ("password authentication failed", "check spool.password_file, and the user in spool.url"),
    ("no password supplied", "set spool.password_file"),
    (
        "no pg_hba.conf entry.* no encryption",
        "allow this machine in pg_hba.conf of the server; where it has hostssl, take sslmode=disable out of spool.url",
    ),
    ("no pg_hba.conf entry", "allow this machine in pg_hba.conf of the server"),
    (
        "requires a valid client certificate|alert unknown ca|alert certificate",
        "name a certificate that the server takes in spool.url: sslcert=FILE&sslkey=FILE",
    ),
    (
        "certificate authentication failed",
        "the name in the certificate that sslcert names must be the user of spool.url",
    ),
    (
        "root certificate file .* does not exist",
        "name the authority of the server's certificate in spool.url: sslrootcert=FILE",
    ),
    (
        "certificate verify failed",
        "the file that sslrootcert of spool.url names must hold the authority of the server's certificate",
    ),
    ("does not match host name", "name the server in spool.url as its certificate does"),
    ("does not support SSL", "switch ssl on at the server: without it mail crosses the network in the clear"),
    ("role .* does not exist", "make it on the server: createuser --pwprompt NAME"),
    ("database .* does not exist", "make it on the server: createdb --owner ROLE NAME"),
    ("permission denied", "make the role of spool.url the owner of the database, and of all that is in it"),
    ("is not permitted to log in", "allow it on the server: ALTER ROLE NAME LOGIN"),
    ("too many (clients|connections)|connection slots are", "end sessions there, or raise max_connections"),
    (
        "due to lock timeout",
        "somebody holds a lock: SELECT pid, pg_blocking_pids(pid), query FROM pg_stat_activity "
        "WHERE wait_event_type = 'Lock' shows who; end that with pg_terminate_backend",
    ),
    (
        "in a read-only transaction",
        "default_transaction_read_only is set for the server, the database or the role, or it became a replica",
    ),
    ("Connection refused|timeout expired|No such file", "check the host and port in spool.url, and that it runs"),
    ("could not translate host name|Name or service not known", "check the host in spool.url"),
)


def check(server: Server) -> str:
    """Returns the version of the server's software. Raises SpoolError with the fix."""
    try:
        with closing(connect(server, "start")) as one:
            for complaint in _complaints(server, one):
                raise SpoolError(f"the database {server.shown} cannot be the spool: {complaint}")
            return one.info.parameter_status("server_version") or ""
    except psycopg.Error as error:
        raise refused(server, error) from error


def refused(server: Server, error: psycopg.Error) -> SpoolError:
    said = str(error) or type(error).__name__
    return SpoolError(f"the database {server.shown} cannot be used: {hinted(said)}")


def hinted(said: str) -> str:
    """What a server said, in one line, and what to do where that is known."""
    said = " ".join(said.split())
    hint = next((fix for words, fix in _HINTS if re.search(words, said)), "")
    return f"{said}; {hint}" if hint else said


def _complaints(server: Server, one: psycopg.Connection[dict[str, object]]) -> Iterator[str]:
    version = one.info.server_version
    if version < _OLDEST * 10_000:
        yield f"it is PostgreSQL {version // 10_000}, and {_OLDEST} is needed"
    asked = "SELECT pg_is_in_recovery() AS replica, pg_backend_pid() AS pid"
    found = one.execute(asked).fetchone() or {}
    if found["replica"]:
        yield (
            "it is a replica, which takes no writes: "
            "name all hosts in spool.url, and add target_session_attrs=read-write"
        )
    if (encoding := one.info.parameter_status("server_encoding")) != ENCODING:
        yield (
            f"its encoding is {encoding}, which cannot hold all that mail says: "
            "make one of its own: createdb --owner ROLE --encoding UTF8 --template template0 --locale C NAME"
        )
    for name in ("fsync", "full_page_writes") if server.durable else ():
        value = one.execute("SELECT current_setting(%s) AS value", (name,)).fetchone() or {}
        if value["value"] != "on":
            yield f"{name} is off there, and a power cut would lose mail: ALTER SYSTEM SET {name} = on"
    # One in session mode has a number of its own, too, but keeps to it.
    rounds = 1 if found["pid"] == one.info.backend_pid else _ROUNDS
    if any(_shared(server, one, number) for number in range(rounds)):
        yield (
            "a pooler in transaction mode stands before it, and locks do not hold there: "
            "connect to PostgreSQL itself, or to a pooler in session mode"
        )


def _shared(server: Server, one: psycopg.Connection[dict[str, object]], number: int) -> bool:
    """Whether what one connection sets is seen by another, or by itself no more while that one holds a session."""
    value = f"here {number}"
    one.execute("SELECT set_config(%s, %s, false)", (_PROBE, value))
    with closing(connect(server, "start")) as other:
        other.execute("BEGIN")
        seen = other.execute("SELECT current_setting(%s, true) AS value", (_PROBE,)).fetchone() or {}
        own = one.execute("SELECT current_setting(%s, true) AS value", (_PROBE,)).fetchone() or {}
        other.execute("ROLLBACK")
    return seen["value"] == value or own["value"] != value
