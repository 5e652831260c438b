"""``gateway doctor``: what is wrong with this set-up, worst first, each with what to do about it."""

from __future__ import annotations

import shutil
import sys
import textwrap
import threading
from collections.abc import Sequence
from typing import Any

import click

from gateway.cli.common import Api, chosen_file, config_option, connect, example, json_option
from gateway.cli.errors import BadConfig, NoService, TryAgain
from gateway.cli.plain import say, show_json

_POLL = 0.3  # seconds between looks at how far it is
_MOST = 120.0  # seconds, longer than a run of the service may take
_HEADS = {"bad": "WRONG", "warn": "TO LOOK AT", "unknown": "NOT SEEN FROM HERE", "note": "TO KNOW"}
_AREAS = ("settings", "listeners", "certificates", "backends", "senders", "dns", "machine", "spool", "relay")


@click.command(epilog=example("gateway doctor --area backends --area dns"))
@click.option(
    "--area", "areas", multiple=True, type=click.Choice(_AREAS), help="Only this; may be given several times."
)
@click.option("--all", "everything", is_flag=True, help="Also print what is all right, line by line.")
@json_option
@config_option
def doctor(areas: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Look for what is wrong with settings, ports, certificates, credentials, senders, DNS, this machine and the spool.

    Sends no mail. Exit code 0 if nothing is wrong, 1 if something is, 78 if the configuration cannot be used.
    """
    try:
        with connect(offline=False) as api:
            report = _by_service(api, areas)
    except (NoService, BadConfig):  # it is said in the report
        from gateway.cli.diagnosis import diagnose

        report = diagnose(chosen_file(), areas, _progress)
    _progress((), ())
    show_json(report) if as_json else _show(report, everything)
    if any(one["key"] == "settings_wrong" for one in report["findings"]) and not report["service"]:
        raise SystemExit(BadConfig.exit_code)
    raise SystemExit(1 if report["worst"] == "bad" else 0)


def _by_service(api: Api, areas: Sequence[str]) -> Any:
    """Begin a run in the service and wait for its report, telling how far it is."""
    began = api.post("doctor", {"areas": areas, "wait": False})["under_way"]
    never, left = threading.Event(), _MOST
    while left > 0:
        state = api.get("doctor")
        under_way = state["under_way"]
        if under_way is None or under_way["since"] != began["since"]:
            if state["last"] is None or state["last"]["at"] < began["since"]:
                raise TryAgain("the run ended without a report: the service stops, or was restarted")
            return state["last"]
        _progress(under_way["areas"], under_way["done"])
        never.wait(_POLL)
        left -= _POLL
    raise TryAgain(f"the service has no report after {_MOST:g} s; see it later: gateway doctor")


def _progress(areas: Sequence[str], done: Sequence[str]) -> None:
    """One line that is written over, on a terminal only; without areas it goes away."""
    if sys.stderr.isatty():
        left = ", ".join(area for area in areas if area not in done)
        text = f"looking at {left} ({len(done)} of {len(areas)} done)" if areas else ""
        click.echo(f"\r\x1b[K{text}", nl=False, err=True)


def _show(report: Any, everything: bool) -> None:
    say(report["verdict"])
    if not report["service"]:
        say("No service is running, so only what needs none was looked at.")
    width = min(shutil.get_terminal_size((100, 24)).columns, 120)
    for level, head in _HEADS.items():
        found = [one for one in report["findings"] if one["level"] == level]
        if found:
            say(f"\n{head}")
        for one in found:
            _one(one, width)
    good = [one for one in report["findings"] if one["level"] == "good"]
    if good and everything:
        say("\nALL RIGHT")
        for one in good:
            _one(one, width)
    elif good:
        say(f"\nAll right: {report['all_right']}. --all shows it.")


def _one(found: Any, width: int) -> None:
    """The finding, then what to do; what is to be pasted stands alone, so that it can be marked."""
    about = f"{found['about']}: " if found["about"] and found["about"] not in found["what"] else ""
    _wrapped(f"- {about}{found['what']}", "  ", width)
    if found["said"]:
        _wrapped(f"  it said: {found['said']}", "    ", width)
    if found["fix"]:
        _wrapped(f"  {found['fix']}", "  ", width)
    for line in found["paste"].splitlines():
        say(f"      {line}")
    if found["level"] != "good":
        say(f"  ({found['key']})")


def _wrapped(text: str, indent: str, width: int) -> None:
    say(textwrap.fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False))
