"""Whom TLS trusts: the machine's own store and not a list of our own; files are read again when they change."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import certifi
import pytest
import trustme

from gateway.fetch import Fetch, NotSent
from gateway.trust import Trust, system_store
from tests.backends import kit
from tests.backends.kit import Certificates, Web, http

certificates = kit.certificates


@pytest.fixture(autouse=True)
def as_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


async def ask(fetch: Fetch, web: Web) -> str:
    """What came back, or why nothing was sent."""
    try:
        return (await fetch.request("POST", web.url, content=b"x", deadline=5)).body.decode()
    except NotSent as error:
        return f"{error}; {error.fix}"


@pytest.mark.parametrize("how", ["SSL_CERT_FILE", "SSL_CERT_DIR", "ca_file"])
async def test_the_authority_of_a_company_counts(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A proxy that looks into TLS signs with it. What update-ca-certificates does is what SSL_CERT_FILE names."""
    ca_file = None
    if how == "SSL_CERT_FILE":
        monkeypatch.setenv(how, str(certificates.ca_file))
    elif how == "SSL_CERT_DIR":
        (tmp_path / f"{subject_hash(certificates.ca_file)}.0").write_bytes(certificates.ca_file.read_bytes())
        monkeypatch.setenv(how, str(tmp_path))
    else:
        ca_file = certificates.ca_file
    fetch = Fetch()
    async with Web(lambda _: http(200, "ok"), certificates.server()) as web:
        assert await ask(fetch.by(ca_file, None), web) == "ok"
        monkeypatch.undo()
        bare = Fetch()
        said = await ask(bare, web)
        await bare.aclose()
        assert "certificate not trusted: unable to get local issuer certificate" in said
        assert "update-ca-certificates" in said
        assert "ca_file" in said
    await fetch.aclose()


def subject_hash(file: Path) -> str:
    """As c_rehash calls the file: the folder's index is OpenSSL's own."""
    if not (openssl := shutil.which("openssl")):
        pytest.skip("no openssl")
    asked = [openssl, "x509", "-hash", "-noout", "-in", str(file)]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


async def test_a_ca_file_counts_beside_the_systems_store_and_only_where_it_is_named(certificates: Certificates) -> None:
    fetch = Fetch()
    both = Trust(certificates.ca_file).load().get_ca_certs()
    system = Trust().load().get_ca_certs()
    assert len(both) == len(system) + 1
    assert len(Trust(certificates.ca_file, alone=True).load().get_ca_certs()) == 1
    async with Web(lambda _: http(200, "ok"), certificates.server()) as web:
        assert await ask(fetch.by(certificates.ca_file, None), web) == "ok"
        assert "not trusted" in await ask(fetch, web)
    await fetch.aclose()


async def test_a_changed_file_counts_at_the_next_request(tmp_path: Path, certificates: Certificates) -> None:
    """While a new one is being written, or is damaged, the old one counts, and that is told once."""
    file, told = tmp_path / "ca.pem", []
    trustme.CA().cert_pem.write_to_path(str(file))
    fetch = Fetch()
    way = fetch.by(file, None, lambda file, why: told.append(file))
    async with Web(lambda _: http(200, "ok"), certificates.server()) as web:
        assert "not trusted" in await ask(way, web)
        file.write_bytes(certificates.ca_file.read_bytes())
        assert await ask(way, web) == "ok"
        file.write_bytes(b"-----BEGIN CERTIFICATE-----")
        for _ in range(3):
            assert await ask(way, web) == "ok"
        assert told == [str(file)]
        trustme.CA().cert_pem.write_to_path(str(file))
        assert "not trusted" in await ask(way, web)
    await fetch.aclose()


async def test_the_systems_store_is_read_again_when_it_changes(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who installs an authority need not restart the service."""
    store = tmp_path / "ca-certificates.crt"
    trustme.CA().cert_pem.write_to_path(str(store))
    monkeypatch.setenv("SSL_CERT_FILE", str(store))
    fetch = Fetch()
    async with Web(lambda _: http(200, "ok"), certificates.server()) as web:
        assert "not trusted" in await ask(fetch, web)
        store.write_bytes(store.read_bytes() + certificates.ca_file.read_bytes())
        assert await ask(fetch, web) == "ok"
    await fetch.aclose()


@pytest.mark.parametrize("content", [None, b"", b"nothing"])
async def test_a_store_that_is_named_and_cannot_be_read_trusts_nobody(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    """Who names one wants no other."""
    if content is not None:
        (tmp_path / "store.pem").write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "store.pem"))
    fetch = Fetch()
    async with Web(lambda _: http(200, "ok"), certificates.server()) as web:
        said = await ask(fetch, web)
        assert said.startswith("cannot read whom to trust: ")
        assert "SSL_CERT_FILE" in said
        assert web.requests == []
    await fetch.aclose()


async def test_however_many_need_it_first_it_is_read_once(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a thousand messages after a start would read a thousand times 150 certificates."""
    made: list[Any] = []
    really = ssl.create_default_context

    def counted(**options: Any) -> ssl.SSLContext:
        made.append(options)
        return really(**options)

    monkeypatch.setattr(ssl, "create_default_context", counted)
    trust = Trust(certificates.ca_file, alone=True)
    found = await asyncio.gather(*(trust.current() for _ in range(50)))
    assert (len(made), {id(one) for one in found}) == (1, {id(found[0])})


class Nowhere:
    """An OpenSSL that looks in places of which there are none, as in a Python that was built elsewhere."""

    cafile = capath = None


def test_without_a_store_where_openssl_looks_the_usual_places_are_tried_and_then_certifi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssl, "get_default_verify_paths", Nowhere)
    place = tmp_path / "bundle.crt"
    assert system_store((str(place),)) == (certifi.where(), None)
    place.write_text("")
    assert system_store((str(place),)) == (str(place), None)


@pytest.mark.parametrize("make", [Trust, lambda: Trust(Path(certifi.where()), alone=True)])
def test_what_everybody_else_takes_is_taken(make: Any) -> None:
    """Python 3.13 asks more of an authority than OpenSSL, curl and browsers do; many companies' own do not have it."""
    context = make().load()
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
