"""The replies that have a name. All but the greeting, EHLO, 334 and 354 carry an enhanced code (RFC 2034)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway import refusals
from gateway.model import Client, Refusal


class LastRefusal(Refusal):
    """A refusal that ends the connection: who writes it hangs up."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A refusal with a name. Each call makes a new exception, for one that was raised must not be raised again."""

    code: int
    enhanced: str
    text: str
    reason: str
    last: bool = False

    def __call__(self) -> Refusal:
        return (LastRefusal if self.last else Refusal)(self.code, self.enhanced, self.text, self.reason)


OK = b"250 2.0.0 Ok\r\n"
SENDER_OK = b"250 2.1.0 Ok\r\n"
RECIPIENT_OK = b"250 2.1.5 Ok\r\n"
SEND_DATA = b"354 End data with <CR><LF>.<CR><LF>\r\n"
READY_FOR_TLS = b"220 2.0.0 Ready to start TLS\r\n"
LOGGED_IN = b"235 2.7.0 Authentication successful\r\n"
HELP = b"214 2.0.0 EHLO HELO STARTTLS AUTH MAIL RCPT DATA RSET NOOP VRFY HELP QUIT\r\n"
CANNOT_VERIFY = b"252 2.1.5 Cannot verify, send a message and see\r\n"
BYE = b"221 2.0.0 Bye\r\n"

FULL = Reply(421, "4.3.2", "Too many connections, try again later", "too_many_connections", last=True)
CROWDED = Reply(421, "4.7.0", "Too many connections from your address", "too_many_connections", last=True)
IDLE = Reply(421, "4.4.2", "Timeout, closing connection", "idle", last=True)
TOO_SLOW = Reply(421, "4.4.2", "Message arrives too slowly, closing connection", "idle", last=True)
RELOADED = Reply(
    421, "4.3.2", "The settings of clients have changed, connect and log in again", "token_expired", last=True
)
STOPPING = Reply(421, "4.3.2", "This listener is closing, try again later", "shutting_down", last=True)
ENOUGH = Reply(421, "4.7.0", "Too many errors or idle commands, closing connection", "too_many_errors", last=True)
TOO_MANY_LOGINS = Reply(421, "4.7.0", "Too many failed logins, try again later", "too_many_errors", last=True)
LEARNING = Reply(451, "4.7.1", "Learning only: this was not accepted, try again later", "learning")
INTERNAL = Reply(451, "4.3.0", "Temporary failure on our side, try again later", "internal")
BUSY = Reply(452, "4.3.1", "Too many messages at once, try again later", "busy")
NOT_SMTP = Reply(502, "5.7.0", "This is SMTP, closing connection", "cross_protocol", last=True)
UNLISTED_PROXY = Reply(
    502, "5.7.0", "The PROXY protocol is not spoken with your address (setting proxy_protocol_from)", "proxy_header",
    last=True,
)  # fmt: skip
TLS_HELLO = Reply(502, "5.7.0", "This is SMTP without TLS: use STARTTLS or another port", "cross_protocol", last=True)
NO_CHUNKING = Reply(502, "5.5.1", "CHUNKING is not supported, closing connection", "unknown_command", last=True)
UNKNOWN = Reply(500, "5.5.2", "Command not recognized", "unknown_command")
NOT_IMPLEMENTED = Reply(502, "5.5.1", "Command not implemented", "unknown_command")
CONTROL = Reply(501, "5.5.2", "Control characters are not allowed", "bad_syntax")
NUL = Reply(501, "5.5.2", "Control characters are not allowed", "bad_syntax", last=True)
BARE_LF = Reply(500, "5.5.2", "Lines must end with CR LF (see tolerate: [bare_newlines])", "bad_newlines", last=True)
BARE_CR = Reply(500, "5.5.2", "Lines must end with CR LF, not with CR alone", "bad_newlines", last=True)
BARE_NEWLINES = Reply(
    550, "5.5.2", "Lines must end with CR LF; for a device that cannot, set tolerate: [bare_newlines]", "bad_newlines"
)
FALSE_END = Reply(
    550, "5.5.2", "The dot at the end stands between bare newlines: end the message with CR LF . CR LF", "bad_newlines",
    last=True,
)  # fmt: skip
STRAY_LOGIN = Reply(
    501, "5.5.2", "An answer to AUTH stands where none was asked for, log in again", "bad_syntax"
)  # fmt: skip
CUT_LOGIN = Reply(
    501, "5.5.2", "The login is cut into lines: send its base64 as one line", "token_malformed", last=True
)  # fmt: skip

_UNSAFE = re.compile(r"[^ -~]")


def refusal_of(error: Exception) -> Refusal:
    """What a client hears of ``error``, as ``refusals`` has it.

    All else is a bug of ours, for which it may try again: 451 4.3.0 with the reason "internal".
    """
    return refusals.refusal_of(error) or INTERNAL()


def foreign(start: bytes) -> Refusal:
    """For a line of another protocol that begins like this."""
    if start in (b"PROXY", b"\0"):  # the first line of its version 1, the third of version 2
        return UNLISTED_PROXY()
    return (TLS_HELLO if start.startswith(b"\x16") else NOT_SMTP)()


def too_long(start: bytes) -> Refusal:
    """For a line that begins like this (RFC 4954 4.5.6 has a code of its own)."""
    if start.upper().startswith(b"AUTH"):
        return Refusal(500, "5.5.6", "Authentication exchange line is too long", "bad_syntax")
    return Refusal(500, "5.5.2", "Line too long", "line_too_long")


def sequence(text: str) -> Refusal:
    """503: not now. ``text`` says what should have come before."""
    return Refusal(503, "5.5.1", text, "bad_sequence")


def syntax(usage: str) -> Refusal:
    """501: the command is written like ``usage``."""
    return Refusal(501, "5.5.4", f"Syntax: {usage}", "bad_syntax")


def too_many_of(client: Client) -> Refusal:
    """421: all connections that the client may have at a time are open."""
    text = f'Client "{client.name}" has its {client.connections} connections (clients.{client.name}.connections) open'
    return LastRefusal(421, "4.7.0", f"{text}, try again later", "too_many_connections")


def line(refusal: Refusal) -> bytes:
    """One reply line of at most 512 octets (RFC 5321 4.5.3.1.5), whatever the text quotes."""
    text = _UNSAFE.sub("?", f"{refusal.code} {refusal.enhanced} {refusal.text}")
    return text[:510].encode("ascii") + b"\r\n"
