"""What a report says of whom, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.reports import of_headers, read
from gateway.returned import Failed
from tests.reports.ndr_kit import ORIGINAL_ID, exchange, gmail, ordinary, postfix, postfix_group

LATE = postfix_group("c@x.example", action="delayed", status="4.4.1")
RELAYED = postfix_group("d@x.example", action="relayed", status="2.0.0")


@pytest.mark.parametrize("language", ["en", "de", "nl", "fr", "ja"])
def test_exchange_in_any_language(language: str) -> None:
    """The fields decide; words of a subject are in whatever language the tenant speaks."""
    found = read(exchange(language))
    assert found is not None
    assert found.named == (ORIGINAL_ID,)
    (failed,) = found.failed
    assert (failed.addresses, failed.enhanced) == (("b@x.example",), "5.1.10")
    assert failed.detail.startswith("550 5.1.10 RESOLVER.ADR.RecipientNotFound")
    assert found.subject == "Invoice 12"


FOUND: list[tuple[str, bytes, tuple[str, ...], list[tuple[str, str]]]] = [
    ("gmail", gmail(), (ORIGINAL_ID,), [("b@x.example", "5.1.1")]),
    ("gmail, which replaced it", gmail(ident="<CAB@mail.gmail.com>", was=ORIGINAL_ID),
     (ORIGINAL_ID, "<CAB@mail.gmail.com>"), [("b@x.example", "5.1.1")]),
    ("postfix", postfix(), (ORIGINAL_ID,), [("b@x.example", "5.1.1")]),
    ("postfix, whole original", postfix(part="message/rfc822"), (ORIGINAL_ID,), [("b@x.example", "5.1.1")]),
    ("some failed", postfix(postfix_group("b@x.example"), LATE, RELAYED, postfix_group("e@x.example", status="5.2.2")),
     (ORIGINAL_ID,), [("b@x.example", "5.1.1"), ("e@x.example", "5.2.2")]),
    ("gave up", postfix(postfix_group("b@x.example", status="4.4.1")), (ORIGINAL_ID,), [("b@x.example", "4.4.1")]),
    ("as a code only in words", exchange(status="5.0.0", said="550 5.7.1 blocked"), (ORIGINAL_ID,),
     [("b@x.example", "5.7.1")]),
    ("RFC 6533", postfix(postfix_group(r"b\x{FC}@x.example", kind="utf-8")), (ORIGINAL_ID,),
     [("bü@x.example", "5.1.1")]),
    ("no kind of report named", exchange().replace(b" report-type=delivery-status;", b""), (ORIGINAL_ID,),
     [("b@x.example", "5.1.10")]),
    ("bare line feeds", postfix().replace(b"\r\n", b"\n"), (ORIGINAL_ID,), [("b@x.example", "5.1.1")]),
    ("cut off behind what it tells", gmail()[: gmail().index(b"Last-Attempt-Date")], (ORIGINAL_ID,),
     [("b@x.example", "5.1.1")]),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "named", "failed"), [row[1:] for row in FOUND], ids=[row[0] for row in FOUND])
def test_who_failed(raw: bytes, named: tuple[str, ...], failed: list[tuple[str, str]]) -> None:
    found = read(raw)
    assert found is not None
    assert found.named == named
    assert [(one.addresses[0], one.enhanced) for one in found.failed] == failed


def test_the_address_that_the_sender_knew_comes_first() -> None:
    found = read(postfix(postfix_group("z@elsewhere.example", was="b@x.example")))
    assert found is not None
    assert found.failed[0].addresses == ("b@x.example", "z@elsewhere.example")


def test_of_a_thread_the_last_is_meant() -> None:
    """Earlier mail of the thread may be ours, too, and has arrived."""
    raw = postfix(ident="").replace(b"MIME-Version", b"References: <1@h> <2@h>\r\n\t<3@h>\r\nMIME-Version")
    found = read(raw)
    assert found is not None
    assert found.named == ("<3@h>", "<2@h>", "<1@h>")


STATUS = "--b\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; h\n\n" + postfix_group("b@x.example")
REPORT = 'multipart/report; report-type={}; boundary="b"'
NONE = {
    "late": postfix(LATE),
    "passed on": postfix(RELAYED),
    "gmail, late": gmail(late=True),
    "failed with success": postfix(postfix_group("b@x.example", status="2.0.0")),
    "holiday": ordinary("text/plain", head="Auto-Submitted: auto-replied\nX-Auto-Response-Suppress: All"),
    "receipt": ordinary(REPORT.format("disposition-notification"), body=STATUS),
    "complaint": ordinary(REPORT.format("feedback-report"), body=STATUS),
    "forwarded report": ordinary('multipart/mixed; boundary="b"', body=STATUS),
    "attached report": ordinary(
        'multipart/report; boundary="b"', body="--b\nContent-Type: message/rfc822\n\n" + postfix().decode()
    ),
    "journal": ordinary('multipart/mixed; boundary="b"', body="--b\nContent-Type: message/rfc822\n\nFrom: a@b.c\n\nx"),
    "meeting": ordinary("text/calendar; method=REPLY"),
    "of another kind": postfix(postfix_group("+1 555", kind="x-phone")),
    "empty": b"",
}


@pytest.mark.parametrize("raw", NONE.values(), ids=NONE)
def test_what_tells_of_no_failure(raw: bytes) -> None:
    assert read(raw) is None


def test_a_report_is_bounded() -> None:
    """Whoever writes one may write much: people, names and words are cut."""
    many = postfix(*(postfix_group(f"u{n}@x.example") for n in range(1500)))
    many = many.replace(
        b"MIME-Version", b"References: " + b" ".join(b"<%d@h>" % n for n in range(500)) + b"\r\nMIME-Version"
    )
    found = read(many.replace(b"User unknown", b"x" * 5000, 1))
    assert found is not None
    assert (len(found.failed), len(found.named), len(found.failed[0].detail)) == (1000, 20, 500)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_bytes_are_an_error(data: st.DataObject) -> None:
    """Somebody's damaged report is nobody's failure."""
    raw = bytearray(data.draw(st.sampled_from((exchange("ja"), gmail(), postfix()))))
    for place in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=20)):
        raw[place] = data.draw(st.integers(0, 255))
    read(bytes(raw[: data.draw(st.integers(0, len(raw)))]))


HEADERS = {
    "from": "Mail Delivery Subsystem <mailer-daemon@googlemail.com>",
    "subject": "Delivery Status Notification (Failure)",
    "x-failed-recipients": "b@x.example, c@x.example", "in-reply-to": ORIGINAL_ID,
    "content-type": 'multipart/report; boundary="f"; report-type=delivery-status',
}  # fmt: skip


def test_headers_alone() -> None:
    found = of_headers(HEADERS)
    assert found is not None
    assert found.named == (ORIGINAL_ID,)
    assert found.failed == (Failed(("b@x.example",)), Failed(("c@x.example",)))


@pytest.mark.parametrize(
    "changes",
    [
        {"x-failed-recipients": ""},
        {"subject": "Delivery Status Notification (Delay)"},
        {"from": "b@x.example"},
        {"in-reply-to": ""},
        {"content-type": "multipart/report; report-type=disposition-notification"},
        {"x-failed-recipients": "nobody\r\nat: all"},
    ],
)
def test_headers_that_tell_of_no_failure(changes: dict[str, str]) -> None:
    assert of_headers(HEADERS | changes) is None
