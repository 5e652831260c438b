"""From a file, the environment and the command line to validated settings, or to a list of all that is wrong."""

from __future__ import annotations

import platform
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_origin

from pydantic import ValidationError

from gateway.config.checks import findings, warnings
from gateway.config.document import Document, Keys, Line, Place, dotted, find_place, hint, in_order, meant
from gateway.config.files import Files
from gateway.config.finding import Finding
from gateway.config.locate import SECTIONS, default_state_dir, find_file, is_missing, read
from gateway.config.models import BackendSettings, Settings
from gateway.config.section import Section, classes_in, flatten
from gateway.config.structure import find_misplaced
from gateway.config.values import parse_hostname, unlikely_path
from gateway.likeness import closest

_PATHS = re.compile(r"certificate|private_key|.*_file")
_EMPTY = "is empty, so its default is in force; take the line out, or indent what belongs to it further right"
_WORDS = {  # pydantic's error type, or what it begins with -> plain words
    "missing": "is missing",
    "string_pattern_mismatch": "does not have the right form ({pattern})",
    "too_short": "needs at least {min_length} entry",
    "greater_than_equal": "must be {ge} or more",
    "less_than_equal": "must be {le} or less",
    "value_error": "{error}",
    "int": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
    "string": "must be text",
    "path": "must be text",
    "tuple": "must be a list, such as [one, two]",
    "dict": 'must hold indented "key: value" lines',
    "model": 'must hold indented "key: value" lines',
}


@dataclass(frozen=True)
class Loaded:
    """Settings in effect, and for each dotted key where it comes from: default, file:line, variable, command line.

    ``places`` are those of everything that was given, by its keys.
    """

    settings: Settings
    origins: Mapping[str, str]
    path: Path | None
    warnings: tuple[str, ...]
    places: Mapping[Keys, Place]

    def lines(self, findings: Iterable[Finding]) -> list[str]:
        """``file:line:column: dotted.key: text`` in the order of the file; the place is that of what was given."""
        nowhere = Place(str(self.path or "settings"))
        return in_order((find_place(self.places, one.keys, nowhere), one.keys, one.text) for one in findings)


def load(
    path: Path | None,
    environ: Mapping[str, str],
    types: Mapping[str, type[BackendSettings]],
    overrides: Mapping[str, str] = {},
    spared: Collection[str] = (),
) -> Loaded:
    """Settings from file < environment < overrides (dotted key -> text). ``types`` are the known backend types.

    Files that settings of the sections ``spared`` name are not missed: for who needs nothing of what is in them.
    Raises ConfigError with every error found.
    """
    path = find_file(path, environ)
    document, notes = read(path, environ)
    empty = [Finding((key,), _EMPTY) for key in SECTIONS if key in document.data and document.data[key] is None]
    for key, text in overrides.items():
        document.put(tuple(key.split(".")), text, "command line")
    find_misplaced(document, SECTIONS)
    _fill(document.data, path, environ)
    names = _names(document.data)
    files = Files(document, path, environ, Path(str(document.data["state_dir"])), spared)
    _prepare(document, files, Settings, document.data, ())
    _backends(document, files, types)
    settings = _validate(document, path, environ)
    names = {kind: {*given, *_names(document.data)[kind]} for kind, given in names.items()}
    for keys, text in findings(settings, names):
        document.fail(keys, text)
    if error := document.error():
        raise error
    files.warn_of_open_file()
    http = settings.http.model_copy(update={"socket": settings.state_dir / settings.http.socket})
    settings = settings.model_copy(update={"http": http})
    origins = {dotted(keys): _origin(document, files, keys, settings) for keys, _ in flatten(settings)}
    if (
        origins["state_dir"] == "default"
        and str(settings.state_dir) == environ.get("STATE_DIRECTORY", "").split(":")[0]
    ):
        origins["state_dir"] = "environment STATE_DIRECTORY"
    if path and origins.get("backends.box.type") == "default":
        notes.append(
            Line(
                Place(str(path)), (), "no backends are given, so mail is only written to files and delivered to nobody"
            )
        )
    loaded = Loaded(settings, origins, path, (), MappingProxyType(document.places))
    doubts = loaded.lines([*empty, *(Finding(keys, text) for keys, text in warnings(settings))])
    return replace(loaded, warnings=(*notes, *files.warnings, *doubts))


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _names(data: dict[str, Any]) -> dict[str, set[str]]:
    """What may be referred to, also where it is wrong itself: one error is enough."""
    sections = {"backends": data["backends"], "clients": data["clients"], "keys": _mapping(data["auth"]).get("keys")}
    return {kind: set(_mapping(section)) for kind, section in sections.items()}


def _fill(data: dict[str, Any], path: Path | None, environ: Mapping[str, str]) -> None:
    """Defaults that depend on the machine or on each other: with no settings at all, everything works."""
    defaults: dict[str, Any] = {
        "hostname": _this_host(),
        "state_dir": default_state_dir(path, environ),
        "listeners": {"local": {"bind": "127.0.0.1:8025"}},
        "auth": {},
        "backends": {"box": {"type": "capture", "directory": "captured"}},
    }
    data.update({key: value for key, value in defaults.items() if is_missing(data, key)})
    if data.get("clients") is None:
        data["clients"] = {"localhost": {"networks": ["127.0.0.0/8", "::1/128"]}, "tokens": {"token": "*"}}
    auth, backends = _mapping(data["auth"]), _mapping(data["backends"])
    auth["keys"] = {} if auth.get("keys") is None else auth["keys"]
    _mapping(auth["keys"]).setdefault("own", {"algorithm": "EdDSA", "private_key_file": "token.key"})
    if data.get("routes") in (None, []):
        data["routes"] = [{"backend": name} for name in backends] if len(backends) == 1 else []


def _this_host() -> str:
    try:
        return parse_hostname(platform.node())  # never asks the DNS
    except ValueError:
        return "localhost"


def _unknown(key: str, keys: Keys, allowed: Iterable[str], known: Mapping[str, Any]) -> str:
    """What an unknown key may have been meant as."""
    if ":" in key:
        return 'unknown key; write "key: value", with a space behind the colon'
    above, _, last = key.rpartition(".")
    if above and not keys and key.split(".", maxsplit=1)[0] in allowed:
        return (
            f'unknown key; no dot leads into a section: write "{last}", indented, below "{above.replace(".", ": ")}:"'
        )
    if not closest(key, allowed):
        inner = {name: next(iter(classes_in(kind)), None) for name, kind in known.items()}
        homes = [name for name, kind in inner.items() if isinstance(kind, type) and issubclass(kind, Section)]
        secret = key.removesuffix("_file")
        found = [name for name in homes if {key, secret} & inner[name].file_keys().keys()]  # type: ignore[union-attr]
        if not keys and key in BackendSettings.file_keys():
            found = ["backends"]
        if found:
            return f'unknown key here; it belongs, indented, below "{found[0]}:"'
    return f"unknown key{hint(key, allowed)}"


def _tidy(document: Document, model: type[Section], data: dict[str, Any], keys: Keys) -> None:
    """Refuse unknown keys and what is hardly a path, drop empty ones."""
    known, secrets = model.file_keys(), model.secret_keys()
    allowed = {*known, *(f"{key}_file" for key in secrets)}
    for key in [key for key in data if key not in allowed]:
        document.fail((*keys, key), _unknown(key, keys, allowed, known))
        if (meant := (*keys, closest(key, allowed))) not in document.places:
            document.bad.add(meant)  # it is not missing as well
        del data[key]
    for key in [key for key, value in data.items() if value is None]:
        del data[key]
    for key, value in list(data.items()):
        of_path = Path in classes_in(known.get(key)) or key not in known
        if of_path and isinstance(value, str) and (why := unlikely_path(value)):
            document.fail((*keys, key), why)
            document.bad.add((*keys, key.removesuffix("_file")))
            del data[key]


def _prepare(document: Document, files: Files, model: type[Section], data: Any, keys: Keys) -> None:
    """Walk settings and their types together: refuse unknown keys, drop empty ones, read secrets, find files."""
    if not isinstance(data, dict):
        return
    _tidy(document, model, data, keys)
    known, secrets = model.file_keys(), model.secret_keys()
    for key, annotation in known.items():
        here, value, classes = (*keys, key), data.get(key), list(classes_in(annotation))
        section = next((inner for inner in classes if issubclass(inner, Section)), None)
        if key in secrets:
            files.secret(data, key, here, model.open_words)
        elif Path in classes and _PATHS.fullmatch(key):
            files.locate(data, key, here)
        elif section and get_origin(annotation) is dict:
            for name in _mapping(value):
                data[key][name] = {} if data[key][name] is None else data[key][name]
                _prepare(document, files, section, data[key][name], (*here, name))
        elif section and get_origin(annotation) is tuple:
            for index, part in enumerate(value if isinstance(value, list) else []):
                _prepare(document, files, section, part, (*here, index))
        elif section:
            _prepare(document, files, section, value, here)


def _backends(document: Document, files: Files, types: Mapping[str, type[BackendSettings]]) -> None:
    """Replace each backend's mapping by its validated settings."""
    backends = _mapping(document.data["backends"])
    for name, section in list(backends.items()):
        here: Keys = ("backends", name)
        kind = _mapping(section).get("type")
        if kind is None:
            document.fail((*here, "type"), f"is missing; allowed: {', '.join(sorted(types))}")
        elif not isinstance(kind, str) or kind not in types:
            document.fail((*here, "type"), f'there is no backend type "{kind}"{_type_hint(kind, types)}')
        else:
            _prepare(document, files, types[kind], section, here)
            try:
                backends[name] = types[kind].model_validate(section)
            except ValidationError as error:
                _note_types(document, error, here, types[kind].secret_keys())


def _type_hint(kind: object, types: Iterable[str]) -> str:
    near = meant(kind, types)
    return f', did you mean "{near}"?' if near else hint(kind, types)


def _validate(document: Document, path: Path | None, environ: Mapping[str, str]) -> Settings:
    """The settings, without the parts that are noted as wrong, so that the rest can be checked as well."""
    try:
        return Settings.model_validate(document.data)
    except ValidationError as error:
        for keys in _note_types(document, error, ()):
            part = keys[: {"routes": 1, "local_domains": 1, "auth": 3}.get(str(keys[0]), 2)]
            document.bad.add(part)
            holder = document.data
            for key in part[:-1]:
                holder = holder[str(key)]
            holder.pop(str(part[-1]), None)
        _fill(document.data, path, environ)
        return Settings.model_validate(document.data)


def _note_types(document: Document, error: ValidationError, above: Keys, secrets: Sequence[str] = ()) -> list[Keys]:
    """Pydantic's findings in plain words; returns where they are."""
    found = []
    for item in error.errors(include_url=False):
        keys: Keys = (*above, *(key for key in item["loc"] if key != "[key]"))
        kind, context = item["type"], item.get("ctx", {})
        if kind == "literal_error":
            options = re.findall(r"'([^']*)'", context["expected"])
            near = meant(item["input"], options)
            text = f"must be one of {', '.join(options)}" + (f', did you mean "{near}"?' if near else "")
        elif "[key]" in item["loc"] and kind != "value_error":
            text = "a name begins with a small letter and holds only small letters, digits and _, at most 40"
        elif kind == "missing" and keys[-1] in secrets:
            text = f"is missing, give it or {keys[-1]}_file"
        else:
            words = (words for begin, words in _WORDS.items() if kind == begin or kind.startswith(f"{begin}_"))
            text = next(words, "{said}").format(**context, said=item["msg"].replace("Input should", "must"))
        document.fail(keys, text)
        found.append(keys)
    return found


def _origin(document: Document, files: Files, keys: Keys, settings: Settings) -> str:
    """Of a secret in a file also the file's name."""
    if (place := document.places.get((*keys[:-1], f"{keys[-1]}_file"))) and keys in files.named:
        return f"{files.named[keys]}, from {place.origin()}"
    if place := document.places.get(keys):
        return place.origin()
    section = settings.backends.get(str(keys[1])) if keys[0] == "backends" and len(keys) == 3 else None
    return (section.filled_by(str(keys[2])) if section else "") or "default"
