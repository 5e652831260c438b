"""ESMTP parameters of MAIL and RCPT: SIZE (RFC 1870), BODY (6152), SMTPUTF8 (6531), AUTH (4954), DSN (3461)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from gateway.model import Envelope, Refusal

# RFC 3461 4: printable ASCII, the rest as +HH; what decodes to a control character could break a report's header.
_XCHAR = r"[!-*,-<>-~]|\+(?i:[2-6][0-9A-F]|7[0-9A-E])"
_XTEXT = rf"(?:{_XCHAR})+"
_LONGEST_ENVID = 100  # RFC 3461 4.4, as it goes on to the next hop
_MAIL = {
    "SIZE": re.compile(r"[0-9]{1,20}"),
    "BODY": re.compile(r"7BIT|8BITMIME", re.I),
    "SMTPUTF8": None,
    "AUTH": re.compile(rf"<>|{_XTEXT}"),
    "RET": re.compile(r"FULL|HDRS", re.I),
    "ENVID": re.compile(rf"(?:=|{_XCHAR})+"),
}
_RCPT = {
    "NOTIFY": re.compile(r"NEVER|(?:SUCCESS|FAILURE|DELAY)(?:,(?:SUCCESS|FAILURE|DELAY))*,?", re.I),
    "ORCPT": re.compile(rf"(?=.{{1,500}}\Z)(?:[A-Za-z0-9-]+;(?:=|{_XCHAR})*|(?i:utf-8);(?:[!-*,-<>-~]|[^\x00-\x7f])+)"),
}


def is_mail_parameter(word: bytes) -> bool:
    """Whether this is, as far as its keyword tells, a parameter of MAIL."""
    keyword, equals, _ = word.decode("ascii", "replace").partition("=")
    return keyword.upper() in _MAIL and bool(equals) == (_MAIL[keyword.upper()] is not None)


def mail_parameters(raw: bytes, sender: str, original: str = "") -> tuple[int, Envelope]:
    """SIZE (0: not declared), and the envelope so far: RET in capitals, ENVID in xtext, AUTH= is of no use here.

    Raises Refusal 501, 504 or 555, all 5.5.4.
    """
    if not raw:
        return 0, _bare(sender, original)
    found = _split(raw, _MAIL)
    if len(envid := _xtext(found.get("ENVID", ""))) > _LONGEST_ENVID:
        raise _bad("ENVID")
    envelope = Envelope(
        sender,
        (),
        smtputf8="SMTPUTF8" in found,
        eightbit=found.get("BODY", "").upper() == "8BITMIME",
        ret=found.get("RET", "").upper(),
        envid=envid,
        original=original,
    )
    return int(found.get("SIZE", "0")), envelope


@lru_cache(maxsize=1024)
def _bare(sender: str, original: str) -> Envelope:
    return Envelope(sender, (), original=original)


def rcpt_parameters(raw: bytes, *, utf8: bool) -> tuple[str, str]:
    """NOTIFY (in capitals, each word once) and ORCPT (in xtext). Raises Refusal."""
    if not raw:
        return "", ""
    found = _split(raw, _RCPT)
    orcpt = found.get("ORCPT", "")
    if not orcpt.isprintable() or not (utf8 or orcpt.isascii()):
        raise _bad("ORCPT")
    # As Postfix: a comma at the end is nothing, and so is an original recipient that is empty.
    words = dict.fromkeys(filter(None, found.get("NOTIFY", "").upper().split(",")))
    return ",".join(words), "" if orcpt.endswith(";") and orcpt.count(";") == 1 else _xtext(orcpt)


def _xtext(text: str) -> str:
    """As RFC 3461 4 has it, for the next hop may be strict: clients send lower-case digits and a bare "="."""
    return re.sub(r"\+..|=", lambda found: found[0].upper().replace("=", "+3D"), text)


def _split(raw: bytes, known: Mapping[str, re.Pattern[str] | None]) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in raw.decode("utf-8", "replace").split():
        keyword, equals, value = item.partition("=")
        keyword = keyword.upper()
        if keyword not in known:
            raise Refusal(555, "5.5.4", "Parameter not recognized", "bad_syntax")
        if keyword in found:
            raise Refusal(501, "5.5.4", f"Parameter {keyword} given twice", "bad_syntax")
        if keyword == "BODY" and value.upper() == "BINARYMIME":
            raise Refusal(504, "5.5.4", "BODY=BINARYMIME is not supported", "bad_syntax")
        pattern = known[keyword]
        if (pattern is None and equals) or (pattern and not pattern.fullmatch(value)) or "\ufffd" in value:
            raise _bad(keyword)
        found[keyword] = value
    return found


def _bad(keyword: str) -> Refusal:
    return Refusal(501, "5.5.4", f"Bad value for parameter {keyword}", "bad_syntax")
