"""``gateway queue retry``, ``hold`` and the other verbs: by ids, or by filters that are asked about first."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click

from gateway.cli import plain
from gateway.cli.common import Api, config_option, connect, example, json_option, named, one_id, queue_id, said
from gateway.cli.errors import Failed
from gateway.cli.listing import filter_options, refuse_unknown
from gateway.cli.plain import moment, say, show_json

_MANY = 100  # deleted only when their number is typed
_PAGE = 1000
# What "all" means to each where it is not what waits (gateway.http.acting).
_STATES = {"release": ("held",), "delete": ("queued", "held"), "bounce": ("queued", "held"), "resend": ("sent",)}
_LOOK = 0.3  # seconds between two looks at work
Chosen = dict[str, str]
_INSTEAD = {
    ("retry", "it is sent"): "resend",
    ("release", "it has failed"): "retry",
    ("resend", "it has failed"): "retry",
    ("retry", "it is held"): "release",
}


def _ids(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(one_id(context, parameter, one) for one in given)


def _verb(name: str, text: str, typed: str) -> click.Command:
    other = name == "reroute"

    def command(ids: tuple[str, ...], everything: bool, yes: bool, as_json: bool, **more: Any) -> None:
        target = {key: more.pop(key) for key in ("target", "force") if key in more}
        chosen: Chosen = {key: value for key, value in more.items() if value}
        if bool(ids) == bool(everything or chosen):
            raise click.UsageError("give either queue ids, or --all or filters")
        if other and not target["target"]:
            raise click.UsageError("say by which backend they are to go: --backend NAME")
        body: dict[str, Any] = {"backend": target["target"], "force": target["force"]} if other else {}
        if "-" in ids:
            ids = (*(one for one in ids if one != "-"), *map(queue_id, sys.stdin.read().split()))
        elif not ids and not yes and not sys.stdin.isatty():
            raise click.UsageError(f"nobody can be asked here: add --yes to {name} all messages that fit")
        with connect() as api:
            if not ids and not yes:
                chosen = _agreed(api, name, chosen)
            body |= {"ids": ids} if ids else {"filter": chosen}
            result = _carry_out(api, name, body)
            if not result["changed"]:
                refuse_unknown(api, chosen.get("backend"), chosen.get("client"))
            if name == "retry" and result["changed"]:
                _warn_paused(api, set(ids).difference(result["unchanged"]), chosen)
        _report(name, result, named=bool(ids), as_json=as_json)

    options: list[Callable[..., Any]] = [
        click.argument("ids", nargs=-1, metavar="[ID]...", callback=_ids),
        click.option("--all", "everything", is_flag=True, help="Every message that this can be done to."),
        click.option("--yes", is_flag=True, help="Do not ask, when no ids are given."),
        filter_options("--waits-for" if other else "--backend"),
        json_option,
        config_option,
    ]
    if other:
        options += [
            click.option(
                "--backend", "target", metavar="NAME", callback=said, shell_complete=named("backends"), help="Where to."
            ),
            click.option("--force", is_flag=True, help="Also what may arrive twice, or demands another backend."),
        ]
    wrapped: Any = command
    for option in reversed(options):
        wrapped = option(wrapped)
    about = f"{text} Give queue ids (- reads them from standard input), --all or filters."
    return click.command(name, help=about, epilog=example(f"gateway queue {typed}"))(wrapped)


def _agreed(api: Api, name: str, chosen: Chosen) -> Chosen:
    """What a person at the terminal agreed to: the filter, and nothing that came in after he was asked."""
    states = [chosen["state"]] if "state" in chosen else _STATES.get(name, ("queued",))
    found = [api.get("messages", **{**chosen, "state": state}, limit=1, total="exact") for state in states]
    number = sum(page["total"] for page in found)
    if not number:
        return chosen  # nothing to be asked about
    words = f"{number:,} message{'s' if number != 1 else ''}"
    if name == "delete" and number >= _MANY:
        click.echo(f"{words} will be gone for good; nobody is told. The gentler ways: hold, bounce.", err=True)
        if click.prompt("To delete them, type their number", err=True).replace(",", "") != str(number):
            raise Failed("that is not their number; nothing was deleted")
    elif not click.confirm(f"{name} {words}?", err=True):
        raise click.Abort
    newest = max((row["id"] for page in found for row in page["messages"]), default="0")
    return chosen | {"upto": newest}


def _carry_out(api: Api, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The answer; of long work once it is over, with a bar on a terminal. ^C stops it, and tells what was done."""
    result: dict[str, Any] = api.post(f"messages/{name}", {**body, "background": True})
    if "work" not in result:
        return result
    work, path = result["work"], f"work/{result['work']['id']}"
    with _bar(name, work["total"]) as show:
        while not work["ended_at"]:
            try:
                show(work["changed"], work["total"])
                plain.pause(_LOOK)
                work = api.get(path)
            except KeyboardInterrupt:
                work = api.post(f"{path}/stop")
        show(work["changed"], work["total"])
    if work["state"] != "done":
        why = f": {work['error']}" if work["error"] else ""
        raise Failed(f"{name}: {work['state']} after {work['changed']:,} messages{why}; what was done holds")
    found: dict[str, Any] = work["result"]
    return found


@contextmanager
def _bar(name: str, length: int) -> Iterator[Callable[[int, int], object]]:
    """Called with how much is done, of how much; on a terminal only."""
    if not sys.stderr.isatty():
        yield max
        return
    with click.progressbar(length=length, label=name, file=sys.stderr) as bar:

        def show(done: int, of: int) -> None:
            bar.length = of
            bar.update(min(done, of) - bar.pos)

        yield show


def _report(name: str, result: Mapping[str, Any], *, named: bool, as_json: bool) -> None:
    show_json(result) if as_json else say("\n".join(_done(name, result, named=named)))
    if named and result["unchanged"]:
        raise Failed("\n".join(f"{one['why']}: {_listed(one)}{_instead(name, one)}" for one in result["why"]))


def _instead(name: str, one: Mapping[str, Any]) -> str:
    """What does to such a message what was meant."""
    verb = _INSTEAD.get((name, one["why"]), "")
    return f"; what does that: gateway queue {verb} {_listed(one)}" if verb and len(one["ids"]) == one["count"] else ""


def _listed(one: Mapping[str, Any]) -> str:
    more = one["count"] - len(one["ids"])
    return " ".join(one["ids"]) + (f" and {more:,} more" if more else "")


def _done(name: str, result: Mapping[str, Any], *, named: bool) -> Iterator[str]:
    """What was done, and whom nobody tells."""
    changed, told = result["changed"], result.get("told", 0)
    yield f"{name}: {changed} of {changed + len(result['unchanged'])} messages"
    if name == "bounce" and changed:
        yield f"senders told: {told}" + (" (bounce_suppressed in the log says why not all)" if told < changed else "")
    if name == "retry" and told:
        yield f"the senders of {told} had been told that it failed; nobody tells them that it goes out now"
    if left := result.get("left"):
        yield (
            f"left alone: {left} with the null sender or bounces of our own, which tell somebody that mail failed; "
            "to give these up, and tell nobody: give their ids, or --from '<>'"
        )
    if bounces := result.get("bounces"):
        yield f"to tell a sender that mail failed: {bounces} of them; nobody does so now"
    if copies := result.get("copies"):
        yield "they go out as new messages, and may arrive twice:"
        yield from (f"  {old} again as {new}" for old, new in copies.items())
    for one in () if named else result["why"]:
        yield f"left: {one['count']:,}: {one['why']}: {_listed(one)}"


def _warn_paused(api: Api, ids: set[str], chosen: Chosen) -> None:
    """What is due still waits for its backend: one question for each that rests. No ids: all that are chosen."""
    page = {"before": f"{max(ids)}~", "limit": _PAGE} if ids else {"limit": 1}  # a hint: beyond a page it is left out
    for name, backend in api.get("backends").items():
        if not backend.get("paused_by") or chosen.get("backend", name) != name:
            continue
        waiting = api.get("messages", **{**chosen, "backend": name, "state": "queued"}, **page)["messages"]
        if any(not ids or row["id"] in ids for row in waiting):
            until = moment(backend["paused_until"])
            state = backend["paused_by"].replace("operator", "paused by the operator")
            state += f" until {until:%H:%M:%SZ}" if until else ""
            say(f"{name} is {state}; to try now: gateway backend resume {name}", err=True)


VERBS: Sequence[click.Command] = (
    _verb(
        "retry",
        "Try these messages again now; failed ones too, by their ids or --state failed.",
        "retry --backend office",
    ),
    _verb("resend", "Send what was sent once more, as new messages: they may arrive twice.", "resend 1K1EQM5KE2HT7"),
    _verb(
        "reroute",
        "Let these messages go by another backend that can carry them; failed ones by their ids or --state failed.",
        "reroute --waits-for office --backend smart",
    ),
    _verb("hold", "Keep these messages until they are released.", "hold --from x@example.com"),
    _verb("release", "Let held messages go.", "release --from x@example.com"),
    _verb("delete", "Remove these messages for good; nobody is told.", "delete 1K1EQM5KE2HT7"),
    _verb(
        "bounce",
        "Give up on these messages and tell their senders; bounces only if named by id or --from.",
        "bounce --to old.example.com",
    ),
)
