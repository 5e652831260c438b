"""Groups of commands whose files are loaded when they are needed, so that none pays for the others."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

# What is looked for at the top and stands further down.
_BELOW = {
    **dict.fromkeys(["list", "ls", "summary", "show", "cat", "retry", "resend", "reroute"], "gateway queue {}"),
    **dict.fromkeys(["hold", "release", "delete", "bounce"], "gateway queue {}"),
    **dict.fromkeys(["check", "pause", "resume", "fix"], "gateway backend {}"),
    **dict.fromkeys(["mint", "revoke", "inspect"], "gateway token {}"),
    **dict.fromkeys(["start", "stop", "restart"], "systemctl {} gateway"),
    "test": "gateway send-test",
    "search": "gateway trace",
    "help": "gateway --help",
    "login": "gateway ui-login",
    "log": "journalctl -u gateway",
    "logs": "journalctl -u gateway",
}


class LazyGroup(click.Group):
    """``lazy`` says where else commands are, by name: ``package.module:attribute``."""

    def __init__(self, *given: Any, lazy: Mapping[str, str], **more: Any) -> None:
        super().__init__(*given, **more)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *self._lazy])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and name[:1].isalnum():
            from gateway.likeness import closest

            close = [one] if (one := closest(name, self.list_commands(ctx))) else []
            below = [_BELOW[name].format(name.replace("ls", "list"))] if self.name == "cli" and name in _BELOW else []
            ctx.fail(f"No such command '{name}'." + "".join(f" Did you mean '{one}'?" for one in below or close))
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self._lazy[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command
