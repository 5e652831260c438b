"""What ``gateway check-config`` found where the configuration can be used, for people and for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import click

from gateway.checks import Check
from gateway.cli.backend_words import checked
from gateway.cli.becoming import Becoming, becoming
from gateway.cli.checking import check_all
from gateway.cli.plain import say, show_json
from gateway.config.checks import reach
from gateway.config.loading import Loaded
from gateway.config.objects import objects
from gateway.model import BadAddress


@dataclass(frozen=True, slots=True)
class Judged:
    """``online`` are the answers of the backends, None where they were not asked, and ``whom`` who would get mail."""

    loaded: Loaded
    online: dict[str, Check] | None
    whom: tuple[Becoming, ...] | None = None

    def show(self, *, as_json: bool) -> None:
        """Exit code 1 if a backend says no."""
        note, backends = reach(self.loaded.settings), self.online or {}
        found: dict[str, Any] = {name: asdict(one) for name, one in backends.items()}
        if as_json:
            notes = [note] if note else []
            answer = {"ok": True, "file": self.loaded.path, "errors": [], "warnings": objects(self.loaded.warnings)}
            whom = {} if self.whom is None else {"whom": [asdict(one) for one in self.whom]}
            show_json({**answer, "notes": notes, **({} if self.online is None else {"backends": found}), **whom})
        else:
            lines = [f"warning: {warning}" for warning in self.loaded.warnings]
            lines += [f"note: {note}"] * bool(note)
            lines += [f"{self.loaded.path or 'built-in default'}: ok"]
            lines += [line for name in found for line in checked(name, found[name])]
            lines += [one.words() for one in self.whom or ()]
            say("\n".join(lines))
        if not all(one.ok for one in backends.values()):
            raise SystemExit(1)


def judged(loaded: Loaded, *, online: bool, whom: str | None = None) -> Judged:
    """Raises BadParameter for a ``whom`` that is no address."""
    names = tuple(loaded.settings.backends)
    try:
        found = None if whom is None else becoming(loaded.settings, whom)
    except BadAddress as error:
        raise click.BadParameter(f"{error.text}: {whom}", param_hint="--whom") from None
    return Judged(loaded, check_all(loaded.settings, names) if online else None, found)
