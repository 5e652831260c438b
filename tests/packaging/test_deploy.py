"""The examples in deploy/ are accepted by those who read them, and fit each other."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
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
    """One file for all, and a name of its own by the environment. No client has the balancer's address."""
    for file, text in (("pg.pw", "password"), ("token.key", private(Ed25519PrivateKey.generate()))):
        (tmp_path / file).write_text(text)
        (tmp_path / file).chmod(0o600)
    path = tmp_path / "config.yaml"
    path.write_text((CLUSTER / "config.yaml").read_text())
    environ = {"STATE_DIRECTORY": str(tmp_path / "state"), **SERVICES[name]["environment"]}
    loaded = ready(load(path, environ, settings_types()), datetime.now(UTC))
    assert loaded.settings.spool.instance == name
    assert all(client.logs_in and not client.networks for client in loaded.settings.clients.values())
    assert [line for line in loaded.warnings if any(word in line for word in ("spool", "client", "balancer"))] == []


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
        port = settings["listeners"]["local"]["bind"].rpartition(":")[2]
        assert f"server {name} {name}:{port} send-proxy-v2\n" in balancer
    assert f"check port {settings['http']['bind'].rpartition(':')[2]}" in balancer


def test_the_balancer_is_known_by_its_address() -> None:
    """The one that compose gives it, within the network and out of the part that others get addresses from."""
    settings = yaml.safe_load((CLUSTER / "config.yaml").read_text())
    fixed = SERVICES["balancer"]["networks"]["inside"]["ipv4_address"]
    assert settings["listeners"]["local"]["proxy_protocol_from"] == [fixed]
    (pool,) = COMPOSE["networks"]["inside"]["ipam"]["config"]
    whole, others = ip_network(pool["subnet"]), ip_network(pool["ip_range"])
    assert others.subnet_of(whole)
    assert ip_address(fixed) in whole
    assert ip_address(fixed) not in others


@pytest.mark.skipif(not haproxy, reason="haproxy is not installed")
def test_the_balancer_takes_its_file() -> None:
    command = [haproxy, "-c", "-f", str(CLUSTER / "haproxy.cfg")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
