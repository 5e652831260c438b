"""What whoever hands in mail hears of what went wrong below, the same for every way in; and the record of a refusal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.model import BadAddress, BadMessage, CannotCarry, Fault, Refusal, SpoolFull, SpoolUnavailable

# By class and kind: reply code, enhanced code, reason.
FAULTS: Mapping[tuple[type[Fault], str], tuple[int, str, str]] = {
    (SpoolFull, ""): (452, "4.3.1", "spool_full"),
    (SpoolUnavailable, ""): (451, "4.3.0", "spool_error"),
    (BadMessage, ""): (554, "5.6.0", "bad_message"),
    (BadAddress, "syntax"): (501, "5.1.3", "bad_address"),
    (BadAddress, "domain"): (501, "5.1.2", "bad_address"),
    (BadAddress, "utf8"): (553, "5.6.7", "utf8_address"),
    (CannotCarry, "too_big"): (552, "5.3.4", "too_big"),
    (CannotCarry, "no_route"): (550, "5.7.1", "no_route"),
    (CannotCarry, "not_configured"): (451, "4.3.5", "no_route"),
    (CannotCarry, "token"): (550, "5.7.1", "cannot_carry"),
    (CannotCarry, "null_sender"): (550, "5.7.1", "cannot_carry"),
    (CannotCarry, "utf8"): (553, "5.6.7", "cannot_carry"),
    (CannotCarry, "sender"): (553, "5.7.1", "sender_denied"),
    (CannotCarry, "feature"): (554, "5.6.3", "cannot_carry"),
}


def refusal_of(error: Exception) -> Refusal | None:
    """A Refusal is itself, a Fault is said by the table; None: a bug of ours."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, Fault) and (terms := FAULTS.get((type(error), error.kind))):
        code, enhanced, reason = terms
        return Refusal(code, enhanced, error.text, reason)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A refusal as it is logged, counted and kept: who heard what, and of which mail. Never a password, token or body.

    ``stage`` is connect, command, auth, mail, rcpt or data. ``listener`` is the way in; ``peer`` "" is this machine.
    ``user`` is the user name given, as far as a log may say it. ``size`` counts octets: those that came, else those
    announced, 0 for neither. ``code`` 0: nothing was answered. ``detail`` is for the operator alone.
    ``follows``: the client only did not stop after an earlier refusal.
    """

    listener: str
    stage: str
    reason: str
    code: int = 0
    enhanced: str = ""
    text: str = ""
    peer: str = ""
    helo: str = ""
    tls: str = ""
    client: str = ""
    user: str = ""
    sender: str = ""
    recipients: tuple[str, ...] = ()
    size: int = 0
    detail: str = ""
    follows: bool = False
