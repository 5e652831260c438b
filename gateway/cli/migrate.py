"""``gateway migrate-from``: a settings file out of those of another relay."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.common import example
from gateway.cli.errors import Failed
from gateway.cli.plain import say

if TYPE_CHECKING:
    from gateway.migrate.found import Found

KINDS = ("postfix", "exim", "smtp2graph", "email-oauth2-proxy", "iis")


@click.command(
    "migrate-from",
    epilog=example(
        "gateway migrate-from postfix /etc/postfix", "gateway migrate-from postfix /etc/postfix --write config.yaml"
    ),
)
@click.argument("kind", type=click.Choice(KINDS), metavar="KIND")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--write", "target", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
              help="Write it there, and passwords into files beside it (0600); otherwise it is printed.")  # fmt: skip
@click.option("--force", is_flag=True, help="With --write: replace files that are there.")
def migrate_from(kind: str, file: Path, target: Path | None, force: bool) -> None:
    """Make settings out of those of another relay, commented, and say what is left to do.

    KIND is postfix (FILE is /etc/postfix, or the output of postconf -n), exim (update-exim4.conf.conf or exim.conf),
    smtp2graph (config.yml), email-oauth2-proxy (emailproxy.config) or iis (MetaBase.xml, or what Get-WmiObject prints).
    FILE may be - for standard input. Nothing of the other relay is changed, nobody is asked over the network, and no
    password is printed. docs/migrate.md says what each can and cannot tell.
    """
    from gateway import backends
    from gateway.migrate.found import BadSource
    from gateway.migrate.settling import settle

    try:
        found = _read(kind, file)
        text = settle(found, backends.settings_types())
    except BadSource as error:
        raise Failed(str(error)) from None
    if target is None:
        click.echo(text, nl=False)
    else:
        _write(target, text, found, force=force)
    _tell(found, target)


def _read(kind: str, file: Path) -> Found:
    if kind == "smtp2graph":
        return _read_smtp2graph(file)
    from gateway.migrate.exim import read_exim
    from gateway.migrate.iis import read_iis
    from gateway.migrate.oauth2_proxy import read_oauth2_proxy
    from gateway.migrate.postfix import postfix_source, read_postfix
    from gateway.migrate.sources import Source, decode, read_source

    if str(file) == "-":
        source = Source("standard input", decode(sys.stdin.buffer.read(), "standard input"))
    else:
        source = postfix_source(file) if kind == "postfix" else read_source(file)
    if kind == "postfix":
        return read_postfix(source, ipv6=_has_ipv6())
    return {"exim": read_exim, "email-oauth2-proxy": read_oauth2_proxy, "iis": read_iis}[kind](source)


def _read_smtp2graph(file: Path) -> Found:
    import secrets
    import tempfile

    from gateway.migrate.smtp2graph import read_smtp2graph

    if str(file) != "-":
        return read_smtp2graph(file, secrets.token_bytes(16))
    with tempfile.NamedTemporaryFile(suffix=".yml") as kept:
        kept.write(sys.stdin.buffer.read())
        kept.flush()
        return read_smtp2graph(Path(kept.name), secrets.token_bytes(16))


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind(("::1", 0))
    except OSError:
        return False
    return True


def _write(target: Path, text: str, found: Found, *, force: bool) -> None:
    """The secrets first: settings that are there are whole. Without --force nothing is replaced, also no secret."""
    from gateway.files import write_whole

    files = {target.parent / one.file: one.text for one in found.secrets.values() if one.text is not None}
    taken = [path for path in (target, *files) if os.path.lexists(path)]
    if taken and not force:
        raise Failed(f"{taken[0]} is there already; give another --write, or --force to replace it")
    try:
        for path, secret in files.items():
            write_whole(path, f"{secret}\n".encode(), replace=force)
        write_whole(target, text.encode(), replace=force)
    except OSError as error:
        raise Failed(f"{error.filename or target}: {error.strerror}") from None


def _tell(found: Found, target: Path | None) -> None:
    from gateway.migrate.writing import remaining

    secrets = [one for one in found.secrets.values() if one.text is not None]
    if target:
        lines = [f"{target}: written", *(f"{target.parent / one.file}: {one.what}, as it was" for one in secrets)]
    else:
        lines = [f"{one.file} belongs beside it, with {one.what}; --write puts it there" for one in secrets]
    left = [*remaining(found), f"gateway check-config --config {target or 'FILE'}", "gateway backend check NAME"]
    say("\n".join(lines), err=True) if lines else None
    say("left to do:", err=True)
    say("\n".join(f"{number}. {text}" for number, text in enumerate(left, 1)), err=True)
