"""The command tree. Each command's own file is loaded when it is needed, so that none pays for the others."""

from __future__ import annotations

import json
from typing import Any

import click

import gateway
from gateway.cli.common import chosen_file, config_option, connect, example, json_option
from gateway.cli.errors import TYPED, BadConfig, Failed
from gateway.cli.lazy import LazyGroup
from gateway.cli.plain import say, show_json

_COMMANDS = {
    "man": "gateway.cli.manual:man",
    "completion": "gateway.cli.manual:completion",
    "serve": "gateway.cli.serve:serve",
    "demo": "gateway.cli.serve:demo",
    "queue": "gateway.cli.queue:queue",
    "trace": "gateway.cli.trace:trace",
    "acts": "gateway.cli.trace:acts",
    "backend": "gateway.cli.backend:backend",
    "alert": "gateway.cli.alert:alert",
    "client": "gateway.cli.client:client",
    "learn": "gateway.cli.learn:learn",
    "status": "gateway.cli.status:status",
    "refused": "gateway.cli.refused:refused",
    "send-test": "gateway.cli.backend:send_test",
    "doctor": "gateway.cli.doctor:doctor",
    "setup": "gateway.cli.setup:setup",
    "migrate-from": "gateway.cli.migrate:migrate_from",
    "spool": "gateway.cli.spool:spool",
    "token": "gateway.cli.token:token",
    "password": "gateway.cli.token:password",
    "ui-login": "gateway.cli.ui:login",
}
_AUTH = {"google": "gateway.cli.auth_google:google", "microsoft": "gateway.cli.auth_microsoft:microsoft"}


class _Root(LazyGroup):
    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        typed = tuple(args)
        context = super().make_context(info_name, args, parent, **extra)
        context.meta[TYPED] = typed
        return context

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            _propose(error)
            raise
        except KeyError as error:
            from gateway.http.client import Unsaid

            if isinstance(error, Unsaid):
                text = (
                    f'the service that runs does not know "{error.args[0]}": it is of another version than this command'
                )
                raise Failed(f"{text}; restart it: systemctl restart gateway") from None
            raise


def _propose(error: click.UsageError) -> None:
    """Of an option or command that there is not: by our rule, click's is looser."""
    from gateway.likeness import closest

    if error.ctx is None or not hasattr(error, "possibilities"):
        return
    command = error.ctx.command
    if isinstance(error, click.NoSuchOption):
        given, known = error.option_name, [one for each in command.get_params(error.ctx) for one in each.opts]
    elif isinstance(command, click.Group):
        given, known = getattr(error, "command_name", ""), command.list_commands(error.ctx)
    else:
        return
    error.possibilities = [one] if (one := closest(given, known)) else None


@click.group(cls=_Root, lazy=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(gateway.__version__, message="gateway %(version)s")
@config_option
def cli() -> None:
    """Self-hosted SMTP relay: takes mail by SMTP, keeps it safe, hands it to mail APIs and servers."""


@cli.group(cls=LazyGroup, lazy=_AUTH)
def auth() -> None:
    """Sign in to a provider once, so that the service may send."""


@cli.command("check-config", epilog=example("gateway check-config --online"))
@click.option("--online", is_flag=True, help="Also ask every backend whether it would take mail from us.")
@click.option("--whom", metavar="ADDRESS", help="Also say who would get the mail for this name or address.")
@json_option
@config_option
def check_config(online: bool, whom: str | None, as_json: bool) -> None:
    """Say all that is wrong with the configuration. Exit code 78 if it cannot be used."""
    from gateway.cli import local
    from gateway.cli.judging import judged

    try:
        found = judged(local.usable(chosen_file()), online=online, whom=whom)
    except BadConfig as error:
        if not as_json:
            raise
        show_json({"ok": False, "file": chosen_file(), "errors": error.found, "warnings": []})
        raise SystemExit(error.exit_code) from None
    found.show(as_json=as_json)


@cli.group()
def config() -> None:
    """The configuration in effect, and what may stand in it."""


@config.command("show", epilog=example("gateway config show --json"))
@json_option
@config_option
def config_show(as_json: bool) -> None:
    """Every setting with where it comes from; secrets are masked."""
    from gateway.cli import local
    from gateway.config.show import show

    loaded = local.settings(chosen_file())
    if as_json:
        settings = loaded.settings.model_dump(mode="json", by_alias=True)
        return show_json({"file": loaded.path, "settings": settings, "origins": loaded.origins})
    return say(show(loaded).rstrip())


@config.command("running", epilog=example("gateway config running office rate"))
@click.argument("words", nargs=-1, metavar="[WORD]...")
@click.option("--all", "everything", is_flag=True, help="Also what is as by default.")
@json_option
@config_option
def config_running(words: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """What the running service goes by: settings that differ from the default, or that hold every WORD."""
    from gateway.cli import plain

    with connect(offline=False) as api:
        found = api.get("settings", all="1" if everything else "", q=" ".join(words))
    if as_json:
        return show_json(found)
    read = plain.stamp(plain.moment(found["read_at"]))
    say(f"# read at {read} from {found['file'] or 'no file: built-in default'}")
    for one in found["settings"]:
        value = "set, not shown" if one["secret"] else json.dumps(one["value"], ensure_ascii=False)
        default = f", default {json.dumps(one['default'])}" if one["changed"] and one["default"] is not None else ""
        say(f"{one['key']}: {value}  # {one['origin']}{default}")
    if not found["settings"]:
        say(f"# no setting has {' '.join(words)} in it; gateway config running --all shows every one")
    if found["hidden"]:
        say(f"# {found['hidden']} more are as by default: --all")
    if failed := found["failed"]:
        say(f"# the reload at {plain.stamp(plain.moment(failed['at']))} was refused, and these stayed:")
        say("\n".join(f"#   {line}" for line in failed["errors"]))
    return None


@config.command("schema", epilog=example("gateway config schema > gateway.schema.json"))
def config_schema() -> None:
    """The JSON schema of the configuration file, for editors."""
    from gateway import backends
    from gateway.config.show import schema

    show_json(schema(backends.settings_types()))


@cli.command(epilog=example("gateway version"))
@json_option
def version(as_json: bool) -> None:
    """Version of gateway and of what it runs on."""
    import platform
    import sqlite3

    found = {"gateway": gateway.__version__, "python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    show_json(found) if as_json else say("\n".join(f"{name} {number}" for name, number in found.items()))


@cli.command(epilog=example("gateway healthcheck"))
@json_option
@config_option
def healthcheck(as_json: bool) -> None:
    """Exit code 0 if the service is ready for mail; for containers and monitoring."""
    with connect(offline=False) as api:
        status, answer = api.client.call("GET", "/readyz")
    if as_json:
        show_json(answer)
    else:
        for check in answer["checks"]:
            say(f"{check['check']}: {'ok' if check['ok'] else check['detail']}")
    if status != 200:
        raise SystemExit(1)


@cli.command(epilog=example("gateway reload"))
@json_option
@config_option
def reload(as_json: bool) -> None:
    """Make the running service read its configuration again; if that is wrong, the old one stays."""
    found: dict[str, Any] = {"ok": True, "changes": [], "errors": [], "warnings": []}
    with connect(offline=False) as api:
        try:
            found |= api.post("reload")
        except BadConfig as error:
            if not as_json:
                raise BadConfig(f"{error.message}\nthe running service keeps its old settings") from None
            found |= {"ok": False, "errors": error.found}
    if as_json:
        show_json(found)
        raise SystemExit(0 if found["ok"] else BadConfig.exit_code)
    say("\n".join(found["changes"]) or "nothing has changed")
