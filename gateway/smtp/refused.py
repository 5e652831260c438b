"""What is kept of a refusal: of which mail it was, as far as the client has said that by then."""

from __future__ import annotations

import re

from gateway.message.text import harmless
from gateway.model import Refusal
from gateway.refusals import Refused
from gateway.transaction import Transaction

_SENDER = re.compile(rb"FROM:\s*(?:<([^>]*)>|([^\s<>]+))", re.I)
_SIZE = re.compile(rb"\sSIZE=([0-9]{1,15})(?=\s|\Z)", re.I)


def _of_command(said: bytes) -> tuple[str, int]:
    """Sender and announced size of a MAIL command that was refused; "<>" is the null sender."""
    sender, size = _SENDER.search(said), _SIZE.search(said)
    text = "" if sender is None else (sender[1] or sender[2] or b"<>").decode("utf-8", "replace")
    return harmless(text, utf8=True), int(size[1]) if size else 0


def refused(
    refusal: Refusal,
    *,
    listener: str,
    stage: str,
    peer: str,
    helo: str = "",
    tls: str = "",
    client: str = "",
    user: str = "",
    transaction: Transaction | None = None,
    said: bytes = b"",
    recipient: str = "",
    came: int = 0,
    follows: bool = False,
) -> Refused:
    """``said`` is the argument of a refused MAIL, ``recipient`` that of RCPT, ``came`` the octets of a message."""
    if transaction is None:
        sender, size = _of_command(said)
        recipients: tuple[str, ...] = (recipient,) if recipient else ()
    else:
        asked = transaction.asked
        sender, size = asked.original or asked.sender or "<>", came or transaction.size
        recipients = (recipient,) if recipient else tuple(one.address for one in transaction.recipients)
    return Refused(
        listener=listener, stage=stage, reason=refusal.reason, code=refusal.code, enhanced=refusal.enhanced,
        text=refusal.text, peer=peer, helo=helo, tls=tls, client=client, user=user, sender=sender,
        recipients=recipients, size=size, follows=follows,
    )  # fmt: skip
