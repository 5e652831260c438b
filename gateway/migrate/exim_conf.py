"""How Exim writes its one file: options, macros, named lists, and sections of parts (spec.txt chapter 6)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from gateway.migrate.found import Where
from gateway.migrate.sources import Source

_MACRO = re.compile(r"([A-Z][A-Za-z0-9_]*)\s*==?\s*(.*)", re.DOTALL)
_LIST = re.compile(r"(domain|host|address|localpart)list(?:_cache)?\s+(\w+)\s*=\s*(.*)", re.DOTALL)
_REFUSE = ("deny", "drop", "defer", "discard")
_LONGEST = 100_000


@dataclass(slots=True)
class Part:
    """A router, transport or authenticator."""

    section: str
    where: Where
    options: dict[str, tuple[str, Where]] = field(default_factory=dict)

    def text(self, name: str) -> str:
        return self.options.get(name, ("", self.where))[0]

    def has(self, start: str) -> bool:
        return any(name.startswith(start) for name in self.options)

    def login(self) -> tuple[str, str, Where]:
        """Name and password of client_send (": name : password" or "name : password") or client_name, client_secret."""
        if "client_name" in self.options:
            return self.text("client_name"), self.text("client_secret"), self.options["client_name"][1]
        text, where = self.options.get("client_send", ("", self.where))
        sent = [part.replace("::", ":").strip() for part in re.split(r"(?<!:):(?!:)", text)]
        if len(sent) == 1 and sent[0].startswith("^"):
            sent = sent[0].split("^")[1:]
        sent = [part for part in sent if part]
        if len(sent) != 2 or any("$" in part for part in sent):
            return "", "", where
        return sent[0], sent[1], where


@dataclass(slots=True)
class Conf:
    options: dict[str, tuple[str, Where]]
    lists: dict[str, tuple[str, Where]]
    parts: dict[str, Part]
    unread: list[tuple[Where, str]]
    acl: list[Where]
    nowhere: Where
    verb: str = "?"

    def option(self, name: str) -> tuple[str, Where]:
        return self.options.get(name, ("", Where(self.nowhere.file, 0, f"{name} (default)")))


def parse(source: Source) -> Conf:
    """Raises BadSource. Macros are filled in; .include and what cannot be decided is noted as not read."""
    conf = Conf({}, {}, {}, [], [], Where(source.name))
    macros: dict[str, str] = {}
    taken: list[bool] = []
    section, part = "", None
    for number, raw in _lines(source):
        where = Where(source.name, number)
        word = raw.split(maxsplit=1)
        if word[0].startswith(".if"):
            taken.append((word[-1].split()[0] in macros) == (word[0] == ".ifdef"))
        elif word[0] == ".else" and taken:
            taken[-1] = not taken[-1]
        elif word[0] in (".endif", ".else", ".elifdef", ".elifndef"):
            if not taken:
                raise where.bad(f"{word[0]} without .ifdef")
            taken.pop() if word[0] == ".endif" else None
        elif not all(taken):
            continue
        elif word[0].startswith(".include"):
            conf.unread.append((where, "an included file was not read"))
        elif raw.lower().startswith("begin "):
            section, part = raw.split()[1].lower(), None
        elif not section and (macro := _MACRO.fullmatch(raw)):
            macros[macro[1]] = _fill(macro[2], macros)
        else:
            part = _take(conf, _fill(raw, macros), where, section, part)
    return conf


def _take(conf: Conf, line: str, where: Where, section: str, part: Part | None) -> Part | None:
    if section == "acl":
        _acl(conf, line, where)
        return None
    if section in ("routers", "transports", "authenticators") and (head := re.fullmatch(r"(\w+):", line)):
        conf.parts[f"{section}/{head[1]}"] = made = Part(section, Where(where.file, where.line, head[1]))
        return made
    if one := _LIST.fullmatch(line):
        conf.lists[one[2]] = (one[3].strip(), Where(where.file, where.line, one[2]))
        return part
    name, equals, value = line.removeprefix("hide ").partition("=")
    if section in ("", "routers", "transports", "authenticators") and not equals and not re.fullmatch(r"\w+", line):
        raise where.bad("not a setting: a line is name = value")
    found = (value.strip().strip('"'), Where(where.file, where.line, name.strip()))
    if not section:
        conf.options[name.strip()] = found
    elif part is not None:
        part.options[name.strip()] = found
    return part


def _acl(conf: Conf, line: str, where: Where) -> None:
    """Whether machines that may relay are refused mail by who sends it or gets it, before they are let through."""
    if re.fullmatch(r"\w+:", line):
        conf.verb = "?"
        return
    if conf.verb == "passed":
        return
    if verb := re.match(r"(accept|deny|drop|defer|discard|require|warn)\b", line):
        conf.verb = verb[1]
    if "relay_from_hosts" in line:
        conf.verb = "passed" if conf.verb == "accept" and "!" not in line else "?"
    elif conf.verb in _REFUSE and re.search(r"\b(senders|sender_domains|recipients|hosts)\s*=", line):
        conf.acl.append(where)
        conf.verb = "?"


def _lines(source: Source) -> list[tuple[int, str]]:
    """A line that ends in a backslash goes on, without the blanks that the next begins with."""
    found: list[tuple[int, str]] = []
    held, start = "", 0
    for number, line in enumerate(source.lines(), 1):
        text = line.strip()
        if text.startswith("#") or (not text and not held):
            continue
        start = start if held else number
        if text.endswith("\\"):
            held += text[:-1]
        else:
            if (whole := held + text).strip():
                found.append((start, whole.strip()))
            held = ""
    if held.strip():
        found.append((start, held.strip()))
    return found


def _fill(text: str, macros: dict[str, str]) -> str:
    for name in sorted(macros, key=len, reverse=True):
        if name in text and len(text) < _LONGEST:
            text = text.replace(name, macros[name])
    return text[:_LONGEST]
