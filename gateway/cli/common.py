"""What every command needs: its configuration file, and the running service or else the spool."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.errors import BadConfig, Failed, TryAgain

if TYPE_CHECKING:
    from gateway.http.client import AdminClient


Command = Callable[..., Any]


def _set_config(context: click.Context, _parameter: click.Parameter, value: Path | None) -> None:
    if value is not None:
        context.find_root().obj = value


config_option = click.option(
    "--config", metavar="FILE", type=click.Path(path_type=Path, readable=False), callback=_set_config,
    expose_value=False, is_eager=True,
    help="Configuration file (default: $GATEWAY_CONFIG, then /etc/gateway/config.yaml).",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def example(*lines: str) -> str:
    """For a command's ``epilog``: what to type, as it is, below its options."""
    return "\b\n" + "\n".join(("Example:" if len(lines) == 1 else "Examples:", *(f"  {line}" for line in lines)))


def checked_by(module: str, parser: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """For an option's callback: what this parser of gateway.config refuses is wrong use, exit code 2."""

    def check(_context: click.Context, _parameter: click.Parameter, given: Any) -> Any:
        texts = given if isinstance(given, tuple) else () if given is None else (given,)
        try:
            for text in texts:
                getattr(import_module(f"gateway.config.{module}"), parser)(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
        return given

    return check


def named(section: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """For ``shell_complete``: the names in this section of the settings, read without the service and its judgement."""

    def complete(context: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
        from gateway.config import ConfigError, locate

        try:
            data = locate.read(locate.find_file(context.find_root().obj, os.environ), os.environ)[0].data
        except (ConfigError, OSError):
            return []  # who presses Tab asks for no explanation
        found = data.get(section)
        return sorted(name for name in found if name.startswith(typed)) if isinstance(found, dict) else []

    return complete


def said(_context: object, parameter: click.Parameter, given: str | None) -> str | None:
    """An empty value, as of a variable that is not set, never widens what a command is for."""
    if given is not None and not given.strip():
        raise click.BadParameter("is empty: leave it out, or say what to look for", param=parameter)
    return given


def takes_no_word(instead: Callable[[str], str]) -> Callable[[Command], Command]:
    """For a command that lists all: who gives it a word hears by ``instead`` what takes that."""

    def refuse(context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> None:
        if given and not context.resilient_parsing:
            text = f"{context.command_path} takes options only; {instead(shlex.quote(given[0]))}"
            raise click.UsageError(text, context)

    return click.argument("words", nargs=-1, metavar="", expose_value=False, callback=refuse)


def queue_id(given: str) -> str:
    """As it is spelled here, without what is copied along with it: the brackets of a Message-ID, a comma."""
    return given.strip().strip("<>,;:'\"").upper()


def one_id(_context: object, _parameter: object, given: str) -> str:
    """For an argument's callback."""
    found = queue_id(given)
    if not found:
        raise click.UsageError("give a queue id: gateway queue list shows them")
    if not found.isalnum() and found != "-":  # it would be another path; and no id has such a sign
        raise Failed(f"no message {found}; to look for anything else that you know: gateway trace {shlex.quote(given)}")
    return found


def chosen_file() -> Path | None:
    """What --config said."""
    file: Path | None = click.get_current_context().find_root().obj
    return file


class Api:
    """The admin interface. Errors end the command with the service's own words."""

    def __init__(self, client: AdminClient, *, running: bool) -> None:
        self.client = client
        self.running = running

    def get(self, path: str, **query: Any) -> Any:
        chosen = {name: value for name, value in query.items() if value}
        return _checked(*self.client.call("GET", f"/api/v1/{path}", query=chosen))

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return _checked(*self.client.call("POST", f"/api/v1/{path}", body=body or {}))

    def raw(self, queue_id: str) -> bytes:
        status, body = self.client.raw(f"/api/v1/messages/{queue_id}/raw")
        if status != 200:
            raise Failed(f"no content of {queue_id}: no such message, or it was removed after sending")
        return body


def _checked(status: int, value: Any) -> Any:
    if status < 400:
        return value
    if "errors" in value:
        raise BadConfig("\n".join(value["errors"]), value.get("findings", ()))
    raise (TryAgain if status == 503 else Failed)(value["detail"])


@contextmanager
def connect(path: Path | None = None, *, offline: bool = True) -> Iterator[Api]:
    """The running service by its admin socket (``path``: only this one). When none runs: its spool, opened here.

    Without ``offline`` the spool is left alone: a service that is just starting must find it free. What is wrong with
    the configuration is said only where no service answers, to whom it is meant for: a running one has its own.
    """
    from gateway.cli import whose
    from gateway.http.client import AdminClient, Lost, NotSent, SocketWay

    try:
        service = whose.Meant(sockets=(path,)) if path else whose.meant(chosen_file())
        if (found := service.listening()) is not None:
            yield Api(AdminClient(SocketWay(found)), running=True)
            return
        if service.foreign or not service.readable or service.deaf():
            raise service.absent(offline=offline)  # it runs with files and an environment that are not those from here
        from gateway.cli import local

        loaded = local.settings(chosen_file(), spared=("backends",))  # systemd keeps their secrets for a running one
        if not offline or not service.has_spool:
            raise service.absent(offline=offline)
        with local.spool(loaded, service) as client:
            yield Api(client, running=False)
    except (NotSent, Lost) as error:
        raise TryAgain(str(error)) from None
