"""How a server is reached: by TLS and with whose word, by a password or a certificate. What does not fit is refused in
words that say what to do, and no secret is in them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import trustme

from gateway.postgresql import starting
from gateway.postgresql.server import Server
from gateway.spool import SpoolError
from tests import postgres_kit
from tests.flow.kit import free_port

PASSWORD, WRONG = "pa55-w0rd", "wr0ng-w0rd"
HBA = """
local all all trust
hostssl scram gateway 127.0.0.1/32 scram-sha-256
hostssl bycert gateway 127.0.0.1/32 cert
hostnossl plain gateway 127.0.0.1/32 scram-sha-256
"""


@dataclass(frozen=True)
class Site:
    """A server that is named db.test, and a folder of certificates."""

    folder: Path
    port: int

    def check(self, database: str, options: str, password: str = "", host: str = "db.test") -> str:
        """As every start does."""
        url = f"postgresql://gateway@{host}:{self.port}/{database}?hostaddr=127.0.0.1&{options.format(self.folder)}"
        return starting.check(Server(url, "a", timedelta(seconds=2), password, durable=False))


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    authority, other, people = trustme.CA(), trustme.CA(), trustme.CA()
    with tempfile.TemporaryDirectory(prefix="gateway-tests-", dir="/var/tmp") as name:
        folder, port = Path(name), free_port()
        folder.chmod(0o755)
        server = authority.issue_cert("db.test")
        files = {"hba": HBA.encode(), "ca": authority.cert_pem.bytes(), "other": other.cert_pem.bytes()}
        files["people"] = people.cert_pem.bytes()
        pairs = {"server": server, "gateway": people.issue_cert(common_name="gateway")}
        pairs["somebody"] = people.issue_cert(common_name="somebody")
        pairs["stranger"] = other.issue_cert(common_name="gateway")
        for who, pair in pairs.items():
            files[f"{who}.crt"] = b"".join(part.bytes() for part in pair.cert_chain_pems)
            files[f"{who}.key"] = pair.private_key_pem.bytes()
        for file, content in files.items():
            (folder / file).write_bytes(content)
            (folder / file).chmod(0o600 if file.endswith("key") else 0o644)
        used = {"ssl_cert_file": "server.crt", "ssl_key_file": "server.key", "ssl_ca_file": "people", "hba_file": "hba"}
        postgres_kit.give(folder / "server.key")
        with postgres_kit.cluster(
            port=port, ssl="on", **{key: str(folder / file) for key, file in used.items()}
        ) as made:
            made.ask(f"CREATE ROLE gateway LOGIN PASSWORD '{PASSWORD}'")
            for database in ("scram", "bycert", "plain"):
                made.ask(f"CREATE DATABASE {database} OWNER gateway")
            yield Site(folder, port)


FULL = "sslmode=verify-full&sslrootcert={0}/ca"
CERTIFICATE = FULL + "&sslcert={0}/%s.crt&sslkey={0}/%s.key"


@pytest.mark.parametrize(
    ("database", "options", "password"),
    [
        ("scram", FULL, PASSWORD),
        ("scram", f"{FULL}&channel_binding=require", PASSWORD),
        ("scram", "sslmode=prefer", PASSWORD),
        ("bycert", CERTIFICATE % ("gateway", "gateway"), ""),
        ("plain", "sslmode=disable", PASSWORD),
    ],
)
def test_it_is_reached(site: Site, database: str, options: str, password: str) -> None:
    assert site.check(database, options, password)


REFUSED = [
    ("scram", FULL, WRONG, "password authentication failed.*; check spool.password_file"),
    ("scram", FULL, "", "no password supplied; set spool.password_file"),
    ("scram", "sslmode=disable", PASSWORD, "no encryption; .* take sslmode=disable out of spool.url"),
    ("plain", FULL, PASSWORD, "no pg_hba.conf entry .*; allow this machine in pg_hba.conf of the server"),
    ("scram", "sslmode=verify-full&sslrootcert={0}/other", PASSWORD, "verify failed; the file that sslrootcert of"),
    ("scram", "sslmode=verify-full&sslrootcert={0}/none", PASSWORD, "none.* does not exist.*spool.url: sslrootcert="),
    ("bycert", FULL, PASSWORD, "valid client certificate; name a certificate .*: sslcert=FILE&sslkey=FILE"),
    ("bycert", CERTIFICATE % ("stranger", "stranger"), "", "unknown ca; name a certificate that the server takes"),
    ("bycert", CERTIFICATE % ("somebody", "somebody"), "", "must be the user of spool.url"),
    ("bycert", CERTIFICATE % ("gateway", "none"), "", "not private key file .*/none.key"),
    ("bycert", CERTIFICATE % ("gateway", "stranger"), "", "stranger.key.*: key values mismatch"),
]  # fmt: skip


@pytest.mark.parametrize(("database", "options", "password", "words"), REFUSED, ids=lambda value: value[:24])
def test_who_does_not_fit_is_refused(site: Site, database: str, options: str, password: str, words: str) -> None:
    with pytest.raises(SpoolError, match=words) as refused:
        site.check(database, options, password)
    assert not password or password not in str(refused.value)


def test_a_server_of_another_name_is_refused(site: Site) -> None:
    with pytest.raises(
        SpoolError, match=r"db.test.* does not match host name .*; name the server .* as its certificate"
    ):
        site.check("scram", FULL, PASSWORD, host="else.test")


def test_a_key_that_others_may_read_is_refused(site: Site) -> None:
    open_key = site.folder / "open.key"
    open_key.write_bytes((site.folder / "gateway.key").read_bytes())
    open_key.chmod(0o644)
    with pytest.raises(SpoolError, match="has group or world access"):
        site.check("bycert", FULL + "&sslcert={0}/gateway.crt&sslkey={0}/open.key")


def test_no_secret_is_seen_beside_the_connection(site: Site) -> None:
    """Neither in what is said of a server nor in its repr."""
    server = Server(f"postgresql://gateway@db.test:{site.port}/scram", "a", timedelta(seconds=2), PASSWORD)
    assert PASSWORD not in f"{server!r} {server} {server.shown}"
