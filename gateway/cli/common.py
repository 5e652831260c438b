"""What every command needs: settings, the running service or the spool itself, errors with exit codes."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.plain import now, say

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


def checked_by(parser: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """For an option's callback: what this parser of gateway.config.values refuses is wrong use, exit code 2."""

    def check(_context: click.Context, _parameter: click.Parameter, given: Any) -> Any:
        from gateway.config import values

        try:
            for text in given if isinstance(given, tuple) else filter(None, (given,)):
                getattr(values, parser)(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
        return given

    return check


def chosen_file() -> Path | None:
    """What --config said."""
    file: Path | None = click.get_current_context().find_root().obj
    return file


def load(file: Path | None, environ: Mapping[str, str] = os.environ) -> Loaded:
    """The settings of ``file``, None: the usual places. Raises ConfigError."""
    from gateway import backends, config

    return config.load(file, environ, backends.settings_types())


def settings() -> Loaded:
    """The settings of --config. Errors end the command with 78, all of them on stderr."""
    from gateway.config import ConfigError

    try:
        return load(chosen_file())
    except ConfigError as error:
        raise BadConfig(str(error)) from None


def usable() -> Loaded:
    """``settings`` that a service can run with, and all warnings; else the command ends with 78 and all errors."""
    from gateway.readiness import readiness

    loaded = settings()
    found = readiness(loaded, now())
    if found.errors:
        raise BadConfig("\n".join(found.errors))
    return replace(loaded, warnings=found.warnings)


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
    if "errors" in value:
        raise BadConfig("\n".join(value["errors"]))
    raise (TryAgain if status == 503 else Failed)(value["detail"])


@contextmanager
def connect(
    loaded: Loaded | None = None, *, offline: bool = True, create: bool = False, warn: bool = True
) -> Iterator[Api]:
    """The running service by its admin socket. When none runs: the spool, opened here (``create``: even a new one).

    Without ``offline`` the spool is left alone: a service that is just starting must find it free.
    """
    from gateway.fetch import Lost, NotSent, admin_client

    wrong: BadConfig | None = None
    try:
        loaded = loaded or settings()
    except BadConfig as error:
        wrong = error
    try:
        if (path := _listening(_sockets(loaded))) is not None:
            if wrong and warn:
                say(f"warning: {wrong.message}", err=True)
            yield Api(admin_client(path, None), running=True)
        elif wrong:
            raise wrong
        elif not offline:
            raise Failed("no service is running; start it with: gateway serve")
        else:
            assert loaded is not None
            with asyncio.Runner() as runner, _spool(loaded, runner, create) as app:
                if not create:
                    where = loaded.settings.state_dir
                    say(f"note: no service is running, nothing is being sent; reading the spool in {where}", err=True)
                yield Api(admin_client(None, app, runner.run), running=False)
    except (NotSent, Lost) as error:
        raise TryAgain(str(error)) from None


def _sockets(loaded: Loaded | None) -> list[Path]:
    """Where the service may listen.

    The machine's own service runs in an environment of its own (systemd's directories and credentials), so it is also
    looked for in its usual place, even if its configuration is not whole from here. Never when another file was named.
    """
    from gateway.config import ConfigError, find_file
    from gateway.config.loading import SYSTEM_FILE

    file = loaded.path if loaded else find_file(chosen_file(), os.environ)
    if file not in (None, SYSTEM_FILE):
        return [loaded.settings.http.socket] if loaded else []
    with suppress(ConfigError):  # it may be the environment that is wrong
        own = (loaded or load(Path(os.devnull))).settings.http.socket
        return [own, _RUN_DIRECTORY / own.name]
    return [_RUN_DIRECTORY / "admin.sock"]


def _listening(paths: Sequence[Path]) -> Path | None:
    """The first admin socket that somebody listens on."""
    for path in paths:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                error = probe.connect_ex(bytes(path))
            except OSError:
                continue  # longer than the path of a socket can be
        if error in (errno.EACCES, errno.EPERM):
            raise Failed(f"not allowed to use {path}: run this as the user of the service, or as root")
        if not error:
            return path
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
