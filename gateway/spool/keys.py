"""By what addresses are found: one key serves an address, its domain, all below that, and the part before the @.

The key of ann@mail.example.org is ``org.example.mail@ann``: domain first, so that one index has together what belongs
together, and its labels turned round, so that a domain stands before those below it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from gateway.address import comparable

AFTER = "\U0010ffff"  # sorts behind whatever a key goes on with


@lru_cache(maxsize=4096)  # the same come again and again
def key_of(address: str) -> str:
    """Equal for two spellings of one mailbox; "" stays "", what has no domain begins with the @."""
    local, at, domain = comparable(address).rpartition("@")
    if not at:
        return f"@{domain}" if domain else ""
    return f"{_turned(domain)}@{local}"


def _turned(domain: str) -> str:
    return domain if domain.startswith("[") else ".".join(reversed(domain.split(".")))


@dataclass(frozen=True, slots=True)
class Keys:
    """Which keys are meant. ``low`` up to ``high`` (not included) or, where that is "", the one key ``low``.

    ``local``: those of any domain whose part before the @ is that, or begins so (``begins``); then the others are "".
    """

    low: str = ""
    high: str = ""
    local: str = ""
    begins: bool = False

    @property
    def one(self) -> bool:
        """A single key: an index has what it stands for in the order of queue ids."""
        return not self.high and not self.local


def keys_of(pattern: str) -> Sequence[Keys]:
    """What a person means by it; together they are a union.

    ``ann@example.org``, ``example.org``, ``*@example.org`` and ``@example.org`` (a domain), ``*@*.example.org`` and
    ``*.example.org`` (those below it), ``ann`` and ``ann@*`` (whatever the domain), ``inv*@example.org``, ``inv*@*``;
    ``<>`` is the null sender. A word without @ that has a dot is a domain; one that has none may also be a part before
    the @. "*" is everybody.
    """
    text = pattern.strip()
    text = text[1:-1] if text.startswith("<") and text.endswith(">") else text
    if not text:
        return (Keys(),)
    local, at, domain = comparable(text).rpartition("@")
    if not at:
        return _word(domain)
    if domain == "*":
        return (Keys(local=local.removesuffix("*"), begins=local.endswith("*")),)
    if domain.startswith("*."):  # the keys of one person are not together there
        return (_prefix(f"{_turned(domain[2:])}."),) if local in ("", "*") else ()
    if local.endswith("*") or not local:
        return (_prefix(f"{_turned(domain)}@{local.removesuffix('*')}"),)
    return (Keys(f"{_turned(domain)}@{local}"),)


def _word(word: str) -> Sequence[Keys]:
    if word.startswith("*."):
        return (_prefix(f"{_turned(word[2:])}."),)
    if word.endswith("*"):
        return (Keys(local=word[:-1], begins=True),)
    return _prefix(f"{_turned(word)}@"), Keys(f"@{word}") if "." in word else Keys(local=word)


def _prefix(start: str) -> Keys:
    return Keys(start, start + AFTER)
