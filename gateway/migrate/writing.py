"""A found configuration as the text of a settings file: each line with where it came from, each gap with advice."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from gateway.migrate.found import Entry, Found, Keys, Note, Route, Scalar, Value, Where
from gateway.visible import visible

_PLAIN = re.compile(r"[A-Za-z0-9/][A-Za-z0-9_./+-]*")
_WORDS = {"off", "on", "yes", "no", "true", "false", "null", "y", "n"}
_TOP = ("listeners", "clients", "backends", "routes")
_WIDTH = 60


def render(found: Found) -> str:
    """Valid YAML, whatever stood in their files. No secrets."""
    lines = [
        f"# Made by: gateway migrate-from, from the settings of {found.product}. Behind each # stands where a line"
    ]
    lines += ["# came from. Read it, then: gateway check-config, and gateway backend check NAME", ""]
    lines += [_line(0, keys[0], entry) for keys, entry in found.entries.items() if len(keys) == 1]
    for section in (*_TOP, *sorted({keys[0] for keys in found.entries if len(keys) > 1} - set(_TOP))):
        lines += ["", *_notes(found.notes.get(section, ()))]
        lines += list(_routes(found) if section == "routes" else _section(found, section))
    lines += ["", *_notes(found.notes.get("", ()))]
    if found.unread:
        lines += ["# Not looked at, for it has no meaning here:", *_wrapped(", ".join(sorted(set(found.unread))))]
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
    return f"{text}\n"


def remaining(found: Found) -> list[str]:
    """What is left to do, for people; no secrets."""
    missing = [
        f"{one.file}: put it beside the settings, with {one.what}" for one in found.secrets.values() if one.text is None
    ]
    switched = [f"{'.'.join(keys)} is switched off: {why}" for keys, why in found.off.items()]
    return [visible(text, None) for text in (*switched, *missing, *found.left)]


def _section(found: Found, section: str) -> Iterator[str]:
    inner = {keys: entry for keys, entry in found.entries.items() if keys[0] == section and len(keys) > 1}
    if not inner:
        if section == "clients":
            yield "clients: {}  # nobody may send yet"
        return
    live = {keys[:2] for keys in inner} - set(found.off)
    yield f"{section}:" if live else f"{section}: {{}}"
    before: Keys = ()
    for keys, entry in sorted(inner.items(), key=lambda one: _place(found, one[0])):
        mark = "#" if keys[:2] in found.off else ""
        if keys[:2] != before and len(keys) > 2:
            before = keys[:2]
            if mark:
                yield f"  # {visible(found.off[before], None)}. To switch it on, take the # before each line away"
            yield f"  {mark}{keys[1]}:"
        yield _line(len(keys) - 1, keys[-1], entry, mark)


def _place(found: Found, keys: Keys) -> int:
    """Sections in the order in which they were found, each in one piece."""
    return [*dict.fromkeys(one[:2] for one in found.entries)].index(keys[:2])


def _routes(found: Found) -> Iterator[str]:
    if not found.routes:
        return
    yield "routes:"
    for route in found.routes:
        yield _with_source(f"  - {_route(route)}", route.where, "")


def _route(route: Route) -> str:
    parts = {"senders": route.senders, "recipients": route.recipients}
    given: dict[str, Value] = {key: value for key, value in parts.items() if value}
    given["backend"] = route.backends[0] if len(route.backends) == 1 else route.backends
    return f"{{{', '.join(f'{key}: {_value(value)}' for key, value in given.items())}}}"


def _line(depth: int, key: str, entry: Entry, mark: str = "") -> str:
    return _with_source(f"{'  ' * depth}{mark}{_scalar(key)}: {_value(entry.value)}", entry.where, entry.remark)


def _with_source(text: str, where: Where | None, remark: str) -> str:
    said = "; ".join(part for part in (where.whole if where else "", remark) if part)
    return f"{text.ljust(_WIDTH)}  # {visible(said, None)}" if said else text


def _notes(notes: list[Note] | tuple[()]) -> Iterator[str]:
    for note in notes:
        yield from _wrapped(f"{note.where.whole}: {note.what}" if note.where else note.what)
        yield from _wrapped(f"-> {note.instead}", "  ")


def _wrapped(text: str, indent: str = "") -> Iterator[str]:
    line = ""
    for word in visible(text, None).split(" "):
        if line and len(line) + len(word) > 110:
            yield f"# {indent}{line}"
            line = ""
        line = f"{line} {word}".strip()
    yield f"# {indent}{line}"


def _value(value: Value) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_scalar(one)}' for key, one in value.items())}}}"
    if isinstance(value, tuple):
        return f"[{', '.join(_scalar(one, quoted=True) for one in value)}]"
    return _scalar(value)


def _scalar(value: Scalar, *, quoted: bool = False) -> str:
    """Double quotes as in JSON; what YAML does not print as it is becomes an escape that it knows."""
    text = str(value)
    if isinstance(value, int) or (not quoted and _PLAIN.fullmatch(text) and text.lower() not in _WORDS):
        return text
    shown = json.dumps(text, ensure_ascii=False)
    return "".join(one if one.isprintable() else f"\\U{ord(one):08x}" for one in shown)
