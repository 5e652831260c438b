"""The configuration as written: text by dotted key, merged from file, environment and command line, with its places.

Every scalar stays the text that was written and the setting's type decides what it means. So YAML 1.1's surprises
(``off`` and ``no`` as false, 0123 as 83, 12:30 as 750) cannot happen, and a password may look like a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from gateway.config.syntax import explain, no_mapping, unseen
from gateway.likeness import closest

Keys = tuple[str | int, ...]
PREFIX = "GATEWAY_"
_MAX_FILE = 1_000_000
_MAX_NODES = 100_000  # aliases multiply: a file of 1 kB can describe a billion values
_YAML = "tag:yaml.org,2002:"


class ConfigError(Exception):
    """The configuration cannot be used. ``lines`` says everything that is wrong, each with its place; no secrets."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = list(lines)
        super().__init__("\n".join(self.lines))


class Place(NamedTuple):
    """Where a value was given: a file with line and column from 1, a variable, or the command line."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return ":".join([self.source, *(str(number) for number in (self.line, self.column) if number and self.line)])

    def origin(self) -> str:
        return f"{Path(self.source).name}:{self.line}" if self.line else self.source


def dotted(keys: Keys) -> str:
    return ".".join(map(str, keys))


def find_place(places: Mapping[Keys, Place], keys: Keys, otherwise: Place) -> Place:
    """The place of a value, or of what surrounds it when it is not given."""
    from_file = [(*keys[:-1], f"{key}_file") for key in keys[-1:]]
    holders: list[Keys] = [keys, *from_file, *(keys[:n] for n in range(len(keys) - 1, 0, -1))]
    return next((places[one] for one in holders if one in places), otherwise)


class Line(str):
    """A line for the operator, ``file:line:column: dotted.key: text``, and its parts for programs."""

    place: Place
    key: str
    text: str

    def __new__(cls, place: Place, keys: Keys, text: str) -> Line:
        key = dotted(keys)
        made = super().__new__(cls, f"{place}: {key}: {text}" if key else f"{place}: {text}")
        made.place, made.key, made.text = place, key, text
        return made


def in_order(found: Iterable[tuple[Place, Keys, str]]) -> list[str]:
    """Lines in the order of the file, then those of the environment and the command line."""
    ordered = sorted(found, key=lambda one: (not one[0].line, one[0]))
    return [Line(place, keys, text) for place, keys, text in ordered]


def _section_of(word: str, sections: Iterable[str]) -> str:
    """The section in ``log_level``; "" for what Kubernetes sets for a service "gateway-log" (GATEWAY_LOG_PORT ...)."""
    if re.search(r"_(service_(host|port).*|port(_\d.*)?)$", word):
        return ""
    return next((name for name in sections if word.startswith(f"{name}_")), "")


_OTHER_WORDS = {  # what people write -> what it may be here
    "no": "off none", "false": "off none", "disabled": "off none", "never": "off none", "off": "none", "none": "off",
    "yes": "required", "true": "required", "on": "required", "mandatory": "required",
    "ssl": "implicit", "smtps": "implicit",
    "tls": "starttls", "warn": "warning", "verbose": "debug", "err": "error", "text": "console", "plain": "console",
    "google": "gmail", "gsuite": "gmail", "workspace": "gmail", "microsoft": "graph", "microsoft365": "graph",
    "office365": "graph", "o365": "graph", "m365": "graph", "exchange": "graph", "outlook": "graph", "azure": "graph",
    "smarthost": "smtp", "relay": "smtp", "postfix": "smtp", "ses": "smtp", "sendgrid": "smtp", "mailgun": "smtp",
    "file": "capture", "dummy": "capture",
}  # fmt: skip


def meant(word: object, options: Iterable[str]) -> str:
    """The option that may have been meant, also by another word for it or with capitals; or ""."""
    known, given = {one.lower(): one for one in options}, str(word).lower()
    other = (one for one in _OTHER_WORDS.get(given, "").split() if one in known)
    return known.get(given) or next(other, known.get(closest(given, known), ""))


def hint(word: object, options: Iterable[str]) -> str:
    """`, did you mean "x"?`, or else all that is allowed."""
    known = sorted(options)
    near = closest(word, known)
    return f', did you mean "{near}"?' if near else f"; allowed: {', '.join(known) or 'none'}"


class Document:
    """``data`` as merged so far and ``places`` of its keys and list items; ``fail`` collects what is wrong."""

    def __init__(self, name: str) -> None:
        self.data: dict[str, Any] = {}
        self.places: dict[Keys, Place] = {}
        self.bad: set[Keys] = set()
        self._name = name
        self._errors: list[tuple[Place, Keys, str]] = []
        self._nodes = 0

    def fail(self, keys: Keys, text: str) -> None:
        """Note an error at ``keys``, unless it only follows from an earlier one there or above."""
        if not any(keys[:length] in self.bad for length in range(len(keys) + 1)):
            self.bad.add(keys)
            self._errors.append((self.place(keys), keys, text))

    def place(self, keys: Keys) -> Place:
        return find_place(self.places, keys, Place(self._name))

    def error(self) -> ConfigError | None:
        """All errors, each with its place; None without any."""
        return ConfigError(in_order(self._errors)) if self._errors else None

    def read_file(self, path: Path) -> None:
        """Raises ConfigError when there is no way to read on: unreadable, too large, not UTF-8, no YAML."""
        text = _read(path, self._name)
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            self.data = {} if node is None else self._build(node, (), None)
        except yaml.MarkedYAMLError as error:
            raise ConfigError([Line(self._at(error.problem_mark), (), explain(error, text))]) from None
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            raise ConfigError([Line(Place(self._name, line), (), "holds a control character")]) from None
        except RecursionError:
            raise ConfigError([f"{self._name}: nested too deeply"]) from None
        if not isinstance(self.data, dict):
            line, why = no_mapping(text)
            raise ConfigError([Line(Place(self._name, line, 1), (), why)])

    def read_environment(self, environ: Mapping[str, str], names: Iterable[str]) -> list[str]:
        """Take over ``GATEWAY_A__B__C``; returns warnings about what looks like a setting and is none.

        A name without ``__`` counts only if it is known: others use the prefix too (Kubernetes: GATEWAY_PORT).
        """
        warnings: list[str] = []
        given = {k: k[len(PREFIX) :].lower().split("__") for k in environ if k.startswith(PREFIX)}
        for variable, keys in sorted(given.items(), key=lambda item: (len(item[1]), item[0])):
            if len(keys) > 1 or keys[0] in names:
                self.put(tuple(keys), environ[variable], f"environment {variable}")
            elif section := _section_of(keys[0], names):
                parts = f"{PREFIX}{section.upper()}__{keys[0][len(section) + 1 :].upper()}"
                text = f"ignored, two _ stand between the parts of a key: {parts}"
                warnings.append(Line(Place(f"environment {variable}"), (), text))
            elif near := closest(keys[0], names):
                text = f'ignored, did you mean "{PREFIX}{near.upper()}"?'
                warnings.append(Line(Place(f"environment {variable}"), (), text))
        return warnings

    def put(self, keys: Keys, text: str, source: str) -> None:
        """Set one value over what was there: YAML flow style if it begins with ``[ { " '``, else text as it is."""
        here: Any = self.data
        for depth, key in enumerate(keys[:-1], 1):
            self.places.setdefault(keys[:depth], Place(source))
            if here.get(key) is None:
                here[key] = {}
            here = here[key]
            if not isinstance(here, dict):
                self.places[keys] = Place(source)
                self.fail(keys, f"{dotted(keys[:depth])} has no named parts, set the whole of it")
                return
        last = str(keys[-1])
        for other in (f"{last}_file", last.removesuffix("_file")):
            if other != last and self.place((*keys[:-1], other)).line:
                here.pop(other, None)  # a secret given here replaces the one in the file, in whichever form
        for old in [known for known in self.places if known[: len(keys)] == keys]:
            del self.places[old]
        here[last] = self._parse(text, keys, Place(source))
        self.places[keys] = Place(source)

    def _parse(self, text: str, keys: Keys, at: Place) -> Any:
        if text[:1] and text[0] in "[{'\"":
            try:
                node = yaml.compose(text, Loader=yaml.SafeLoader)
                return self._build(node, keys, at) if node else text
            except (yaml.YAMLError, RecursionError):
                return text
        return None if text in {"", "~", "null"} else self._text(text, keys)

    def _at(self, mark: Any) -> Place:
        return Place(self._name, mark.line + 1, mark.column + 1)

    def _build(self, node: yaml.Node, keys: Keys, at: Place | None) -> Any:
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise ConfigError([f"{self._name}: more than {_MAX_NODES} values"])
        self.places[keys] = at or self._at(node.start_mark)
        if not node.tag.startswith(_YAML):
            self.fail(keys, "a value that begins with ! must be quoted")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, keys, at)
        if isinstance(node, yaml.SequenceNode):
            return [self._build(item, (*keys, index), at) for index, item in enumerate(node.value)]
        return None if node.tag == f"{_YAML}null" else self._text(node.value, keys)

    def _text(self, value: str, keys: Keys) -> str:
        """What no file, line or database can hold is refused where it is given, and left out."""
        if "\0" in value:
            self.fail(keys, "holds a NUL character")
        try:
            whole = value.encode("utf-16", "surrogatepass").decode("utf-16")  # JSON writes one character as two escapes
        except UnicodeDecodeError:
            self.fail(keys, "holds half a surrogate pair, or bytes that are not UTF-8")
            whole = value.encode("utf-8", "replace").decode()
        if why := unseen(whole):
            self.fail(keys, why)
        return whole.replace("\0", "")

    def _mapping(self, node: yaml.MappingNode, keys: Keys, at: Place | None) -> dict[str, Any]:
        result: dict[str, Any] = {}
        own: dict[str, Place] = {}
        for key, value in sorted(node.value, key=lambda pair: pair[0].tag != f"{_YAML}merge"):
            place, here = at or self._at(key.start_mark), (*keys, str(key.value))
            if key.tag == f"{_YAML}merge":  # "<<: *other" is a default for what is written here
                whole = self.places[keys]
                for source in reversed(value.value if isinstance(value, yaml.SequenceNode) else [value]):
                    result |= self._build(source, keys, at) if isinstance(source, yaml.MappingNode) else {}
                self.places[keys] = whole
            elif not isinstance(key, yaml.ScalarNode):
                self.places[(*keys, "?")] = place
                self.fail((*keys, "?"), "a key must be plain text")
            elif key.value in own:
                self.places[here] = place
                self.fail(here, f"given twice{f', first in line {line}' if (line := own[key.value].line) else ''}")
            else:
                self.places[here] = place
                name = self._text(key.value, here)
                result[name] = self._build(value, here, at)
                own[key.value] = self.places[here] = place
        return result


def _read(path: Path, name: str) -> str:
    raw = b""
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_FILE + 1)
        if len(raw) > _MAX_FILE:
            raise ConfigError([f"{name}: larger than 1 MB, this cannot be a configuration"])
        return raw.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError([Line(Place(name), (), f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        line, column = raw.count(b"\n", 0, error.start) + 1, error.start - raw.rfind(b"\n", 0, error.start)
        raise ConfigError([Line(Place(name, line, column), (), "not UTF-8 text, save the file as UTF-8")]) from None
