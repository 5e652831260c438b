"""What commands do without the service: read and judge the whole configuration, open the spool."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from gateway import backends
from gateway.app import App
from gateway.cli import whose
from gateway.cli.errors import BadConfig, TryAgain
from gateway.cli.plain import now, say
from gateway.config import ConfigError, loading
from gateway.config.loading import Loaded
from gateway.config.objects import objects
from gateway.http.access import Access
from gateway.http.client import AdminClient, DirectWay
from gateway.http.routes import build
from gateway.readiness import ready
from gateway.spool import SpoolError


def load(file: Path | None, environ: Mapping[str, str] = os.environ, *, spared: Collection[str] = ()) -> Loaded:
    """The settings of ``file``, None: the usual places; ``spared`` as in ``loading.load``. Raises ConfigError."""
    return loading.load(file, environ, backends.settings_types(), spared=spared)


def settings(file: Path | None, *, spared: Collection[str] = ()) -> Loaded:
    """As ``load``. Errors end the command with 78, all of them on stderr."""
    try:
        return load(file, spared=spared)
    except ConfigError as error:
        raise _bad(file, error) from None


def usable(file: Path | None) -> Loaded:
    """``settings`` that a service can run with, and all warnings; else the command ends with 78 and all errors."""
    try:
        return ready(load(file), now())
    except ConfigError as error:
        raise _bad(file, error) from None


def _bad(file: Path | None, error: ConfigError) -> BadConfig:
    """What is wrong, but to who may not read the settings, or the keys that they name: what to type instead."""
    service = whose.meant(file)
    if os.geteuid() == 0 or (service.readable and not service.foreign):
        return BadConfig(str(error), objects(error.lines))
    said = [line for line in error.lines if not line.endswith(os.strerror(errno.EACCES))]
    if len(said) < len(error.lines):
        owner = f" or {whose.user(service.owner)}" if service.owner else ""
        which = "the settings" if not service.readable else "files that the settings name"
        said.append(f"{whose.user()} may not read {which}, root{owner} may: {service.as_root()}")
    return BadConfig("\n".join(said), objects(said))


@contextmanager
def spool(loaded: Loaded, service: whose.Meant) -> Iterator[AdminClient]:
    """The admin interface over the spool of these settings, which is there and this user's, opened here.

    Raises TryAgain: somebody has it open, perhaps a service that has just begun to start.
    """
    directory = loaded.settings.state_dir
    quiet = loaded.settings.model_copy(update={"log": loaded.settings.log.model_copy(update={"level": "warning"})})
    app = App(replace(loaded, settings=quiet), lambda: loaded)
    with ExitStack() as closing:
        runner = closing.enter_context(asyncio.Runner())
        closing.callback(lambda: runner.run(app.stop(0)))
        try:
            runner.run(app.open_spool())
        except (SpoolError, OSError) as error:
            raise (service.absent() if service.deaf() else TryAgain(str(error))) from None
        say(f"note: no service is running, nothing is being sent; reading the spool in {directory}", err=True)
        yield AdminClient(DirectWay(build(app, Access.SOCKET), runner.run))
