"""The end of ``gateway setup``: the provider is asked, a test mail goes out by the very settings, and what is left."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli import lifeline, whose
from gateway.cli.errors import Failed
from gateway.cli.plain import pause, say
from gateway.cli.setup_ask import Asker, address
from gateway.setup.composing import Wanted

if TYPE_CHECKING:
    from gateway.app import App
    from gateway.cli.setup_given import Given

_YOUNG = ("AADSTS700016", "AADSTS700027", "AADSTS7000215", "AADSTS7000229")  # what was just made is not known yet
_LAG, _AGAIN = 120.0, 15.0  # seconds for that, and between two tries
_WAIT = 60.0  # seconds for what becomes of the test mail


def ends(given: Given, file: Path, wanted: Wanted, asker: Asker, notes: tuple[str, ...]) -> None:
    """Exit code 1 where the provider refuses, or the test mail does not arrive there."""
    service = whose.meant(file)
    config = "" if service.file == file and not _is_named(file) else f" --config {shlex.quote(str(file))}"
    good = True
    if not given.no_check and not notes_first(notes):
        good = _ask_provider(file, wanted.name)
    to = _test_to(given, asker) if good and not notes_first(notes) else ""
    if to:
        good = _test(file, wanted, to, config)
    left = [*notes]
    if notes_first(notes):
        left += [f"gateway backend check {wanted.name}{config}"]
    if service.listening() is None:
        left.append(f"start the service: {service.start() if service.unit else f'gateway serve{config}'}")
    elif not to:  # else it has
        left.append(f"take it over: gateway reload{config}")
    if not to and wanted.sender:
        left.append(f"then a test mail: gateway send-test --to you@example.com --from {wanted.sender}{config}")
    if wanted.backend["type"] == "graph" and "certificate_file" in wanted.backend:
        left.append(f"wait until Exchange lets it send: gateway backend check {wanted.name} --wait 2h{config}")
    left.append(f"find any mail: gateway trace ADDRESS{config}")
    say("\nleft to do:\n" + "\n".join(f"{number}. {text}" for number, text in enumerate(left, 1)), err=True)
    if not good:
        raise SystemExit(1)


def notes_first(notes: tuple[str, ...]) -> bool:
    """Somebody has to sign in before anything can be tried."""
    return any(note.startswith("gateway auth ") for note in notes)


def _is_named(file: Path) -> bool:
    from gateway.config.locate import SYSTEM_FILE

    return file != SYSTEM_FILE


def _ask_provider(file: Path, name: str) -> bool:
    from gateway.cli import local
    from gateway.cli.backend_words import checked
    from gateway.cli.checking import check_all

    settings, waited = local.settings(file).settings, 0.0
    found = check_all(settings, (name,))[name]
    while not found.ok and waited < _LAG and any(code in f"{found.summary} {found.steps}" for code in _YOUNG):
        say(f"Microsoft does not know the new application everywhere yet; trying again in {_AGAIN:g} s", err=True)
        pause(_AGAIN)
        waited += _AGAIN
        found = check_all(settings, (name,))[name]
    say("\n".join(checked(name, asdict(found))))
    return found.ok


def _test_to(given: Given, asker: Asker) -> str:
    if given.test_to is None and not asker.talks:
        return ""
    return asker.take("--test-to", given.test_to, "Send a test mail to (empty: none)", _address_or_none, default="")


def _address_or_none(answer: str) -> str:
    return address(answer) if answer else ""


def _test(file: Path, wanted: Wanted, to: str, config: str) -> bool:
    """By the running service, once it has read the settings; without one by a service in this process."""
    from gateway.cli.common import connect

    service = whose.meant(file)
    if (socket := service.listening()) is not None:
        with connect(socket) as api:
            api.post("reload")
        return _send(socket, wanted, to, config)
    if service.unit or service.foreign:
        say(f"the service does not run; start it: {service.start()}", err=True)
        say(f"then: gateway send-test --to {to} --from {wanted.sender} --backend {wanted.name}{config}", err=True)
        return True
    say("no service is running: one is started for the test mail, and stopped behind it", err=True)
    return asyncio.run(_in_process(file, wanted, to, config))


async def _in_process(file: Path, wanted: Wanted, to: str, config: str) -> bool:
    from gateway import service
    from gateway.cli import local

    loaded = local.load(file)
    quiet = loaded.settings.model_copy(update={"log": loaded.settings.log.model_copy(update={"level": "error"})})
    loaded = replace(loaded, settings=quiet)
    started: asyncio.Future[App] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(service.serve(loaded, load=lambda: loaded, on_ready=started.set_result))
    either: set[asyncio.Future[Any]] = {running, started}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        say(f"the service does not start (exit code {running.result()}): gateway serve{config} says why", err=True)
        return False
    try:
        return await asyncio.to_thread(_send, loaded.settings.http.socket, wanted, to, config)
    finally:
        if not running.done():
            os.kill(os.getpid(), signal.SIGTERM)
            await running


def _send(socket: Path, wanted: Wanted, to: str, config: str) -> bool:
    from gateway.cli.backend import watch
    from gateway.cli.common import connect

    body = {"to": [to], "from": wanted.sender or to, "backend": wanted.name}
    try:
        with connect(socket) as api:
            queue_id = api.post("send", body)["id"]
            detail = watch(api, queue_id, _WAIT, until=lambda one: all(row["verdict"] for row in one["recipients"]))
            lines = list(lifeline.lines(detail))
    except Failed as error:
        say(f"the test mail was not taken: {error.message}", err=True)
        return False
    say("\n".join(lines))
    sent = all(row["state"] == "sent" for row in detail["recipients"])
    say(f"\ntest mail {queue_id}: {'sent' if sent else 'not sent yet'}; its life: gateway trace {queue_id}{config}")
    return sent
