"""``gateway backend ...`` and ``gateway send-test``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import click

from gateway.cli import lifeline, plain
from gateway.cli.common import Api, checked_by, chosen_file, config_option, connect, json_option, said
from gateway.cli.errors import Failed, TryAgain
from gateway.cli.plain import moment, say, show_json

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
        found = api.get("backends")
    if as_json:
        return show_json(found)
    rows = []
    for one in found.values():
        state = "working" if api.running else "no service is running"
        if one.get("paused_by"):
            state = lifeline.rest(one)
        success, sending = plain.relative(moment(one.get("last_success"))), one.get("in_flight", 0)
        rows.append((one["name"], one["type"], one["queued"], sending, success, state, lifeline.reason(one)))
    header = ("BACKEND", "TYPE", "QUEUED", "SENDING", "LAST SUCCESS", "STATE", "REASON")
    return plain.table(header, rows, [lifeline.to_do(one) for one in found.values()])


def _steer(api: Api, name: str, action: str, body: dict[str, Any]) -> None:
    if "/" in name:  # no name of ours, and it would be another path
        raise Failed(f"no backend {name}; there are {', '.join(api.get('backends'))}")
    api.post(f"backends/{name}/{action}", body)


@backend.command()
@click.argument("name", callback=said)
@click.option(
    "--for", "duration", metavar="TIME", callback=checked_by("durations", "parse_duration"),
    help="Go on by itself after this, for example 30m.",
)  # fmt: skip
@config_option
def pause(name: str, duration: str | None) -> None:
    """Send nothing more by this backend; its messages wait."""
    with connect(offline=False) as api:
        _steer(api, name, "pause", {"for": duration})
    until = f"for {duration}, or until" if duration else "until"
    say(f"{name} is paused {until} a restart or: gateway backend resume {name}")


@backend.command()
@click.argument("name", callback=said)
@config_option
def resume(name: str) -> None:
    """Send by this backend again, now."""
    with connect(offline=False) as api:
        _steer(api, name, "resume", {})
    say(f"{name} is working")


@backend.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@json_option
@config_option
def check(names: tuple[str, ...], as_json: bool) -> None:
    """Try credentials and reachability, sending nothing. Without a name: all of them."""
    from gateway.cli import local
    from gateway.cli.checking import show_checks

    settings = local.settings(chosen_file()).settings
    if unknown := [name for name in names if name not in settings.backends]:
        raise Failed(f"no backend {', '.join(unknown)}; there are {', '.join(settings.backends)}")
    show_checks(settings, names or tuple(settings.backends), as_json)


def watch(api: Api, queue_id: str, seconds: float, *, until: Callable[[Any], bool]) -> Any:
    """The message's detail as soon as ``until`` holds for it, or when ``seconds`` are over."""
    never = threading.Event()
    for _ in range(max(1, round(seconds / _POLL))):
        detail = api.get(f"messages/{queue_id}")
        if until(detail):
            break
        never.wait(_POLL)
    return detail


@click.command("send-test")
@click.option("--to", "recipients", multiple=True, required=True, metavar="ADDRESS", help="May be given several times.")
@click.option("--from", "sender", metavar="ADDRESS", help="Envelope sender and From field.")
@click.option("--backend", "pin", metavar="NAME", help="By this backend, whatever the routes say.")
@click.option("--wait", default=60.0, show_default=True, metavar="SECONDS", help="Wait so long for what becomes of it.")
@json_option
@config_option
def send_test(recipients: tuple[str, ...], sender: str | None, pin: str | None, wait: float, as_json: bool) -> None:
    """Send a test message and see what becomes of it. Exit code 0: sent, 75: will be tried again, 1: failed."""
    with connect(offline=False) as api:
        identifier = api.post("send", {"to": recipients, "from": sender, "backend": pin})["id"]
        detail = watch(api, identifier, wait, until=lambda found: _answered(found, api.get("backends")))
    show_json(detail) if as_json else say("\n".join(lifeline.lines(detail)))
    states = {row["state"] for row in detail["recipients"]}
    raise SystemExit(0 if states == {"sent"} else 1 if "failed" in states else TryAgain.exit_code)


def _answered(detail: Any, backends: Any) -> bool:
    """Every recipient has an answer, or waits for a backend that rests."""
    resting = {name for name, one in backends.items() if one["paused_by"]}
    return all(row["state"] != "queued" or row["verdict"] or row["backend"] in resting for row in detail["recipients"])
