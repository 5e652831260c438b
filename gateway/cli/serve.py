"""``gateway serve`` and ``gateway demo``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from gateway.cli.common import chosen_file, config_option
from gateway.cli.plain import say

_DEMO = """\
state_dir: {folder}
listeners: {{local: {{bind: "127.0.0.1:{smtp}"}}}}
http: {{bind: "127.0.0.1:{http}"}}
log: {{level: warning}}
"""


@click.command()
@config_option
def serve() -> None:
    """Run the service until SIGTERM or Ctrl-C. SIGHUP reloads the configuration."""
    from gateway.cli import local, running

    file = chosen_file()
    loaded = local.usable(file)
    for warning in loaded.warnings:
        say(f"warning: {warning}", err=True)
    raise SystemExit(running.serve(loaded, load=lambda: local.load(file)))


@click.command()
@click.option("--keep", is_flag=True, help="Stay up on ports 8025 and 8026 until Ctrl-C.")
def demo(keep: bool) -> None:
    """Send one message through everything, on this machine only, and show what became of it."""
    from gateway.cli import local, running

    with tempfile.TemporaryDirectory(prefix="gateway-demo-") as folder:
        file = Path(folder, "config.yaml")
        file.write_text(_DEMO.format(folder=folder, smtp=8025 if keep else 0, http=8026 if keep else 0))
        raise SystemExit(running.demonstrate(local.load(file, {}), keep=keep))
