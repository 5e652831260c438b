"""The examples in deploy/ are accepted by those who read them, and fit each other."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.backends import settings_types
from gateway.config.loading import load
from gateway.readiness import ready
from tests.packaging.kit import ROOT, program
from tests.test_readiness import private

CLUSTER = ROOT / "deploy" / "cluster"
COMPOSE: dict[str, Any] = yaml.safe_load((CLUSTER / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
INSTANCES = [name for name in SERVICES if name.startswith("gateway")]
haproxy = program("haproxy")


@pytest.mark.parametrize("name", INSTANCES)
def test_each_instance_can_start_with_the_settings(tmp_path: Path, name: str) -> None:
    """One file for all, and a name of its own by the environment. No client is known by its network, which is the
    balancer's: that would be an open relay."""
    for file, text in (("pg.pw", "password"), ("token.key", private(Ed25519PrivateKey.generate()))):
        (tmp_path / file).write_text(text)
        (tmp_path / file).chmod(0o600)
    path = tmp_path / "config.yaml"
    path.write_text((CLUSTER / "config.yaml").read_text())
    environ = {"STATE_DIRECTORY": str(tmp_path / "state"), **SERVICES[name]["environment"]}
    loaded = ready(load(path, environ, settings_types()), datetime.now(UTC))
    assert loaded.settings.spool.instance == name
    assert all(client.logs_in and not client.networks for client in loaded.settings.clients.values())
    assert [line for line in loaded.warnings if "spool" in line or "client" in line] == []


def test_what_the_services_name_is_there() -> None:
    """Secrets, volumes and hosts that one names for the other; ports that the settings open."""
    settings = yaml.safe_load((CLUSTER / "config.yaml").read_text())
    for service in SERVICES.values():
        assert set(service.get("secrets", ())) <= set(COMPOSE["secrets"])
        mounted = (volume.split(":")[0] for volume in service.get("volumes", ()))
        for source in mounted:
            where = source.startswith("./keys/") or (CLUSTER / source).exists() or source in COMPOSE["volumes"]
            assert where, source
    assert settings["spool"]["password_file"] in COMPOSE["secrets"]
    assert "@db/" in settings["spool"]["url"]
    assert "db" in SERVICES
    balancer = (CLUSTER / "haproxy.cfg").read_text()
    for name in INSTANCES:
        assert f"server {name} {name}:{settings['listeners']['local']['bind'].rpartition(':')[2]}" in balancer
    assert f"check port {settings['http']['bind'].rpartition(':')[2]}" in balancer


@pytest.mark.skipif(not haproxy, reason="haproxy is not installed")
def test_the_balancer_takes_its_file() -> None:
    command = [haproxy, "-c", "-f", str(CLUSTER / "haproxy.cfg")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
