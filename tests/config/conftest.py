"""One directory with a configuration file for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import files as config_files
from gateway.config import locate
from tests.config.kit import Files


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    """No file of this machine takes part: /etc/gateway and /run/secrets are empty places below the directory."""
    monkeypatch.setattr(locate, "SYSTEM_FILE", tmp_path / "etc" / "config.yaml")
    monkeypatch.setattr(config_files, "RUN_SECRETS", tmp_path / "run")
    return Files(tmp_path)
