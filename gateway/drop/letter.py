"""One message with its envelope as bytes: what gateway-sendmail leaves in the maildrop, and how it is read again.

A line of JSON, then the message. Any user of this machine may write such a file, so it is believed in nothing.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace

from gateway.drop.compose import whole
from gateway.message import repaired, scan
from gateway.model import BadMessage, Envelope, Recipient
from gateway.strangers import strict_json

ENVID = re.compile(r"[!-*,-<>-~]{0,100}")  # what needs no encoding as xtext (RFC 3461 4)
NOTIFY = re.compile(r"|NEVER|(?:SUCCESS|FAILURE|DELAY)(?:,(?:SUCCESS|FAILURE|DELAY))*")
ENVELOPE_LIMIT = 1_000_000  # octets: room for 4,000 of the longest addresses
_RET = ("", "HDRS", "FULL")


@dataclass(frozen=True, slots=True)
class Letter:
    """``size`` is that of the message, also where ``raw`` is only its header, because it is larger than any may be.

    Names in it may have no domain; they get ``domain`` unless the settings have another for them.
    """

    envelope: Envelope
    raw: bytes
    size: int
    domain: str = ""


def write(envelope: Envelope, raw: bytes, domain: str = "") -> bytes:
    """``size`` tells a whole file from one that a crash cut off. All recipients have the same NOTIFY.

    ``domain`` is this machine's, for names without one.
    """
    line = {
        "gateway": 1,
        "size": len(raw),
        "sender": envelope.sender,
        "recipients": [recipient.address for recipient in envelope.recipients],
        "notify": envelope.recipients[0].notify,
        "ret": envelope.ret,
        "envid": envelope.envid,
        "domain": domain,
    }
    return json.dumps(line).encode() + b"\n" + raw


def read(data: bytes, whole: int) -> Letter:
    """Of a file of so many octets, of which ``data`` may be the beginning. Raises BadMessage.

    Bare line ends are none of gateway-sendmail's: they are repaired, so that nothing can be smuggled behind one.
    """
    envelope, size, domain = read_envelope(data)
    start = data.index(b"\n") + 1
    if whole - start != size:
        raise BadMessage(f"cut off: {whole - start} of {size} octets are there")
    raw = repaired(data[start:] if whole == len(data) else data[start : start + scan(data[start:]).end])
    return Letter(replace(envelope, eightbit=not raw.isascii()), raw, size, domain)


def read_envelope(data: bytes) -> tuple[Envelope, int, str]:
    """Of the beginning of such a file, how many octets the message has to have, and the domain of names without one.

    Raises BadMessage.
    """
    line, end, _ = data[: ENVELOPE_LIMIT + 1].partition(b"\n")
    try:
        given = strict_json(line if end else b"")
        sender, addresses, notify, ret, envid, size = (
            given[name] for name in ("sender", "recipients", "notify", "ret", "envid", "size")
        )
        domain = given.get("domain", "")
        whole(sender, domain)
        if "" in [whole(address, domain) for address in addresses]:
            raise ValueError("a recipient is missing")
        recipients = tuple(Recipient(address, notify) for address in addresses)
    except (ValueError, TypeError, KeyError) as error:  # BadAddress among them
        raise BadMessage(f"no envelope of gateway-sendmail in its first line: {error}") from None
    said = isinstance(notify, str) and NOTIFY.fullmatch(notify) and isinstance(envid, str) and ENVID.fullmatch(envid)
    if not (said and ret in _RET and isinstance(sender, str) and isinstance(size, int) and recipients):
        raise BadMessage("the envelope in its first line makes no sense")
    utf8 = not "".join((sender, *addresses)).isascii()
    return Envelope(sender, recipients, smtputf8=utf8, ret=ret, envid=envid), size, domain
