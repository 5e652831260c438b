"""Rule: check-config, reload and start give one answer. Every file that a setting names is read and understood, what
is wrong is said with its place, and what has merely ended, or ends soon, is a warning: a service that ran comes up."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from gateway.backends import settings_types
from gateway.config.loading import Loaded, load
from gateway.readiness import ready
from tests.cli.kit import Commands
from tests.flow.kit import Gateway, free_port

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


# -- what may lie in a file --------------------------------------------------------------------------------------------


@cache
def rsa(bits: int = 2048, number: int = 1) -> RSAPrivateKey:
    return generate_rsa(65537, bits)


def private(key: Any, lock: KeySerializationEncryption | None = None) -> str:
    text: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock or NoEncryption())
    return text.decode()


def public(key: Any) -> str:
    text: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


def certificate(key: Any = None, begins: datetime | None = None, ends: datetime | None = None) -> str:
    """One that signs itself, as authority and as leaf."""
    key = key or rsa()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "relay.test")])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(begins or datetime(2020, 1, 1, tzinfo=UTC))
    made = made.not_valid_after(ends or datetime(2100, 1, 1, tzinfo=UTC))
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return made.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


LOCK = BestAvailableEncryption(b"secret")
CUT = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
GUID = "11111111-2222-3333-4444-555555555555"
OAUTH_CLIENT = json.dumps({"installed": {"client_id": "x", "client_secret": "S3CR3T"}})
SERVICE = {
    "type": "service_account",
    "client_email": "relay@p.iam.gserviceaccount.com",
    "token_uri": "https://oauth2.googleapis.com/token",
    "private_key_id": "1",
    "private_key": "",
}
SIGN_IN = {"type": "authorized_user", "refresh_token": "S3CR3T", "client_id": "x", "client_secret": "S3CR3T"}


# -- what may stand in the settings ------------------------------------------------------------------------------------


def listener(certificate_text: str, key: str) -> tuple[dict[str, str], str]:
    files = {"tls.crt": certificate_text, "tls.key": key}
    return files, "  tls: {bind: '127.0.0.1:0', tls: starttls, certificate: tls.crt, private_key: tls.key}\n"


def key(file: str, **settings: str) -> tuple[dict[str, str], str]:
    return {"k.pem": file}, f"auth: {{keys: {{corp: {json.dumps(settings)}}}}}\n"


def backend(file: str, **settings: str) -> tuple[dict[str, str], str]:
    """``file`` is called f; ``box`` stays the way out."""
    boxes = f"backends:\n  box: {{type: capture}}\n  b: {json.dumps(settings)}\nroutes: [{{backend: [box, b]}}]\n"
    return {"f": file}, boxes


def google(file: str, field: str = "service_account_file") -> tuple[dict[str, str], str]:
    return backend(file, type="gmail", mailbox="a@example.com", **{field: "f"})


def graph(file: str) -> tuple[dict[str, str], str]:
    return backend(file, type="graph", tenant="t.example", client_id=GUID, mailbox="a@b.example", certificate_file="f")


def smarthost(file: str) -> tuple[dict[str, str], str]:
    return backend(file, type="smtp", host="smtp.example.com", ca_file="f")


def known_by(certificate_text: str, key: str | None = None) -> tuple[dict[str, str], str]:
    """A smarthost that knows us by a certificate."""
    both = {"certificate_file": "f"} if key is None else {"certificate_file": "f", "private_key_file": "k"}
    files, settings = backend(certificate_text, type="smtp", host="smtp.example.com", **both)
    return files | ({} if key is None else {"k": key}), settings


Case = tuple[dict[str, str], str]
EC = generate_private_key(SECP256R1())
TLS, CORP, OWN, BACKEND = "listeners.tls.", "auth.keys.corp.", "auth.keys.own.", "backends.b."
# What is broken: the files and the settings; then the setting that is named, and words of what is said.
BROKEN: dict[str, tuple[Case, str, str]] = {
    "certificate empty": (listener("", private(rsa())), TLS + "certificate", "it is empty"),
    "certificate no PEM": (listener("hello", private(rsa())), TLS + "certificate", "no line"),
    "certificate cut": (listener(CUT, private(rsa())), TLS + "certificate", "it is damaged"),
    "certificate is a key": (listener(private(rsa()), ""), TLS + "certificate", "it holds PRIVATE KEY"),
    "certificate short": (
        listener(certificate(rsa(1024)), private(rsa(1024))), TLS + "certificate", "its key is too short"),
    "key empty": (listener(certificate(), ""), TLS + "private_key", "it is empty"),
    "key is a certificate": (listener(certificate(), certificate()), TLS + "private_key", "it holds CERTIFICATE"),
    "key locked": (listener(certificate(), private(rsa(), LOCK)), TLS + "private_key", "needs a passphrase"),
    "key of another": (
        listener(certificate(), private(rsa(2048, 2))), TLS + "certificate", "does not belong to private_key"),
    "key of another kind": (
        listener(certificate(), private(EC)), TLS + "certificate", "does not belong to private_key"),
    "public key is private": (
        key(private(rsa()), algorithm="RS256", public_key_file="k.pem"), CORP + "public_key_file",
        "it holds PRIVATE KEY"),
    "public key is a certificate": (
        key(certificate(), algorithm="RS256", public_key_file="k.pem"), CORP + "public_key_file",
        "it holds CERTIFICATE"),
    "signing key locked": (
        key(private(rsa(), LOCK), algorithm="RS256", private_key_file="k.pem"), CORP + "private_key_file",
        "needs a passphrase"),
    "signing key short": (
        key(private(rsa(1024)), algorithm="RS256", private_key_file="k.pem"), CORP + "private_key_file",
        "2048 to 16384 bits, this has 1024"),
    "signing key of another kind": (
        key(public(EC), algorithm="RS256", public_key_file="k.pem"), CORP + "public_key_file",
        "RS256 needs an RSA key"),
    "secret short": (key("", algorithm="HS256", secret="short"), CORP + "secret", "HS256 needs at least 32 bytes"),
    "own key of another kind": (
        ({}, "auth: {keys: {own: {algorithm: RS256, private_key_file: none.key}}}\n"), OWN + "private_key_file",
        "cannot read"),
    "own key damaged": (
        ({"own.key": "x"}, "auth: {keys: {own: {algorithm: EdDSA, private_key_file: own.key}}}\n"),
        OWN + "private_key_file", "no line"),
    "own key cannot be made": (
        ({"file": ""}, "auth: {keys: {own: {algorithm: EdDSA, private_key_file: DIR/file/own.key}}}\n"),
        OWN + "private_key_file", "is not a directory"),
    "reserved audience": (
        key("", algorithm="HS256", secret="0123456789" * 4, audience="gateway-admin"), CORP + "audience", "reserved"),
    "google client for a service": (
        google(OAUTH_CLIENT), BACKEND + "service_account_file",
        "is an OAuth client, neither a sign-in nor the key of a service account; sign in with it"),
    "google client for a sign-in": (
        google(OAUTH_CLIENT, "authorized_user_file"), BACKEND + "authorized_user_file", "is an OAuth client"),
    "google JSON broken": (google("{"), BACKEND + "service_account_file", "no JSON file of Google credentials"),
    "google type of the other": (
        google(json.dumps(SIGN_IN)), BACKEND + "service_account_file",
        "type authorized_user; name it as authorized_user_file"),
    "google key damaged": (
        google(json.dumps(SERVICE | {"private_key": CUT})), BACKEND + "service_account_file",
        "f: its private_key is not a PEM private key: it holds CERTIFICATE; put the file as Google"),
    "google sign-in not whole": (
        google(json.dumps(SIGN_IN | {"refresh_token": ""}), "authorized_user_file"), BACKEND + "authorized_user_file",
        "has no refresh_token"),
    "google sign-in of another": (
        google(json.dumps(SIGN_IN | {"account": "other@example.com"}), "authorized_user_file"),
        BACKEND + "authorized_user_file", "is the sign-in of other@example.com, not of a@example.com"),
    "microsoft without key": (graph(certificate()), BACKEND + "certificate_file", "no private key in it"),
    "microsoft key of another": (
        graph(certificate() + private(rsa(2048, 2))), BACKEND + "certificate_file",
        "the key is not the key of the certificate"),
    "microsoft key locked": (
        graph(certificate() + private(rsa(), LOCK)), BACKEND + "certificate_file", "the key needs a password"),
    "microsoft key short": (
        graph(certificate(rsa(1024)) + private(rsa(1024))), BACKEND + "certificate_file",
        "RSA keys from 2048 bits, this has 1024"),
    "microsoft secret empty": (
        backend("", type="graph", tenant="t.example", client_id=GUID, mailbox="a@b.example", client_secret_file="f"),
        BACKEND + "client_secret_file", '"f" is empty'),
    "authorities empty": (smarthost(""), BACKEND + "ca_file", "it is empty"),
    "authorities are a key": (smarthost(public(rsa())), BACKEND + "ca_file", "it holds PUBLIC KEY"),
    "certificate of ours is a key": (
        known_by(private(rsa())), BACKEND + "certificate_file", "is not a PEM certificate: it holds PRIVATE KEY"),
    "certificate of ours without key": (
        known_by(certificate()), BACKEND + "certificate_file", "is not a PEM private key: it holds CERTIFICATE"),
    "certificate of ours, key of another": (
        known_by(certificate(), private(rsa(2048, 2))), BACKEND + "private_key_file",
        "is not the key of that certificate"),
    "certificate of ours, key locked": (
        known_by(certificate(), private(rsa(), LOCK)), BACKEND + "private_key_file", "needs a passphrase"),
    "smarthost of dots": (backend("", type="smtp", host="."), BACKEND + "host", "must be a host name or address alone"),
    "capture under a file": (
        ({"file": ""}, "backends: {box: {type: capture, directory: DIR/file/box}}\n"), "backends.box.directory",
        "is not a directory"),
    "socket in no folder": (({}, "http: {socket: /none/admin.sock}\n"), "http.socket", "/none is not a directory"),
    "state under a file": (({"file": ""}, "state_dir: DIR/file/state\n"), "state_dir", "is not a directory"),
    "file missing": (({}, smarthost("")[1]), BACKEND + "ca_file", "no such file"),
    "key misspelt": (({}, "hostnam: x\n"), "hostnam", 'unknown key, did you mean "hostname"?'),
}  # fmt: skip


@pytest.fixture(scope="module")
def service() -> Iterator[Gateway]:
    with tempfile.TemporaryDirectory(prefix="gw-") as folder, Gateway(Path(folder)) as running:
        yield running


def write(folder: Path, head: str, case: Case) -> str:
    """The settings of a case, its files beside them, what is named twice taken from the case."""
    files, settings = case
    for name, text in files.items():
        folder.joinpath(name).write_text(text)
        folder.joinpath(name).chmod(0o600)
    settings = settings.replace("DIR", str(folder))
    names = {line.partition(":")[0] for line in settings.splitlines() if not line.startswith(" ")}
    return "".join(line for line in head.splitlines(True) if line.partition(":")[0] not in names) + settings


@contextmanager
def placed(service: Gateway, case: Case) -> Iterator[Commands]:
    """Commands while the service's own file holds these settings."""
    before = service.file.read_text()
    try:
        service.file.write_text(write(service.directory, before, case))
        yield Commands(service.file)
    finally:
        service.file.write_text(before)
        for file in case[0]:
            service.directory.joinpath(file).unlink()


def reload(service: Gateway) -> tuple[int, Any]:
    """By its own socket: where the settings in the file name another one, no command would find the service."""
    connection = http.client.HTTPConnection("localhost", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX)
    with closing(connection):
        connection.sock.connect(bytes(service.directory / "state" / "admin.sock"))
        connection.request("POST", "/api/v1/reload")
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


@pytest.mark.parametrize("name", BROKEN)
def test_one_answer(service: Gateway, name: str) -> None:
    """A start ends with 78, a running service keeps its old settings, and both say the lines of check-config."""
    case, setting, words = BROKEN[name]
    with placed(service, case) as run:
        done = {command: run(command) for command in ("check-config", "serve")}
        status, answer = reload(service)
    lines = done["check-config"].stderr.removeprefix("Error: ").splitlines()
    assert [one.exit_code for one in done.values()] == [78, 78], done
    assert done["serve"].stderr == done["check-config"].stderr
    assert (status, answer["errors"]) == (422, lines)
    (line,) = lines
    assert f": {setting}: " in line
    assert words in line
    assert f"{service.file}:" in line
    assert "S3CR3T" not in line
    assert service.get("/readyz")[0] == 200


def test_everything_at_once_in_the_order_of_the_file(service: Gateway) -> None:
    """Not only the first error, and not the first of each kind."""
    files, tls = listener("", "")
    broken = f"  {tls.strip()}\nauth:\n  keys:\n    a: {{algorithm: RS256, public_key_file: tls.key}}\n"
    broken += "    b: {algorithm: ES256, private_key_file: tls.key}\n"
    broken += backend("", type="smtp", host="smtp.example.com", ca_file="tls.crt")[1]
    with placed(service, (files, broken)) as run:
        done = run("check-config")
    settings = [line.split(": ")[2 if line.startswith("Error") else 1] for line in done.stderr.splitlines()]
    assert settings == [
        "listeners.tls.certificate",
        "auth.keys.a.public_key_file",
        "auth.keys.b.private_key_file",
        "backends.b.ca_file",
    ]


# -- what hinders nobody -----------------------------------------------------------------------------------------------


def seen(folder: Path, case: Case, now: datetime = NOW) -> Loaded:
    head = f"state_dir: {folder / 'state'}\nbackends: {{box: {{type: capture}}}}\n"
    head += "listeners:\n  local: {bind: '127.0.0.1:0'}\n"
    folder.joinpath("config.yaml").write_text(write(folder, head, case))
    return ready(load(folder / "config.yaml", {}, settings_types()), now)


def dated(ends: datetime) -> dict[str, Case]:
    """All that ends, where it is the settings that say so."""
    text = certificate(ends=ends)
    day = f"{ends:%Y-%m-%d}"
    secret = {"client_secret": "s", "client_secret_expires": day}
    sign_in = SIGN_IN | {"refresh_token_expires_at": ends.isoformat()}
    return {
        "listeners.tls.certificate": listener(text, private(rsa())),
        "backends.b.certificate_file": graph(text + private(rsa())),
        "backends.b.client_secret_expires": backend(
            "", type="graph", tenant="t.example", client_id=GUID, mailbox="a@b.example", **secret
        ),
        "backends.b.ca_file": smarthost(text),
        "backends.b.certificate_file of smtp": known_by(text, private(rsa())),
        "backends.b.authorized_user_file": google(json.dumps(sign_in), "authorized_user_file"),
    }


@pytest.mark.parametrize("setting", dated(NOW))
@pytest.mark.parametrize(
    ("ends", "words"),
    [
        (NOW, "HAS ENDED on 2026-03-01: replace it now"),
        (NOW - 400 * DAY, "HAS ENDED on 2025-01-25"),
        (NOW + 30 * DAY, "ends on 2026-03-31, in 30 days"),
        (NOW + 31 * DAY, ""),
    ],
)
def test_what_ends_is_a_warning(tmp_path: Path, setting: str, ends: datetime, words: str) -> None:
    """From 30 days before, and louder afterwards; never an error."""
    found = seen(tmp_path, dated(ends)[setting])
    told = [line for line in found.warnings if f": {setting.partition(' of ')[0]}: " in line]
    assert len(told) == bool(words), found.warnings
    assert all(words in line for line in told)


def test_a_certificate_of_tomorrow(tmp_path: Path) -> None:
    """Most likely the clock is wrong."""
    found = seen(tmp_path, listener(certificate(begins=NOW + DAY), private(rsa())))
    assert "good only from 2026-03-02 00:00:00Z: is this machine's clock right?" in found.warnings[-1]


def test_what_is_good_is_not_spoken_of(tmp_path: Path) -> None:
    """Every kind of file as its maker made it."""
    service = SERVICE | {"private_key": private(rsa())}
    for case in (
        listener(certificate(), private(rsa())),
        key(public(EC), algorithm="ES256", public_key_file="k.pem"),
        key(private(Ed25519PrivateKey.generate()), algorithm="EdDSA", private_key_file="k.pem"),
        google(json.dumps(service)),
        google(json.dumps(SIGN_IN | {"account": "A@example.com"}), "authorized_user_file"),
        graph(private(rsa()) + certificate()),
        smarthost(certificate() + certificate()),
        known_by(certificate() + private(rsa())),
        known_by(certificate(), private(rsa())),
    ):
        found = seen(tmp_path, case)
        assert found.warnings == (), case


def test_nothing_of_it_is_made(tmp_path: Path) -> None:
    """Looking changes nothing: neither the state directory nor our own key is there afterwards."""
    seen(tmp_path, ({}, ""))
    assert not (tmp_path / "state").exists()


def test_a_device_login_that_is_still_to_come(tmp_path: Path) -> None:
    """The service must be started once before anybody can sign in."""
    login = {
        "tenant": "t.example",
        "client_id": GUID,
        "mailbox": "a@b.example",
        "device_login": "true",
    }
    found = seen(tmp_path, backend("", type="graph", **login))
    assert "backends.b.device_login: nobody has signed in yet: gateway auth microsoft --backend b" in found.warnings[0]


def test_authorities_that_nobody_needs(tmp_path: Path) -> None:
    """With tls: none the file is not used, so what is wrong with it hinders nobody."""
    found = seen(tmp_path, backend("x", type="smtp", host="127.0.0.1", tls="none", ca_file="f"))
    assert len(found.warnings) == 1


def test_nobody_would_hear_of_a_bounce(tmp_path: Path) -> None:
    """By the routes that a bounce takes, with the place of the setting."""
    only = backend(json.dumps(SERVICE | {"private_key": private(rsa())}), type="gmail", mailbox="a@b.example")
    only = only[0], only[1].replace('"gmail"', '"gmail", "service_account_file": "f"').replace("[box, b]", "b")
    found = seen(tmp_path, (only[0], only[1] + "bounces: {mode: dsn}\n"))
    (line,) = (one for one in found.warnings if "would not hear" in one)
    assert ".yaml:8:1: bounces: senders would not hear of mail that fails: no backend that a route" in line
    assert line.endswith("; write bounces: {from: a@b.example}")


def test_a_service_with_an_ended_certificate_comes_up(tmp_path: Path) -> None:
    """At its start it says so, and so it does at a reload, which takes the new settings over."""
    folder = tmp_path / "s"
    folder.mkdir()
    files, tls = listener(certificate(ends=NOW - 700 * DAY), private(rsa()))
    for name, text in files.items():
        folder.joinpath(name).write_text(text)
    head = f'listeners:\n  local: {{bind: "127.0.0.1:{free_port()}"}}\n'
    with Gateway(folder, head + tls) as running:
        said = "listeners.tls.certificate: the certificate HAS ENDED on 2024-03-31: replace it now"
        assert f'"event":"settings_doubtful","detail":"{running.file}:6:45: {said}' in running.log.read_text()
        before = running.log.read_text().count(said)
        running.file.write_text(running.file.read_text() + "limits: {idle: 7m}\n")
        assert "limits.idle" in Commands(running.file).ok("reload")
        running.wait(lambda: running.log.read_text().count(said) == before + 1)
        assert all(json.loads(line) for line in running.log.read_text().splitlines())


def test_a_disk_that_hangs_at_a_reload_holds_up_nobody(service: Gateway) -> None:
    """Its settings file is a pipe that nobody writes to: the service goes on with the old ones, then takes these."""
    text = service.file.read_text()
    service.file.unlink()
    os.mkfifo(service.file)
    with ThreadPoolExecutor(1) as threads:
        try:
            waiting = threads.submit(reload, service)
            with service.file.open("w") as pipe:  # opens once the service reads
                assert service.get("/readyz")[0] == 200
                assert not waiting.done()
                pipe.write(text + "limits: {idle: 7m}\n")
            status, answer = waiting.result(timeout=30)
            assert (status, answer["changes"]) == (200, ["limits.idle: changed"])
        finally:
            service.file.unlink()
            service.file.write_text(text)
    assert reload(service)[0] == 200


def test_a_disk_that_hangs_at_a_reload_does_not_hold_up_a_stop(tmp_path: Path) -> None:
    """SIGTERM ends the process, whoever still reads."""
    with Gateway(tmp_path) as running:
        running.file.unlink()
        os.mkfifo(running.file)
        running.signal(signal.SIGHUP)
        with running.file.open("w"):  # opens once the service reads
            assert running.stop() == 0
