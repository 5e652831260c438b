"""Secrets: found in the documented order, never shown, and files that anybody can read are pointed out."""

from __future__ import annotations

import json

import pytest

from gateway.config import ConfigError
from gateway.config.document import Document
from gateway.config.files import Files as SecretFiles
from gateway.config.inforce import rows
from gateway.config.loading import load
from gateway.config.show import diff, schema, show
from tests.config.kit import SECRET, TYPES, Files

API = "backends: {b: {type: api, api_key_file: key}}"


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        (["credentials/key", "run/key", "key"], "credentials/key"),
        (["run/key", "key"], "run/key"),
        (["key"], "key"),
    ],
)
def test_where_a_relative_file_is_looked_for(files: Files, present: list[str], expected: str) -> None:
    """$CREDENTIALS_DIRECTORY, then /run/secrets, then beside the configuration file."""
    for name in present:
        files.write(name, f"{name}\n")
    settings = files.load(API, {"CREDENTIALS_DIRECTORY": str(files.directory / "credentials")}).settings
    assert settings.backends["b"].api_key.get_secret_value() == expected


@pytest.mark.parametrize("content", ["x y", "x y\n", "x y\r\n", "x y\n\n"])
def test_trailing_newlines_are_no_part_of_a_secret(files: Files, content: str) -> None:
    """Editors and echo add them."""
    files.write("key", content)
    assert files.load(API).settings.backends["b"].api_key.get_secret_value() == "x y"


def test_an_absolute_file_is_that_file(files: Files) -> None:
    """No search; and the origin of the secret is that file, and the line that names it."""
    path = files.write("else/where", "x")
    loaded = files.load(f"backends:\n  b:\n    type: api\n    api_key_file: {path}\n")
    assert loaded.settings.backends["b"].api_key.get_secret_value() == "x"
    assert loaded.origins["backends.b.api_key"] == f"{path}, from config.yaml:4"


def test_missing_file_names_every_place(files: Files) -> None:
    """What was tried, in order, so that nobody has to guess."""
    environ = {"CREDENTIALS_DIRECTORY": str(files.directory / "credentials")}
    assert files.errors(API, environ) == [
        "config.yaml:1:27: backends.b.api_key_file: no such file: credentials/key or run/key or key"
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("\n", '"key" is empty'),
        (b"\xff\xfe", "key: not a text file"),
        (None, "key: Is a directory"),
    ],
)
def test_a_file_that_holds_no_secret(files: Files, content: str | bytes | None, expected: str) -> None:
    """Empty, binary or a directory."""
    if content is None:
        (files.directory / "key").mkdir()
    else:
        files.write("key", content)
    assert files.errors(API) == [f"config.yaml:1:27: backends.b.api_key_file: {expected}"]


def test_certificates_become_absolute_paths(files: Files) -> None:
    """The same search as for secrets, because the working directory is nobody's choice."""
    files.write("run/tls.crt", "certificate")
    files.write("tls.key", "key")
    files.write("ca.pem", "ca")
    settings = files.load(
        """\
        listeners: {a: {bind: "127.0.0.1:25", tls: starttls, certificate: tls.crt, private_key: tls.key}}
        backends: {b: {type: smtp, host: x, ca_file: ca.pem}}
        """
    ).settings
    listener = settings.listeners["a"]
    assert (listener.certificate, listener.private_key) == (
        files.directory / "run/tls.crt",
        files.directory / "tls.key",
    )
    assert settings.backends["b"].ca_file == files.directory / "ca.pem"


def test_without_a_configuration_file_only_the_managed_places_are_searched(files: Files) -> None:
    """With settings from the environment alone there is no "beside"."""
    environ = {"GATEWAY_BACKENDS__B__TYPE": "api", "GATEWAY_BACKENDS__B__API_KEY_FILE": "key"}
    with pytest.raises(ConfigError) as caught:
        load(None, files.environ | environ, TYPES)
    assert caught.value.lines == [
        "environment GATEWAY_BACKENDS__B__API_KEY_FILE: backends.b.api_key_file: "
        f"no such file: {files.directory}/run/key"
    ]


@pytest.mark.parametrize(
    ("name", "mode", "warned"),
    [("key", 0o600, False), ("key", 0o640, False), ("key", 0o644, True), ("run/key", 0o444, False)],
)
def test_a_secret_file_that_everybody_can_read(files: Files, name: str, mode: int, warned: bool) -> None:
    """Pointed out, except where systemd or the container runtime decides the mode."""
    path = files.write(name, SECRET, mode)
    expected = (f"{path}: every user of this machine can read it, chmod 600 it",)
    assert files.load(API).warnings == (expected if warned else ())


def test_a_secret_in_a_configuration_that_everybody_can_read(files: Files) -> None:
    """The keys are named, the values not."""
    text = f"backends: {{b: {{type: api, api_key: {SECRET}}}}}"
    path = files.write("config.yaml", text, 0o644)
    assert load(path, files.environ, TYPES).warnings == (
        f"{path}: every user of this machine can read backends.b.api_key; chmod 640 it or use a _file",
    )
    path.chmod(0o640)
    assert load(path, files.environ, TYPES).warnings == ()


def test_no_secret_is_ever_shown(files: Files) -> None:
    """Not by show, diff, schema, repr, str or warnings, whether inline, from a file or from the environment."""
    files.write("key", SECRET)
    text = f"""\
        auth: {{keys: {{app: {{algorithm: HS256, secret: {SECRET}-and-more-of-it}}}}}}
        clients: {{c: {{password_hash: "$scrypt$ln=14,r=8,p=1$c2FsdHNhbHQ${SECRET.replace("-", "/"):A<43}"}}}}
        backends: {{b: {{type: api, api_key_file: key}}, s: {{type: smtp, host: x}}}}
        routes: [{{backend: [b, s]}}]
        alerts: {{command: [/usr/bin/curl, -d, "@-", "https://pager.example/?key={SECRET}"]}}
    """
    loaded = files.load(text, {"GATEWAY_BACKENDS__S__PASSWORD": SECRET})
    other = files.load("backends: {b: {type: api, api_key: x}}")
    shown = show(loaded)
    assert shown.count(': "********"  # ') == 4
    assert 'command: ["/usr/bin/curl", "********", "********", "********"]' in shown
    as_json = loaded.settings.model_dump(mode="json", by_alias=True), rows(loaded)
    everything = [shown, *as_json, diff(other.settings, loaded.settings), schema(TYPES), loaded, loaded.warnings]
    assert SECRET not in " ".join([*map(str, everything), *map(repr, everything), json.dumps(loaded.origins)])


@pytest.mark.parametrize(
    "text",
    [
        "backends: {b: {type: api, api_key: [X]}}",
        "backends: {b: {type: api, api_key: {X: X}}}",
        "backends: {b: {type: smtp, host: x, password: X, pasword: X}}",
        "auth: {keys: {k: {algorithm: RS256, secret: X}}}",
        "clients: {c: {password_hash: X}}",
        "alerts: {command: X}",
        "alerts: {command: [X, {X: X}]}",
        "clients: {c: {password_hash: X",
        "clients: {c: {password_hash: *X}}",
        "clients: {c: {password_hash: &X}}",
        "clients: {c: {password_hash: !X!X}}",
        "clients: {c: {password_hash: X: X}}",
        'clients: {c: {password_hash: "X\n',
    ],
)
def test_no_secret_in_an_error(files: Files, text: str) -> None:
    """An error is printed, logged and pasted into chats."""
    with pytest.raises(ConfigError) as caught:
        files.load(text.replace("X", SECRET))
    assert SECRET not in repr(caught.value) + str(caught.value)
    assert caught.value.__cause__ is None


def test_the_search_does_not_read_without_limit(files: Files) -> None:
    """A device or a huge file in the place of a secret costs a megabyte at most."""
    section = {"api_key_file": "/dev/zero"}
    SecretFiles(Document("x"), None, {}, files.directory).secret(section, "api_key", ("backends", "b", "api_key"))
    assert len(section["api_key"]) == 1_000_000
