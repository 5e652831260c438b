"""A remedy for each reason for which somebody can be turned away (events.REASONS)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gateway.config.models import Settings
from gateway.remedies import entry, mail, protocol
from gateway.remedies.case import Case, Remedy
from gateway.remedies.protocol import plain
from gateway.spool import RefusalRow

_LOG, _STATUS = "journalctl -u gateway", "gateway status"
REMEDIES: Mapping[str, Callable[[Case], Remedy]] = {
    "relay_denied": entry.relay_denied,
    "auth_required": entry.auth_required,
    "tls_required": entry.tls_required,
    "auth_failed": entry.auth_failed,
    "too_many_failures": entry.too_many_failures,
    "auth_unavailable": entry.auth_unavailable,
    "wrong_user": entry.wrong_user,
    "wrong_network": entry.wrong_network,
    "unknown_client": entry.unknown_client,
    "token_malformed": entry.token_malformed,
    "token_signature": entry.token_signature,
    "token_expired": entry.token_expired,
    "token_not_yet": entry.token_not_yet,
    "token_revoked": entry.token_revoked,
    "token_unknown_key": entry.token_unknown_key,
    "token_claims": entry.token_claims,
    "token_audience": entry.token_audience,
    "sender_denied": mail.sender_denied,
    "recipient_denied": mail.recipient_denied,
    "rate_limited": mail.rate_limited,
    "too_big": mail.too_big,
    "too_many_recipients": mail.too_many_recipients,
    "no_route": mail.no_route,
    "cannot_carry": mail.cannot_carry,
    "bad_address": mail.bad_address,
    "utf8_address": mail.utf8_address,
    "bad_newlines": protocol.bad_newlines,
    "line_too_long": protocol.line_too_long,
    "bad_message": protocol.bad_message,
    "bad_sequence": protocol.bad_sequence,
    "bad_syntax": protocol.bad_syntax,
    "tls_failed": protocol.tls_failed,
    "proxy_header": protocol.proxy_header,
    "too_many_connections": protocol.too_many_connections,
    "busy": protocol.busy,
    "unknown_command": plain("It sent what is no command of SMTP.", "This is no mail program, or it is broken."),
    "too_many_errors": plain("Too many mistakes in one connection.", "See what else this address was refused for."),
    "cross_protocol": plain(
        "It spoke HTTP or TLS where SMTP is spoken.", "Correct the port: the web pages are on 8026, TLS needs STARTTLS."
    ),
    "learning": plain(
        "Learn mode heard it out, and accepted nothing of it.",
        "See what lets it in: gateway learn report. To be refused at once again: gateway learn stop.",
    ),
    "mail_loop": plain("The message has been here before.", "Correct the route or the server that sends it back."),
    "idle": plain(
        "It fell silent, or sent too slowly.", "Look at the network; limits.idle is how long it may be silent."
    ),
    "spool_full": plain(
        "There was no room on the disk.",
        "Make room: docs/operations.md. It takes mail again by itself.",
        "gateway status",
    ),
    "spool_error": plain("The disk refused a write.", "The log says why, in the same second.", _LOG),
    "internal": plain(
        "A mistake of the gateway itself.", "Report it, with what the log says in the same second.", _LOG
    ),
    "shutting_down": plain(
        "The service was about to stop, or a reload moved this listener.", "Nothing: clients come again."
    ),
    "other": plain("The log has the reason.", "Look there, in the same second.", _LOG),
}


def remedy(row: RefusalRow, settings: Settings) -> Remedy:
    """By these settings, which may be others than those that it was refused by."""
    if row.mixed:
        return _of_many(row)
    return REMEDIES.get(row.reason, REMEDIES["other"])(Case(row, settings))


def _of_many(row: RefusalRow) -> Remedy:
    """Of a mixed row only the count is known, so it lets nobody in: the first of them have rows of their own."""
    who = row.client or row.peer
    if not who and row.stage == "auth":
        return Remedy(why="Many addresses try user names and passwords.", fix="Nothing to do: they are slowed down.")
    why = f"{who} was turned away for too many" if who else "Too many addresses were turned away for"
    return Remedy(
        why=f"{why} {'different mails or names' if who else 'this reason'} to tell them apart.",
        fix="The first of them stand in lines of their own, with what to do, and all of them in the log.",
        command=f"gateway refused {f'{who} ' if who else ''}--reason {row.reason}",
    )
