"""The replies that have a name. All but the greeting, EHLO, 334 and 354 carry an enhanced code (RFC 2034)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gateway.model import BadAddress, BadMessage, CannotCarry, Fault, Refusal, SpoolFull, SpoolUnavailable

Terms = tuple[int, str, str, str]  # the arguments of a Refusal: a raised exception object must not be raised again

OK = b"250 2.0.0 Ok\r\n"
SENDER_OK = b"250 2.1.0 Ok\r\n"
RECIPIENT_OK = b"250 2.1.5 Ok\r\n"
SEND_DATA = b"354 End data with <CR><LF>.<CR><LF>\r\n"
READY_FOR_TLS = b"220 2.0.0 Ready to start TLS\r\n"
LOGGED_IN = b"235 2.7.0 Authentication successful\r\n"
HELP = b"214 2.0.0 EHLO HELO STARTTLS AUTH MAIL RCPT DATA RSET NOOP VRFY HELP QUIT\r\n"
CANNOT_VERIFY = b"252 2.1.5 Cannot verify, send a message and see\r\n"
BYE = b"221 2.0.0 Bye\r\n"

IDLE = (421, "4.4.2", "Timeout, closing connection", "idle")
TOO_SLOW = (421, "4.4.2", "Message arrives too slowly, closing connection", "idle")
RELOADED = (421, "4.3.2", "The settings of clients have changed, connect and log in again", "token_expired")
STOPPING = (421, "4.3.2", "Service is stopping, try again later", "shutting_down")
ENOUGH = (421, "4.7.0", "Too many errors or idle commands, closing connection", "too_many_errors")
TOO_MANY_LOGINS = (421, "4.7.0", "Too many failed logins, try again later", "too_many_errors")
INTERNAL = (451, "4.3.0", "Temporary failure on our side, try again later", "internal")
BUSY = (452, "4.3.1", "Too many messages at once, try again later", "busy")
NOT_SMTP = (502, "5.7.0", "This is SMTP, closing connection", "cross_protocol")
NO_CHUNKING = (502, "5.5.1", "CHUNKING is not supported, closing connection", "unknown_command")
UNKNOWN = (500, "5.5.2", "Command not recognized", "unknown_command")
NOT_IMPLEMENTED = (502, "5.5.1", "Command not implemented", "unknown_command")
CONTROL = (501, "5.5.2", "Control characters are not allowed", "bad_syntax")
BARE_LF = (500, "5.5.2", "Lines must end with CR LF (see tolerate: [bare_newlines])", "bad_syntax")

# What went wrong below the door, by its class and kind: reply code, enhanced code, reason.
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

_UNSAFE = re.compile(r"[^ -~]")


def refusal_of(fault: Fault) -> Refusal:
    """How the door says to a client what went wrong below it."""
    code, enhanced, reason = FAULTS[type(fault), fault.kind]
    return Refusal(code, enhanced, fault.text, reason)


def too_long(start: bytes) -> Terms:
    """For a line that begins like this (RFC 4954 4.5.6 has a code of its own)."""
    if start.upper().startswith(b"AUTH"):
        return 500, "5.5.6", "Authentication exchange line is too long", "bad_syntax"
    return 500, "5.5.2", "Line too long", "line_too_long"


def sequence(text: str) -> Refusal:
    return Refusal(503, "5.5.1", text, "bad_sequence")


def syntax(usage: str) -> Refusal:
    return Refusal(501, "5.5.4", f"Syntax: {usage}", "bad_syntax")


def line(refusal: Refusal) -> bytes:
    """One reply line of at most 512 octets (RFC 5321 4.5.3.1.5), whatever the text quotes."""
    text = _UNSAFE.sub("?", f"{refusal.code} {refusal.enhanced} {refusal.text}")
    return text[:510].encode("ascii") + b"\r\n"
