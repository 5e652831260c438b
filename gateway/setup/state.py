"""What ``gateway setup microsoft`` has made so far: written after every step, so that it can go on, or undo it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from gateway.files import write_whole

NAME = "microsoft-setup.json"  # beside the settings


class Damaged(ValueError):
    """It is there and cannot be read."""


@dataclass(frozen=True, slots=True)
class State:
    """Ids as Microsoft gave them, "" not made yet; nothing of it is secret. ``assignments`` by mailbox, "" all."""

    display_name: str
    certificate: str
    tenant: str = ""
    object_id: str = ""
    client_id: str = ""
    key_id: str = ""
    principal_id: str = ""
    assignments: dict[str, str] = field(default_factory=dict)

    def granted(self, mailbox: str, assignment: str) -> State:
        return replace(self, assignments={**self.assignments, mailbox: assignment})


def read(path: Path) -> State | None:
    """None where nothing was begun. Raises Damaged, OSError."""
    try:
        found: Any = json.loads(path.read_bytes())
        known = {one.name for one in fields(State)}
        return State(**{key: value for key, value in found.items() if key in known})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, AttributeError):
        raise Damaged(f"{path} is damaged: move it away; what was made is named in Entra > App registrations") from None


def write(path: Path, state: State) -> None:
    """0600. Raises OSError."""
    write_whole(path, json.dumps(asdict(state), indent=1).encode() + b"\n")
