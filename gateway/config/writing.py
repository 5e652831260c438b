"""Settings written: something put into a file whose comments and order stay, and the file replaced beside a backup.

What is put in is proved: the file is read again, and must say what it said before and the new thing, nothing else.
"""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from gateway.config.document import ConfigError
from gateway.files import sync_folder, write_whole

_PLAIN = re.compile(r"[A-Za-z0-9/][A-Za-z0-9_./+-]*")
_WORDS = {"off", "on", "yes", "no", "true", "false", "null", "y", "n"}
_WIDE = 100  # characters of a line that may stand in braces


class Inexact(ValueError):
    """It cannot be put in so that all else stays; the text says why."""


def scalar(value: Any) -> str:
    """As YAML that reads back as this text, number or truth."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if isinstance(value, int) or (_PLAIN.fullmatch(text) and text.lower() not in _WORDS):
        return text
    shown = json.dumps(text, ensure_ascii=False)
    return "".join(one if one.isprintable() else f"\\U{ord(one):08x}" for one in shown)


def flow(value: Any) -> str:
    """In one line."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{scalar(key)}: {flow(one)}' for key, one in value.items())}}}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(flow, value))}]"
    return scalar(value)


def block(key: str, value: Any, column: int = 0, *, deep: bool = False) -> list[str]:
    """Lines of an entry; a mapping that is ``deep``, or too long for one line, has a line for each of its own."""
    here = " " * column
    short = f"{here}{scalar(key)}: {flow(value)}"
    if not isinstance(value, Mapping) or not value or (not deep and len(short) <= _WIDE):
        return [short]
    return [f"{here}{scalar(key)}:", *(line for name, one in value.items() for line in block(name, one, column + 2))]


def with_entry(text: str, section: str, name: str, value: Any) -> str:
    """``name`` put into the mapping at the top-level key ``section``, which is made where it is missing.

    Raises Inexact, ConfigError.
    """
    before = _data(text)
    there = before.get(section)
    if isinstance(there, dict) and name in there:
        raise Inexact(f"{section}.{name} is there already")
    wanted = copy.deepcopy(before)
    wanted[section] = {**(there if isinstance(there, dict) else {}), name: _as_read(value)}
    key, node = _find(text, section)
    lines = block(name, value, 2, deep=section == "backends")
    if node is None:
        made = _appended(text, [f"{section}:", *lines])
    elif _is_empty(node):
        made = _instead(text, key, node, [f"{section}:", *lines])
    elif not isinstance(node, yaml.MappingNode):
        raise Inexact(f"{section} is not a mapping of names")
    elif node.flow_style:
        at = node.start_mark.index + 1
        made = f"{text[:at]}{scalar(name)}: {flow(value)}, {text[at:]}"
    else:
        column = node.value[0][0].start_mark.column
        made = _below(text, key.end_mark.line, block(name, value, column, deep=section == "backends"))
    return _proved(made, wanted)


def with_route(text: str, route: Mapping[str, Any]) -> str:
    """``route`` put in front of the one that takes all mail, or at the end where there is none. Raises as with_entry.

    So those for some of the mail stay in force.
    """
    before = _data(text)
    there = before.get("routes") or []
    if not isinstance(there, list):
        raise Inexact("routes is not a list")
    wanted, line = copy.deepcopy(before), flow(route)
    index = next((n for n, one in enumerate(there) if isinstance(one, dict) and set(one) <= {"backend"}), len(there))
    wanted["routes"] = [*there[:index], _as_read(route), *there[index:]]
    key, node = _find(text, "routes")
    if node is None:
        made = _appended(text, ["routes:", f"  - {line}"])
    elif _is_empty(node):
        made = _instead(text, key, node, ["routes:", f"  - {line}"])
    elif node.flow_style:
        at = node.value[index].start_mark.index if index < len(there) else node.value[-1].end_mark.index
        made = f"{text[:at]}{f'{line}, ' if index < len(there) else f', {line}'}{text[at:]}"
    else:
        column = node.start_mark.column
        last = node.value[index] if index < len(there) else None
        at = last.start_mark.line - 1 if last else _last_line(node.value[-1])
        made = _below(text, at, [f"{' ' * column}- {line}"])
    return _proved(made, wanted)


def with_value(text: str, key: str, value: Any) -> str:
    """A top-level key that is not there yet. Raises as with_entry."""
    before = _data(text)
    if before.get(key) is not None:
        raise Inexact(f"{key} is there already")
    found, node = _find(text, key)
    lines = block(key, value)
    made = _appended(text, lines) if node is None else _instead(text, found, node, lines)
    return _proved(made, {**before, key: _as_read(value)})


def data_of(text: str) -> dict[str, Any]:
    """All scalars as text. Raises ConfigError for what is no YAML, or no mapping."""
    return _data(text)


def read_text(path: Path) -> str:
    """Raises ConfigError where it cannot be read, or is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{path}: not UTF-8 text, save the file as UTF-8"]) from None


def replace_file(path: Path, text: str, now: datetime) -> Path | None:
    """The file whole or not at all, with the owner and mode of the old one; where that was kept, None without one.

    A new one may be read by all: it holds no secret. Raises OSError, and the old one is then untouched.
    """
    path = path.resolve()  # a link stays one
    try:
        old = path.stat()
    except FileNotFoundError:
        write_whole(path, text.encode(), replace=False, mode=0o644)
        return None
    backup = path.with_name(f"{path.name}.{now:%Y-%m-%dT%H%M%SZ}")
    with suppress(FileExistsError):  # of this very second
        _keep(path, backup, old)
    write_whole(path, text.encode(), mode=old.st_mode & 0o777, owner=(old.st_uid, old.st_gid))
    return backup


def _keep(path: Path, backup: Path, old: os.stat_result) -> None:
    """The old bytes themselves, with owner, mode and times; a copy where the system lets nobody link to a file that is
    another's (fs.protected_hardlinks, proc(5))."""
    try:
        os.link(path, backup)
        sync_folder(path.parent)
    except PermissionError:
        write_whole(backup, path.read_bytes(), replace=False, mode=old.st_mode & 0o777)


def _data(text: str) -> dict[str, Any]:
    try:
        found = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - makes text, lists and mappings only
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise ConfigError([f"this is no YAML{where}: gateway check-config says more"]) from None
    except RecursionError:
        raise ConfigError(["nested too deeply"]) from None
    if found in (None, ""):
        return {}
    if not isinstance(found, dict):
        raise ConfigError(["this holds no settings: gateway check-config says more"])
    return found


def _as_read(value: Any) -> Any:
    """As the loader of _data gives it."""
    return yaml.load(flow(value), Loader=yaml.BaseLoader)  # noqa: S506


def _find(text: str, key: str) -> tuple[Any, Any]:
    """The nodes of a top-level key and its value, None where it is not there. Raises Inexact."""
    root: Any = yaml.compose(text, Loader=yaml.BaseLoader)
    if root is None:
        return None, None
    if root.flow_style or not isinstance(root, yaml.MappingNode):
        raise Inexact("the whole file stands in braces, as JSON does")
    return next(((name, value) for name, value in root.value if name.value == key), (None, None))


def _is_empty(node: Any) -> bool:
    return not node.value


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _appended(text: str, lines: list[str]) -> str:
    end = _newline(text)
    head = text.rstrip()
    return (f"{head}{end}{end}" if head else "") + end.join(lines) + end


def _instead(text: str, key: Any, node: Any, lines: list[str]) -> str:
    """In the place of a key whose value is empty; a comment behind it stays."""
    end = _newline(text)
    note, _, below = text[node.end_mark.index :].partition("\n")
    head = lines[0] + (f"  {note.strip()}" if note.strip() else "")
    return f"{text[: key.start_mark.index]}{end.join([head, *lines[1:]])}{end}{below}"


def _below(text: str, line: int, lines: list[str]) -> str:
    """Behind this line, counted from 0."""
    end, there = _newline(text), text.splitlines(keepends=True)
    if 0 <= line < len(there) and not there[line].endswith("\n"):
        there[line] += end
    return "".join([*there[: line + 1], *(f"{one}{end}" for one in lines), *there[line + 1 :]])


def _last_line(node: Any) -> int:
    """Of what this node really holds: its own end mark may lie behind comments that follow."""
    while not isinstance(node, yaml.ScalarNode) and not node.flow_style and node.value:
        node = node.value[-1][1] if isinstance(node, yaml.MappingNode) else node.value[-1]
    mark = node.end_mark
    return int(mark.line if mark.column else mark.line - 1)


def _proved(made: str, wanted: Mapping[str, Any]) -> str:
    try:
        same = _data(made) == wanted
    except ConfigError:
        same = False
    if not same:
        raise Inexact("the file is written in a way that nothing can be put into without changing something else")
    return made
