"""``gateway learn``: see who sends before the cut-over, and the clients section that fits them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from gateway.cli import plain
from gateway.cli.common import checked_by, config_option, connect, example, json_option, named
from gateway.cli.plain import moment, say, show_json

_HEARD = (
    "LOUD: mail from {} is heard to its end, and then refused with 451. Nothing of it is accepted or kept. Devices that"
    " do not try again lose it, as they do when they are refused at once. Programs with a queue try again: let them in"
    " before this ends, for then they hear the old refusal again, and give the mail up."
)


@click.group(
    invoke_without_command=True,
    epilog=example(
        "gateway learn --for 2h",
        "gateway learn --for 1d --hear-out 192.0.2.0/24",
        "gateway learn report > clients.yaml",
    ),
)
@click.option("--for", "lasting", metavar="TIME", callback=checked_by("durations", "parse_duration"),
              help="Learn for so long, as 2h; it ends by itself.")  # fmt: skip
@click.option("--listener", "listeners", multiple=True, metavar="NAME", shell_complete=named("listeners"),
              help="Only there; may be given more than once. Default: all of them.")  # fmt: skip
@click.option("--hear-out", "hear_out", multiple=True, metavar="NETWORK",
              help="Let strangers of this network say all they have to say, and answer 451 at the end.")  # fmt: skip
@json_option
@config_option
@click.pass_context
def learn(
    context: click.Context, lasting: str | None, listeners: Sequence[str], hear_out: Sequence[str], as_json: bool
) -> None:
    """Note who connects, how, and with what mail, and propose the clients section that lets it in.

    Nothing is let in that was not before. Bodies and passwords are never kept. What is learnt adds up until you say
    gateway learn forget. Without --hear-out a stranger is refused as ever, and only what he said by then is known.
    """
    if context.invoked_subcommand is not None:
        if lasting or listeners or hear_out:
            raise click.UsageError(f"options of gateway learn itself are not for {context.invoked_subcommand}")
        return None
    if lasting is None:
        raise click.UsageError("say for how long: gateway learn --for 2h; what is known: gateway learn report")
    with connect(offline=False) as api:
        body = {"lasting": lasting, "listeners": list(listeners), "hear_out": list(hear_out)}
        found = api.post("learn/begin", body)
    if as_json:
        return show_json(found)
    for line in _lines(found):
        say(line)
    return say("Then: gateway learn report")


@learn.command(epilog=example("gateway learn status"))
@json_option
@config_option
def status(as_json: bool) -> None:
    """Whether it is on, where, until when, and how much it knows."""
    with connect(offline=False) as api:
        found = api.get("learn")
    if as_json:
        return show_json({name: value for name, value in found.items() if name in _STATE})
    for line in _lines(found):
        say(line)
    return None


@learn.command(epilog=example("gateway learn stop"))
@json_option
@config_option
def stop(as_json: bool) -> None:
    """End what gateway learn --for began. What is learnt stays."""
    with connect(offline=False) as api:
        found = api.post("learn/stop")
    if as_json:
        return show_json(found)
    for line in _lines(found):
        say(line)
    return None


@learn.command(epilog=example("gateway learn forget"))
@json_option
@config_option
def forget(as_json: bool) -> None:
    """Forget all that was learnt. What is on goes on."""
    with connect(offline=False) as api:
        found = api.post("learn/forget")
    show_json(found) if as_json else say(f"forgotten: what was seen of {found['addresses']} addresses")


@learn.command(epilog=example("gateway learn report", "gateway learn report --json"))
@json_option
@config_option
def report(as_json: bool) -> None:
    """The clients section that lets in what was seen, with comments, ready to paste; --json with all that was seen."""
    with connect(offline=False) as api:
        found = api.get("learn", seen="1" if as_json else "")
    if as_json:
        return show_json(found)
    for line in _lines(found):
        say(f"# {line}")
    return say(found["text"].rstrip())


_STATE = ("on", "listeners", "hear_out", "since", "until", "ended_at", "by", "addresses", "left_out", "fault")


def _lines(found: Mapping[str, Any]) -> list[str]:
    until, ended = moment(found["until"]), moment(found["ended_at"])
    known = f"{found['addresses']} address{'es' if found['addresses'] != 1 else ''} known"
    if found["on"]:
        ordered = f" until {plain.stamp(until)} ({plain.relative(until)})" if until and not ended else ""
        lines = [f"learning at {', '.join(found['listeners'])}{ordered}; {known}"]
    else:
        lines = [f"not learning{f', it ended at {plain.stamp(ended)}' if ended else ''}; {known}"]
    networks = dict.fromkeys(one for each in found["hear_out"].values() for one in each)
    lines += [_HEARD.format(", ".join(networks))] if networks else []
    return lines + ([f"NOT KEPT: {found['fault']}; a restart forgets what is learnt"] if found["fault"] else [])
