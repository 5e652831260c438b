"""``gateway demo``: the service in this process, and one message through it."""

from __future__ import annotations

import asyncio
import os
import signal
import smtplib
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from typing import Any

from gateway import service
from gateway.app import App
from gateway.cli import lifeline
from gateway.cli.backend import watch
from gateway.cli.common import connect
from gateway.cli.errors import Failed
from gateway.cli.plain import say
from gateway.cli.token import mint_token
from gateway.config.loading import Loaded


async def demonstrate(loaded: Loaded, *, keep: bool) -> int:
    """Start, send a message, show its life, stop (``keep``: at Ctrl-C); the exit code. Raises Failed."""
    started: asyncio.Future[App] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(service.serve(loaded, load=lambda: loaded, on_ready=started.set_result))
    either: set[asyncio.Future[Any]] = {running, started}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        return running.result()
    try:
        done = await asyncio.to_thread(_walk, loaded, started.result().listeners["local"].port)
        if keep and done:
            say("\nThe service stays up until Ctrl-C. In another terminal try for example:")
            say(f"  gateway queue list --state all --config {loaded.path}")
            say(f"  curl http://{loaded.settings.http.bind}/metrics")
            await running
    except OSError as error:  # smtplib's exceptions as well
        raise Failed(f"the demonstration failed: {error}") from error
    finally:
        if not running.done():
            os.kill(os.getpid(), signal.SIGTERM)
            await running
    return 0 if done else 1


def _walk(loaded: Loaded, port: int) -> bool:
    """The client's side, in a thread of its own: what a script would do."""
    state, admin = loaded.settings.state_dir, loaded.settings.http.socket
    say(f"1. started: SMTP on 127.0.0.1:{port}, everything is kept in {state}")
    with connect(admin) as api:
        token = mint_token(api, "demo", "1h", note="gateway demo", claims={})
    say(f"2. minted a token of {len(token)} characters for the client demo")
    message = MIMEMultipart()
    message["From"], message["To"], message["Subject"] = "demo@example.com", "you@example.com", "It works"
    message.attach(MIMEText("<p>Hello from <b>gateway demo</b>.</p>", "html"))
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as server:
        code, words = server.login("jwt", token)
        say(f'3. smtplib.SMTP("127.0.0.1", {port}).login("jwt", token): {code} {words.decode()}')
        _accepted(server.mail("demo@example.com"))
        _accepted(server.rcpt("you@example.com"))
        code, words = _accepted(server.data(message.as_string()))
        say(f"4. sent a message with an HTML part: {code} {words.decode()}")
    with connect(admin) as api:
        detail = watch(api, words.decode().split()[-1], 30, until=lambda found: bool(found["state"] != "queued"))
        lines = list(lifeline.lines(detail))
    for file in state.glob("captured/**/*.eml"):
        say(f"5. the backend wrote it to {file}")
    say("6. its life, as `gateway trace` tells it:\n\n" + "\n".join(lines))
    return bool(detail["state"] == "done")


def _accepted(reply: tuple[int, bytes]) -> tuple[int, bytes]:
    if reply[0] != 250:
        raise Failed(f"the demonstration failed: {reply[0]} {reply[1].decode()}")
    return reply
