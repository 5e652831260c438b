"""What is said and heard on an SMTP line, as pure functions: which reply means what, and how a message is written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache

from gateway.address import parse_address, with_a_labels
from gateway.backends.shared.base import PIECE, safe
from gateway.backends.shared.table import ANY, TOO_BIG, Row, first
from gateway.model import BadAddress, Outcome, Scope, Verdict

_ENHANCED = re.compile(r"[245](\.\d{1,3}\.\d{1,3})\b")

_TOO_MANY = r"^[45]\.5\.3\b|too many (recipients|rcpts?)\b"
_MOST = "lower max_recipients of backends.{name}"
# What providers say after a message, as they and their users write it; of recipients they speak with 5.2.2 and 5.1.1.
# A filter may quote the message itself.
_OTHERS = (
    r"^(?!5\.(1\.1|2\.[12]|3\.4)\b)"
    r"(?!.*(receiv|\bsize\b|too large|mailbox|\bsubject\b|attachment|looks like|phish|virus|malware))"
)
_PERIOD = r"(daily|hourly|monthly|24-hour|sending|outgoing|outbound|relay|submission|mail send)"
_SPENT = (
    # Exchange Online and Gmail, whose codes say it alone.
    r"^(5\.4\.5|5\.1\.90|5\.7\.705|5\.7\.23[23])\b|SubmissionQuotaExceeded|"
    rf"{_OTHERS}.*\b({_PERIOD}\b[^.;]{{0,40}}\b(limit|quota)|max(imum)? (emails|messages|credits)|"
    r"email quota exceeded)\b"
)
_BLOCKED = (
    r"^5\.7\.(703|708|750)\b|bad outbound sender|OutboundSpamException|outgoing blocked|unusual sending activity|"
    rf"{_OTHERS}.*\b(sending|account)[^.;]{{0,30}} (paused|suspended|not (yet )?activated)\b|"
    rf"{_OTHERS}.*\b(unpaid|past due)\b"
)
_FULL = r"STOREDRV\.Submission.*(mailbox full|QuotaExceeded)|mailbox full.*STOREDRV\.Submission"
_UNVERIFIED = r"(address|sender|domain) (is )?not verified|verified sender identity|unverified (sender|domain)"
_WAIT = "the account's sending limit is used up: wait, raise it, or name a second backend in the route"
_UNBLOCK = (
    "the provider has blocked the account of backends.{name}: ask there why (Exchange: Defender, Restricted entities)"
)
_ROOM = (
    "the mailbox of the account is full: make room, its Sent Items first, and let Exchange keep them short "
    "(a retention tag: docs/microsoft365.md)"
)
_VERIFY = "verify this sender at the provider, or set clients.NAME.senders so that others are refused"
_LOGIN = "check username and password of backends.{name}, and how the server wants them"
# Exchange Online's words for log-ins that are switched off (aka.ms/smtp_auth_disabled).
_POLICIES = r"^5\.7\.139\b.*(security defaults|did not meet the criteria|conditional access)"
_OFF = r"SmtpClientAuthentication is disabled|basic authentication is (disabled|not supported)|^5\.7\.30\b"
_TENANT = (
    "let backends.{name} log in by token: microsoft in the place of username and password, or type: graph "
    "(docs/microsoft365.md); or switch SMTP AUTH on for this mailbox: Set-CASMailbox -Identity {mailbox} "
    "-SmtpClientAuthenticationDisabled $false"
)
_POLICY = (
    "exclude this application or sign-in from the Conditional Access policy that blocks it (entra.microsoft.com > "
    "Sign-in logs names it), or switch security defaults off"
)
_NO_LOGIN = "let backends.{name} log in: microsoft and mailbox (docs/microsoft365.md), or username and password"
_FEWER = (
    "Exchange takes 3 connections for a mailbox: set preset: office365 on backends.{name}, or mailbox_concurrency: 3; "
    "other programs may log in as {mailbox} too"
)
_APP = "make an app password at the provider for backends.{name}, or use type: gmail, which needs none (docs/gmail.md)"
_RELAY = r"relay(ing)?( access)? (denied|not (permitted|allowed))|(unable|not permitted) to relay|relay access denied"
_OPEN_UP = (
    "the server does not relay for us: set username and password of backends.{name}, or let it allow this machine's "
    "address"
)
_OWNED = r"not owned by|(permission|right)s? to send as|SendAsDenied|sender address rejected"
_NOT_AS = r"SendAsDenied|SendAs denied|^5\.7\.60\b|STOREDRV\.Submission.*SendAs"
_RIGHT = (
    "let {mailbox} send as this From: Add-RecipientPermission FROM -AccessRights SendAs -Trustee {mailbox}; or set "
    "mailbox: sender on backends.{name}, or senders or rewrite_sender of the client"
)
_AS = "let the account send as this From, or set senders or rewrite_sender of the client in clients"
_BIG = r"^5\.(3\.4|2\.3)\b|message (size )?(exceeds|is too (large|big))|message too (large|big)"
# Replies that refuse (RFC 5321 4.2.3, RFC 4954 6): the text is searched in "enhanced code, text".
REPLIES = (
    Row((535, 550), Verdict.MISCONFIGURED, "", text=_OFF, fix=_TENANT),
    Row((535,), Verdict.MISCONFIGURED, "", text=_POLICIES, fix=_POLICY),
    Row((530,), Verdict.MISCONFIGURED, "", text=r"^5\.7\.57\b", fix=_NO_LOGIN),
    Row((534, 535), Verdict.MISCONFIGURED, "", text=r"application-specific password", fix=_APP),
    Row((530, 534, 535, 538), Verdict.MISCONFIGURED, "", fix=_LOGIN),
    Row((421,), Verdict.THROTTLED, ""),
    # Too many recipients is told by 452, by 552 in older servers (RFC 5321, 4.5.3.1.10), by 550 in others.
    Row(range(450, 600), Verdict.DEFERRED, "", text=_TOO_MANY, scope=Scope.RECIPIENT, fix=_MOST),
    # Said of a message, but true of the account: what it may send is used up, it is blocked, its own mailbox is full.
    Row(range(500, 600), Verdict.THROTTLED, "", text=_SPENT, pause=timedelta(hours=1), fix=_WAIT),
    Row(range(500, 600), Verdict.MISCONFIGURED, "", text=_BLOCKED, fix=_UNBLOCK),
    Row(range(500, 600), Verdict.MISCONFIGURED, "", text=_FULL, fix=_ROOM),
    # Or of its sender, and others may send.
    Row(range(500, 600), Verdict.MISCONFIGURED, "", text=_UNVERIFIED, scope=Scope.MESSAGE, fix=_VERIFY),
    # Exchange Online has a limit of sessions, Amazon SES of messages a second.
    Row((432,), Verdict.THROTTLED, "", text=r"^4\.3\.2\b", pause=timedelta(seconds=10), fix=_FEWER),
    Row((454,), Verdict.THROTTLED, "", text="throttling"),
    # Greylisting, a full mailbox, a busy server: of one message, until several in a row hear it (delivery.breaker).
    Row(range(400, 500), Verdict.DEFERRED, ""),
    # Our wrong setting sends nothing back; but who relays for some gets on with the others.
    Row(range(550, 600), Verdict.MISCONFIGURED, "", text=_RELAY, scope=Scope.MESSAGE, fix=_OPEN_UP),
    Row(range(500, 600), Verdict.REJECTED, "", text=_NOT_AS, fix=_RIGHT),
    Row(range(500, 600), Verdict.REJECTED, "", text=_OWNED, fix=_AS),
    Row(range(500, 600), Verdict.REJECTED, "", text=_BIG, fix=TOO_BIG),
    Row(range(500, 600), Verdict.REJECTED, ""),
    Row(ANY, Verdict.DEFERRED, "4.5.0"),  # it has lost its place in the dialogue
)


def refusal(known: Mapping[str, str], code: int, text: str, *secrets: str, rows: Sequence[Row] = ()) -> Outcome:
    """The outcome of a reply that is not the hoped-for one. ``rows`` are looked through before those of all servers.

    ``known`` are the backend's name and mailbox, for the fixes; ``secrets`` are kept out of the detail.
    """
    match = _ENHANCED.match(text)
    enhanced = f"{code // 100}{match[1] if match else '.0.0'}"
    row = first((*rows, *REPLIES), code, "", f"{enhanced} {text}")
    outcome = row.outcome("smtp", code, safe(f"{code} {text}", *secrets), known)
    if outcome.enhanced:
        return replace(outcome, detail=f"unexpected reply: {outcome.detail}")
    return replace(outcome, enhanced=enhanced, retry_after=row.pause)


def too_many(code: int, text: str) -> bool | None:
    """Whether a reply to RCPT means that the rest belongs into another transaction; None: it may, and trying tells."""
    if re.search(_TOO_MANY, text, re.IGNORECASE):
        return True
    return None if code in (452, 552) and not _ENHANCED.match(text) else False


@lru_cache(maxsize=1024)
def path(address: str) -> bytes | None:
    """``<address>``, if what the server reads between the brackets is exactly this address; else None.

    The domain in A-labels, which every server takes, unless the local part needs SMTPUTF8 anyway (RFC 6531, 3.2).
    """
    try:
        if address and parse_address(address) != address:
            return None
        plain = with_a_labels(address)
        return b"<%b>" % (plain if plain.isascii() else address).encode()
    except (BadAddress, UnicodeEncodeError):
        return None


def parameters(**values: str) -> list[bytes]:
    """KEY=value for every value that is one printable word."""
    return [f"{key}={value}".encode() for key, value in values.items() if re.fullmatch(r"[\x21-\x7e]+", value)]


def wire(raw: bytes) -> Iterator[tuple[bytes, bool]]:
    """A message as DATA carries it (RFC 5321, 4.5.2), in pieces; True marks the one with the final dot."""
    before = b"\r\n"
    for start in range(0, len(raw) or 1, PIECE):
        piece = before + raw[start : start + PIECE]
        before, last = piece[-2:], start + PIECE >= len(raw)
        end = b"" if not last else b".\r\n" if before == b"\r\n" else b"\r\n.\r\n"
        yield piece.replace(b"\r\n.", b"\r\n..")[2:] + end, last
