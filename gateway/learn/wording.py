"""A proposal as YAML with comments, ready to paste. What strangers said stands there as one printable line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gateway.learn.proposal import Proposal, Proposed
from gateway.visible import visible

_WIDE = 110  # columns of a list that stays on one line


def section(found: Proposal, written: bool) -> str:
    """``written``: the file has a section already, to which these are added."""
    return "\n".join(_section(found, written)) + "\n"


def _section(found: Proposal, written: bool) -> Iterator[str]:
    if written and found.clients:
        yield "# Your file has a clients: section: put what stands below this one's first line beneath yours."
    if not found.clients:
        yield "# There is nobody to let in that is not let in already."
    yield "clients:" if found.clients or found.kept else "# clients:"
    for name, kept in found.kept.items():
        value = {"networks": [str(one) for one in kept.networks]} if kept.networks else {"token": kept.token}
        yield f"  {name}: {_flow(value)}  # as without this section"
    for one in found.clients:
        yield from _client(one, "  ")
    for why, doubtful in found.doubtful:
        yield ""
        yield f"  # NOT let in, for it {visible(why)}. If you know it, take the # away:"
        yield from _client(doubtful, "  # ")
    for title, lines in (
        ("Clients that you have", found.changes),
        ("Listeners", found.hints),
        ("Gets through as it is", found.served),
        ("Not let in, for it sent nothing that could be", found.others),
        ("Could not be seen", found.unseen),
    ):
        yield from _remarks(title, lines)


def _client(one: Proposed, indent: str) -> Iterator[str]:
    lead = indent if "#" in indent else f"{indent}# "
    yield ""
    yield f"{lead}{', '.join(one.peers[:6])}{f' and {len(one.peers) - 6} more' if len(one.peers) > 6 else ''}"
    for line in one.about:
        yield f"{lead}{visible(line)}"
    for line in one.open:
        yield f"{lead}OPEN: {visible(line)}"
    yield f"{indent}{one.name}:"
    for name, value in fields(one).items():
        yield from _setting(f"{indent}  ", name, value)
    if "#" not in indent and any(line.startswith("logs in as") for line in one.about):
        yield f"{indent}  # It is let in by its address. For a login instead: user: and password_hash: (see Listeners)."


def fields(one: Proposed) -> dict[str, Any]:
    """The settings of such a client, as they stand in the file."""
    given = {
        "networks": list(one.networks), "senders": one.senders, "recipients": one.recipients,
        "default_domain": one.default_domain, "rate": one.rate, "max_size": one.max_size,
    }  # fmt: skip
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in given.items()
        if value is not None and value != ""
    }


def _setting(indent: str, name: str, value: Any) -> Iterator[str]:
    line = f"{indent}{name}: {_flow(value)}"
    if not isinstance(value, list) or len(line) <= _WIDE:
        yield line
        return
    yield f"{indent}{name}:"
    for each in value:
        yield f"{indent}  - {_flow(each)}"


def _flow(value: Any) -> str:
    """JSON is YAML; with a space behind each colon it is so for mappings, too."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return json.dumps(value)


def _remarks(title: str, lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        if not number:
            yield ""
            yield f"# {title}:"
        yield f"#   {visible(line)}"
