"""Mail above 3 MB by way of a draft: the fields, the files, uploads that are interrupted, and what is left behind."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.microsoft.draft import RANGE, Reader, draft_of
from gateway.model import BadMessage, CannotCarry, Verdict
from tests.backends import kit
from tests.backends.graph_fake import MAILBOX, Item, Way, error, open_way
from tests.backends.kit import http
from tests.fakes import until

V = Verdict
BIG = bytes(range(256)) * 16_000  # 4 MB
PNG = b"\x89PNG" + bytes(range(200))


def message(**options: Any) -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = f"Scanner <{MAILBOX}>"
    mail["To"] = 'B <b@x.example>, "Doe, J" <c@x.example>'
    mail["Cc"] = "d@x.example"
    mail["Subject"] = "Grüße"
    mail["Message-ID"] = "<one@corp.example>"
    mail["In-Reply-To"] = "<zero@corp.example>"
    mail["References"] = "<zero@corp.example>"
    mail["Reply-To"] = "R <r@corp.example>"
    mail["Importance"] = "High"
    mail["Disposition-Notification-To"] = "r@corp.example"
    for number in range(6):
        mail[f"X-Own-{number}"] = f"ä{number}"
    mail.set_content("the text\n")
    if options.get("html"):
        mail.add_alternative('<p>the html <img src="cid:pic@x"></p>', subtype="html")
        mail.get_payload()[1].add_related(PNG, "image", "png", cid="<pic@x>", filename="pic.png")  # type: ignore[union-attr]
    mail.add_attachment(BIG, maintype="application", subtype="pdf", filename="größe.pdf")
    mail.add_attachment(b"a,b\r\n", maintype="text", subtype="csv", filename="small.csv")
    return mail


def raw_of(mail: EmailMessage) -> bytes:
    return mail.as_bytes(policy=mail.policy.clone(linesep="\r\n"))


RAW = raw_of(message(html=True))
PEOPLE = ("b@x.example", "c@x.example", "d@x.example", "z@x.example")


@pytest.fixture
async def way(tmp_path: Path) -> AsyncIterator[Way]:
    async with open_way(tmp_path, large_messages="draft") as value:
        value.fake.permissions = "Mail.Send Mail.ReadWrite"
        yield value


def only(way: Way) -> Item:
    (item,) = way.fake.items.values()
    return item


async def test_a_large_mail_arrives_in_fields_and_files(way: Way) -> None:
    outcomes = await way.send(*PEOPLE, raw=RAW)
    assert {one.verdict for one in outcomes.values()} == {V.SENT}, outcomes
    item = only(way)
    assert not item.is_draft
    assert item.people == {"to": ["b@x.example", "c@x.example"], "cc": ["d@x.example"], "bcc": ["z@x.example"]}
    names = [one["emailAddress"].get("name") for one in item.fields["toRecipients"]]
    assert names == ["B", "Doe, J"]
    body = item.fields["body"]
    assert (body["contentType"], "the html" in body["content"]) == ("html", True)
    assert item.fields["subject"] == "Grüße"
    assert item.fields["internetMessageId"] == "<one@corp.example>"
    assert item.fields["importance"] == "high"
    assert item.fields["isReadReceiptRequested"] is True
    assert item.fields["replyTo"] == [{"emailAddress": {"name": "R", "address": "r@corp.example"}}]
    assert {one["id"]: one["value"] for one in item.fields["singleValueExtendedProperties"]} == {
        "String 0x1042": "<zero@corp.example>",
        "String 0x1039": "<zero@corp.example>",
    }
    own = [(one["name"], one["value"]) for one in item.fields["internetMessageHeaders"]]
    assert own == [(f"X-Own-{number}", f"ä{number}") for number in range(5)]
    files = {one["name"]: (one["data"], one["contentType"], one["isInline"]) for one in item.files}
    assert files == {
        "pic.png": (PNG, "image/png", True),
        "größe.pdf": (BIG, "application/pdf", False),
        "small.csv": (b"a,b\r\n", "text/csv", False),
    }
    assert [one.get("contentId") for one in item.files if one["isInline"]] == ["pic@x"]
    outcome = outcomes["b@x.example"]
    assert outcome.detail == (
        "sent from a draft; sent in fields, without X-Own-5, the address in Disposition-Notification-To, "
        "for receipts go to the sender, part 1: text/plain"
    )
    assert outcome.remote_id == next(iter(way.fake.items))
    assert all("authorization" not in one.headers for one in way.web.requests if one.path.startswith("/upload/"))


async def test_what_is_not_large_goes_as_mime(way: Way) -> None:
    assert (await way.one()).verdict is V.SENT
    assert way.fake.calls[-1] == "sendMail"


@pytest.mark.parametrize(
    ("fields", "envelope"),
    [
        (["b@x.example", "c@x.example"], ["c@x.example"]),
        (["b@x.example"], ["y@x.example", "z@x.example"]),
        (["B@X.example"], ["b@x.example", "z@x.example"]),
    ],
)
async def test_a_draft_is_addressed_to_the_envelope_alone(way: Way, fields: list[str], envelope: list[str]) -> None:
    mail = message()
    del mail["To"], mail["Cc"]
    mail["To"] = ", ".join(fields)
    outcomes = await way.send(*envelope, raw=raw_of(mail))
    assert set(outcomes) == set(envelope)
    ((mailed, _),) = way.fake.delivered
    assert sorted(one.lower() for one in mailed) == sorted(envelope)
    assert {one.lower() for one in only(way).people["to"]} == {one.lower() for one in fields} & set(envelope)


@pytest.mark.parametrize(
    ("head", "place", "value"),
    [
        ("Return-Receipt-To: {0}", "isDeliveryReceiptRequested", True),
        ("Disposition-Notification-To: <{0}>", "isReadReceiptRequested", True),
        ("Sensitivity: Company-Confidential", "Integer 0x36", "3"),
        ("sensitivity: (really) private", "Integer 0x36", "2"),
        ("Sensitivity: Personal", "Integer 0x36", "1"),
        ("Importance: high (as it is)", "importance", "high"),
        ("Priority: non-urgent", "importance", "low"),
        ("X-Priority: 2 (High)", "importance", "high"),
        ("Message-ID: (c) <x@y> (d)", "internetMessageId", "<x@y>"),
        ("X-Own: =?x-gbk?b?xOM=?=", "internetMessageHeaders", [{"name": "X-Own", "value": "你"}]),
    ],
)
def test_fields_that_graph_can_hold_are_kept(head: str, place: str, value: object) -> None:
    """And nothing is said to be lost."""
    draft = draft_of(f"From: {MAILBOX}\r\n{head.format(MAILBOX)}\r\n\r\nx".encode())
    fields = json.loads(draft.fields)
    more = {one["id"]: one["value"] for one in fields.get("singleValueExtendedProperties", ())}
    assert {**fields, **more}[place] == value
    assert draft.note.removesuffix(", Sensitivity as a property") == "; sent in fields"


@pytest.mark.parametrize(
    ("head", "lost"),
    [
        ("Keywords: a\r\nList-Unsubscribe: <mailto:a@x>\r\nkeywords: b", "Keywords, List-Unsubscribe"),
        ("Date: now\r\nThread-Index: x\r\nAuto-Submitted: no", "Date, Thread-Index, Auto-Submitted"),
        ("Sensitivity: secret", "without Sensitivity"),
        ("Return-Receipt-To: other@x.example", "the address in Return-Receipt-To, for receipts go to the sender"),
        ("From: b@x.example", "all From addresses but the first"),
        ("To: =?x-nobody?q?=FC?= <b@x.example>", "the name of b@x.example, whose character set cannot be made out"),
        ("X-Own: =?x-nobody?q?=FC?=", "X-Own"),
        ("\r\n".join(f"X-Own-{n}: x" for n in range(7)), "X-Own-5, X-Own-6"),
        ("".join(f"Own-{n}: x\r\n" for n in range(50)).strip(), " and 10 more"),
        (
            "Content-Type: application/pdf; name*=x-nobody''%FC.pdf",
            "the file name of part 1, whose character set cannot be made out",
        ),
        (
            "Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b\r\nContent-Type: text/html",
            "part 1: text/plain",
        ),
    ],
)  # fmt: skip
def test_what_will_not_arrive_is_named(head: str, lost: str) -> None:
    draft = draft_of(f"From: {MAILBOX}\r\n{head}\r\n\r\nx".encode())
    assert draft.note.startswith("; sent in fields, without ")
    assert lost in draft.note


def test_text_that_cannot_be_made_out_is_refused() -> None:
    """As for the JSON APIs; default_charset is what the operator says that it is in."""
    head = f"From: {MAILBOX}\r\nTo: J\udcf6rg <b@x.example>\r\nSubject: Gr\udcfc\udcdfe\r\n"
    raw = f"{head}\r\nGr\udcfc\udcdfe".encode("utf-8", "surrogateescape")
    with pytest.raises(CannotCarry, match="no_charset: Subject names no character set") as caught:
        draft_of(raw)
    assert caught.value.enhanced == "5.6.3"
    fields = json.loads(draft_of(raw, "windows-1252").fields)
    assert (fields["subject"], fields["body"]["content"]) == ("Grüße", "Grüße")
    assert fields["toRecipients"][0]["emailAddress"]["name"] == "Jörg"
    for charset in ("x-nobody", "utf-8"):
        named = f"\r\nContent-Type: text/plain; charset={charset}\r\n\r\n".encode()
        with pytest.raises(CannotCarry, match=charset):
            draft_of(raw.replace(b"\r\n\r\n", named), "cp1252")


# -- what cannot be said in fields -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "feature"),
    [
        ('multipart/signed; protocol="application/pkcs7-signature"', "signed"),
        ('multipart/encrypted; protocol="application/pgp-encrypted"', "encrypted"),
        ("multipart/report; report-type=delivery-status", "report"),
    ],
)
async def test_what_fields_cannot_hold_is_refused(way: Way, kind: str, feature: str) -> None:
    inner = {
        "signed": "application/pkcs7-signature",
        "encrypted": "application/octet-stream",
        "report": "message/delivery-status",
    }[feature]
    parts = f"--b\r\n\r\ntext\r\n--b\r\nContent-Type: {inner}\r\n\r\n{'x' * 70}\r\n--b--\r\n"
    head = f"From: {MAILBOX}\r\nTo: b@x.example\r\nContent-Type: {kind}; boundary=b\r\n\r\n"
    raw = (head + parts).encode() + b"epilogue\r\n" * 400_000
    outcome = await way.one(raw=raw)
    assert (outcome.verdict, outcome.enhanced) == (V.REJECTED, "5.6.3")
    assert feature in outcome.detail
    assert way.fake.calls == []


async def test_a_text_that_is_too_long_is_refused(way: Way) -> None:
    raw = f"From: {MAILBOX}\r\nTo: b@x.example\r\n\r\n".encode() + b"line of text\r\n" * 300_000
    outcome = await way.one(raw=raw)
    assert (outcome.verdict, outcome.enhanced, way.fake.calls) == (V.REJECTED, "5.3.4", [])


@pytest.mark.parametrize("raw", [b"", b"\r\n", b"\xff\xfe", b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b"])
def test_no_message_is_too_odd(raw: bytes) -> None:
    """Either it is a draft or it is refused."""
    with contextlib.suppress(CannotCarry, BadMessage):
        assert json.loads(draft_of(raw).fields)


# -- uploads that are interrupted ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        {"lose": ["range"]},  # taken, and the answer lost: asked how far it came
        {"range": [kit.reset_at_once] * 2},  # not taken
        {"range": [http(503)]},
        {"range": [error(416, "InvalidRange")]},
        {"range": [http(200, {"nextExpectedRanges": ["0-"]})]},  # sent again from the start
        {"range": [http(200, {"nextExpectedRanges": ["0-4095999"]}), kit.reset_at_once, kit.reset_at_once]},
    ],
    ids=["lost", "reset", "503", "416", "again", "twice"],
)
async def test_an_interrupted_upload_goes_on_where_it_was(way: Way, script: dict[str, Any]) -> None:
    way.fake.lose = list(script.pop("lose", []))
    way.fake.answers = {place: list(answers) for place, answers in script.items()}
    outcomes = await way.send("b@x.example", raw=RAW)
    assert outcomes["b@x.example"].verdict is V.SENT, outcomes
    assert [one["data"] for one in only(way).files if one["name"] == "größe.pdf"] == [BIG]


FAILURES: list[tuple[str, list[Any], Verdict]] = [
    ("session", [http(503)], V.DEFERRED),
    ("session", [http(201, "{}")], V.DEFERRED),
    ("session", [http(201, {"uploadUrl": "http://evil.example/x"})], V.DEFERRED),
    ("session", [kit.reset_at_once], V.DEFERRED),
    ("attachment", [error(400, "ErrorMessageSizeExceeded")], V.REJECTED),
    ("attachment", [error(429, "ApplicationThrottled")], V.THROTTLED),
    ("attachment", [kit.reset_at_once], V.DEFERRED),
    ("range", [http(404)], V.DEFERRED),
    ("range", [http(200, {"nextExpectedRanges": ["99999999-"]})], V.DEFERRED),
    ("range", [http(200, "nonsense")], V.DEFERRED),
    ("range", [http(200, {"nextExpectedRanges": ["0-"]})] * 20, V.DEFERRED),
    *[("range", [http(status)], V.DEFERRED) for status in (302, 400, 401, 403, 409, 410)],
    ("range", [error(401, "InvalidAuthenticationToken")], V.DEFERRED),
    ("range", [http(413)], V.REJECTED),
    ("range", [error(400, "ErrorMessageSizeExceeded")], V.REJECTED),
    ("range", [http(200, {"nextExpectedRanges": [f"{'9' * 5000}-"]})], V.DEFERRED),
    ("range", [http(200, {"nextExpectedRanges": [f"{number}-"]}) for number in range(1, 20)], V.DEFERRED),
    ("range", [error(507, "ErrorQuotaExceeded")], V.DEFERRED),
    ("send", [error(403, "ErrorSendAsDenied")], V.REJECTED),
    ("draft", [kit.reset_at_once], V.DEFERRED),
    ("draft", [http(201, '{"id": "\\ud800"}')], V.DEFERRED),
]


@pytest.mark.parametrize(("place", "answers", "verdict"), FAILURES)
async def test_a_failure_before_the_sending_leaves_no_draft_behind(
    way: Way, place: str, answers: list[Any], verdict: Verdict
) -> None:
    """And is never IN_DOUBT: nobody can have got anything."""
    way.fake.answers = {place: list(answers)}
    if place == "range" and len(answers) == 1:
        way.fake.answers["ranges"] = [http(404)] * 3
    outcome = await way.one(raw=RAW)
    assert outcome.verdict is verdict, outcome
    assert (way.fake.items, way.fake.delivered) == ({}, [])


@pytest.mark.parametrize("url", ["http://evil.example/x", "http://169.254.169.254/x", "https://u:p@evil.example/x"])
async def test_an_upload_goes_nowhere_without_encryption(way: Way, url: str) -> None:
    way.fake.answers = {"session": [http(201, {"uploadUrl": url})], "ranges": []}
    outcome = await way.one(raw=RAW)
    assert (outcome.verdict, "upload session" in outcome.detail) == (V.DEFERRED, True)


async def test_a_send_that_is_cut_off_leaves_no_draft_behind(way: Way) -> None:
    way.fake.answers = {"session": [kit.hang]}
    task = asyncio.create_task(way.send("b@x.example", raw=RAW))
    await until(lambda: "session" in way.fake.calls)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (way.fake.calls[-1], way.fake.items) == ("delete", {})


async def test_a_lost_answer_to_the_sending_is_looked_up(way: Way) -> None:
    way.fake.lose = ["send"]
    outcome = await way.one(raw=RAW)
    assert (outcome.verdict, len(way.fake.delivered)) == (V.SENT, 1)


async def test_a_draft_that_is_being_sent_is_left_alone(way: Way) -> None:
    """Its id is that of the sent copy from then on, by which a later attempt sees that it went out."""
    way.fake.answers = {"send": [kit.hang]}
    task = asyncio.create_task(way.send("b@x.example", raw=RAW))
    await until(lambda: "send" in way.fake.calls)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (way.fake.calls[-1], len(way.fake.items)) == ("send", 1)


async def test_uploads_count_for_what_a_mailbox_may_take_in(tmp_path: Path) -> None:
    """150 MB in 5 minutes."""
    async with open_way(tmp_path, large_messages="draft", mailbox="sender") as way:
        way.fake.permissions = "Mail.Send Mail.ReadWrite"
        raw = RAW + b"epilogue\r\n" * 2_500_000
        outcomes = [await way.one(raw=raw) for _ in range(150_000_000 // len(raw) + 1)]
        assert [outcome.verdict for outcome in outcomes] == [V.SENT] * (len(outcomes) - 1) + [V.DEFERRED]


# -- memory ----------------------------------------------------------------------------------------------------------


def test_a_file_is_never_decoded_as_a_whole() -> None:
    """Of 24 MB no more than a range, what is left over and a piece are held, also when going back."""
    size = 24_000_000
    raw = b"Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(
        bytes(size)
    )
    tracemalloc.start()
    (file,) = draft_of(raw).files
    reader = Reader(file.pieces)
    spans = [*range(0, size, RANGE), RANGE]
    assert [len(reader.read(at, min(RANGE, size - at))) for at in spans] == [
        *[RANGE] * (size // RANGE),
        size % RANGE,
        RANGE,
    ]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert file.size == size
    assert peak < 4 * RANGE


@pytest.mark.parametrize("step", [1, 7, 64])
def test_any_range_is_read_as_it_is(step: int) -> None:
    def pieces() -> Iterator[bytes]:
        return (BIG[start : start + 1000] for start in range(0, 10_000, 1000))

    reader = Reader(pieces)
    for start in [*range(0, 9_000, 1000 // step + 1), 5000, 0, 9990]:
        assert reader.read(start, 700) == BIG[start : min(10_000, start + 700)]
