"""Where a service's admin socket is, found without pydantic and always as the whole loading finds them."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.config import ConfigError, locate
from gateway.config import files as config_files
from gateway.config.loading import load
from gateway.config.locate import SECTIONS, admin_socket, in_database
from gateway.config.models import Settings
from tests.config.kit import TYPES, Files


def test_sections() -> None:
    """What may stand at the top of a file is known without the types."""
    assert set(SECTIONS) == set(Settings.file_keys())


def test_usual_places() -> None:
    """As the unit, the image and the documentation have them; other tests put empty ones in their place."""
    places = (locate.SYSTEM_FILE, locate.STATE_DIRECTORY, config_files.RUN_SECRETS)
    assert places == (Path("/etc/gateway/config.yaml"), Path("/var/lib/gateway"), Path("/run/secrets"))


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        ("", {}),
        ("state_dir: /srv/state", {}),
        ("state_dir:", {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}),
        ("", {"XDG_STATE_HOME": "/x"}),
        ("", {"HOME": "relative"}),
        ("http: {socket: other.sock}", {}),
        ("http: {socket: /run/x.sock}", {"GATEWAY_STATE_DIR": "/srv/state"}),
        ("state_dir: /a\nhttp: {socket: a.sock}", {"GATEWAY_STATE_DIR": "/b", "GATEWAY_HTTP__SOCKET": "b.sock"}),
        ("http: {bind: ''}", {"GATEWAY_HTTP": "{socket: c.sock}"}),
        ("http:\nhostname: relay.example", {}),
        ("http: {socket: }", {}),
    ],
)
def test_as_loading_does(files: Files, text: str, environ: Mapping[str, str]) -> None:
    """The same socket as the one that a service with this configuration uses."""
    path = files.write("config.yaml", textwrap.dedent(text))
    assert admin_socket(path, files.environ | dict(environ)) == files.load(text, environ).settings.http.socket


def test_without_a_file(files: Files) -> None:
    """The built-in default."""
    assert admin_socket(None, files.environ) == load(None, files.environ, TYPES).settings.http.socket


@pytest.mark.parametrize(
    "text",
    [
        "state_dri: /srv/other",
        "state_dir: relative",
        "state_dir: ''",
        "state_dir: [/a]",
        "state_dir: /a\nstate_dir: /b",
        "http: here",
        "http: {socket: [a]}",
        "a: [",
        "- a",
    ],
)
def test_no_guess(files: Files, text: str) -> None:
    """A slip in what says whose service it is never leads to the service of another; loading refuses it as well."""
    path = files.write("config.yaml", text)
    with pytest.raises(ConfigError):
        admin_socket(path, files.environ)
    assert files.errors(text)


@pytest.mark.parametrize("text", ["backends: {a: {type: nonsense}}", "limits: {idel: 7m}", "hostname: '-'"])
def test_other_errors_do_not_matter(files: Files, text: str) -> None:
    """A service that runs is found by a file that is being changed."""
    path = files.write("config.yaml", f"state_dir: /srv/state\n{text}\n")
    assert admin_socket(path, files.environ) == Path("/srv/state/admin.sock")


def test_it_is_light() -> None:
    """Of third-party packages only yaml."""
    code = (
        "import sys, gateway.config.locate; print(*(m for m in sys.modules if m.startswith(('pydantic', 'gateway'))))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    own = ["gateway", "gateway.config", *(f"gateway.config.{name}" for name in ("document", "locate", "syntax"))]
    own.append("gateway.likeness")
    assert sorted(found) == own


@pytest.mark.parametrize(
    ("text", "environ", "expected"),
    [
        ("", {}, False),
        ("spool: {instance: a}", {}, False),
        ("spool: {url: postgresql://db}", {}, True),
        ("", {"GATEWAY_SPOOL__URL": "postgresql://db"}, True),
        ("spool: [", {}, False),
    ],
)
def test_whether_the_queue_is_in_a_database(tmp_path: Path, text: str, environ: dict[str, str], expected: bool) -> None:
    """As far as it is seen without judging the settings: then no command opens a file beside it."""
    file = tmp_path / "config.yaml"
    file.write_text(text)
    assert in_database(file, environ) is expected
