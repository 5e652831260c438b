"""The one way through ``gateway setup``: ask, say what will be made, make it, try it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import click

from gateway.cli import plain
from gateway.cli.errors import Failed
from gateway.cli.plain import say
from gateway.cli.setup_ask import JUDGES, Asker, Judge, address, any_text, file_there, name_of_client
from gateway.cli.setup_given import Given, target
from gateway.cli.setup_who import doors, people
from gateway.config import ConfigError, locate
from gateway.config.writing import Inexact, read_text
from gateway.setup import composing, storing
from gateway.setup.composing import Wanted
from gateway.setup.providers import PROVIDERS, Question, backend, wanted


@dataclass(frozen=True, slots=True)
class Made:
    """What is about to be written: the text, files beside it by name, and what is left to do by hand."""

    file: Path
    text: str
    files: Mapping[str, bytes]
    wanted: Wanted
    exact: str = ""  # why the old file cannot be added to, "" where it can
    notes: tuple[str, ...] = ()


def carry_out(given: Given) -> None:
    """Raises Failed, UsageError, BadConfig and Abort; nothing is then left half."""
    file = target()
    asker = Asker(sys.stdin.isatty())
    old = _old(file)
    _refuse_folder(file, dry_run=given.dry_run)
    made = _compose(file, old, given, asker)
    _announce(made, old is not None)
    if given.dry_run:
        click.echo(made.text, nl=False)
        return
    asker.agree("Make this?", yes=given.yes)
    _write(made)
    from gateway.cli.setup_ends import ends

    ends(given, made.file, made.wanted, asker, made.notes)


def _old(file: Path) -> str | None:
    if not os.path.lexists(file):
        return None
    try:
        text = read_text(file)
        composing.taken(text, "backends")
    except ConfigError as error:
        raise Failed(f"{error}\nto do: correct {file}, or move it away") from None
    return text


def _refuse_folder(file: Path, *, dry_run: bool) -> None:
    if not dry_run and not os.access(f"{file.parent}/.", os.W_OK | os.X_OK):
        fix = f"make it: install -d -m 755 {file.parent}" if not file.parent.is_dir() else "run this as root"
        raise Failed(f"{file.parent} is not there, or you may not write to it; {fix}")


def _compose(file: Path, old: str | None, given: Given, asker: Asker) -> Made:
    if old is not None:
        say(f"{file} is there: what you answer is put into it, and all that stands in it stays.", err=True)
    kind = _kind(given, asker)
    provider = PROVIDERS[kind]
    names = composing.taken(old or "", "backends")
    name = given.name or composing.free_name(provider.name, names)
    name = asker.take("--name", name, "Its name in the settings", name_of_client)
    if name in names:
        raise Failed(f"backends.{name} is in {file} already: give another --name, or change it there by hand")
    answers = _about(kind, given, asker)
    sender = _sender(kind, given, asker)
    section, secrets = backend(kind, name, answers, sender)
    section |= given.more
    if given.mailboxes and (given.tenant_wide or len(given.mailboxes) > 1):
        section["mailbox"] = "sender"
        section["senders"] = [f"*@{sender.partition('@')[2]}"] if given.tenant_wide else sorted(given.mailboxes)
    files = {**{key: text.encode() for key, text in secrets.items()}, **given.files}
    for one in provider.questions:
        if one.file and one.key in answers and one.key in section and answers[one.key] not in given.files:
            section[one.key] = one.file if name == provider.name else f"{name}-{one.file}"
            files[section[one.key]] = Path(answers[one.key]).read_bytes()
    who = people(given, asker, sender, only=bool(provider.mailbox), old=old)
    listeners = doors(given, asker, old, reach=who.reach)
    limited = (f"*@{sender.partition('@')[2]}",) if given.route == "sender" and sender else ()
    state = "" if locate.machine_state_dir(file) else str(file.parent / "state")
    whole = Wanted(name, section, sender, listeners, who.clients, limited, state)
    left = tuple(filter(None, (provider.left.format(name=name), *who.notes, *given.notes)))
    return _texts(Made(file, "", {**files, **who.files}, whole, notes=left), old)


def _texts(made: Made, old: str | None) -> Made:
    if old is None:
        return replace(made, text=composing.new(made.wanted))
    try:
        return replace(made, text=composing.added(old, made.wanted))
    except Inexact as error:
        try:
            return replace(made, text=composing.whole(old, made.wanted), exact=str(error))
        except Inexact:
            raise Failed(f"{made.file}: {error}") from None


def _kind(given: Given, asker: Asker) -> str:
    if given.kind is None and asker.talks:
        say("What takes your mail on?", err=True)
        for key, provider in PROVIDERS.items():
            say(f"  {key:13} {provider.label}", err=True)
    return asker.take("--provider", given.kind, "Which", any_text, choices=tuple(PROVIDERS))


def _about(kind: str, given: Given, asker: Asker) -> dict[str, str]:
    """The answers about the provider. Options that belong to another one are wrong use."""
    known = {one.key: one for one in PROVIDERS[kind].questions}
    if odd := next((key for key in given.answers if key not in known), None):
        option = Question(odd, "", secret=odd == "secret").option
        raise click.UsageError(f"{option} does not belong to --provider {kind}")
    answers: dict[str, str] = {}
    for one in known.values():
        if one not in wanted(kind, answers):
            continue
        judge: Judge = file_there if one.file and given.answers.get(one.key) not in given.files else any_text
        judge = JUDGES.get(one.key, judge)
        if one.key == "secret" and kind == "smtp" and not answers.get("username"):
            continue
        answers[one.key] = asker.take(
            one.option, given.answers.get(one.key), one.text, judge, default=one.default, choices=one.choices,
            secret=one.secret,
        )  # fmt: skip
    return answers


def _sender(kind: str, given: Given, asker: Asker) -> str:
    if kind == "capture" and given.sender is None:
        return ""
    return asker.take("--sender", given.sender, "Mail is to come from which address of yours", address)


def _announce(made: Made, there: bool) -> None:
    """What will be made. Nothing of a secret."""
    lines = ["", "This will be made:"]
    lines += [f"  {made.file.parent / name}   (0600, for the service only)" for name in made.files]
    if made.exact:
        lines.append(f"  {made.file}.new   {made.file} stays as it is: {made.exact}")
    elif there:
        lines.append(f"  {made.file}   with what follows put in; the old one is kept beside it")
    else:
        lines.append(f"  {made.file}")
    one = made.wanted
    lines.append(f"  way out {one.name}: {one.backend['type']}, for {', '.join(one.senders) or 'all mail'}")
    lines += [f"  listener {name}: {found['bind']}" for name, found in one.listeners.items()]
    for name, found in one.clients.items():
        who = ", ".join(found.get("networks", ())) or "whoever logs in"
        lines.append(f"  client {name}: {who}")
    if any("rewrite_sender" in found for found in one.clients.values()):
        lines.append(f"  mail that they send as anybody else goes out as {one.sender} (rewrite_sender)")
    say("\n".join(lines), err=True)


def _write(made: Made) -> None:
    """Secrets, then settings, once they are judged. ^C before the end leaves everything as it was."""
    from gateway.cli import local
    from gateway.readiness import ready

    owner = storing.service_owner(made.file, os.environ)
    target = made.file.with_name(f"{made.file.name}.new") if made.exact else made.file
    try:
        with ExitStack() as stack:
            stack.enter_context(storing.stored(made.file.parent, made.files, owner))
            trial = stack.enter_context(storing.candidate(made.file, made.text))
            try:
                loaded = ready(local.load(trial), plain.now())
            except ConfigError as error:
                lines = [str(line).replace(str(trial), str(made.file)) for line in error.lines]
                raise Failed("these settings cannot be used, so nothing was changed:\n" + "\n".join(lines)) from None
            backup = storing.put(target, made.text, plain.now())
    except storing.Taken as error:
        raise Failed(str(error)) from None
    except OSError as error:
        raise Failed(f"{error.filename or made.file}: {error.strerror}; nothing was changed") from None
    for warning in loaded.warnings:
        say(f"warning: {str(warning).replace(str(trial), str(made.file))}", err=True)
    say(f"written: {target}", err=True)
    if backup:
        say(f"the old one: {backup}", err=True)
    if made.exact:
        say(f"{made.exact}. Compare it with {made.file}, move it there, then: gateway check-config", err=True)
        raise SystemExit(1)
