"""Mail in every state, as in the design's picture of the list: what came, and what each backend answered."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from gateway.model import Outcome, Scope, Verdict
from gateway.spool import Told
from tests.builders import SENT, new_message
from tests.fakes import START
from tests.http.kit import Service
from tests.spool_kit import settlement

SCAN = (
    b"From: Scanner <scanner@example.com>\r\nTo: max@example.com\r\nSubject: Scan_0921\r\nMIME-Version: 1.0\r\n"
    b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nThe scan.\r\n'
    b'--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename="Scan_0921.pdf"\r\n\r\n'
    b"%PDF-1.7 not really\r\n--b--\r\n"
)
MAY_NOT = Outcome(
    Verdict.REJECTED, code=403, enhanced="5.7.1", said_by="http", scope=Scope.RECIPIENT,
    detail="HTTP 403 ErrorSendAsDenied: The user account which was used to submit this request does not have the right "
    "to send mail on behalf of the specified sending account., Cannot submit message.",
    fix="Give noreply@example.com Send As on scanner@example.com in the Exchange admin center. It takes up to an hour.",
)  # fmt: skip
SLOWER = Outcome(
    Verdict.THROTTLED, code=429, said_by="http", scope=Scope.BACKEND,
    detail="HTTP 429 ApplicationThrottled: Application is over its MailboxConcurrency limit.",
)  # fmt: skip
FULL = Outcome(Verdict.DEFERRED, code=452, enhanced="4.2.2", detail="mailbox is full", said_by="smtp")
DOUBT = Outcome(Verdict.IN_DOUBT, detail="connection lost after the whole message was sent")
NO_DOMAIN = Outcome(
    Verdict.REJECTED, code=550, enhanced="5.1.2", detail="Host or domain name not found", said_by="smtp"
)
TAKEN = Outcome(Verdict.SENT, code=202, said_by="http", detail="accepted", remote_id="1w8gKj-FnQW0hPx3CD-kT2z")


async def put(
    service: Service, ident: str, *to: str, backend: str, minutes: int, sender: str = "scanner@example.com",
    client: str = "copier", deliveries: Mapping[str, tuple[str, ...]] | None = None, raw: bytes = SCAN, **more: object,
) -> str:  # fmt: skip
    at = START - timedelta(minutes=minutes)
    given = {"deliveries": deliveries} if deliveries else {"backend": backend}
    message = new_message(
        *to, ident=ident, sender=sender, client=client, peer="192.0.2.17", listener="devices", received_at=at,
        message_id=f"<{ident}@copier.dev.local>", raw=raw, header_from=sender, **given, **more,
    )  # fmt: skip
    await service.spool.put(message)
    return ident


async def answer(
    service: Service,
    backend: str,
    outcome: Outcome | Mapping[str, Outcome],
    *,
    state: str = "",
    told: tuple[Told, ...] = (),
) -> None:
    """To the one message that is due there."""
    lease = timedelta(minutes=5)
    (claim,) = (await service.spool.claim(backend, now=service.spool.now(), lease=lease, limit=1)).claims
    more = {"states": {one.address: state for one in claim.message.envelope.recipients}} if state else {}
    again = None if state == "held" else service.spool.now() + timedelta(minutes=21)
    await service.spool.settle(settlement(claim, outcome, ended_at=START, next_attempt_at=again, told=told, **more))


async def furnish(service: Service) -> None:
    """Of each state one; ids sort by time as ours do."""
    nobody = (Told("failed", reason="no_backend"),)
    await put(service, "1K1EMN8GZ5YEP", "reception@example.com", backend="b1", minutes=110)
    await answer(service, "b1", TAKEN)
    await put(
        service,
        "1K1EMR3A71XJK",
        "c.moreau@exmaple.org",
        backend="b2",
        minutes=107,
        sender="hr@example.com",
        client="erp",
    )
    await answer(service, "b2", NO_DOMAIN, told=(Told("failed", bounce_id="1K1EMR3A71XJZ"),))
    await put(
        service,
        "1K1EN2F7C04RA",
        "admin@example.com",
        backend="b3",
        minutes=100,
        sender="cron@example.com",
        client="localhost",
    )
    await answer(service, "b3", FULL)
    await put(
        service,
        "1K1EQ7Z0MBCN4",
        "oncall@example.net",
        backend="b4",
        minutes=66,
        sender="alerts@example.com",
        client="monitoring",
    )
    await answer(service, "b4", DOUBT, state="held")
    await put(
        service, "1K1EQM5KE2HT7", "max@example.com", "orders@partner.example", backend="", minutes=60,
        deliveries={"b5": ("max@example.com",), "b6": ("orders@partner.example",)},
    )  # fmt: skip
    await answer(service, "b6", TAKEN)
    await answer(service, "b5", MAY_NOT, told=nobody)
    await put(service, "1K1ER5XGPR3PN", "max@example.com", backend="b7", minutes=50)
    await answer(service, "b7", MAY_NOT, told=nobody)
    await put(
        service,
        "1K1ES4128SV0C",
        "orders@partner.example",
        backend="b8",
        minutes=33,
        sender="invoice@example.com",
        client="billing",
    )
    await answer(service, "b8", SENT)
    await put(service, "1K1ETM2VAWG42", "reception@example.com", backend="office", minutes=2)
    await put(
        service, "1K1ETQ8BN5R98", "a.keller@example.com", "b@example.com", "c@example.com", backend="box", minutes=1,
        sender="erp@example.com", client="erp",
    )  # fmt: skip
