"""``gateway serve`` and ``gateway demo``."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from gateway.cli.common import chosen_file, config_option, example
from gateway.cli.plain import say

if TYPE_CHECKING:
    from gateway.app import App

_DEMO = """\
state_dir: {folder}
listeners: {{local: {{bind: "127.0.0.1:{smtp}"}}}}
http: {{bind: "127.0.0.1:{http}"}}
log: {{level: warning}}
limits: {{spool_free: 0}}
backends: {{box: {{type: capture, directory: captured}}}}
"""


@click.command(epilog=example("gateway serve --config config.yaml"))
@config_option
def serve() -> None:
    """Run the service until SIGTERM or Ctrl-C. SIGHUP reloads the configuration."""
    with _loading():
        import asyncio

        from gateway import runtime, service
        from gateway.cli import local, whose

        file = chosen_file()
        whose.meant(file).refuse_root()
        loaded = local.usable(file)
        loop = runtime.choose(loaded.settings.event_loop)

    def greet(app: App) -> None:
        if sys.stdout.isatty():
            listeners = ", ".join(f"{loaded.settings.listeners[name].bind} ({name})" for name in app.listeners)
            say(f"Taking mail on {listeners}. HTTP on {loaded.settings.http.bind}. Stop with Ctrl-C.")
            say(f"Configuration: {loaded.path or 'built-in default'}. State: {loaded.settings.state_dir}")

    with asyncio.Runner(loop_factory=loop.make) as runner:
        _leave(runner.run(service.serve(loaded, load=lambda: local.load(file), on_ready=greet, runs_on=loop)))


@click.command(epilog=example("gateway demo --keep"))
@click.option("--keep", is_flag=True, help="Stay up on ports 8025 and 8026 until Ctrl-C.")
def demo(keep: bool) -> None:
    """Send one message through everything, on this machine only, and show what became of it."""
    import asyncio

    from gateway.cli import local
    from gateway.cli.demo import demonstrate

    with tempfile.TemporaryDirectory(prefix="gateway-demo-") as folder:
        file = Path(folder, "config.yaml")
        file.write_text(_DEMO.format(folder=folder, smtp=8025 if keep else 0, http=8026 if keep else 0))
        code = asyncio.run(demonstrate(local.load(file, {}), keep=keep))
    _leave(code)


@contextmanager
def _loading() -> Iterator[None]:
    """What is made now stays: it is not looked through for garbage, neither meanwhile (a tenth of the start) nor later,
    when that would hold up the loop.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def _leave(code: int) -> NoReturn:
    """End the process. All is closed: to take apart what was loaded would lengthen a restart by half a second."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
