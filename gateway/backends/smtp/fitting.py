"""A message as this server can take it: converted to 7 bits where it offers no 8BITMIME (RFC 6152 3)."""

from __future__ import annotations

from gateway.backends.shared.base import NoAnswer, aside
from gateway.backends.smtp.connection import Connection
from gateway.message.header import scan_part
from gateway.message.sevenbit import sevenbit
from gateway.model import CannotCarry, Envelope, Outcome, Verdict

_EFFORT = 10  # times that of looking at its bytes
_NO_UTF8 = "the server takes no non-ASCII headers (no SMTPUTF8)"
_FIX = "let the program send plain 7-bit mail, or route it to a server with 8BITMIME"


async def fitted(connection: Connection, envelope: Envelope, raw: bytes) -> tuple[bytes, str]:
    """What to send, and a note of what it is not any more. Raises NoAnswer for what this server cannot be sent."""
    if raw.isascii() or connection.offers("8bitmime"):
        return raw, ""
    header = scan_part(raw)
    if envelope.smtputf8 and not raw[: header.end].isascii():
        raise NoAnswer(Outcome(Verdict.REJECTED, enhanced="5.6.7", detail=_NO_UTF8))
    try:
        new = await aside(_EFFORT * len(raw), lambda: sevenbit(raw))
    except CannotCarry as error:
        detail = f"the server offers no 8BITMIME, and {error.text}"
        raise NoAnswer(Outcome(Verdict.REJECTED, enhanced=error.enhanced, detail=detail, fix=_FIX)) from None
    # RFC 6376 5.3: signers ought to know; a signature that does not hold counts as none (6.1).
    broken = ", its DKIM signature does not hold any more" if header.count("dkim-signature") else ""
    return new, f"; converted to 7 bits{broken}"
