"""The systemd unit and the container file pass the checkers of their own worlds."""

from __future__ import annotations

import configparser
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.packaging.kit import ROOT, program

UNIT = ROOT / "systemd" / "gateway.service"
DOCKERFILE = ROOT / "Dockerfile"
EXPOSURE = 1.6  # what a service that binds low ports without a socket unit can reach

analyze = program("systemd-analyze")
hadolint = program("hadolint")
needs_systemd = pytest.mark.skipif(not analyze, reason="systemd-analyze is not installed")
needs_hadolint = pytest.mark.skipif(not hadolint, reason="hadolint is not installed (extra: dev)")


@pytest.fixture
def installed_unit(tmp_path: Path) -> Path:
    """The unit as it would stand after installation, with a program that exists."""
    unit = tmp_path / "gateway.service"
    unit.write_text(UNIT.read_text().replace("/opt/gateway/bin/gateway", "/bin/true"))
    return unit


def directives() -> dict[str, str]:
    """The [Service] section; a directive given twice keeps both values."""
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign] # names keep their case
    parser.read_string(UNIT.read_text())
    return dict(parser["Service"])


@needs_systemd
def test_unit_is_clean(installed_unit: Path) -> None:
    """systemd-analyze verify says nothing: a misspelt directive is only a warning to systemd, and then missing."""
    assert analyze
    result = subprocess.run([analyze, "verify", str(installed_unit)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


@needs_systemd
def test_unit_is_hardened(installed_unit: Path) -> None:
    """systemd's own exposure figure stays at or below the goal."""
    assert analyze
    command = [analyze, "security", "--offline=true", "--no-pager", str(installed_unit)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    figure = re.search(r"exposure level for gateway\.service: (\d+\.\d+)", result.stdout)
    assert figure, result.stdout + result.stderr
    assert float(figure[1]) <= EXPOSURE


@pytest.mark.parametrize(
    ("directive", "value"),
    [
        ("Type", "notify"),  # not notify-reload: Debian 12's systemd takes that for simple
        ("ExecReload", "/bin/kill -HUP $MAINPID"),
        ("User", "gateway"),
        ("StateDirectory", "gateway"),
        ("StateDirectoryMode", "0711"),  # on the way to the maildrop
        ("UMask", "0077"),
        ("RuntimeDirectory", "gateway"),
        ("ConfigurationDirectory", "gateway"),
        ("RestartPreventExitStatus", "78"),
        ("TimeoutStopSec", "90"),
        ("AmbientCapabilities", "CAP_NET_BIND_SERVICE"),
    ],
)
def test_unit_keeps_what_the_program_relies_on(directive: str, value: str) -> None:
    """Readiness, reload, directories, exit status and drain time are agreements with the program."""
    assert directives()[directive] == value


def test_the_unit_makes_its_user() -> None:
    """The unit's user is the one that the file beside it makes, with the state directory as its home."""
    (line,) = [line for line in (UNIT.parent / "gateway.sysusers").read_text().splitlines() if line[0] != "#"]
    assert shlex.split(line)[:2] == ["u", directives()["User"]]
    assert shlex.split(line)[-1] == f"/var/lib/{directives()['StateDirectory']}"


def test_others_can_leave_mail_in_the_maildrop() -> None:
    """With these two they could not reach it, or the service could not make it theirs to write and ours to read."""
    assert not {"DynamicUser", "RestrictSUIDSGID"} & directives().keys()


def test_stop_may_take_longer_than_the_drain() -> None:
    """systemd must not kill what the gateway is still letting finish: sessions, then sends, then HTTP."""
    from gateway.app import DRAIN

    assert int(directives()["TimeoutStopSec"]) > 2 * DRAIN


@needs_hadolint
def test_dockerfile_is_clean() -> None:
    """hadolint has nothing to say."""
    assert hadolint
    result = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")


def test_container_runs_as_nobody_in_particular() -> None:
    """A numeric user (Kubernetes can check it), and the spool's directory belongs to it."""
    text = DOCKERFILE.read_text()
    user = re.search(r"^USER (\d+):(\d+)$", text, re.MULTILINE)
    assert user
    assert user[1] != "0"
    assert f"chown {user[1]}:{user[2]} /var/lib/gateway" in text


@pytest.mark.parametrize(
    "line",
    [
        "ARG PYTHON_IMAGE=python:3.13-slim-trixie",
        "VOLUME /var/lib/gateway",
        "EXPOSE 8025 8026",
        "STOPSIGNAL SIGTERM",
        'ENTRYPOINT ["gateway"]',
        'CMD ["serve"]',
    ],
)
def test_container_keeps_its_interface(line: str) -> None:
    """What compose files and Kubernetes manifests of others rely on."""
    assert line in DOCKERFILE.read_text().splitlines()


def test_container_lets_its_other_users_reach_the_maildrop() -> None:
    """As the unit does: they pass through the state directory, and see nothing."""
    made = re.search(r"mkdir -m (\d+) /var/lib/gateway", DOCKERFILE.read_text())
    assert made
    assert made[1] == directives()["StateDirectoryMode"]


def test_container_is_built_from_what_is_not_ignored() -> None:
    """Everything the Dockerfile copies out of the tree is let through by .dockerignore."""
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied: set[str] = set()
    for line in DOCKERFILE.read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            copied |= set(line.split()[1:-1])
    assert copied == allowed
