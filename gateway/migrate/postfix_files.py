"""How Postfix writes its files: main.cf, master.cf and lookup tables (postconf(5), master(5), DATABASE_README)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.migrate.found import Where, words
from gateway.migrate.sources import Source

_NAME = re.compile(r"\$(?:([A-Za-z0-9_]+)|\{([^{}$]*)\}|\(([^()$]*)\))")
_DEEPEST = 20
_INDEXED = {"hash", "btree", "lmdb", "cdb", "dbm", "sdbm", "texthash", "cidr"}


def logical_lines(source: Source) -> Iterator[tuple[int, str]]:
    """Lines with what continues them; comments and empty lines belong to none."""
    number, held = 0, ""
    for at, line in enumerate(source.lines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0].isspace() and held:
            held = f"{held}\n{line.strip()}"
            continue
        if held:
            yield number, held
        number, held = at, line.strip()
    if held:
        yield number, held


@dataclass(slots=True)
class Parameters:
    """The parameters of main.cf, over them those of one service in master.cf."""

    given: dict[str, tuple[str, Where]]
    nowhere: Where
    over: dict[str, tuple[str, Where]] = field(default_factory=dict)

    def where(self, name: str) -> Where:
        found = self.over.get(name) or self.given.get(name)
        return found[1] if found else Where(self.nowhere.file, 0, f"{name} (default)")

    def has(self, name: str) -> bool:
        return name in self.over or name in self.given

    def text(self, name: str, default: str = "") -> str:
        """With all $names filled in."""
        found = self.over.get(name) or self.given.get(name)
        return self._fill(found[0] if found else default, self.where(name), 0)

    def list(self, name: str, default: str = "") -> list[str]:
        return words(self.text(name, default))

    def yes(self, name: str) -> bool:
        return self.text(name).lower() == "yes"

    def _fill(self, text: str, where: Where, depth: int) -> str:
        if depth > _DEEPEST or len(text) > 100_000:
            raise where.bad("the value refers to itself")

        def one(match: re.Match[str]) -> str:
            name = match[1] or match[2] or match[3] or ""
            name, mark, rest = next(
                ((a, m, r) for m in "?:" for a, found, r in [name.partition(m)] if found), (name, "", "")
            )
            value = self._value(name, where, depth)
            if not mark:
                return value
            return rest.strip() if bool(value) == (mark == "?") else ""

        return _NAME.sub(one, text.replace("$$", "\0")).replace("\0", "$").strip()

    def _value(self, name: str, where: Where, depth: int) -> str:
        found = self.over.get(name) or self.given.get(name)
        if found:
            return self._fill(found[0], where, depth + 1)
        if name == "mydomain":  # its default is myhostname without the first part
            return self._value("myhostname", where, depth + 1).partition(".")[2] if depth < _DEEPEST else ""
        return ""


def main_cf(source: Source) -> Parameters:
    """Raises BadSource."""
    given: dict[str, tuple[str, Where]] = {}
    for number, line in logical_lines(source):
        name, equals, value = line.partition("=")
        where = Where(source.name, number, name.strip())
        if not equals:
            raise Where(source.name, number).bad("not a setting: a line of main.cf is name = value")
        given[where.said] = (value.strip(), where)
    return Parameters(given, Where(source.name))


@dataclass(frozen=True, slots=True)
class Service:
    """A service of master.cf that listens."""

    name: str
    over: dict[str, tuple[str, Where]]
    where: Where


def master_cf(source: Source) -> list[Service]:
    """Those that take SMTP from the network. Raises BadSource."""
    found = []
    for number, line in logical_lines(source):
        parts = re.findall(r"\{[^}]*\}|\S+", line)
        if len(parts) < 8:
            raise Where(source.name, number).bad("a line of master.cf has eight columns or more")
        if parts[1] != "inet" or parts[7] not in ("smtpd", "postscreen"):
            continue
        where, over, rest = Where(source.name, number, parts[0]), {}, parts[8:]
        for index, part in enumerate(rest):
            text = rest[index + 1] if part == "-o" and index + 1 < len(rest) else part[2:] * part.startswith("-o")
            name, equals, value = text.strip("{} ").partition("=")
            if equals:
                over[name.strip()] = (value.strip(), Where(source.name, number, name.strip()))
        found.append(Service(parts[0], over, where))
    return found


@dataclass(frozen=True, slots=True)
class Table:
    """``rows`` are key, value and place; None where it cannot be read from here."""

    spec: str
    rows: list[tuple[str, str, Where]] | None
    patterns: bool = False


def table(spec: str, source: Source, where: Where) -> Table:
    """One table of a parameter, such as hash:/etc/postfix/transport."""
    kind, _, name = spec.removeprefix("proxy:").partition(":")
    if kind == "static":
        return Table("static:", [("*", name, where)])
    if kind == "inline":
        pairs = (pair.partition("=") for pair in re.split(r",|\}\s*\{", name.strip("{} ")))
        return Table("inline:", [(key.strip(" {"), value.strip(" }"), where) for key, eq, value in pairs if eq])
    patterns = kind in ("regexp", "pcre")
    if (kind not in _INDEXED and not patterns) or (text := source.beside(name)) is None:
        return Table(f"{kind}:{name}" if name else spec, None, patterns)
    rows = []
    for number, line in logical_lines(text):
        key, _, value = line.partition(" ") if " " in line and "\t" not in line.split(" ")[0] else line.partition("\t")
        rows.append((key.strip(), " ".join(value.split()), Where(text.name, number)))
    return Table(f"{kind}:{name}", rows, patterns)


def tables(parameters: Parameters, name: str, source: Source) -> Iterator[Table]:
    text = parameters.text(name)
    for spec in [text] if text.startswith(("inline:", "static:{")) else words(text):
        if ":" in spec or "/" in spec:
            yield table(spec, source, parameters.where(name))
