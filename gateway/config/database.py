"""Where a database of PostgreSQL is, as libpq takes it: a URL, or words such as ``host=db dbname=gateway``.

https://www.postgresql.org/docs/current/libpq-connect.html (34.1.1). libpq itself is not asked: it may not be installed.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from gateway.config.durations import parse_duration

EXAMPLE = "postgresql://gateway@db.example.org/gateway"
_SECRETS = ("scram_client_key", "scram_server_key", "oauth_client_secret")  # of libpq 18
_WORD = re.compile(r"\s*(\w+)\s*=\s*('(?:\\.|[^'\\])*'|(?:\\.|[^'\\\s])+)(?=\s|$)|\s*(\S.*)", re.ASCII | re.DOTALL)
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*):")
_SHORTEST, _LONGEST = timedelta(seconds=2), timedelta(minutes=5)
_NAME = 63  # characters


def is_database(text: str) -> bool:
    """Whether it is meant as such, and not as the name of a folder."""
    return (
        re.match(r"\s*postgres(ql)?:", text) is not None
        or re.match(r"\s*(host|hostaddr|dbname|service)\s*=", text) is not None
    )


def parse_database(text: str) -> str:
    """As given. Raises ValueError; what else stands in it may be a secret, so the error holds none of it."""
    if not text.strip():
        raise ValueError(f"is empty, write for example {EXAMPLE}")
    scheme = _SCHEME.match(text)
    if scheme is not None and scheme[1] not in ("postgresql", "postgres"):
        raise ValueError(f'"{scheme[1]}:" is not PostgreSQL, which is all that is spoken; write for example {EXAMPLE}')
    if scheme is not None and not text[scheme.end() :].startswith("//"):
        raise ValueError(f"needs two slashes behind postgresql:, write for example {EXAMPLE}")
    names = list(_of_url(text) if scheme else _of_words(text))
    if "password" in names:
        raise ValueError("carries a password, which gateway config show would print: put it into a file of its own, "
                         "and name that as password_file")  # fmt: skip
    if "sslpassword" in names:
        raise ValueError("carries a passphrase, which gateway config show would print: "
                         "use a key without one, which only the service may read")  # fmt: skip
    if secret := next((name for name in _SECRETS if name in names), ""):
        raise ValueError(f"carries a secret ({secret}), which gateway config show would print: use password_file")
    return text.strip()


def _of_url(text: str) -> Iterator[str]:
    """The names of what is given."""
    try:
        parts = urlsplit(text.strip())
    except ValueError:
        raise ValueError(f"is not a URL, write for example {EXAMPLE}") from None
    user, _, hosts = parts.netloc.rpartition("@")
    yield from ["password"] * (":" in user)
    for host in hosts.split(",") if hosts else ():
        port = re.fullmatch(r"(?:\[[0-9A-Fa-f:.]+\]|[^\[\]:]*)(?::([0-9]*))?", host)
        if port is None or not (not port[1] or 0 < int(port[1]) <= 65535):
            raise ValueError(f'"{unquote(host)}" is not a host, or a host and a port, write for example {EXAMPLE}')
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if not value:
            raise ValueError(f'has nothing behind "{name}": write for example {EXAMPLE}?sslmode=verify-full')
        yield name
    if parts.fragment:
        raise ValueError("holds a #: write %23 for one that is meant")


def _of_words(text: str) -> Iterator[str]:
    for found in _WORD.finditer(text):
        if found[3] is not None:
            raise ValueError(f"is neither a URL nor words of libpq, write for example {EXAMPLE}")
        yield found[1]


def parse_failover(value: Any) -> timedelta:
    """Within these bounds a beat is neither lost in the network's own delays nor a day long."""
    found = parse_duration(value)
    if not _SHORTEST <= found <= _LONGEST:
        raise ValueError(f'"{value}" must be from 2s to 5m')
    return found


def parse_instance(text: str) -> str:
    if not re.fullmatch(rf"[A-Za-z0-9_-]{{1,{_NAME}}}", text):
        raise ValueError(f'"{text}" must be 1 to {_NAME} letters, digits, - or _, such as gateway-a')
    return text


def this_machine() -> str:
    """The first label of its name. That in the greeting (``hostname``) is often the same for all instances."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", platform.node().split(".")[0])[:_NAME] or "localhost"
