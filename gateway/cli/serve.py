"""``gateway serve`` and ``gateway demo``."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli import common, lifeline
from gateway.cli.backend import follow
from gateway.cli.common import config_option, connect
from gateway.cli.plain import say
from gateway.cli.token import mint_token

if TYPE_CHECKING:
    from gateway.app import App
    from gateway.config import Loaded

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
    from gateway import service

    loaded = common.usable()
    for warning in loaded.warnings:
        say(f"warning: {warning}", err=True)
    again = partial(common.load, common.chosen_file())
    raise SystemExit(asyncio.run(service.serve(loaded, load=again, on_ready=partial(_greet, loaded))))


def _greet(loaded: Loaded, app: App) -> None:
    if sys.stdout.isatty():
        listeners = ", ".join(f"{loaded.settings.listeners[name].bind} ({name})" for name in app.listeners)
        say(f"Taking mail on {listeners}. HTTP on {loaded.settings.http.bind}. Stop with Ctrl-C.")
        say(f"Configuration: {loaded.path or 'built-in default'}. State: {loaded.settings.state_dir}")


@click.command()
@click.option("--keep", is_flag=True, help="Stay up on ports 8025 and 8026 until Ctrl-C.")
def demo(keep: bool) -> None:
    """Send one message through everything, on this machine only, and show what became of it."""
    with tempfile.TemporaryDirectory(prefix="gateway-demo-") as folder:
        file = Path(folder, "config.yaml")
        file.write_text(_DEMO.format(folder=folder, smtp=8025 if keep else 0, http=8026 if keep else 0))
        raise SystemExit(asyncio.run(_perform(common.load(file, {}), keep)))


async def _perform(loaded: Loaded, keep: bool) -> int:
    from gateway.service import serve as run

    started: asyncio.Future[App] = asyncio.get_running_loop().create_future()
    service = asyncio.create_task(run(loaded, load=lambda: loaded, on_ready=started.set_result))
    either: set[asyncio.Future[Any]] = {service, started}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if service.done():
        return service.result()
    try:
        done = await asyncio.to_thread(_walk, loaded, started.result().listeners["local"].port)
        if keep and done:
            say("\nThe service stays up until Ctrl-C. In another terminal try for example:")
            say(f"  gateway queue list --state all --config {loaded.path}")
            say(f"  curl http://{loaded.settings.http.bind}/metrics")
            await service
    except OSError as error:  # smtplib's exceptions as well
        raise common.Failed(f"the demonstration failed: {error}") from error
    finally:
        if not service.done():
            os.kill(os.getpid(), signal.SIGTERM)
            await service
    return 0 if done else 1


def _walk(loaded: Loaded, port: int) -> bool:
    """The client's side, in a thread of its own: what a script would do."""
    import smtplib
    from email.mime.multipart import MIMEMultipart
    from email.mime.text import MIMEText

    state = loaded.settings.state_dir
    say(f"1. started: SMTP on 127.0.0.1:{port}, everything is kept in {state}")
    with connect(loaded) as api:
        token = mint_token(api, "demo", "1h", note="gateway demo", claims={})
    say(f"2. minted a token of {len(token)} characters for the client demo")
    message = MIMEMultipart()
    message["From"], message["To"], message["Subject"] = "demo@example.com", "you@example.com", "It works"
    message.attach(MIMEText("<p>Hello from <b>gateway demo</b>.</p>", "html"))
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as server:
        code, words = server.login("jwt", token)
        say(f'3. smtplib.SMTP("127.0.0.1", {port}).login("jwt", token): {code} {words.decode()}')
        server.mail("demo@example.com")
        server.rcpt("you@example.com")
        code, words = server.data(message.as_string())
        say(f"4. sent a message with an HTML part: {code} {words.decode()}")
    with connect(loaded) as api:
        detail = follow(api, words.decode().split()[-1], 30, until=lambda found: bool(found["state"] != "queued"))
        lines = list(lifeline.tell(detail, api.get("backends")))
    for file in state.glob("captured/**/*.eml"):
        say(f"5. the backend wrote it to {file}")
    say("6. its life, as `gateway trace` tells it:\n\n" + "\n".join(lines))
    return bool(detail["state"] == "done")
