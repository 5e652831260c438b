"""smtp against a scripted server: what is written, what every reply means, and what a broken connection means."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from email import message_from_bytes
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.backends.shared.base import PIECE, canonical
from gateway.backends.smtp import connection, smarthost
from gateway.backends.smtp.replies import wire
from gateway.backends.smtp.smarthost import Smtp, SmtpSettings
from gateway.model import Outcome, Recipient, Scope, Verdict
from tests.backends import kit
from tests.backends.kit import ALL, DROP, HANG, RAW, SmtpFake, spooled
from tests.fakes import until

SOON = timedelta(seconds=0.2)
EIGHT_BIT = RAW + "grüße\r\n".encode("latin-1")


@contextlib.asynccontextmanager
async def backend(server: SmtpFake | None, path: Path, **settings: Any) -> AsyncIterator[Smtp]:
    values = {"host": "127.0.0.1", "port": server.port if server else 1, "tls": "none", "timeout": "5s"} | settings
    async with kit.context(path) as context:
        way = Smtp("smart", SmtpSettings.model_validate(values), context)
        try:
            yield way
        finally:
            await way.aclose()


@contextlib.asynccontextmanager
async def both(
    path: Path, replies: Any = None, offers: tuple[str, ...] = ALL, kind: type[SmtpFake] = SmtpFake, **settings: Any
) -> AsyncIterator[Any]:
    async with kind(replies, offers) as server, backend(server, path, **settings) as way:
        yield way, server


def verdicts(outcomes: dict[str, Outcome]) -> dict[str, tuple[str, int | None, str]]:
    return {address: (o.verdict.name, o.code, o.enhanced) for address, o in kit.kept(outcomes).items()}


# -- what is written -------------------------------------------------------------------------------------------------


async def test_the_dialogue_and_the_bytes(tmp_path: Path) -> None:
    async with both(tmp_path) as (way, server):
        outcomes = await way.send(spooled("b@x.example", "c@x.example"), RAW)
        assert server.commands == [
            "EHLO relay.example",
            f"MAIL FROM:<a@corp.example> SIZE={len(RAW)}",
            "RCPT TO:<b@x.example>",
            "RCPT TO:<c@x.example>",
            "DATA",
        ]
        said = "250 2.0.0 Ok: queued as ABC123"
        sent = Outcome(Verdict.SENT, 250, "2.0.0", said, "ABC123", dsn=True, said_by="smtp")
        assert outcomes == {"b@x.example": sent, "c@x.example": sent}
        assert server.done[0].wire == RAW.replace(b"\r\n.", b"\r\n..") + b".\r\n"


@pytest.mark.parametrize(
    ("raw", "wire"),
    [
        (b"", b".\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b"a\r\n", b"a\r\n.\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b".\r\n", b"..\r\n.\r\n"),
        (b"\r\n.\r\n.\r\n", b"\r\n..\r\n..\r\n.\r\n"),
        (b"a\n.\nb", b"a\r\n..\r\nb\r\n.\r\n"),
        (b"a\r.\rb", b"a\r\n..\r\nb\r\n.\r\n"),
    ],
)
async def test_dots_are_doubled_after_line_ends_are_made_whole(tmp_path: Path, raw: bytes, wire: bytes) -> None:
    """RFC 5321 4.5.2: a dot that begins a line is written twice."""
    async with both(tmp_path) as (way, server):
        await way.send(spooled(), raw)
        assert server.done[0].wire == wire


@pytest.mark.parametrize("size", [PIECE - 2, PIECE, PIECE + 1, 3 * PIECE + 5, 2_000_000])
async def test_large_messages_arrive_whole_at_every_chunk_edge(tmp_path: Path, size: int) -> None:
    lines, rest = divmod(size, 64)
    raw = (b"." + b"x" * 61 + b"\r\n") * (lines - 1) + b"y" * (62 + rest) + b"\r\n"
    assert len(raw) == size
    async with both(tmp_path) as (way, server):
        assert (await way.send(spooled(), raw))["b@x.example"].verdict is Verdict.SENT
        assert server.done[0].body == raw


@given(st.lists(st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"x", b"\xff"]), max_size=40).map(b"".join))
def test_at_every_edge_between_pieces_the_bytes_are_the_same(raw: bytes) -> None:
    """What a server reads back is the message, however it was cut; nothing in it ends it early."""
    with mock.patch("gateway.backends.shared.base.PIECE", 3), mock.patch("gateway.backends.smtp.replies.PIECE", 3):
        whole = canonical(raw)
        pieces = list(wire(whole))
    assert whole == re.sub(rb"\r\n|\r|\n", b"\r\n", raw)
    assert [last for _, last in pieces] == [False] * (len(pieces) - 1) + [True]
    written = b"\r\n" + b"".join(piece for piece, _ in pieces)
    assert written.find(b"\r\n.\r\n") == len(written) - 5
    read = written[:-3].replace(b"\r\n..", b"\r\n.")[2:]
    assert read == (whole if whole.endswith(b"\r\n") or not whole else whole + b"\r\n")


MAIL, RCPT = "MAIL FROM:<a@corp.example>", "RCPT TO:<b@x.example>"
EIGHT, UTF8 = ("8BITMIME",), ("SMTPUTF8", "8BITMIME")
SIGNED = (
    b"Content-Type: multipart/signed; boundary=s\r\n\r\n--s\r\n\r\n\xfc\r\n--s\r\n"
    b"Content-Type: application/pgp-signature\r\n\r\nx\r\n--s--\r\n"
)
UTF8_HEADER = "Subject: ü\r\n\r\n".encode()
WATCHED = Recipient("b@x.example", "SUCCESS,FAILURE", "rfc822;B+2B@x.example")
INJECTED = Recipient("b@x.example", "NEVER\r\nRSET", "rfc822;b x")


@pytest.mark.parametrize(
    ("message", "raw", "offers", "mail", "rcpt"),
    [
        (spooled(), RAW, (), MAIL, RCPT),
        (spooled(sender=""), RAW, (), "MAIL FROM:<>", RCPT),
        (spooled(), EIGHT_BIT, EIGHT, f"{MAIL} BODY=8BITMIME", RCPT),
        (spooled("bü@x.example", smtputf8=True), RAW, UTF8, f"{MAIL} SMTPUTF8", "RCPT TO:<bü@x.example>"),
        (spooled(smtputf8=True), UTF8_HEADER, UTF8, f"{MAIL} BODY=8BITMIME SMTPUTF8", RCPT),
        (spooled(smtputf8=True), RAW, (), MAIL, RCPT),
        (
            spooled(WATCHED, ret="HDRS", envid="QQ+314"),
            RAW,
            ("DSN",),
            f"{MAIL} RET=HDRS ENVID=QQ+314",
            f"{RCPT} NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;B+2B@x.example",
        ),
        (spooled(WATCHED, ret="FULL", envid="E"), RAW, (), MAIL, RCPT),
        (spooled(INJECTED, envid="a b"), RAW, ("DSN",), MAIL, RCPT),
        # A-labels, which every server takes: no SMTPUTF8 for the domain alone (RFC 6531, 3.2).
        (spooled("b@bücher.example", smtputf8=True), RAW, (), MAIL, "RCPT TO:<b@xn--bcher-kva.example>"),
        (spooled("b@BÜCHER.Example", smtputf8=True), RAW, UTF8, MAIL, "RCPT TO:<b@xn--bcher-kva.example>"),
        (spooled("b@straße.example", smtputf8=True), RAW, (), MAIL, "RCPT TO:<b@xn--strae-oqa.example>"),
        (
            spooled(sender="a@bücher.example", smtputf8=True),
            RAW,
            (),
            "MAIL FROM:<a@xn--bcher-kva.example>",
            RCPT,
        ),
        (spooled("bü@bücher.example", smtputf8=True), RAW, UTF8, f"{MAIL} SMTPUTF8", "RCPT TO:<bü@bücher.example>"),
        (spooled('"a b"@x.example'), RAW, (), MAIL, 'RCPT TO:<"a b"@x.example>'),
        (spooled(sender='"q\\"q"@x.example'), RAW, (), 'MAIL FROM:<"q\\"q"@x.example>', RCPT),
        (spooled("Mixed.Case@EXAMPLE.com"), RAW, (), MAIL, "RCPT TO:<Mixed.Case@EXAMPLE.com>"),
    ],
)
async def test_the_parameters_fit_the_message_and_the_server(
    tmp_path: Path, message: Any, raw: bytes, offers: tuple[str, ...], mail: str, rcpt: str
) -> None:
    async with both(tmp_path, offers=offers) as (way, server):
        (outcome,) = (await way.send(message, raw)).values()
        assert outcome.verdict is Verdict.SENT
        assert outcome.dsn is ("DSN" in offers)
        assert server.commands[1:3] == [mail, rcpt]


@pytest.mark.parametrize(
    ("message", "raw", "enhanced"),
    [
        (spooled(), SIGNED, "5.6.3"),
        (spooled("bü@x.example", smtputf8=True), RAW, "5.6.7"),
        (spooled(sender="ü@corp.example", smtputf8=True), RAW, "5.6.7"),
        (spooled(smtputf8=True), UTF8_HEADER, "5.6.7"),
    ],
)
async def test_what_the_server_cannot_carry_is_rejected_and_no_bit_is_dropped(
    tmp_path: Path, message: Any, raw: bytes, enhanced: str
) -> None:
    """RFC 6152 and RFC 6531: where conversion would break a signature, or there is none."""
    async with both(tmp_path, offers=()) as (way, server):
        (outcome,) = (await way.send(message, raw)).values()
        assert (outcome.verdict, outcome.code, outcome.enhanced) == (Verdict.REJECTED, None, enhanced)
        assert server.done == []
        assert (await way.send(spooled(), RAW))["b@x.example"].verdict is Verdict.SENT
        assert server.connections == 1


@pytest.mark.parametrize("script", [{}, {"EHLO": "502 5.5.1 what?"}], ids=["no 8BITMIME", "HELO only"])
@pytest.mark.parametrize("extra", [b"", b"DKIM-Signature: v=1\r\n"])
async def test_a_server_without_8bitmime_gets_seven_bits(tmp_path: Path, script: dict[str, Any], extra: bytes) -> None:
    """RFC 6152 3: what is read there is what it was, and the life line says that it was converted."""
    head = b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
    raw = extra + head + b".Gr\xc3\xbc\xc3\x9fe \r\n" + b"x" * 90 + b"\r\n"
    async with both(tmp_path, script, offers=("SIZE 1000000",)) as (way, server):
        (outcome,) = (await way.send(spooled(), raw)).values()
        note = "; converted to 7 bits" + (", its DKIM signature does not hold any more" if extra else "")
        assert (outcome.verdict, outcome.detail.endswith(note)) == (Verdict.SENT, True)
        (arrived,) = server.done
        assert arrived.body.isascii()
        assert message_from_bytes(arrived.body).get_payload(decode=True) == raw.partition(b"\r\n\r\n")[2]
        if not script:
            assert server.commands[1] == f"{MAIL} SIZE={len(arrived.body)}"


async def test_a_kept_connection_that_died_does_not_decide_what_the_next_gets(tmp_path: Path) -> None:
    """The message is fitted to the connection that it goes by."""
    async with both(tmp_path, {"MAIL": ["250 ok", DROP, "250 ok"]}, offers=("8BITMIME",)) as (way, server):
        await way.send(spooled(), RAW)
        server.offers = ()
        assert (await way.send(spooled(), EIGHT_BIT))["b@x.example"].verdict is Verdict.SENT
        assert server.done[-1].body.isascii()


async def test_a_recipient_the_server_cannot_write_to_fails_alone(tmp_path: Path) -> None:
    async with both(tmp_path, offers=("8BITMIME",)) as (way, server):
        outcomes = await way.send(spooled("bü@x.example", "c@x.example", smtputf8=True), RAW)
        assert verdicts(outcomes) == {
            "bü@x.example": ("REJECTED", None, "5.6.7"),
            "c@x.example": ("SENT", 250, "2.0.0"),
        }
        assert server.done[0].rcpt == ["RCPT TO:<c@x.example>"]


@pytest.mark.parametrize(
    "address",
    [
        "a\rb@x.org",
        "a\nb@x.org",
        "a@x.org,b@x.org",
        "a>@x.org",
        "@r:a@x.org",
        "a(c)@x.org",
        "a@x.org> SIZE=1",
        "a b@x.org",
        "a\0@x.org",
        "<a@x.org>",
        "Name <a@x.org>",
        "nodomain",
        "a@x.org\r\nDATA",
        "a@\udcff.org",
    ],
)
async def test_an_address_is_sent_as_it_is_stored_or_not_at_all(tmp_path: Path, address: str) -> None:
    """The library makes other addresses of these."""
    async with both(tmp_path) as (way, server):
        outcomes = await way.send(spooled(address, "c@x.example"), RAW)
        assert verdicts(outcomes) == {address: ("REJECTED", None, "5.1.3"), "c@x.example": ("SENT", 250, "2.0.0")}
        assert server.done[0].rcpt == ["RCPT TO:<c@x.example>"]
        (outcome,) = (await way.send(spooled(sender=address), RAW)).values()
        assert (outcome.verdict, outcome.enhanced) == (Verdict.REJECTED, "5.1.7")
        assert len(server.done) == 1


async def test_the_name_in_ehlo_can_be_set(tmp_path: Path) -> None:
    async with both(tmp_path, local_hostname="outside.example") as (way, server):
        await way.send(spooled(), RAW)
        assert server.commands[0] == "EHLO outside.example"


async def test_a_server_without_ehlo_gets_helo(tmp_path: Path) -> None:
    async with both(tmp_path, {"EHLO": "502 5.5.1 what?"}) as (way, server):
        assert (await way.send(spooled(), RAW))["b@x.example"].verdict is Verdict.SENT
        assert server.commands[:3] == ["EHLO relay.example", "HELO relay.example", "MAIL FROM:<a@corp.example>"]


# -- every reply -----------------------------------------------------------------------------------------------------

REPLIES = [
    ("connect", "421 4.3.2 busy", "THROTTLED", 421, "4.3.2"),
    ("connect", "450 4.7.1 wait", "THROTTLED", 450, "4.7.1"),
    ("connect", "554 5.7.1 you are on a list", "MISCONFIGURED", 554, "5.7.1"),
    ("connect", "garbage", "DEFERRED", None, "4.4.1"),
    ("connect", "250 hello", "DEFERRED", None, "4.4.1"),
    ("connect", DROP, "DEFERRED", None, "4.4.1"),
    ("EHLO", "421 4.3.2 going down", "THROTTLED", 421, "4.3.2"),
    ("EHLO", DROP, "DEFERRED", None, "4.4.2"),
    ("MAIL", "421 4.7.0 try again later", "THROTTLED", 421, "4.7.0"),
    ("MAIL", "450 4.1.8 no such domain now", "DEFERRED", 450, "4.1.8"),
    ("MAIL", "451 4.3.0 local error", "DEFERRED", 451, "4.3.0"),
    ("MAIL", "451 4.3.2 not now", "DEFERRED", 451, "4.3.2"),
    ("MAIL", "451 4.4.5 congestion", "DEFERRED", 451, "4.4.5"),
    ("MAIL", "451 4.7.500 server busy", "DEFERRED", 451, "4.7.500"),
    ("MAIL", "452 4.3.1 no space", "DEFERRED", 452, "4.3.1"),
    ("MAIL", "454 4.7.0 too many", "DEFERRED", 454, "4.7.0"),
    ("MAIL", "454 Throttling failure: Maximum sending rate exceeded.", "THROTTLED", 454, "4.0.0"),
    ("MAIL", "530 5.7.0 Authentication required", "MISCONFIGURED", 530, "5.7.0"),
    ("MAIL", "530 Must issue a STARTTLS command first", "MISCONFIGURED", 530, "5.0.0"),
    ("MAIL", "534 5.7.9 too weak", "MISCONFIGURED", 534, "5.7.9"),
    ("MAIL", "535 5.7.8 bad credentials", "MISCONFIGURED", 535, "5.7.8"),
    ("MAIL", "538 5.7.11 encryption required", "MISCONFIGURED", 538, "5.7.11"),
    ("MAIL", "550 5.7.30 Basic authentication is not supported", "MISCONFIGURED", 550, "5.7.30"),
    ("MAIL", "550 5.7.1 sender not allowed", "REJECTED", 550, "5.7.1"),
    ("MAIL", "552 5.3.4 too big", "REJECTED", 552, "5.3.4"),
    ("MAIL", "555 unknown parameter", "REJECTED", 555, "5.0.0"),
    ("MAIL", "354 go ahead", "DEFERRED", 354, "4.5.0"),
    ("MAIL", "999 what", "DEFERRED", 999, "4.5.0"),
    ("MAIL", "garbage", "DEFERRED", None, "4.4.2"),
    ("MAIL", DROP, "DEFERRED", None, "4.4.2"),
    ("RCPT", "421 4.7.0 slow down", "THROTTLED", 421, "4.7.0"),
    ("RCPT", "450 4.2.0 Greylisted", "DEFERRED", 450, "4.2.0"),
    ("RCPT", "451 4.7.1 Greylisting in action, please come back later", "DEFERRED", 451, "4.7.1"),
    ("RCPT", "450 4.7.1 graylisted", "DEFERRED", 450, "4.7.1"),
    ("RCPT", "450 4.7.25 client host rejected", "DEFERRED", 450, "4.7.25"),
    ("RCPT", "452 4.5.3 too many recipients", "DEFERRED", 452, "4.5.3"),
    ("RCPT", "550 5.1.1 no such user", "REJECTED", 550, "5.1.1"),
    ("RCPT", "550 no such user", "REJECTED", 550, "5.0.0"),
    ("RCPT", "550 4.1.1 of two minds", "REJECTED", 550, "5.1.1"),
    ("RCPT", "553 5.1.3 bad address", "REJECTED", 553, "5.1.3"),
    ("RCPT", "554 5.7.1 <b@x.example>: Relay access denied", "MISCONFIGURED", 554, "5.7.1"),
    ("RCPT", "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain", "MISCONFIGURED", 550, "5.7.54"),
    ("RCPT", "553 5.7.1 <a@corp.example>: Sender address rejected: not owned by user b", "REJECTED", 553, "5.7.1"),
    ("RCPT", "251 2.1.5 will forward", "SENT", 250, "2.0.0"),
    ("RCPT", "252 2.1.5 cannot verify", "SENT", 250, "2.0.0"),
    ("RCPT", DROP, "DEFERRED", None, "4.4.2"),
    ("DATA", "451 4.3.0 try again", "DEFERRED", 451, "4.3.0"),
    ("DATA", "554 5.5.1 no", "REJECTED", 554, "5.5.1"),
    ("DATA", "250 thanks", "DEFERRED", 250, "4.5.0"),
    ("DATA", "421 4.3.2 bye", "THROTTLED", 421, "4.3.2"),
    ("DATA", DROP, "DEFERRED", None, "4.4.2"),
    (".", "250 2.0.0 ok", "SENT", 250, "2.0.0"),
    (".", "200 fine", "SENT", 200, "2.0.0"),
    (".", "421 4.3.0 not taken", "THROTTLED", 421, "4.3.0"),
    (".", "450 4.7.1 Greylisted", "DEFERRED", 450, "4.7.1"),
    (".", "451 4.7.0 busy", "DEFERRED", 451, "4.7.0"),
    (".", "432 4.3.2 Concurrent connections limit exceeded", "THROTTLED", 432, "4.3.2"),
    (".", "454 4.7.1 Greylisted", "DEFERRED", 454, "4.7.1"),
    (".", "550 5.4.5 Daily user sending limit exceeded", "THROTTLED", 550, "5.4.5"),
    (".", "550 5.1.90 you've reached your daily limit", "THROTTLED", 550, "5.1.90"),
    (".", "550 5.7.705 tenant has exceeded threshold", "THROTTLED", 550, "5.7.705"),
    (".", "554 5.2.0 STOREDRV: SubmissionQuotaExceededException; quota", "THROTTLED", 554, "5.2.0"),
    (".", "550 5.7.233 tenant exceeded its daily limit", "THROTTLED", 550, "5.7.233"),
    (".", "550 5.7.1 Daily SMTP relay limit exceeded for customer.", "THROTTLED", 550, "5.7.1"),
    (".", "550 5.7.1 Email quota exceeded.", "THROTTLED", 550, "5.7.1"),
    (".", "550 User has exceeded its 24-hour sending limit.", "THROTTLED", 550, "5.0.0"),
    (".", "550 Mail send limit exceeded.", "THROTTLED", 550, "5.0.0"),
    ("RCPT", "550 Domain x.org has exceeded the max emails per hour (500/500) allowed.", "THROTTLED", 550, "5.0.0"),
    (".", "550 5.1.8 Access denied, bad outbound sender.", "MISCONFIGURED", 550, "5.1.8"),
    (".", "550 5.7.708 Access denied, traffic not accepted from this IP", "MISCONFIGURED", 550, "5.7.708"),
    (".", "554 5.2.0 STOREDRV.Submission.Exception:OutboundSpamException", "MISCONFIGURED", 554, "5.2.0"),
    (".", "554 Message rejected: Sending paused for this account.", "MISCONFIGURED", 554, "5.0.0"),
    ("MAIL", "502 5.7.0 Your SMTP account is not yet activated", "MISCONFIGURED", 502, "5.7.0"),
    (".", "554 5.2.2 mailbox full; STOREDRV.Submission.Exception", "MISCONFIGURED", 554, "5.2.2"),
    (".", "554 Message rejected: Email address is not verified.", "MISCONFIGURED", 554, "5.0.0"),
    ("MAIL", "550 The from address does not match a verified Sender Identity.", "MISCONFIGURED", 550, "5.0.0"),
    # Of recipients and messages, whatever limit they speak of.
    ("RCPT", "552 5.2.2 The email account that you tried to reach is over quota", "REJECTED", 552, "5.2.2"),
    ("RCPT", "550 5.2.1 The email account that you tried to reach is disabled", "REJECTED", 550, "5.2.1"),
    ("RCPT", "550 5.1.1 recipient account suspended", "REJECTED", 550, "5.1.1"),
    (".", '550 5.7.1 phishing: "your account has been suspended"', "REJECTED", 550, "5.7.1"),
    (".", "554 5.7.1 attachment invoice-past due.pdf is not allowed", "REJECTED", 554, "5.7.1"),
    ("RCPT", "550 user has exceeded the daily limit for receiving mail", "REJECTED", 550, "5.0.0"),
    (".", "552 5.3.4 Message size exceeds fixed limit", "REJECTED", 552, "5.3.4"),
    (".", "550 5.7.7 no", "REJECTED", 550, "5.7.7"),
    (".", "452 4.2.2 mailbox full", "DEFERRED", 452, "4.2.2"),
    (".", "550 5.7.1 spam", "REJECTED", 550, "5.7.1"),
    (".", "552 5.3.4 too big", "REJECTED", 552, "5.3.4"),
    (".", "554 5.6.0 no", "REJECTED", 554, "5.6.0"),
    (".", "354 more?", "DEFERRED", 354, "4.5.0"),
    (".", "garbage", "IN_DOUBT", None, "4.4.2"),
    (".", "250 " + "x" * 40_000, "IN_DOUBT", None, "4.4.2"),
    (".", "250-" + "line\r\n250-" * 5000, "IN_DOUBT", None, "4.4.2"),
    (".", DROP, "IN_DOUBT", None, "4.4.2"),
]


@pytest.mark.parametrize(("stage", "reply", "verdict", "code", "enhanced"), REPLIES)
async def test_every_reply_has_its_verdict(
    tmp_path: Path, stage: str, reply: str, verdict: str, code: int | None, enhanced: str
) -> None:
    """Before a transaction a refusal is never the message's fault."""
    async with both(tmp_path, {stage: reply}) as (way, _):
        outcomes = await way.send(spooled("b@x.example"), RAW)
        assert verdicts(outcomes) == {"b@x.example": (verdict, code, enhanced)}
        detail = outcomes["b@x.example"].detail
        if verdict != "SENT" and code is not None:
            shown = f"unexpected reply: {reply}" if enhanced == "4.5.0" else reply
            assert (detail, outcomes["b@x.example"].said_by) == (shown, "smtp")
        assert 0 < len(detail) <= 300


@pytest.mark.parametrize(
    ("stage", "scope"),
    [
        ("connect", Scope.BACKEND),
        ("EHLO", Scope.BACKEND),
        ("MAIL", Scope.MESSAGE),
        ("RCPT", Scope.MESSAGE),
        ("DATA", Scope.MESSAGE),
    ],
)
async def test_silence_ends_at_the_time_limit(tmp_path: Path, stage: str, scope: Scope) -> None:
    """Who has said hello is there, so from then on it is about this message; no code is made up for it."""
    async with both(tmp_path, {stage: HANG}, timeout=SOON) as (way, server):
        outcome = (await way.send(spooled(), RAW))["b@x.example"]
        assert (outcome.verdict, outcome.code, outcome.scope) == (Verdict.DEFERRED, None, scope)
        assert "imed out" in outcome.detail
        await server.closed.wait()


@pytest.mark.parametrize(
    ("stage", "reply", "scope"),
    [
        ("MAIL", "550 5.7.1 no", Scope.MESSAGE),
        ("MAIL", "450 4.2.1 later", Scope.MESSAGE),
        ("RCPT", "550 5.1.1 no", Scope.RECIPIENT),
        ("RCPT", "450 4.2.1 later", Scope.RECIPIENT),
        ("RCPT", "451 4.7.1 greylisted", Scope.MESSAGE),
        ("RCPT", "530 5.7.0 log in", Scope.BACKEND),
        ("RCPT", "550 User account suspended", Scope.MESSAGE),
        ("RCPT", "550 5.7.1 over his daily sending limit", Scope.MESSAGE),
        ("DATA", "452 4.3.1 full", Scope.MESSAGE),
        (".", "554 5.6.0 spam", Scope.MESSAGE),
        ("MAIL", "421 4.3.2 bye", Scope.BACKEND),
        ("RCPT", "421 4.3.2 bye", Scope.MESSAGE),
        (".", "421 4.3.2 bye", Scope.MESSAGE),
        (".", "451 4.7.0 busy", Scope.MESSAGE),
        (".", "432 4.3.2 limit exceeded", Scope.BACKEND),
        ("connect", "554 5.7.1 listed", Scope.BACKEND),
        ("AUTH", "535 5.7.8 no", Scope.BACKEND),
    ],
)
async def test_a_reply_is_about_whoever_was_spoken_of(tmp_path: Path, stage: str, reply: str, scope: Scope) -> None:
    """After RCPT about that recipient, later about the message; what rests the backend is about that."""
    login = {"username": "u", "password": "p"}
    async with both(tmp_path, {stage: reply}, (*ALL, "AUTH PLAIN"), **login) as (way, _):
        (outcome,) = kit.kept(await way.send(spooled(), RAW)).values()
        assert (outcome.scope, outcome.code) == (scope, int(reply[:3]))


@pytest.mark.parametrize("reply", ["550 User account suspended", "530 5.7.0 log in", "550 5.4.5 daily limit"])
async def test_who_is_refused_beside_others_rests_nobody(tmp_path: Path, reply: str) -> None:
    """A server that takes the others has nothing against our account: he alone waits, and does not bounce."""

    async with both(tmp_path, {"RCPT": [reply, "250 2.1.5 ok"]}) as (way, _):
        outcomes = kit.kept(await way.send(spooled("b@x.example", "c@x.example"), RAW))
        assert outcomes["c@x.example"].verdict is Verdict.SENT
        refused = outcomes["b@x.example"]
        assert (refused.verdict, refused.scope, refused.code) == (Verdict.DEFERRED, Scope.RECIPIENT, int(reply[:3]))


async def test_silence_after_the_final_dot_is_in_doubt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "END_OF_DATA", 0.0)
    async with both(tmp_path, {".": HANG}, timeout=SOON) as (way, server):
        outcome = (await way.send(spooled(), RAW))["b@x.example"]
        assert (outcome.verdict, outcome.code, outcome.enhanced) == (Verdict.IN_DOUBT, None, "4.4.2")
        await server.closed.wait()


async def test_the_reply_to_the_final_dot_may_take_longer_than_any_other(tmp_path: Path) -> None:
    """RFC 5321 4.5.3.2.6: ten minutes, whatever the setting ``timeout`` says of the other steps."""
    assert connection.END_OF_DATA == 600

    class Thorough(SmtpFake):
        async def say(self, writer: Any, reader: Any, reply: str) -> None:
            await asyncio.sleep(3 * SOON.total_seconds() if "queued" in reply else 0)
            await super().say(writer, reader, reply)

    async with Thorough() as server, backend(server, tmp_path, timeout=SOON) as way:
        assert (await way.send(spooled(), RAW))["b@x.example"].verdict is Verdict.SENT


# -- some recipients -------------------------------------------------------------------------------------------------


async def test_each_recipient_has_its_own_answer_and_the_others_get_the_message(tmp_path: Path) -> None:
    replies = {
        "RCPT TO:<gone@x.example>": "550 5.1.1 no such user",
        "RCPT TO:<full@x.example>": "452 4.2.2 mailbox full",
        "RCPT TO:<slow@x.example>": "450 4.7.1 come back later",
    }
    async with both(tmp_path, replies) as (way, server):
        outcomes = await way.send(spooled("gone@x.example", "b@x.example", "full@x.example", "slow@x.example"), RAW)
        assert verdicts(outcomes) == {
            "gone@x.example": ("REJECTED", 550, "5.1.1"),
            "full@x.example": ("DEFERRED", 452, "4.2.2"),
            "slow@x.example": ("DEFERRED", 450, "4.7.1"),  # a server that takes others is not busy
            "b@x.example": ("SENT", 250, "2.0.0"),
        }
        assert server.done[0].rcpt == ["RCPT TO:<b@x.example>"]


async def test_with_everybody_refused_there_is_no_message_and_the_connection_serves_the_next(tmp_path: Path) -> None:
    async with both(tmp_path, {"RCPT": ["550 5.1.1 no", "450 4.2.1 later", "250 ok"]}) as (way, server):
        outcomes = await way.send(spooled("b@x.example", "c@x.example"), RAW)
        assert [outcome.verdict.name for outcome in outcomes.values()] == ["REJECTED", "DEFERRED"]
        assert server.done == []
        assert (await way.send(spooled(), RAW))["b@x.example"].verdict is Verdict.SENT
        assert server.connections == 1
        assert server.commands[5] == "RSET"


@pytest.mark.parametrize("reply", [DROP, "421 4.7.0 enough"])
async def test_answers_given_before_the_line_broke_stay(tmp_path: Path, reply: str) -> None:
    replies = {"RCPT TO:<gone@x.example>": "550 5.1.1 no", "RCPT TO:<last@x.example>": reply}
    async with both(tmp_path, replies) as (way, server):
        outcomes = await way.send(spooled("gone@x.example", "b@x.example", "last@x.example"), RAW)
        rest = ("DEFERRED", None, "4.4.2") if reply == DROP else ("THROTTLED", 421, "4.7.0")
        assert verdicts(outcomes) == {
            "gone@x.example": ("REJECTED", 550, "5.1.1"),
            "b@x.example": rest,
            "last@x.example": rest,
        }
        assert server.done == []


# -- more recipients than it takes at a time -------------------------------------------------------------------------

MANY = [f"r{number}@x.example" for number in range(25)]


class Sparing(SmtpFake):
    """Takes 10 recipients in a transaction and answers ``reply`` to the next; ``late``: only at the end of data."""

    reply, late, full, named = "", False, "", 0

    def scripted(self, command: str) -> str:
        over = self.named == 10 and not self.late
        if command.startswith("RCPT") and (over or (self.full and self.full in command)):
            return self.reply
        if command == "." and self.named > 10:
            return self.reply
        self.named = self.named + 1 if command.startswith("RCPT") else self.named * (command in ("DATA", "."))
        return super().scripted(command)


@pytest.mark.parametrize("late", [False, True], ids=["RCPT", "end"])
@pytest.mark.parametrize(
    "reply", ["452 4.5.3 Error: too many recipients", "452 later", "552 5.5.3 Too many", "550 too many recipients"]
)
async def test_who_has_no_room_goes_in_the_next_transaction(tmp_path: Path, reply: str, late: bool) -> None:
    """RFC 5321 4.5.3.1.10: at once, nobody twice; where it says how many, the next message begins with so many."""
    if late and reply == "452 later":
        return  # which is what it says
    async with both(tmp_path, kind=Sparing) as (way, server):
        server.reply, server.late = reply, late
        outcomes = kit.kept(await way.send(spooled(*MANY), RAW))
        assert {outcome.verdict for outcome in outcomes.values()} == {Verdict.SENT}
        taken = [len(transaction.rcpt) for transaction in server.done]
        assert (sum(taken), max(taken) <= 10) == (25, True)
        del server.commands[:]
        await way.send(spooled(*MANY), RAW)
        named = [line for line in server.commands if line.startswith("RCPT")]
        assert len(named) == (25 + 15 + 5 if reply == "452 later" else 25)  # which may have been a full mailbox


async def test_a_full_mailbox_is_no_limit(tmp_path: Path) -> None:
    """A bare 452 or 552 may be this recipient's own: first in the next transaction he is told from a limit."""
    async with both(tmp_path, kind=Sparing) as (way, server):
        server.reply, server.full = "552 mailbox full", "r3@x.example"
        outcomes = await way.send(spooled(*MANY), RAW)
        assert [address for address, one in outcomes.items() if one.verdict is not Verdict.SENT] == ["r3@x.example"]
        assert [len(transaction.rcpt) for transaction in server.done] == [10, 10, 4]


async def test_max_recipients_goes_in_one_transaction(tmp_path: Path) -> None:
    """What was sent is told before the next; where the second is lost nobody of the third is in doubt."""
    told: list[str] = []

    async def progress(sent: Mapping[str, Outcome]) -> bool:
        told.extend(sent)
        return True

    async with both(tmp_path, {".": ["250 2.0.0 Ok", DROP]}, max_recipients=10) as (way, _):
        outcomes = await way.send(spooled(*MANY), RAW, progress)
    assert told == MANY[:10]
    assert [one.verdict.value for one in outcomes.values()] == ["sent"] * 10 + ["in_doubt"] * 10 + ["deferred"] * 5


# -- breaking off in the body ----------------------------------------------------------------------------------------

BIG = b"x" * 998 + b"\r\n"


@pytest.mark.parametrize(
    ("early", "verdict", "code"),
    [
        ("552 5.3.4 too big", "REJECTED", 552),
        ("452 4.3.1 no space", "DEFERRED", 452),
        ("421 4.3.2 bye", "THROTTLED", 421),
        ("250 fine already", "DEFERRED", None),
        (DROP, "DEFERRED", None),
    ],
)
async def test_a_server_may_refuse_or_vanish_before_the_end_of_the_message(
    tmp_path: Path, early: str, verdict: str, code: int
) -> None:
    """Before the final dot nothing has been taken."""
    async with both(tmp_path, {"early": early}) as (way, server):
        outcome = (await way.send(spooled(), BIG * 40_000))["b@x.example"]
        assert (outcome.verdict.name, outcome.code) == (verdict, code)
        await way.send(spooled(), BIG * 1000)
        assert server.connections == 2  # the first is out of step


async def test_a_cancelled_send_closes_its_connection(tmp_path: Path) -> None:
    """A line out of step must not carry the next message."""
    async with both(tmp_path, {"RCPT": [HANG, "250 ok"]}) as (way, server):
        task = asyncio.create_task(way.send(spooled(), RAW))
        await until(lambda: "RCPT TO:<b@x.example>" in server.commands)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.closed.wait()
        assert (await way.send(spooled(), RAW))["b@x.example"].verdict is Verdict.SENT
        assert server.connections == 2


# -- kept connections ------------------------------------------------------------------------------------------------


async def test_one_connection_carries_many_messages(tmp_path: Path) -> None:
    async with both(tmp_path) as (way, server):
        for number in range(20):
            await way.send(spooled(queue_id=f"Q{number}"), RAW + b"%d\r\n" % number)
        assert server.connections == 1
        assert [transaction.body for transaction in server.done] == [RAW + b"%d\r\n" % number for number in range(20)]
        assert server.commands.count("RSET") == 0


async def test_no_more_connections_than_concurrency(tmp_path: Path) -> None:
    async with both(tmp_path, concurrency=3) as (way, server):
        await asyncio.gather(*(way.send(spooled(queue_id=f"Q{number}"), RAW) for number in range(30)))
        assert len(server.done) == 30
        assert server.connections <= 3


class Fragile(SmtpFake):
    """Closes the first connection in its second transaction."""

    at, end = "MAIL", DROP

    def scripted(self, command: str) -> str:
        if command.startswith(self.at) and self.done and self.connections == 1:
            return self.end
        return super().scripted(command)


@pytest.mark.parametrize("end", [DROP, HANG, "421 4.4.2 idle for too long"])
@pytest.mark.parametrize("at", ["MAIL", "RCPT", "DATA"])
async def test_a_kept_connection_that_has_died_is_replaced_without_a_word(tmp_path: Path, at: str, end: str) -> None:
    """Before the final dot nothing was taken, so trying again at once cannot double anything."""
    async with Fragile() as server, backend(server, tmp_path, timeout=SOON) as way:
        server.at, server.end = at, end
        for _ in range(2):
            assert (await way.send(spooled(), RAW))["b@x.example"].verdict is Verdict.SENT
        assert (server.connections, len(server.done)) == (2, 2)


async def test_a_kept_connection_that_dies_after_the_final_dot_leaves_a_doubt(tmp_path: Path) -> None:
    async with Fragile() as server, backend(server, tmp_path, timeout=SOON) as way:
        server.at = "."
        await way.send(spooled(), RAW)
        assert (await way.send(spooled(), RAW))["b@x.example"].verdict is Verdict.IN_DOUBT
        assert server.connections == 1


async def test_a_server_out_of_step_is_not_kept(tmp_path: Path) -> None:
    """2xx to DATA makes no sense: who can tell what it takes the next line for."""
    async with both(tmp_path, {"DATA": ["250 thanks", "354 go"]}) as (way, server):
        assert verdicts(await way.send(spooled(), RAW)) == {"b@x.example": ("DEFERRED", 250, "4.5.0")}
        assert (await way.send(spooled(), RAW))["b@x.example"].verdict is Verdict.SENT
        assert (server.connections, len(server.done)) == (2, 1)


async def test_it_is_replaced_once_only(tmp_path: Path) -> None:
    async with both(tmp_path, {"MAIL": ["250 ok", DROP]}) as (way, server):
        await way.send(spooled(), RAW)
        assert verdicts(await way.send(spooled(), RAW)) == {"b@x.example": ("DEFERRED", None, "4.4.2")}
        assert server.connections == 2


async def test_a_connection_the_server_closed_meanwhile_is_not_used(tmp_path: Path) -> None:
    class Hasty(SmtpFake):
        async def say(self, writer: Any, reader: Any, reply: str) -> None:
            await super().say(writer, reader, reply)
            if "queued" in reply:
                writer.write(b"421 4.4.2 idle\r\n")
                raise EOFError

    async with Hasty() as server, backend(server, tmp_path) as way:
        for _ in range(3):
            assert (await way.send(spooled(), RAW))["b@x.example"].verdict is Verdict.SENT
            await server.closed.wait()
            server.closed.clear()
        assert (server.connections, len(server.done)) == (3, 3)


async def test_an_idle_connection_says_goodbye(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smarthost, "IDLE", 0.01)
    async with both(tmp_path) as (way, server):
        await way.send(spooled(), RAW)
        await server.closed.wait()
        assert server.commands[-1] == "QUIT"
        assert (await way.send(spooled(), RAW))["b@x.example"].verdict is Verdict.SENT


async def test_closing_says_goodbye_on_every_kept_connection(tmp_path: Path) -> None:
    async with both(tmp_path) as (way, server):
        await asyncio.gather(*(way.send(spooled(queue_id=f"Q{number}"), RAW) for number in range(3)))
        await way.aclose()
        await until(lambda: server.commands.count("QUIT") == server.connections)


# -- settings -------------------------------------------------------------------------------------------------------

LOGIN = {"username": "user", "password": "secret"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"host": "smtp.example.net", "tls": "none", **LOGIN}, "not sent unencrypted"),
        ({"host": "smtp.example.net", "username": "u"}, "go together"),
        ({"host": "smtp.example.net", "password": "p"}, "go together"),
        ({"host": "smtp.example.net:587"}, "write the port as port: 587"),
        ({"host": "[::1]:587"}, "write the port as port: 587"),
        ({"host": "http://smtp"}, "host"),
        ({"host": ""}, "host"),
        ({"host": "2001:db8::25"}, None),
        ({"host": "[2001:db8::25]"}, None),
        ({"host": "h", "port": 70000}, "port"),
        ({"host": "h", "local_hostname": "a b"}, "local_hostname"),
        ({"host": "h", "auth": "digest-md5"}, "auth"),
        ({"host": "h", "auth": "xoauth2"}, "username and token_file go together where auth is xoauth2"),
        ({"host": "h", "auth": "xoauth2", **LOGIN}, "username and token_file go together where auth is xoauth2"),
        ({"host": "h", "auth": "xoauth2", "token_file": "t", **LOGIN}, "password is not used where auth is xoauth2"),
        ({"host": "h", "token_file": "t", **LOGIN}, "token_file is not used where auth is auto"),
        ({"host": "h", "private_key_file": "k"}, "private_key_file needs certificate_file"),
        ({"host": "h", "server_name": "a:b"}, "server_name"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(values: dict[str, Any], message: str | None) -> None:
    if message is None:
        assert SmtpSettings.model_validate(values).tls == "starttls"
        return
    with pytest.raises(ValidationError, match=message):
        SmtpSettings.model_validate(values)


@pytest.mark.parametrize(("tls", "port"), [("none", 25), ("starttls", 587), ("implicit", 465)])
async def test_the_port_follows_from_tls(tmp_path: Path, tls: str, port: int) -> None:
    async with backend(None, tmp_path, host="127.0.0.9", tls=tls, port=None) as way:
        assert (await way.check()).facts["server"] == f"127.0.0.9:{port}"


# -- nobody there ----------------------------------------------------------------------------------------------------


async def test_an_unknown_name_waits_and_is_no_bounce(tmp_path: Path) -> None:
    """A name server that has no answer now may have one later."""
    async with backend(None, tmp_path, host="nowhere.invalid") as way:
        outcome = (await way.send(spooled(), RAW))["b@x.example"]
        assert (outcome.verdict, outcome.code, outcome.enhanced) == (Verdict.DEFERRED, None, "4.4.3")
        assert outcome.detail.startswith("cannot find nowhere.invalid: ")
        assert outcome.scope is Scope.BACKEND


async def test_a_server_that_hangs_up_without_a_word_is_called_by_host_and_port(tmp_path: Path) -> None:
    """aiosmtplib is handed a connection and knows no port."""
    async with both(tmp_path, {"connect": DROP}) as (way, server):
        outcome = (await way.send(spooled(), RAW))["b@x.example"]
        assert (outcome.verdict, outcome.enhanced) == (Verdict.DEFERRED, "4.4.1")
        assert f"127.0.0.1:{server.port}" in outcome.detail
        assert "None" not in outcome.detail


async def test_check_reports_what_the_server_offers(tmp_path: Path) -> None:
    async with both(tmp_path, offers=("SIZE 1000", "AUTH PLAIN"), **LOGIN) as (way, server):
        check = await way.check()
        assert (check.ok, check.summary) == (True, f"127.0.0.1:{server.port} is ready, login accepted")
        assert check.facts["extensions"] == "AUTH HELP SIZE"
        await server.closed.wait()
        assert server.commands[-1] == "QUIT"
