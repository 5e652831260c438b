"""What a caller of sendmail hands in, as envelope and message: the rules of sendmail(8) for recipients and header.

Nobody is left out and nothing is guessed: what cannot be read is refused, and then nothing is sent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from email.utils import formataddr

from gateway.address import is_bare, parse_address
from gateway.message import Header, every_address, qualify, qualify_header, replace_fields, scan
from gateway.model import BadAddress, BadMessage, Envelope, Recipient

EX_USAGE, EX_DATAERR = 64, 65
_AGAIN = "resent-"
_TO = ("to", "cc", "bcc")
_HIDDEN = {"bcc", _AGAIN + "bcc"}
COMPLETES = "xlocalnames"  # in EHLO, RFC 5321 4.1.1.1: names without a domain may be left to the service
_NOWHERE = "@local.invalid"  # behind a name without a domain, as long as nobody has said which it gets (RFC 2606 2)


class NotSendable(Exception):
    """Why nothing was sent, with the exit code (sysexits.h)."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Given:
    """What the caller said besides the message. ``name`` is for a missing From.

    ``from_header``: recipients are also those of the header. ``notify``, ``ret`` and ``envid`` as in RFC 3461.
    """

    sender: str
    recipients: tuple[str, ...]
    name: str = ""
    from_header: bool = False
    notify: str = ""
    ret: str = ""
    envid: str = ""


def compose(given: Given, raw: bytes) -> tuple[Envelope, bytes]:
    """The envelope and the message to send for it, without its blind recipients; names without a domain stay so.

    Raises NotSendable.
    """
    try:
        header = scan(raw)
    except BadMessage as error:
        raise NotSendable(EX_DATAERR, error.text) from None
    found = [_addresses(EX_USAGE, one.encode("utf-8", "surrogateescape")) for one in given.recipients]
    if given.from_header:
        again = any(header.count(_AGAIN + name) for name in _TO)
        names = [_AGAIN + name if again else name for name in _TO]
        found += [
            _addresses(EX_DATAERR, field.value, f"{field.spelled}: ") for field in header.fields if field.name in names
        ]
    everyone = dict.fromkeys(address for addresses in found for address in addresses)
    if not everyone:
        raise NotSendable(EX_USAGE, "no recipients: give addresses, or -t to take them from the message")
    sender = _sender(given)
    changes = {place: b"" for place, field in enumerate(header.fields) if field.name in _HIDDEN}
    envelope = Envelope(
        sender,
        tuple(Recipient(address, given.notify) for address in everyone),
        smtputf8=not "".join((sender, *everyone)).isascii(),
        eightbit=not raw.isascii(),
        ret=given.ret,
        envid=given.envid,
    )
    return envelope, replace_fields(raw, header, _new_fields(given, header, sender, changes), changes)


def complete(envelope: Envelope, raw: bytes, domain: str) -> tuple[Envelope, bytes]:
    """The same with this domain behind names that have none. Raises NotSendable for a domain that is none."""
    try:
        sender = whole(envelope.sender, domain)
        recipients = [replace(one, address=whole(one.address, domain)) for one in envelope.recipients]
    except BadAddress as error:
        raise NotSendable(EX_USAGE, f"{error.text} ({domain})") from None
    everyone = {one.address: one for one in reversed(recipients)}
    envelope = replace(envelope, sender=sender, recipients=tuple(everyone.values())[::-1])
    return envelope, qualify_header(raw, domain)


def whole(address: str, domain: str) -> str:
    """ "" is nobody's and stays so. What is no address raises BadAddress."""
    return parse_address(f"{address}@{domain}" if is_bare(address) else address) if address else ""


def _new_fields(given: Given, header: Header, sender: str, changes: dict[int, bytes]) -> bytes:
    """A From where one is missing and something is known of it. A message of text alone gets a header at all."""
    left = [field for place, field in enumerate(header.fields) if changes.get(place) != b""]
    name = " ".join(given.name.split())  # one line, whatever the caller passes on
    if sender and not header.count("from") and (name or not left):
        shown = formataddr((name, "")).removesuffix("<>")  # without the address: it may be UTF-8
        return f"From: {shown}<{sender}>\r\n".encode()
    return b"" if left else b"Subject:\r\n"


def _sender(given: Given) -> str:
    """ "" for the null sender."""
    raw = given.sender.encode("utf-8", "surrogateescape")
    if not re.sub(rb"[\s<>]", b"", raw):
        return ""
    addresses = _addresses(EX_USAGE, raw)
    if len(addresses) != 1:
        raise NotSendable(EX_USAGE, f"not one sender: {given.sender!r}")
    return addresses[0]


def named(value: bytes) -> tuple[str, ...]:
    """All whom a field names, with or without a domain. Raises BadAddress."""
    return tuple(one.removesuffix(_NOWHERE) for one in every_address(qualify(value, _NOWHERE[1:])))


def _addresses(code: int, value: bytes, where: str = "") -> tuple[str, ...]:
    try:
        return named(value)
    except BadAddress as error:
        raise NotSendable(code, f"{where}{error.text}; nothing was sent") from None
