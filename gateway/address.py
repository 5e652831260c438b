"""Mail addresses: the strict grammar of RFC 5321, and the keys by which addresses are compared."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import NoReturn

from gateway.model import BadAddress

# Spelled by what they leave out: re takes 25 ms to compile a class that reaches to U+10FFFF.
# Dots may stand side by side and at the ends: mobile providers gave out such addresses, and they are in use.
_LOCAL = r'[^\x00-\x20"(),:;<>@\[\\\]\x7f]+|"(?:[^\x00-\x1f"\\\x7f]|\\[ -~])*"'
_ALNUM = r"[^\x00-/:-@\[-^`{-\x7f]"  # the underscore stands in real host names
_LABEL = rf"{_ALNUM}(?:[^\x00-,./:-@\[-^`{{-\x7f]{{0,61}}{_ALNUM})?"
_DOMAIN = rf"\[[0-9A-Za-z.:]+\]|{_LABEL}(?:\.{_LABEL})*"
# What devices send and Postfix takes, and what can be read in one way only: no angle brackets, two pairs of them, the
# inner one behind a name ("Scanner <a@b>" typed where the address belongs), blanks inside, a dot behind the domain.
_ADDRESS = rf"({_LOCAL})(?:@({_DOMAIN})(?:(?<!\])\.)?)?"
_NAME = r'(?:"[^\x00-\x1f"<>\\\x7f]*+" *+|[^\x00-\x1f"(),:;<>@\[\\\]\x7f]*+)'
_PATH = re.compile(rf" *+(?:<(?:{_NAME}(<))? *+(?:{_ADDRESS})? *+>(?(1)>)|{_ADDRESS})(?: |\Z)")
_MAILBOX = re.compile(rf"({_LOCAL})@({_DOMAIN})")
NOT = "!"  # before a pattern: whom it matches is not meant, whatever other patterns say
_SHORT = 320  # octets of a path that is remembered: RFC 5321 4.5.3.1.3 says 256
_LONGEST = 255  # octets of a local part, where RFC 5321 4.5.3.1.1 says 64 and list servers need more; and of a domain


def parse_path(raw: bytes, *, utf8: bool, domain: str | None = "") -> tuple[str, bytes]:
    """The address after ``FROM:`` or ``TO:`` ("" for ``<>``) and the raw ESMTP parameters behind it.

    The address is kept as it was spelled, but for a dot behind the domain, which RFC 5321 2.3.5 does not know. One that
    has no domain gets ``domain``; None: it stays so. Raises BadAddress (RFC 5321 4.1.2, RFC 6531 3.3).
    """
    path, _, rest = raw.lstrip(b" ").partition(b" ")
    # Where it ends before the first blank, what stands behind changes nothing, if that is ASCII as well.
    if len(path) <= _SHORT and raw.isascii() and (known := _known(path, domain)) is not None:
        return known, rest
    try:
        text = raw.decode("utf-8" if utf8 else "ascii")
    except UnicodeDecodeError:
        raise _bad("the address is not valid UTF-8") if utf8 else _needs_utf8() from None
    address, end = _read(text, domain)
    return address, raw[end if text.isascii() else len(text[:end].encode()) :]


@lru_cache(maxsize=1024)
def _known(path: bytes, domain: str | None) -> str | None:
    """None: not so."""
    try:
        return _read(path.decode(), domain)[0]
    except BadAddress:
        return None


def _read(text: str, domain: str | None) -> tuple[str, int]:
    """The address with which it begins, and where that ends. Raises BadAddress."""
    match = _PATH.match(text)
    if match is None:
        _explain(text)
    local, domain = match[2] or match[4], match[3] or match[5] or domain
    if local and domain is None:
        return _checked(local, "x").removesuffix("@x"), match.end()
    if local and not domain:
        _explain(text)
    return (_checked(local, domain or "") if local else ""), match.end()


def parse_address(text: str, *, utf8: bool = True) -> str:
    """A mailbox ``local@domain`` from the configuration, a claim or a header. Raises BadAddress."""
    if not utf8 and not text.isascii():
        raise _needs_utf8()
    match = _MAILBOX.fullmatch(text)
    if match is None:
        _explain(text)
    return _checked(match[1], match[2])


def is_bare(address: str) -> bool:
    """Whether it is a name without a domain. No whole address ends in a quote, and within quotes an @ is a letter."""
    return bool(address) and ("@" not in address or address.endswith('"'))


def comparable(address: str) -> str:
    """The key under which two spellings of one mailbox are equal; never to be sent to. "" stays ""."""
    if (address.isascii() and '"' not in address) or len(address) > 2 * _LONGEST + 1:
        return address.lower()  # what is longer is nobody's address, and must not cost anything
    local, at, domain = address.rpartition("@")
    if local.startswith('"') and local.endswith('"'):
        local = re.sub(r"\\(.)", r"\1", local[1:-1])
    return unicodedata.normalize("NFC", local).lower() + at + a_labels(domain)


def domain_of(address: str) -> str:
    """The domain in lower case, internationalised labels as A-labels (RFC 5890)."""
    return a_labels(address.rpartition("@")[2])


def matches(pattern: str, address: str) -> bool:
    """Patterns: ``*``, ``*@example.com``, ``user@*``, ``*@*.example.com`` (subdomains only) or one address."""
    if pattern == "*":
        return True
    want_local, _, want_domain = _halves(pattern)
    local, at, domain = _halves(address)
    if not at or want_local not in ("*", local):
        return False
    if want_domain.startswith("*."):
        return domain.endswith(want_domain[1:]) and len(domain) > len(want_domain) - 1
    return want_domain in ("*", domain)


def takes(patterns: Sequence[str], address: str) -> bool:
    """Whether one of the patterns matches and no ``!pattern`` does, in whatever order they stand."""
    return any(matches(one, address) for one in patterns if one[:1] != NOT) and not blocked_by(patterns, address)


def blocked_by(patterns: Sequence[str], address: str) -> str:
    """The first ``!pattern`` that matches, or ""."""
    return next((one for one in patterns if one[:1] == NOT and matches(one[1:], address)), "")


def takes_any(patterns: Sequence[str]) -> bool:
    """Whether they let every address pass."""
    return "*" in patterns and (len(patterns) == 1 or not any(one[:1] == NOT for one in patterns))


@lru_cache(maxsize=1024)
def _halves(address: str) -> tuple[str, str, str]:
    return comparable(address).rpartition("@")


def with_a_labels(address: str) -> str:
    """The same mailbox with its domain in A-labels (RFC 5891, 5), as the world knew it before SMTPUTF8.

    What is not ASCII in the local part still needs that (RFC 6531, 3.2).
    """
    local, at, domain = address.rpartition("@")
    return address if domain.isascii() else f"{local}{at}{a_labels(domain)}"


def a_labels(domain: str) -> str:
    """In lower case, with internationalised labels as A-labels (RFC 5890)."""
    # Punycode without IDNA 2003 mapping: sharp s and final sigma are letters of their own, nothing is folded together.
    if domain.isascii():
        return domain.lower()
    labels = unicodedata.normalize("NFC", domain.lower()).split(".")
    # Punycode takes quadratic time, and what is over 63 characters is no label anyway.
    return ".".join(x if x.isascii() or len(x) > 63 else f"xn--{x.encode('punycode').decode()}" for x in labels)


def _checked(local: str, domain: str) -> str:
    # isprintable leaves out control, format and separator characters: they do harm in logs, headers and people's eyes.
    if not local.isprintable():
        raise _bad("the local part contains invisible characters")
    if not domain.isprintable():  # half characters too, which cannot be encoded
        raise _bad("the domain is malformed", "domain")
    if len(local.encode()) > _LONGEST:
        raise _bad(f"the local part is longer than {_LONGEST} octets")
    if len(domain.encode()) > _LONGEST:
        raise _bad(f"the domain is longer than {_LONGEST} octets", "domain")
    if domain.startswith("["):
        literal = domain[1:-1].lower()
        try:
            IPv6Address(literal[5:]) if literal.startswith("ipv6:") else IPv4Address(literal)
        except ValueError:
            raise _bad("the address literal is malformed", "domain") from None
    elif not (domain.isascii() and "xn--" not in domain.lower()) and not _is_domain(domain.lower()):
        raise _bad("the domain is malformed", "domain")
    return f"{local}@{domain}"


def _is_domain(domain: str) -> bool:
    return len(a_labels(domain)) <= 255 and all(_is_label(label) for label in domain.split("."))


def _is_label(label: str) -> bool:
    """Letters, digits, hyphen; an A-label must decode and be the one spelling of what it decodes to (RFC 5891 5.4)."""
    if len(a_labels(label)) > 63:
        return False
    if label.startswith("xn--"):
        try:
            decoded = label[4:].encode("ascii").decode("punycode")
        except UnicodeError:
            return False
        return not decoded.isascii() and a_labels(decoded) == label and _is_label(decoded)
    if label.isascii():
        return True
    # NFKC changes look-alikes such as roman numerals and full-width letters; only their plain form is a name.
    stable = unicodedata.normalize("NFKC", label) == unicodedata.normalize("NFC", label)
    return stable and all(char in "-_" or unicodedata.category(char)[0] in "LMN" for char in label)


def _explain(text: str) -> NoReturn:
    path = text.strip().lstrip("<")
    if path.startswith("@"):
        raise _bad("source routes are not supported")
    if path and "@" not in path:
        raise _bad("the address needs a domain, write user@example.com")
    raise _bad("the address is malformed")


def _needs_utf8() -> BadAddress:
    return BadAddress("Non-ASCII addresses need SMTPUTF8", "utf8")


def _bad(text: str, kind: str = "syntax") -> BadAddress:
    return BadAddress(text[0].upper() + text[1:], kind)
