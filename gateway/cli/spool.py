"""``gateway spool ...``: what the queue is kept in, whether it is whole, and how it gets somewhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.common import chosen_file, config_option, example, json_option
from gateway.cli.errors import Failed
from gateway.cli.plain import one_line, say, show_json, table

if TYPE_CHECKING:
    from gateway.cli.places import Place
    from gateway.spool.moving import Moved

_KEPT_BESIDE = (
    ("spool.key", "without it no sign-in and no client's token that was kept can be opened"),
    ("token.key", "without it the tokens that were minted are refused"),
)
password_option = click.option(
    "--password-file", type=click.Path(path_type=Path), metavar="FILE",
    help="The password for a database is in this file (default: that of the settings, else what libpq finds).",
)  # fmt: skip


@click.group()
def spool() -> None:
    """What the queue is kept in: look at it, check it, copy it to another place."""


@contextmanager
def _explained() -> Iterator[None]:
    from gateway.spool import SpoolError

    try:
        yield
    except (SpoolError, OSError) as error:
        raise Failed(str(error)) from None


def _place(given: str | None, password_file: Path | None) -> Place:
    from gateway.cli import places

    try:
        return places.find(given, password_file, chosen_file())
    except ValueError as error:
        raise click.UsageError(str(error)) from None


@spool.command("info", epilog=example("gateway spool info", "gateway spool info /var/lib/gateway"))
@click.argument("place", required=False, metavar="[PLACE]")
@password_option
@json_option
@config_option
def info(place: str | None, password_file: Path | None, as_json: bool) -> None:
    """Where the queue is, how large, and who uses it; PLACE is a state directory or a postgresql:// URL."""
    from gateway.health.words import octets
    from gateway.spool.inspecting import about

    where = _place(place, password_file)
    with _explained(), where.look() as side:
        found = about(side)
    if as_json:
        return show_json(asdict(found))
    states = ", ".join(f"{number:,} {state}" for state, number in found.messages.items()) or "none"
    say(f"{found.engine} {found.version}: {found.place}, {octets(found.bytes)}")
    say(f"messages: {states}; {found.bodies:,} with their bytes; {found.under_way:,} under way")
    if found.instances:
        rows = [
            (one.name, "yes" if one.lives else "NO", one.version or "-", ", ".join(one.works) or "-")
            for one in found.instances
        ]
        table(("INSTANCE", "ALIVE", "VERSION", "WORKS"), rows)
    return None


@spool.command("check", epilog=example("gateway spool check", "gateway spool check postgresql://gateway@db/gateway"))
@click.argument("place", required=False, metavar="[PLACE]")
@password_option
@json_option
@config_option
def check(place: str | None, password_file: Path | None, as_json: bool) -> None:
    """Look at every message of a queue, also while it is in use. Exit code 1 if anything is damaged.

    PLACE is a state directory or a postgresql:// URL. A file's log grows while it is read: choose a quiet hour.
    """
    from gateway.spool.inspecting import check as examine

    where = _place(place, password_file)
    with _explained(), _bar("messages") as show:
        with where.look() as side:
            whole = side.count("body")
        found = examine(where.look, where.wrong(), lambda done: show(done, whole))
    if as_json:
        show_json(asdict(found))
    else:
        say(f"{where.name}: {found.verified:,} messages are whole")
        for text in found.wrong:
            say(one_line(text))
        for ident in found.damaged:
            say(f"damaged: {ident}; what to do: gateway trace {ident}")
    if found.damaged or found.wrong:
        raise SystemExit(1)


@spool.command(
    "copy", epilog=example("gateway spool copy /var/lib/gateway postgresql://gateway@db.example.org/gateway")
)
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@password_option
@json_option
@config_option
def copy(source: str, target: str, password_file: Path | None, as_json: bool) -> None:
    """Copy a whole queue into a new place, all or nothing, and compare what arrived.

    FROM and TO are state directories or postgresql:// URLs. Stop every service that uses one of them first. What was
    being sent at a stop is marked as interrupted. The old queue stays as it is: never start a service with it again.
    """
    from gateway.clock import SystemClock
    from gateway.spool.moving import move
    from gateway.spool.records import micros

    old, new = _place(source, password_file), _place(target, password_file)
    clock = SystemClock()
    with _explained(), _bar("rows") as show, old.source(clock) as there, new.target(there.now(), clock) as here:
        done = move(there, here, micros(clock.now()), show)
    if as_json:
        return show_json(asdict(done) | {"from": old.name, "to": new.name, "bring": [name for name, _ in _KEPT_BESIDE]})
    return say("\n".join(_told(done, old, new)))


def _told(done: Moved, old: Place, new: Place) -> Iterator[str]:
    yield f"copied {sum(done.rows.values()):,} rows from {old.name} to {new.name}, and compared each"
    yield f"{done.rows['message']:,} messages, {done.verified:,} of them with their bytes: each meets its checksum"
    if done.interrupted:
        yield f"interrupted: {done.interrupted:,} were being sent when the service ended, and may arrive twice"
    if done.replaced:
        yield f"changed: {done.replaced:,} rows had a NUL within a text, which is now U+FFFD"
    for ident in done.damaged:
        yield f"damaged before already, and so still: {ident}; see: gateway trace {ident}"
    beside = f"from {old.directory}" if old.directory else "from the state_dir of an instance"
    to = f"to {new.directory}" if new.directory else "to the state_dir of every instance"
    yield f"Before you start anything, bring along {beside} {to} (mode 0600, owned by the user of the service):"
    yield from (f"  {name}: {why}" for name, why in _KEPT_BESIDE)
    yield "and the files that your settings name: keys, certificates, sign-ins, captured mail."
    yield f"Never start a service with {old.name} again: it would send the same mail once more."


@contextmanager
def _bar(label: str) -> Iterator[Callable[[int, int], object]]:
    """Called with how much is done, of how much; on a terminal only."""
    if not sys.stderr.isatty():
        yield max
        return
    with click.progressbar(length=1, label=label, file=sys.stderr) as bar:

        def show(done: int, of: int) -> None:
            bar.length = max(of, 1)
            bar.update(min(done, of) - bar.pos)

        yield show
