"""The text of settings, of answers: a new file, or an old one with something put in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.config.writing import Inexact, block, data_of, flow, with_entry, with_route, with_value

Entries = Mapping[str, Mapping[str, Any]]
LOCALHOST = {"networks": ["127.0.0.0/8", "::1/128"]}
TOKENS = {"token": "*"}
LOCAL = {"bind": "127.0.0.1:8025"}  # the listener that there is without any settings
_ABOUT = {
    "listeners": "Where mail comes in.",
    "clients": "Who may send. Nobody else may.",
    "backends": "Ways out.",
    "routes": "Which mail goes by which; the first that fits.",
    "bounces": "The sender of reports that mail failed.",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to stand in the settings. ``senders`` limits the route to them; () is all mail.

    ``state_dir`` is only for a new file, "" where its place says enough.
    """

    name: str
    backend: Mapping[str, Any]
    sender: str
    listeners: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    clients: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    senders: tuple[str, ...] = ()
    state_dir: str = ""

    @property
    def route(self) -> dict[str, Any]:
        return {**({"senders": list(self.senders)} if self.senders else {}), "backend": self.name}


_MORE: tuple[tuple[str, Callable[[Wanted], Entries], Entries], ...] = (
    ("listeners", lambda wanted: wanted.listeners, {"local": LOCAL}),
    ("clients", lambda wanted: wanted.clients, {"localhost": LOCALHOST, "tokens": TOKENS}),
)


def new(wanted: Wanted) -> str:
    """A whole file."""
    lines = ["# Made by: gateway setup. Every setting is explained in config.example.yaml and docs/settings.md.",
             "# After a change: gateway check-config, then gateway reload", ""]  # fmt: skip
    lines += [block("state_dir", wanted.state_dir)[0], ""] if wanted.state_dir else []
    sections: dict[str, Any] = {
        "listeners": wanted.listeners or {"local": LOCAL},
        "clients": {"localhost": LOCALHOST, "tokens": TOKENS, **wanted.clients},
        "backends": {wanted.name: wanted.backend},
    }
    for section, entries in sections.items():
        lines += [f"# {_ABOUT[section]}", f"{section}:"]
        lines += [line for name, one in entries.items() for line in block(name, one, 2, deep=section == "backends")]
        lines.append("")
    lines += [f"# {_ABOUT['routes']}", "routes:"]
    lines += [f"  - {flow(wanted.route)}"]
    lines += ["", f"# {_ABOUT['bounces']}", f"bounces: {flow({'from': wanted.sender})}", ""] if wanted.sender else [""]
    return "\n".join(lines)


def added(text: str, wanted: Wanted) -> str:
    """``text`` with it put in; what stands there stays as it is. Raises Inexact, ConfigError."""
    made = with_entry(text, "backends", wanted.name, wanted.backend)
    made = with_route(made, wanted.route)
    there = data_of(made)
    for section, asked, usual in _MORE:
        entries = dict(asked(wanted))
        if entries and not there.get(section):  # with the section what is there without it would be gone
            entries = {**usual, **entries}
        for name in reversed(entries):
            made = with_entry(made, section, name, entries[name])
    bounces = there.get("bounces")
    if wanted.sender and not bounces:
        made = with_value(made, "bounces", {"from": wanted.sender})
    elif wanted.sender and isinstance(bounces, dict) and "from" not in bounces:
        made = with_entry(made, "bounces", "from", wanted.sender)
    return made


def whole(text: str, wanted: Wanted) -> str:
    """``text`` written anew with it put in: the same settings, without comments. Raises Inexact."""
    data = data_of(text)
    plain = added("\n".join(line for key, one in data.items() for line in block(key, one, deep=True)) + "\n", wanted)
    if data_of(plain).keys() < data.keys():
        raise Inexact("nothing can be put into this file")
    return plain


def taken(text: str, section: str) -> tuple[str, ...]:
    """The names there."""
    found = data_of(text).get(section) if text else None
    return tuple(found) if isinstance(found, dict) else ()


def free_name(base: str, names: tuple[str, ...]) -> str:
    """``base``, or with the first number behind it that is free."""
    name, number = base, 2
    while name in names:
        name, number = f"{base}_{number}", number + 1
    return name
