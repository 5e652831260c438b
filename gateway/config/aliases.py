"""Whom local names stand for, as aliases(5) and virtual(5) have it: followed to the end when settings are read."""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gateway.address import comparable, domain_of, parse_address, with_a_labels
from gateway.model import BadAddress

EVERYBODY = "*"
# What is nobody's name outside a machine, whatever that is called.
_HERE = ("localhost", "localhost.localdomain")
_WHOLE = ("postmaster", "mailer-daemon", "double-bounce")  # names in which no delimiter counts: Postfix split_addr(3)
_LONGEST = 50  # names one behind the other
_PLACES = ("|", "/", ":include:")  # aliases(5): commands, files and lists


def parse_name(text: str) -> str:
    """A key of aliases: a name without a domain, a whole address, or "*". Raises ValueError."""
    if text == EVERYBODY:
        return text
    if "*" in text:
        raise ValueError('"*" alone stands for any other local name; here a name such as root, or a whole address')
    try:
        parse_address(text if "@" in text else f"{text}@local.invalid")
    except BadAddress as error:
        raise ValueError(f'"{text}": {error}; write a name such as root, or an address') from None
    return text


def parse_targets(given: object) -> object:
    """One name or address, several with commas between them as in /etc/aliases, or a list."""
    if isinstance(given, str):
        return tuple(word.strip() for word in given.split(","))
    return given


def parse_target(text: str) -> str:
    """Raises ValueError."""
    if text.startswith(_PLACES):
        raise ValueError(f'"{text}": mail is handed to no command, file or list here; write an address')
    parse_name(text)
    if text == EVERYBODY:
        raise ValueError('"*" is not an address; write whose mailbox it is to be')
    plain = with_a_labels(text) if "@" in text else text
    if not plain.isascii():
        raise ValueError(f'"{text}": not every backend can send to such an address (SMTPUTF8); write one in ASCII')
    return plain


class Loop(ValueError):
    """Names that lead to each other, or one that nobody can reach."""


@dataclass(frozen=True, slots=True)
class Given:
    """What the settings say. ``local`` are the domains beside this machine's own names; delimiters are characters."""

    aliases: Mapping[str, Sequence[str]]
    hostname: str
    default_domain: str = ""
    local: Collection[str] = ()
    delimiter: str = ""

    @property
    def domains(self) -> frozenset[str]:
        return frozenset(name.lower() for name in (*_HERE, self.hostname, platform.node(), *self.local) if name)


@dataclass(frozen=True, slots=True)
class Aliases:
    """``names`` are those without a domain, ``addresses`` whole ones, both as they are compared; with "*" among the
    names. ``domains`` are this machine's own names, and what is local by the settings ("*.lan": all below it).
    """

    names: Mapping[str, tuple[str, ...]]
    addresses: Mapping[str, tuple[str, ...]]
    domains: frozenset[str]
    delimiter: str = ""

    @classmethod
    def of(cls, given: Given) -> Aliases:
        """Raises Loop for the first that has no end; ``faults`` says all."""
        book = _Book(given)
        found = {key: book.follow(key) for key in book.given}
        names = {key: whom for key, whom in found.items() if "@" not in key}
        addresses = {key: whom for key, whom in found.items() if "@" in key}
        return cls(names, addresses, given.domains, given.delimiter)

    def becomes(self, address: str, *, bare: bool = False) -> tuple[str, ...]:
        """Whose mailboxes this address stands for, () for just its own. ``bare``: it came without a domain."""
        if found := self.addresses.get(comparable(address)):
            return found
        local, _, domain = address.rpartition("@")
        name, extension = split(local, self.delimiter)
        if extension and (found := self.addresses.get(comparable(f"{name}@{domain}"))):
            return tuple(_extended(one, extension) for one in found)
        if not (bare or self.is_local(domain)):
            return ()
        return self._named(local, name, extension)

    def knows(self, name: str) -> bool:
        """Whether a name without a domain stands for somebody."""
        return bool(self._named(name, *split(name, self.delimiter)))

    def _named(self, local: str, name: str, extension: str) -> tuple[str, ...]:
        if found := self.names.get(_folded(local)):
            return found
        if extension and (found := self.names.get(_folded(name))):
            return tuple(_extended(one, extension) for one in found)
        return self.names.get(EVERYBODY, ())

    def is_local(self, domain: str) -> bool:
        return _is_local(domain, self.domains)


def faults(given: Given) -> Iterator[tuple[str, str]]:
    """Each key that leads nowhere, with why."""
    book = _Book(given)
    first: dict[str, str] = {}
    for key in given.aliases:
        if (other := first.setdefault(_key(key), key)) != key:
            yield key, f"is the same name as {other}"
            continue
        try:
            book.follow(_key(key))
        except Loop as loop:
            yield key, str(loop)


class _Book:
    def __init__(self, given: Given) -> None:
        self.given = {_key(key): (key, tuple(targets)) for key, targets in given.aliases.items()}
        self._domains = given.domains
        self._default_domain = given.default_domain
        self._delimiter = given.delimiter
        self._found: dict[str, tuple[str, ...]] = {}

    def follow(self, key: str, way: tuple[str, ...] = ()) -> tuple[str, ...]:
        """The addresses at its end. Raises Loop."""
        if key in way:
            names = " -> ".join(self.given[one][0] for one in (*way[way.index(key) :], key))
            raise Loop(f"goes round in a circle ({names}); write an address that is a real mailbox")
        if len(way) > _LONGEST:
            raise Loop(f"leads through more than {_LONGEST} other names; write the address itself")
        if key not in self._found:
            _, targets = self.given[key]
            ends = [end for target in targets for end in self._end(target, key, (*way, key))]
            unique: dict[str, str] = {}
            for end in ends:
                unique.setdefault(comparable(end), end)
            self._found[key] = tuple(unique.values())
        return self._found[key]

    def _end(self, target: str, key: str, way: tuple[str, ...]) -> tuple[str, ...]:
        if "@" in target and comparable(target) == key:
            return (target,)  # virtual(5): an address that stands for itself is where it ends
        local, _, domain = target.rpartition("@")
        local = local or target
        name, extension = split(local, self._delimiter)
        keys = [comparable(target), f"{comparable(f'{name}@{domain}')}"] if "@" in target else []
        if "@" not in target or _is_local(domain, self._domains):
            keys += [_folded(local), _folded(name), EVERYBODY]
        if known := next((one for one in keys if one in self.given), ""):
            ends = self.follow(known, way)
            exact = known in (comparable(target), _folded(local), EVERYBODY)
            return ends if exact or not extension else tuple(_extended(end, extension) for end in ends)
        if "@" in target:
            return (target,)
        if not self._default_domain:
            raise Loop(f'"{target}" has no domain; write {target}@example.com, or set default_domain')
        return (f"{target}@{self._default_domain}",)


def split(local: str, delimiter: str) -> tuple[str, str]:
    """A local part and what stands behind it from the first of these delimiters on: ("ann", "+list")."""
    if not delimiter or local.lower() in _WHOLE:
        return local, ""
    at = min((n for n in map(local.find, delimiter) if n > 0), default=len(local))
    return local[:at], local[at:]


def _extended(address: str, extension: str) -> str:
    """Postfix: propagate_unmatched_extensions, as for virtual(5)."""
    local, at, domain = address.rpartition("@")
    return address if local.endswith('"') else f"{local}{extension}{at}{domain}"


def _key(name: str) -> str:
    return comparable(name) if "@" in name else _folded(name)


def _folded(name: str) -> str:
    return comparable(f"{name}@x")[:-2]


def _is_local(domain: str, domains: Collection[str]) -> bool:
    name = domain_of(f"@{domain}")
    if name in domains:
        return True
    _, dot, above = name.partition(".")
    while dot:
        if f"*.{above}" in domains:
            return True
        _, dot, above = above.partition(".")
    return False
