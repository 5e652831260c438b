"""What every command needs: settings, the running service or the spool itself, errors with exit codes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gateway.config import Loaded
    from gateway.fetch import AdminClient

_RUN_DIRECTORY = Path("/run/gateway")  # RuntimeDirectory of the systemd unit; only the service itself is told of it


class Failed(click.ClickException):
    """Ends the command with this text on stderr and exit code 1."""


class TryAgain(Failed):
    """Nothing is wrong with the command; later it may work."""

    exit_code = 75


class BadConfig(Failed):
    """The configuration must be corrected first."""

    exit_code = 78


def _set_config(context: click.Context, _parameter: click.Parameter, value: Path | None) -> None:
    if value is not None:
        context.find_root().obj = value


config_option = click.option(
    "--config", metavar="FILE", type=click.Path(path_type=Path), callback=_set_config, expose_value=False,
    is_eager=True, help="Configuration file (default: $GATEWAY_CONFIG, then /etc/gateway/config.yaml).",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def load(file: Path | None = None, environ: Mapping[str, str] = os.environ) -> Loaded:
    """The settings of ``file``, else of --config. Raises ConfigError."""
    from gateway import backends, config

    return config.load(file or click.get_current_context().find_root().obj, environ, backends.settings_types())


def settings() -> Loaded:
    """``load``, but errors end the command with 78 and every one of them on stderr."""
    from gateway.config import ConfigError

    try:
        return load()
    except ConfigError as error:
        raise BadConfig(str(error)) from None


class Api:
    """The admin interface. Errors end the command with the service's own words."""

    def __init__(self, client: AdminClient, *, running: bool) -> None:
        self.client = client
        self.running = running

    def get(self, path: str, **query: Any) -> Any:
        chosen = {name: value for name, value in query.items() if value}
        return _checked(*self.client.call("GET", f"/api/v1/{path}", query=chosen))

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return _checked(*self.client.call("POST", f"/api/v1/{path}", body=body or {}))

    def raw(self, queue_id: str) -> bytes:
        status, body = self.client.raw(f"/api/v1/messages/{queue_id}/raw")
        if status != 200:
            raise Failed(f"no content of {queue_id}: no such message, or it was removed after sending")
        return body


def _checked(status: int, value: Any) -> Any:
    if status < 400:
        return value
    raise (TryAgain if status == 503 else Failed)("\n".join([value["detail"], *value.get("errors", [])]))


@contextmanager
def connect(loaded: Loaded | None = None, *, offline: bool = True, create: bool = False) -> Iterator[Api]:
    """The running service by its admin socket. When none runs: the spool, opened here (``create``: even a new one).

    Without ``offline`` the spool is left alone: a service that is just starting must find it free.
    """
    from gateway.fetch import Lost, NotSent, admin_client

    loaded = loaded or settings()
    try:
        if (client := _running(loaded.settings.http.socket)) is not None:
            yield Api(client, running=True)
            return
        if not offline:
            raise Failed("no service is running; start it with: gateway serve")
        with asyncio.Runner() as runner, _spool(loaded, runner, create) as app:
            yield Api(admin_client(None, app, runner.run), running=False)
    except (NotSent, Lost) as error:
        raise TryAgain(str(error)) from None


def _running(configured: Path) -> AdminClient | None:
    from gateway.fetch import NotSent, admin_client

    for path in (configured, _RUN_DIRECTORY / configured.name):
        try:
            if path.exists():
                client = admin_client(path, None)
                client.call("GET", "/healthz")
                return client
        except PermissionError as error:
            raise Failed(f"{error}: run this as the user of the service, or as root") from None
        except NotSent:
            if not os.access(path, os.W_OK):
                raise Failed(f"not allowed to use {path}: run this as the user of the service, or as root") from None
    return None


@contextmanager
def _spool(loaded: Loaded, runner: asyncio.Runner, create: bool) -> Iterator[Any]:
    from gateway import app, http
    from gateway.spool import SpoolError

    directory = loaded.settings.state_dir
    if not create and not app.spool_path(loaded).exists():
        raise Failed(f"no service is running, and there is no spool in {directory} yet; start it with: gateway serve")
    if os.geteuid() == 0 and directory.exists() and (owner := directory.stat().st_uid) != 0:
        raise Failed(f"no service is running, and {directory} belongs to user id {owner}: run this as that user")
    quiet = loaded.settings.model_copy(update={"log": loaded.settings.log.model_copy(update={"level": "warning"})})
    opened = app.offline(replace(loaded, settings=quiet))
    try:
        inside = runner.run(opened.__aenter__())
    except (SpoolError, OSError) as error:
        raise TryAgain(str(error)) from None
    try:
        yield http.build(inside, http.Access.SOCKET)
    finally:
        runner.run(opened.__aexit__(None, None, None))
