"""``gateway token ...`` and ``gateway password mint``."""

from __future__ import annotations

import json
import re
import secrets
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click

from gateway.cli import plain
from gateway.cli.columns import Columns, wide_option
from gateway.cli.common import Api, checked_by, config_option, connect, example, json_option, named
from gateway.cli.plain import moment, say, show_json

COLUMNS = Columns(
    ("ID", "SUBJECT", "KEY", "STATE", "EXPIRES", "LAST USED", "NOTE"),
    {"SUBJECT": 8, "EXPIRES": 10, "LAST USED": 9, "NOTE": 6},
    ("NOTE", "KEY", "LAST USED", "EXPIRES", "STATE"),
)
_DEVICE_FIELD = 128  # characters that a printer's password field takes at most


@click.group()
def token() -> None:
    """Tokens (JWT) that clients log in with."""


@token.command(epilog=example("gateway token mint --sub billing --sender invoice@example.com --expires 365d"))
@click.option("--sub", "subject", required=True, metavar="NAME", help="Who it is for: the token's subject.")
@click.option("--expires", default="90d", show_default=True, metavar="TIME", help='For example 12h, or "never".')
@click.option("--sender", "senders", multiple=True, metavar="PATTERN", help="May only send as this (repeatable).")
@click.option("--recipient", "recipients", multiple=True, metavar="PATTERN", help="May only send to this (repeatable).")
@click.option("--network", "networks", multiple=True, metavar="CIDR", help="Only good from here (repeatable).")
@click.option(
    "--backend", metavar="NAME", shell_complete=named("backends"), help="Its mail leaves by this backend only."
)
@click.option("--admin", is_flag=True, help="For the HTTP interface instead of SMTP.")
@click.option(
    "--role",
    type=click.Choice(["read", "operate", "admin"]),
    help="With --admin: what it may do (default: admin).",
)
@click.option("--tenant", metavar="NAME", help="With --admin: only for the mail of this tenant.")
@click.option("--key", default="own", show_default=True, metavar="NAME", help="Sign with this key of auth.keys.")
@click.option("--note", default="", help="A remark for `token list`.")
@config_option
def mint(subject: str, expires: str, key: str, note: str, admin: bool, **claims: Any) -> None:
    """Print a new token on standard output, and nothing else there."""
    with connect() as api:
        made = mint_token(api, subject, expires, key=key, note=note, admin=admin, claims=claims)
    say(made)
    if len(made) > _DEVICE_FIELD:
        hint = "many devices take fewer: for those there is `gateway password mint`"
        say(f"note: the token has {len(made)} characters; {hint}", err=True)


def mint_token(api: Api, subject: str, expires: str, *, claims: Mapping[str, Any], **more: Any) -> str:
    """A token made by the service, which remembers its id, so that it can be listed and revoked."""
    wanted = {"subject": subject, "expires": "" if expires == "never" else expires, **more}
    wanted["claims"] = {name: value for name, value in claims.items() if value}
    return str(api.post("tokens", wanted)["token"])


@token.command("list", epilog=example("gateway token list"))
@wide_option
@json_option
@config_option
def list_(wide: bool, as_json: bool) -> None:
    """Tokens that were minted or revoked here."""
    with connect() as api:
        rows = api.get("tokens")["tokens"]
    if as_json:
        return show_json(rows)
    lines = []
    for row in rows:
        expires = moment(row["expires_at"])
        until = f"{plain.stamp(expires)} ({plain.relative(expires)})" if expires else "never"
        used, tried = plain.relative(moment(row["used_at"])), moment(row["tried_at"])
        used += f", tried {plain.relative(tried)}" if tried else ""
        lines.append((row["jti"], row["subject"], row["key"], row["state"], until, used, row["note"]))
    return COLUMNS.show(lines, wide=wide) if lines else say("No token was made here yet: gateway token mint --sub NAME")


@token.command(epilog=example("gateway token revoke 4f1c09be2d7a", "gateway token revoke --sub billing"))
@click.argument("jti", required=False, default="")
@click.option("--sub", "subject", default="", metavar="NAME", help="All tokens of this subject issued until now.")
@config_option
def revoke(jti: str, subject: str) -> None:
    """Make a token worthless at once, also in open connections."""
    if bool(jti) == bool(subject):
        raise click.UsageError("give the token's id, or --sub NAME")
    with connect() as api:
        known = api.post("tokens/revoke", {"jti": jti, "subject": subject})["known"]
    which = "with this id" if jti else "of this subject"
    note = "" if known else f' (no token {which} was minted here; see "gateway token list")'
    say(f"revoked: {jti or f'every token of {subject} issued until now'}{note}")


@token.command(epilog=example("gateway token inspect < token.txt"))
@click.argument("given", required=False, metavar="[TOKEN]")
@json_option
@config_option
def inspect(given: str | None, as_json: bool) -> None:
    """What a token says, and whether it is good. Without TOKEN it is read from standard input."""
    with connect() as api:
        report = api.post("tokens/inspect", {"token": (given or sys.stdin.read()).strip()})
    if as_json:
        show_json(report)
    else:
        say(f"{'accepted' if report['valid'] else 'not accepted'}: {report['verdict']}")
        for name, value in {"key": report["key"], **report["header"], **report["claims"]}.items():
            say(f"{name}: {_claim(name, value)}")
    if not report["valid"]:
        raise SystemExit(1)


def _claim(name: str, value: Any) -> str:
    if name in ("exp", "iat", "nbf") and isinstance(value, int) and 0 <= value < 2**37:
        when = datetime.fromtimestamp(value, UTC)
        return f"{plain.stamp(when)} ({plain.relative(when)})"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@click.group()
def password() -> None:
    """Short passwords for devices that cannot hold a token."""


@password.command("mint", epilog=example("gateway password mint copier --network 192.0.2.17"))
@click.argument("name", default="copier")
@click.option(
    "--network", "networks", multiple=True, metavar="CIDR", callback=checked_by("values", "parse_network"),
    help="Where the device is (repeatable).",
)  # fmt: skip
@click.option(
    "--sender", "senders", multiple=True, metavar="PATTERN", callback=checked_by("values", "parse_pattern"),
    help="What it may send as (repeatable).",
)  # fmt: skip
@json_option
def mint_password(name: str, networks: tuple[str, ...], senders: tuple[str, ...], as_json: bool) -> None:
    """Print a new password, this once, and what to put into the configuration for client NAME."""
    from gateway import auth

    if not re.fullmatch("[a-z][a-z0-9_]{0,39}", name):
        raise click.UsageError(f'"{name}" is no name of a client: a-z first, then a-z, 0-9 and _')
    made = auth.new_password()
    client: dict[str, Any] = {"password_hash": auth.hash_password(made, secrets.token_bytes(16))}
    client |= {key: value for key, value in (("networks", networks), ("senders", senders)) if value}
    if as_json:
        return show_json({"user": name, "password": made, "client": client})
    say(f"user name: {name}\npassword:  {made}\n\nIt is shown only now. Put this into the configuration and reload.")
    say('If this is your first "clients" entry: only clients listed there may send, so list localhost and tokens too')
    say("(config.example.yaml).\n")
    lines = [f"    {key}: {json.dumps(value)}" for key, value in client.items()]
    return say("\n".join(("clients:", f"  {name}:", *lines)))
