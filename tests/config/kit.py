"""Backend types of our own and a loader for configuration text, so that these tests need no backend."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, SecretStr

from gateway.config import ConfigError
from gateway.config.loading import Loaded, load
from gateway.config.models import BackendSettings

SECRET = "S3CR3T-must-not-show"  # stands in every secret of these tests


class CaptureSettings(BackendSettings):
    type: Literal["capture"] = "capture"
    directory: Path = Path("captured")


class SmtpSettings(BackendSettings):
    type: Literal["smtp"] = "smtp"
    host: Annotated[str, Field(pattern=r"^[^\s/]{1,60}$")]
    port: Annotated[int, Field(gt=0)] = 25
    password: SecretStr | None = None
    ca_file: Path | None = None


class ApiSettings(BackendSettings):
    type: Literal["api"] = "api"
    api_key: SecretStr
    region: Literal["us", "eu"] = "us"


TYPES: Mapping[str, type[BackendSettings]] = {"capture": CaptureSettings, "smtp": SmtpSettings, "api": ApiSettings}


class Files:
    """A directory with config.yaml, and an environment of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environ = {"HOME": str(directory / "home")}

    def write(self, name: str, text: str | bytes, mode: int = 0o600) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        path.chmod(mode)
        return path

    def load(self, text: str = "", environ: Mapping[str, str] = {}, overrides: Mapping[str, str] = {}) -> Loaded:
        path = self.write("config.yaml", textwrap.dedent(text))
        return load(path, self.environ | dict(environ), TYPES, overrides)

    def errors(self, text: str, environ: Mapping[str, str] = {}, overrides: Mapping[str, str] = {}) -> list[str]:
        """What ConfigError says, with the directory's name left out."""
        with pytest.raises(ConfigError) as caught:
            self.load(text, environ, overrides)
        assert str(caught.value) == "\n".join(caught.value.lines)
        return [line.replace(f"{self.directory}/", "") for line in caught.value.lines]
