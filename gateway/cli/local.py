"""What commands do without the service: read and judge the whole configuration, open the spool."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from gateway import backends
from gateway.app import App
from gateway.cli.errors import BadConfig, Failed, NoService, TryAgain
from gateway.cli.plain import now, say
from gateway.config import ConfigError, loading
from gateway.config.loading import Loaded
from gateway.http.access import Access
from gateway.http.client import AdminClient, DirectWay
from gateway.http.routes import build
from gateway.readiness import ready
from gateway.spool import SpoolError


def load(file: Path | None, environ: Mapping[str, str] = os.environ) -> Loaded:
    """The settings of ``file``, None: the usual places. Raises ConfigError."""
    return loading.load(file, environ, backends.settings_types())


def settings(file: Path | None) -> Loaded:
    """As ``load``. Errors end the command with 78, all of them on stderr."""
    try:
        return load(file)
    except ConfigError as error:
        raise BadConfig(str(error)) from None


def usable(file: Path | None) -> Loaded:
    """``settings`` that a service can run with, and all warnings; else the command ends with 78 and all errors."""
    try:
        return ready(load(file), now())
    except ConfigError as error:
        raise BadConfig(str(error)) from None


@contextmanager
def spool(file: Path | None, *, create: bool) -> Iterator[AdminClient]:
    """The admin interface over the spool of these settings, opened here; ``create``: even a new one.

    Raises Failed: there is none, or it is another user's. TryAgain: somebody has it open.
    """
    loaded = settings(file)
    directory = loaded.settings.state_dir
    if not create and not (directory / "spool.db").exists():
        raise NoService(f" at {loaded.settings.http.socket}, and there is no spool in {directory} yet")
    if os.geteuid() == 0 and directory.exists() and (owner := directory.stat().st_uid) != 0:
        raise Failed(f"no service is running, and {directory} belongs to user id {owner}: run this as that user")
    quiet = loaded.settings.model_copy(update={"log": loaded.settings.log.model_copy(update={"level": "warning"})})
    app = App(replace(loaded, settings=quiet), lambda: loaded)
    with ExitStack() as closing:
        runner = closing.enter_context(asyncio.Runner())
        closing.callback(lambda: runner.run(app.stop(0)))
        try:
            runner.run(app.open_spool())
        except (SpoolError, OSError) as error:
            raise TryAgain(str(error)) from None
        if not create:
            say(f"note: no service is running, nothing is being sent; reading the spool in {directory}", err=True)
        yield AdminClient(DirectWay(build(app, Access.SOCKET), runner.run))
