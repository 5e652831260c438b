"""``gateway backend ...`` and ``gateway send-test``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from gateway.cli import lifeline, plain
from gateway.cli.backend_words import before, checked, ends, outcome, renewed, state_of
from gateway.cli.columns import Columns, wide_option
from gateway.cli.common import (
    Api,
    checked_by,
    chosen_file,
    config_option,
    connect,
    example,
    json_option,
    named,
    said,
    takes_no_word,
)
from gateway.cli.errors import Failed, NoService, TryAgain
from gateway.cli.plain import moment, say, show_json

COLUMNS = Columns(
    ("BACKEND", "TYPE", "QUEUED", "SENDING", "LAST SUCCESS", "STATE", "REASON"),
    {"STATE": 14, "REASON": 10},
    ("SENDING", "TYPE", "REASON", "LAST SUCCESS", "QUEUED"),
)
_SHARED = Columns((*COLUMNS.names[:2], "INSTANCE", *COLUMNS.names[2:]), COLUMNS.least, COLUMNS.gone)  # of several
_POLL = 0.2  # seconds between looks at a message on its way


@click.group()
def backend() -> None:
    """The ways out: list, check, pause, resume, fix, renew."""


@backend.command("list", epilog=example("gateway backend list"))
@takes_no_word("one of them: gateway backend check {}".format)
@wide_option
@json_option
@config_option
def list_(wide: bool, as_json: bool) -> None:
    """How each backend does."""
    with connect() as api:
        found = api.get("backends")
    if as_json:
        return show_json(found)
    rows, shared = [], any(one["owner"] for one in found.values())
    for one in found.values():
        success, sending = plain.relative(moment(one.get("last_success"))), one.get("in_flight", 0)
        state = state_of(one) if api.running else "no service is running"
        owner = (one["owner"],) if shared else ()
        rows.append((one["name"], one["type"], *owner, one["queued"], sending, success, state, lifeline.reason(one)))
    return (_SHARED if shared else COLUMNS).show(rows, wide=wide, below=[lifeline.to_do(one) for one in found.values()])


def _steer(api: Api, name: str, action: str, body: dict[str, Any]) -> Any:
    if "/" in name:  # no name of ours, and it would be another path
        raise Failed(f"no backend {name}; there are {', '.join(api.get('backends'))}")
    return api.post(f"backends/{name}/{action}", body)


@backend.command(epilog=example("gateway backend pause office --for 30m"))
@click.argument("name", callback=said, shell_complete=named("backends"))
@click.option(
    "--for", "duration", metavar="TIME", callback=checked_by("durations", "parse_duration"),
    help="Go on by itself after this, for example 30m.",
)  # fmt: skip
@config_option
def pause(name: str, duration: str | None) -> None:
    """Send nothing more by this backend; its messages wait."""
    with connect(offline=False) as api:
        _steer(api, name, "pause", {"for": duration})
    until = f"for {duration}" if duration else "until you resume it"
    say(f"{name} is paused {until}, also after a restart of the service. To resume: gateway backend resume {name}")


_wait_option = click.option(
    "--wait", default=30.0, show_default=True, metavar="SECONDS", type=click.FloatRange(0),
    help="Wait so long for the first outcome.",
)  # fmt: skip
_no_wait_option = click.option("--no-wait", is_flag=True, help="Do not wait for an outcome.")


@backend.command(epilog=example("gateway backend resume office"))
@click.argument("name", callback=said, shell_complete=named("backends"))
@_wait_option
@_no_wait_option
@config_option
def resume(name: str, wait: float, no_wait: bool) -> None:
    """Send by this backend again, now, and see whether it works.

    Exit code 0: a message was sent, or none waits; 1: stopped again; 75: no outcome yet.
    """
    with connect(offline=False) as api:
        since = _steer(api, name, "resume", {})["at"]
        if no_wait:
            say(f"{name} is resumed; see how it does: gateway backend check {name}")
        else:
            ends(*outcome(api, name, since, wait))


@backend.command(epilog=example("gateway backend fix office"))
@click.argument("name", callback=said, shell_complete=named("backends"))
@_wait_option
@_no_wait_option
@json_option
@config_option
def fix(name: str, wait: float, no_wait: bool, as_json: bool) -> None:
    """Read its secrets that have changed on disk, check it, and let it work again if the check is good.

    Exit code 0: the check is good, and a message was sent or none waits; 1: it is not; 75: no outcome yet.
    """
    with connect(offline=False) as api:
        found = _steer(api, name, "fix", {})
        show_json(found) if as_json else say("\n".join(checked(name, found)))
        if not found["ok"]:
            raise SystemExit(1)
        if not no_wait and not as_json:
            ends(*outcome(api, name, found["at"], wait))


@backend.command(epilog=example("gateway backend renew office"))
@click.argument("name", callback=said, shell_complete=named("backends"))
@json_option
@config_option
def renew(name: str, as_json: bool) -> None:
    """Let its certificate renew itself now (certificate_renew: true), without waiting for the time before its end.

    Exit code 0: the new one is in use; 75: it is added, and used as soon as Microsoft knows it; 1: it failed.
    """
    with connect(offline=False) as api:
        found = _steer(api, name, "renew", {})
        show_json(found) if as_json else say("\n".join(renewed(name, found)))
        if found["result"] != "renewed":
            raise SystemExit(1 if found["result"] == "failed" else TryAgain.exit_code)


@backend.command(epilog=example("gateway backend check office", "gateway backend check office --wait 2h"))
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=named("backends"))
@click.option(
    "--wait", "patience", metavar="TIME", callback=checked_by("durations", "parse_duration"),
    help="Send test mails to its mailbox until one leaves, for so long: new rights in Exchange take up to 2h.",
)  # fmt: skip
@json_option
@config_option
def check(names: tuple[str, ...], patience: str | None, as_json: bool) -> None:
    """Try credentials and reachability, sending nothing. Without a name: all of them.

    A running service is asked: what it heard last, where its secrets and settings differ from those on disk, and what
    a check finds now. Without one it is tried from here. Exit code 1 if one fails.
    """
    from gateway.cli import local

    if patience is not None:
        if len(names) != 1 or as_json:
            raise click.UsageError("--wait takes one backend, and no --json")
        return _wait_for(names[0], patience)
    try:
        with connect(offline=False) as api:
            standing = api.get("backends")
            found = {}
            for name in _known(names, standing):
                if not as_json:
                    say("\n".join(before(standing[name])))
                found[name] = _steer(api, name, "check", {})
                if not as_json:
                    say("\n".join(checked(name, found[name])))
            if as_json:
                show_json(found)
            raise SystemExit(0 if all(one["ok"] for one in found.values()) else 1)
    except NoService:
        from gateway.cli.checking import show_checks

        settings = local.settings(chosen_file()).settings
        if not as_json:
            say("note: no service is running; this is tried from here, with the settings on disk", err=True)
        return show_checks(settings, _known(names, settings.backends), as_json)


def _wait_for(name: str, patience: str) -> None:
    """By the running service: its queue, its backend."""
    from gateway.cli.waiting import wait
    from gateway.config.durations import parse_duration

    with connect(offline=False) as api:
        _known((name,), api.get("backends"))

        def look(queue_id: str) -> Any:
            return watch(api, queue_id, 60.0, until=lambda found: _answered(found, api.get("backends")))

        wait(api, name, parse_duration(patience).total_seconds(), look, plain.pause)


def _known(names: Sequence[str], known: Mapping[str, Any]) -> tuple[str, ...]:
    """These, or all. Raises Failed."""
    if unknown := [name for name in names if name not in known]:
        raise Failed(f"no backend {', '.join(unknown)}; there are {', '.join(known)}")
    return tuple(dict.fromkeys(names)) or tuple(known)


def watch(api: Api, queue_id: str, seconds: float, *, until: Callable[[Any], bool]) -> Any:
    """The message's detail as soon as ``until`` holds for it, or when ``seconds`` are over."""
    never = threading.Event()
    for _ in range(max(1, round(seconds / _POLL))):
        detail = api.get(f"messages/{queue_id}")
        if until(detail):
            break
        never.wait(_POLL)
    return detail


@click.command("send-test", epilog=example("gateway send-test --to you@example.com --backend office"))
@click.option("--to", "recipients", multiple=True, required=True, metavar="ADDRESS", help="May be given several times.")
@click.option("--from", "sender", metavar="ADDRESS", help="Envelope sender and From field.")
@click.option(
    "--backend",
    "pin",
    metavar="NAME",
    shell_complete=named("backends"),
    help="By this backend, whatever the routes say.",
)
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
