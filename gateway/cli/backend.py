"""``gateway backend ...`` and ``gateway send-test``."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from gateway.cli import common, lifeline, plain
from gateway.cli.common import Api, Failed, config_option, connect, json_option
from gateway.cli.plain import moment, say, show_json

if TYPE_CHECKING:
    from gateway.config.models import Settings
    from gateway.model import Check

_POLL = 0.2  # seconds between looks at a message on its way


@click.group()
def backend() -> None:
    """The ways out: list, check, pause, resume."""


@backend.command("list")
@json_option
@config_option
def list_(as_json: bool) -> None:
    """How each backend does."""
    with connect() as api:
        lanes = api.get("backends")
    if as_json:
        return show_json(lanes)
    rows = []
    for lane in lanes.values():
        state = "working" if api.running else "no service is running"
        if lane.get("paused_by"):
            state = lifeline.rest(lane)
        success, sending = plain.relative(moment(lane.get("last_success"))), lane.get("in_flight", 0)
        rows.append((lane["name"], lane["type"], lane["queued"], sending, success, state, lifeline.reason(lane)))
    return plain.table(("BACKEND", "TYPE", "QUEUED", "SENDING", "LAST SUCCESS", "STATE", "REASON"), rows)


@backend.command()
@click.argument("name")
@click.option(
    "--for", "duration", metavar="TIME", callback=common.checked_by("parse_duration"),
    help="Go on by itself after this, for example 30m.",
)  # fmt: skip
@config_option
def pause(name: str, duration: str | None) -> None:
    """Send nothing more by this backend; its messages wait."""
    with connect(offline=False) as api:
        api.post(f"backends/{name}/pause", {"for": duration})
    say(f"{name} is paused " + (f"for {duration}" if duration else f"until: gateway backend resume {name}"))


@backend.command()
@click.argument("name")
@config_option
def resume(name: str) -> None:
    """Send by this backend again, now."""
    with connect(offline=False) as api:
        api.post(f"backends/{name}/resume")
    say(f"{name} is working")


@backend.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@json_option
@config_option
def check(names: tuple[str, ...], as_json: bool) -> None:
    """Try credentials and reachability, sending nothing. Without a name: all of them."""
    settings = common.settings().settings
    if unknown := [name for name in names if name not in settings.backends]:
        raise Failed(f"no backend {', '.join(unknown)}; there are {', '.join(settings.backends)}")
    show_checks(settings, names or tuple(settings.backends), as_json)


def show_checks(settings: Settings, names: Sequence[str], as_json: bool = False) -> None:
    """Build and ask the backends of the configuration as it now stands in the file. Exit code 1 if one fails."""
    checks = dict(zip(names, asyncio.run(_ask(settings, names)), strict=True))
    if as_json:
        show_json({name: {"ok": c.ok, "summary": c.summary, "fix": c.fix, **c.facts} for name, c in checks.items()})
    for name, found in checks.items() if not as_json else ():
        say(f"{name}: {'ok' if found.ok else 'FAILED'}: {found.summary}")
        for key, value in found.facts.items():
            say(f"  {key}: {value}")
        if found.fix:
            say(f"  to do: {found.fix}")
    if not all(found.ok for found in checks.values()):
        raise SystemExit(1)


async def _ask(settings: Settings, names: Sequence[str]) -> list[Check]:
    from random import SystemRandom

    from gateway import backends, fetch
    from gateway.clock import SystemClock
    from gateway.model import Check

    client = fetch.Fetch()
    context = backends.Context(settings.hostname, settings.state_dir, SystemClock(), client, SystemRandom())

    async def ask(name: str) -> Check:
        try:
            built = backends.build(name, settings.backends[name], context)
        except (ValueError, OSError) as error:
            return Check(False, str(error), fix=f"correct backends.{name}")
        try:
            return await built.check()
        finally:
            await built.aclose()

    try:
        return await asyncio.gather(*map(ask, names))
    finally:
        await client.aclose()


def follow(api: Api, queue_id: str, seconds: float, *, until: Callable[[Any], bool]) -> Any:
    """The message's detail as soon as ``until`` holds for it, or when ``seconds`` are over."""
    pause = threading.Event()
    for _ in range(max(1, round(seconds / _POLL))):
        detail = api.get(f"messages/{queue_id}")
        if until(detail):
            break
        pause.wait(_POLL)
    return detail


@click.command("send-test")
@click.option("--to", "recipients", multiple=True, required=True, metavar="ADDRESS", help="May be given several times.")
@click.option("--from", "sender", metavar="ADDRESS", help="Envelope sender and From field.")
@click.option("--backend", "pin", metavar="NAME", help="By this backend, whatever the routes say.")
@click.option("--wait", default=60.0, show_default=True, metavar="SECONDS", help="Follow it for so long.")
@json_option
@config_option
def send_test(recipients: tuple[str, ...], sender: str | None, pin: str | None, wait: float, as_json: bool) -> None:
    """Send a test message and follow it. Exit code 0: sent, 75: will be tried again, 1: failed."""
    with connect(offline=False) as api:
        identifier = api.post("send", {"to": recipients, "from": sender, "backend": pin})["id"]
        detail = follow(api, identifier, wait, until=lambda found: _answered(found, api.get("backends")))
        lanes = api.get("backends")
    show_json(detail) if as_json else say("\n".join(lifeline.tell(detail, lanes)))
    states = {row["state"] for row in detail["recipients"]}
    raise SystemExit(0 if states == {"sent"} else 1 if "failed" in states else common.TryAgain.exit_code)


def _answered(detail: Any, lanes: Any) -> bool:
    """Every recipient has an answer, or waits for a backend that rests."""
    resting = {name for name, lane in lanes.items() if lane["paused_by"]}
    return all(row["state"] != "queued" or row["verdict"] or row["backend"] in resting for row in detail["recipients"])
