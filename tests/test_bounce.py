"""A report says in plain words and in fields what became of whom, and survives every reader and every path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.bounce import Failure, Report
from gateway.message import scan
from gateway.model import Envelope, Outcome, Recipient, Verdict
from tests.builders import spooled_message

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
MESSAGE = spooled_message(
    id="01KQ2M8V3N7XJ",
    envelope=Envelope("scan@example.com", ()),
    received_at=NOW - timedelta(hours=5),
    expires_at=NOW,
    message_id="<m@example.com>",
)
ORIGINAL = b"From: scan@example.com\r\nTo: bob@example.org\r\nSubject: Scan =?utf-8?q?f=C3=BCr_Bob?=\r\n\r\nhello\r\n"
NO_USER = Outcome(Verdict.REJECTED, 550, "5.1.1", "550 5.1.1 no such user", said_by="smtp")


def failure(outcome: Outcome = NO_USER, action: str = "failed", **recipient: str) -> Failure:
    return Failure(Recipient(**{"address": "bob@example.org", **recipient}), outcome, "smart", action, NOW)


def report(failures: Sequence[Failure] = (failure(),), **changes: Any) -> bytes:
    given = {
        "hostname": "relay.example.com", "sender": "postmaster@example.com", "message": MESSAGE, "original": ORIGINAL,
        "failures": failures, "now": NOW, "message_id": "<r@relay.example.com>", "boundary": "=01KQ-0123456789abcdef",
    }  # fmt: skip
    return Report(**{**given, **changes}).build()


FIELD = re.compile(r"([A-Za-z][A-Za-z-]*): (\S[^\r\n]*(?:\r\n[ \t][^\r\n]+)*)\r\n")


def groups(raw: bytes) -> list[dict[str, str]]:
    """The delivery-status part read by hand: groups of fields with an empty line between (RFC 3464 2.1)."""
    part = re.search(rb"delivery-status\r\n(?:[^\r\n]+\r\n)*\r\n(.*?)\r\n--=", raw, re.DOTALL)
    assert part is not None
    found = []
    for group in (part[1].decode()).rstrip("\r\n").split("\r\n\r\n"):
        fields = FIELD.findall(group + "\r\n")
        assert FIELD.sub("", group + "\r\n") == "", "every line belongs to a field"
        assert len({name for name, _ in fields}) == len(fields), "no field stands twice"
        found.append({name: value.replace("\r\n\t", " ") for name, value in fields})
    return found


def parsed(raw: bytes) -> EmailMessage:
    message = message_from_bytes(raw, policy=policy.default)
    assert isinstance(message, EmailMessage)
    assert not [defect for part in message.walk() for defect in part.defects]
    return message


def words(raw: bytes) -> str:
    return " ".join(str(parsed(raw).get_payload(0).get_content()).split())


def test_a_whole_report() -> None:
    """The three parts in their order, marked as automatic, tied to the original by Message-ID."""
    message = parsed(report())
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert [part.get_content_type() for part in message.iter_parts()] == [
        "text/plain", "message/delivery-status", "message/rfc822",
    ]  # fmt: skip
    assert [part["Content-Description"] for part in message.iter_parts()] == [
        "Notification", "Delivery report", "Original message",
    ]  # fmt: skip
    assert str(message["From"]) == "Mail Delivery System <postmaster@example.com>"
    assert message["To"].addresses[0].addr_spec == "scan@example.com"
    assert (message["Auto-Submitted"], message["MIME-Version"]) == ("auto-replied", "1.0")
    assert (message["Message-ID"], message["In-Reply-To"]) == ("<r@relay.example.com>", "<m@example.com>")
    assert parsedate_to_datetime(message["Date"]) == NOW
    original = message.get_payload(2).get_payload(0)
    assert original["Subject"] == "Scan für Bob"
    assert report().count(ORIGINAL) == 1


def test_the_words() -> None:
    """A person learns which message, who, why, and what to do, without knowing a single code."""
    text = words(report())
    for expected in (
        "relay.example.com", "Fri, 20 Nov 2026 07:00:00 +0000", 'subject "Scan für Bob"', "could not be delivered",
        "<bob@example.org>", "Reason: 550 5.1.1 no such user (from backend smart)", "Check the address",
        "Queue id: 01KQ2M8V3N7XJ", "answers to it are not read",
    ):  # fmt: skip
        assert expected in text
    assert "550 5.1.1 550" not in text


def test_what_a_person_has_to_do_is_for_the_administrator() -> None:
    """It speaks of settings; it stands in the text, and not among the words of the other side."""
    outcome = Outcome(
        Verdict.REJECTED, 403, "5.7.1", "HTTP 403 ErrorSendAsDenied", said_by="http", fix="grant Send As\r\nX: y"
    )
    raw = report([failure(outcome)])
    assert "For your administrator: grant Send As X: y What to do: The other system" in words(raw)
    assert groups(raw)[1]["Diagnostic-Code"] == "x-http; 403 ErrorSendAsDenied"
    assert "For your administrator" not in words(report())


def test_the_fields() -> None:
    """Everything RFC 3464 requires, and what the sender asked for with ENVID and ORCPT."""
    message = replace(MESSAGE, envelope=Envelope("scan@example.com", (), envid="job+2B7"))
    raw = report([failure(orcpt="rfc822;Bob+3DX@example.org")], message=message)
    per_message, per_recipient = groups(raw)
    assert per_message == {
        "Original-Envelope-Id": "job+7",
        "Reporting-MTA": "dns; relay.example.com",
        "Arrival-Date": "Fri, 20 Nov 2026 07:00:00 +0000",
    }
    assert per_recipient == {
        "Original-Recipient": "rfc822; Bob=X@example.org",
        "Final-Recipient": "rfc822; bob@example.org",
        "Action": "failed",
        "Status": "5.1.1",
        "Diagnostic-Code": "smtp; 550 5.1.1 no such user",
        "Last-Attempt-Date": "Fri, 20 Nov 2026 12:00:00 +0000",
    }
    theirs = parsed(raw).get_payload(1).get_payload()
    assert [dict(group.items()) for group in theirs] == [per_message, per_recipient]


@pytest.mark.parametrize(
    ("outcome", "action", "status", "diagnostic"),
    [
        (NO_USER, "failed", "5.1.1", "smtp; 550 5.1.1 no such user"),
        (
            Outcome(Verdict.REJECTED, 550, "5.1.1", "no such user", said_by="smtp"), "failed", "5.1.1",
            "smtp; 550 5.1.1 no such user",
        ),
        (Outcome(Verdict.REJECTED, 550, "", "no", said_by="smtp"), "failed", "5.0.0", "smtp; 550 no"),
        (Outcome(Verdict.REJECTED, 400, "5.6.0", "HTTP 400 bad", said_by="http"), "failed", "5.6.0", "x-http; 400 bad"),
        (
            Outcome(Verdict.REJECTED, 429, "4.4.7", "gave up; last answer: HTTP 429 slow", said_by="http"),
            "failed", "4.4.7", "x-http; 429 4.4.7 gave up; last answer: HTTP 429 slow",
        ),
        (Outcome(Verdict.REJECTED, None, "5.4.7", "gave up"), "failed", "5.4.7", "x-gateway; gave up"),
        (Outcome(Verdict.REJECTED, 451, "5.4.7", "gave up"), "failed", "5.4.7", "x-gateway; gave up"),
        (Outcome(Verdict.REJECTED, None, "2.0.0", ""), "failed", "5.0.0", None),
        (Outcome(Verdict.REJECTED, None, "5.1.1\r\nX: y", "x"), "failed", "5.0.0", "x-gateway; x"),
        (Outcome(Verdict.DEFERRED, 450, "4.2.1", "later", said_by="smtp"), "delayed", "4.2.1", "smtp; 450 4.2.1 later"),
        (Outcome(Verdict.DEFERRED, 550, "5.1.1", "odd", said_by="smtp"), "delayed", "4.0.0", "smtp; 550 5.1.1 odd"),
        (Outcome(Verdict.SENT, 250, "2.1.5", "ok", said_by="smtp"), "relayed", "2.1.5", "smtp; 250 2.1.5 ok"),
        (Outcome(Verdict.SENT), "relayed", "2.0.0", None),
    ],
)  # fmt: skip
def test_status_and_diagnostic(outcome: Outcome, action: str, status: str, diagnostic: str | None) -> None:
    """The status fits the action (RFC 3464 2.3.4), and the diagnostic says whose language it speaks."""
    _, fields = groups(report([failure(outcome, action)], retry_until=NOW if action == "delayed" else None))
    assert (fields["Action"], fields["Status"], fields.get("Diagnostic-Code")) == (action, status, diagnostic)
    assert ("Will-Retry-Until" in fields) == (action == "delayed")
    _, fields = groups(report([replace(failure(outcome, action), tried_at=None)]))
    assert "Last-Attempt-Date" not in fields  # RFC 3464 2.3.7


@pytest.mark.parametrize(
    ("enhanced", "advice"),
    [
        ("5.1.1", "Check the address"), ("5.1.8", "sender address was refused"), ("5.2.1", "takes no mail"),
        ("5.2.2", "is full"), ("5.3.4", "too big"), ("5.4.7", "could not be reached in time"),
        ("5.6.3", "a simpler one"), ("5.7.1", "does not permit"), ("4.4.7", "after trying for a long time"),
        ("5.0.0", "if it matters"),
    ],
)  # fmt: skip
def test_advice(enhanced: str, advice: str) -> None:
    """What to do follows from the status."""
    assert advice in words(report([failure(Outcome(Verdict.REJECTED, 550, enhanced, "x", said_by="smtp"))]))


def test_delayed() -> None:
    """Not a failure yet: until when it is tried, and that nothing needs to be done."""
    raw = report([failure(Outcome(Verdict.DEFERRED, 450), "delayed")], retry_until=NOW + timedelta(days=5))
    assert "not been delivered yet" in words(raw)
    assert "keeps trying until Wed, 25 Nov 2026 12:00:00 +0000" in words(raw)
    assert "What to do" not in words(raw)
    assert parsed(raw)["Subject"] == "Delayed mail: bob@example.org"


def test_several_recipients() -> None:
    """One report names them all, each with its own reason."""
    full = Outcome(Verdict.REJECTED, 552, "5.2.2", "mailbox full", said_by="smtp")
    raw = report([failure(), failure(full, address="eve@example.org")])
    assert [group.get("Final-Recipient") for group in groups(raw)] == [
        None, "rfc822; bob@example.org", "rfc822; eve@example.org",
    ]  # fmt: skip
    assert words(raw).index("no such user") < words(raw).index("eve@example.org") < words(raw).index("mailbox full")


def test_plain_notice() -> None:
    """Sent under a real address, it does not say that nobody reads the answers."""
    assert "not read" not in words(report(plain=True))


def test_internationalised_addresses() -> None:
    """RFC 6533: global types, the utf-8 address type, 8bit said where 8bit is."""
    message = replace(MESSAGE, envelope=Envelope("jörg@bücher.example", (), smtputf8=True))
    raw = report([failure(address="bob@b\xfccher.example")], message=message)
    assert b"Content-Type: message/global-delivery-status\r\n" in raw
    assert b"Content-Type: message/global\r\n" in raw
    assert b"\r\nContent-Transfer-Encoding: 8bit\r\n" in raw[: raw.index(b"\r\n\r\n") + 2]
    assert groups(raw)[1]["Final-Recipient"] == "utf-8; bob@bücher.example"
    assert scan(raw).addresses("to") == ("jörg@bücher.example",)


BIG = ORIGINAL + b"x" * 70 + b"\r\n" + b"0123456789\r\n" * 10_000


@pytest.mark.parametrize(
    ("original", "ret", "kind", "content", "note"),
    [
        (ORIGINAL, "", b"message/rfc822", ORIGINAL, None),
        (ORIGINAL, "FULL", b"message/rfc822", ORIGINAL, None),
        (ORIGINAL, "HDRS", b"text/rfc822-headers", ORIGINAL[:-7], "Only the header"),
        (BIG, "FULL", b"message/rfc822", BIG[: BIG.rindex(b"\r\n", 0, 50_000) + 2], "Only the beginning"),
        (ORIGINAL + b"a\0b\r\n", "", b"text/rfc822-headers", ORIGINAL[:-7], "Only the header"),
        (ORIGINAL + b"a\nb\r\n", "", b"text/rfc822-headers", ORIGINAL[:-7], "Only the header"),
        (ORIGINAL + b"a" * 999 + b"\r\n", "", b"text/rfc822-headers", ORIGINAL[:-7], "Only the header"),
        (ORIGINAL + b"a" * 998 + b"\r\n", "", b"message/rfc822", ORIGINAL + b"a" * 998 + b"\r\n", None),
    ],
)  # fmt: skip
def test_what_comes_back(original: bytes, ret: str, kind: bytes, content: bytes, note: str | None) -> None:
    """The original if it is small and fit, else its beginning, else its header; the words say what is missing."""
    raw = report(message=replace(MESSAGE, envelope=Envelope("scan@example.com", (), ret=ret)), original=original)
    assert b"Content-Type: %b\r\n" % kind in raw
    assert b"\r\n\r\n%b\r\n--=01KQ-0123456789abcdef--\r\n" % content in raw
    assert ("attached" in words(raw)) == (note is not None)
    assert (note or "") in words(raw)


def test_unfit_header_is_encoded() -> None:
    """A header line too long for any mail path comes back in base64."""
    original = b"Subject: x\r\nX-Long: " + b"y" * 5000 + b"\r\n\r\nbody"
    part = parsed(report(original=original)).get_payload(2)
    assert (part.get_content_type(), part["Content-Transfer-Encoding"]) == ("text/rfc822-headers", "base64")
    assert part.get_payload(decode=True) == original[:-4]


@pytest.mark.parametrize("original", [b"", b"X: " + b"y" * 200_000 + b"\r\n\r\nbody", b"\xff\xfe\r\n"])
def test_odd_originals(original: bytes) -> None:
    """Whatever was accepted can be reported."""
    assert b"Reporting-MTA" in report(original=original)


EVIL = st.text(st.characters(codec="utf-8"), max_size=80) | st.sampled_from(
    [
        "a\r\nBcc: evil@example.net",
        "x\r\n\r\n--=01KQ-0123456789abcdef",
        "y" * 3000,
        "z " * 800,
        "\x00\x1b[31m",
        "\u202e",
    ]
)


@given(detail=EVIL, envid=EVIL, orcpt=EVIL, message_id=EVIL, enhanced=EVIL, subject=EVIL)
def test_nothing_from_outside_breaks_the_form(
    detail: str, envid: str, orcpt: str, message_id: str, enhanced: str, subject: str
) -> None:
    """CRLF only, lines of at most 998 bytes, 7bit where 7bit is said, no header and no part that is not ours."""
    message = replace(MESSAGE, message_id=message_id, envelope=Envelope("scan@example.com", (), envid=envid))
    first = failure(Outcome(Verdict.REJECTED, 550, enhanced, detail, said_by="smtp"), orcpt="rfc822;" + orcpt)
    second = failure(Outcome(Verdict.REJECTED, 400, enhanced, "HTTP 400 " + detail, said_by="http"), orcpt=orcpt)
    original = b"Subject: " + re.sub(r"\s", " ", subject).encode()[:900] + b"\r\n\r\nbody\r\n"
    raw = report([first, second], message=message, original=original)
    lines = raw.split(b"\r\n")
    assert not any(b"\r" in line or b"\n" in line or len(line) > 998 for line in lines)
    header = {field.name for field in scan(raw).fields}
    assert header <= {
        "from", "to", "subject", "date", "message-id", "in-reply-to", "references", "auto-submitted",
        "x-auto-response-suppress", "mime-version", "content-type", "content-transfer-encoding",
    }  # fmt: skip
    assert scan(raw).addresses("to") == ("scan@example.com",)
    assert raw[: raw.index(b"\r\n\r\n")].isascii()
    assert raw.isascii() or b"content-transfer-encoding: 8bit" in raw[: raw.index(b"\r\n\r\n")].lower()
    assert len(groups(raw)) == 3
    for group in groups(raw):
        assert set(group) <= {
            "Original-Envelope-Id", "Reporting-MTA", "Arrival-Date", "Original-Recipient", "Final-Recipient",
            "Action", "Status", "Diagnostic-Code", "Last-Attempt-Date",
        }  # fmt: skip
        assert all(value.isascii() for value in group.values())
    assert raw.count(b"\r\n--=01KQ-0123456789abcdef\r\n") == 3
    assert raw.endswith(b"\r\n--=01KQ-0123456789abcdef--\r\n")
