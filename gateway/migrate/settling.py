"""Settings that were found made good: what ours refuses is taken out, never what it restricts alone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from gateway.config.document import ConfigError, Line
from gateway.config.loading import load
from gateway.config.locate import SECTIONS
from gateway.config.models import BackendSettings
from gateway.migrate.found import BadSource, Found, Keys, Route, Value
from gateway.migrate.writing import render
from gateway.visible import visible

_ROUNDS = 20
_NAMED = {"listeners", "clients", "backends"}


def settle(found: Found, types: Mapping[str, type[BackendSettings]]) -> str:
    """The text of settings that can be used, but for files that are not there yet.

    A client, listener or backend that is refused is taken out whole: without a part it might let more through.
    """
    _complete(found)
    for _ in range(_ROUNDS):
        text = render(found)
        wrong = list(_wrong(text, types))
        if not wrong:
            named = {one for entry in found.entries.values() for one in _texts(entry.value)}
            found.secrets = {file: one for file, one in found.secrets.items() if file in named}
            return text
        for keys, why in wrong:
            _take_out(found, keys, why)
        _complete(found)
    raise BadSource("no settings could be made of this; please report it as a bug")


def _complete(found: Found) -> None:
    """Without a way out mail is written to files, loudly; without routes the first way out gets all."""
    if not [name for name in found.names("backends") if ("backends", name) not in found.off]:
        what = "no way out was found: mail is only written to files, and delivered to nobody"
        found.note("backends", None, what, "put your provider here: docs/backends.md")
        found.left.insert(0, "put your provider into backends: until then mail is written to files and reaches nobody")
        found.put("backends.box.type", "capture")
        found.put("backends.box.directory", "captured")
    names = found.names("backends")
    for index, route in reversed(list(enumerate(found.routes))):
        if not set(route.backends) <= set(names):
            del found.routes[index]
    by_client = "box" not in names and found.routes and any(_of_client(found, name) for name in names)
    if not by_client and all(route.senders or route.recipients for route in found.routes):
        found.routes.append(Route((names[0],)))


def _texts(value: Value) -> list[str]:
    return [str(one) for one in value.values()] if isinstance(value, Mapping) else [str(value)]


def _of_client(found: Found, backend: str) -> bool:
    return any(found.get(f"clients.{name}.backend") == backend for name in found.names("clients"))


def _wrong(text: str, types: Mapping[str, type[BackendSettings]]) -> Iterator[tuple[Keys, str]]:
    with tempfile.TemporaryDirectory(prefix="gateway-migrate-") as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(text)
        try:
            load(file, {}, types, spared=SECTIONS)
        except ConfigError as error:
            for line in error.lines:
                if not isinstance(line, Line) or not line.key:
                    raise BadSource(f"no settings could be made of this: {line}") from None
                yield tuple(line.key.split(".")), line.text


def _take_out(found: Found, keys: Keys, why: str) -> None:
    if keys[0] == "routes":
        index = int(keys[1]) if len(keys) > 1 else len(found.routes) - 1
        where, label = found.routes.pop(index).where, "a route"
    else:
        if keys[0] == "aliases":
            keys = ("aliases", ".".join(keys[1:]))  # an address has dots of its own
            keys = keys if keys in found.entries else keys[:1]
        part = keys[:2] if keys[0] in _NAMED or keys[:1] not in found.entries else keys[:1]
        places = [entry.where for key, entry in found.entries.items() if key[: len(part)] == part]
        where, label = next(filter(None, places), None), ".".join(part)
        found.drop(part)
    if not where and keys[0] in _NAMED:
        return  # has gone already
    text = f"{label} was left out: {visible(why)}"
    found.note(keys[0] if keys[0] in _NAMED else "", where, text, "correct it there, or write it here yourself")
    found.todo(f"{where.whole}: {text}" if where else text)
