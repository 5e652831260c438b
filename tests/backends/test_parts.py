"""What the four APIs without MIME have in common: recipients, what is refused or dropped, text, secrets."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway import bounce
from gateway.backends.json.parts import display_names, quoted, request
from gateway.config.models import RouteSettings
from gateway.message import FEATURES, scan, walk
from gateway.model import CallsBack, CannotCarry, Outcome, Recipient, Scope, Tracked, Verdict, Verifies
from gateway.routing import Freight, Routing
from tests.backends import kit
from tests.backends.json_fakes import (
    SECRET,
    TOKEN,
    Js2mailFake,
    JsonFake,
    JustemailsFake,
    MailpassFake,
    TempMailFake,
    Way,
    mail,
    open_way,
)
from tests.backends.kit import RAW, http, spooled
from tests.builders import spooled_message
from tests.fakes import START

FAKES: list[type[JsonFake]] = [Js2mailFake, JustemailsFake, MailpassFake, TempMailFake]
EACH = pytest.mark.parametrize("make", FAKES, ids=[fake.kind for fake in FAKES])


@pytest.fixture(params=FAKES, ids=[fake.kind for fake in FAKES])
async def way(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Way]:
    async with open_way(tmp_path, request.param()) as value:
        yield value


def body_of(way: Way, number: int = 0) -> dict[str, Any]:
    return dict(json.loads(way.web.requests[number].body))


# -- recipients ------------------------------------------------------------------------------------------------------

# To and Cc fields, envelope, and the calls of the two APIs with lists: to, cc, bcc
Lists = tuple[list[str], list[str], list[str]]
PEOPLE: list[tuple[str, list[str], list[str], list[Lists], list[Lists]]] = [
    ("as addressed", ["To: a@x.org", "Cc: b@x.org"], ["a@x.org", "b@x.org"],
     [(["a@x.org"], ["b@x.org"], [])], [(["a@x.org"], ["b@x.org"], [])]),
    ("several in To", ["To: a@x.org, b@x.org", "Cc: c@x.org"], ["c@x.org", "b@x.org", "a@x.org"],
     [(["b@x.org", "a@x.org"], ["c@x.org"], [])], [(["b@x.org"], ["a@x.org", "c@x.org"], [])]),
    ("blind ones", ["To: a@x.org"], ["z@x.org", "a@x.org", "y@x.org"],
     [(["a@x.org"], [], ["z@x.org", "y@x.org"])], [(["a@x.org"], [], ["z@x.org", "y@x.org"])]),
    ("only blind", ["To: a@x.org"], ["z@x.org", "y@x.org"],
     [(["z@x.org"], [], []), (["y@x.org"], [], [])], [(["z@x.org"], [], []), (["y@x.org"], [], [])]),
    ("undisclosed", ["To: undisclosed-recipients:;"], ["z@x.org"], [(["z@x.org"], [], [])], [(["z@x.org"], [], [])]),
    ("nobody named", [], ["z@x.org"], [(["z@x.org"], [], [])], [(["z@x.org"], [], [])]),
    ("header only", ["To: a@x.org, b@x.org", "Cc: c@x.org", "Bcc: d@x.org"], ["b@x.org"],
     [(["b@x.org"], [], [])], [(["b@x.org"], [], [])]),
    ("only in Cc", ["To: a@x.org", "Cc: c@x.org"], ["c@x.org", "z@x.org"],
     [(["c@x.org"], [], ["z@x.org"])], [(["c@x.org"], [], ["z@x.org"])]),
    ("spelled otherwise", ["To: A <A@X.ORG>"], ["a@x.org"], [(["a@x.org"], [], [])], [(["a@x.org"], [], [])]),
    ("two spellings", ["To: a@x.org"], ["a@x.org", "A@x.org"],
     [(["a@x.org"], [], []), (["A@x.org"], [], [])], [(["a@x.org"], [], []), (["A@x.org"], [], [])]),
    ("a group, quoted names", ['To: Team: "b@x.org, z" <a@x.org>;', "Cc: =?utf-8?q?c=40x=2Eorg?= <b@x.org>"],
     ["a@x.org", "b@x.org"], [(["a@x.org"], ["b@x.org"], [])], [(["a@x.org"], ["b@x.org"], [])]),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "envelope"), [case[1:3] for case in PEOPLE], ids=[case[0] for case in PEOPLE])
async def test_exactly_the_envelope_is_mailed_and_nobody_else_is_named(
    way: Way, fields: list[str], envelope: list[str]
) -> None:
    """Promise 3. Whoever is blind stands nowhere but in his own ``to``, or in bcc."""
    outcomes = await way.send(*envelope, raw=mail(*fields))
    assert {address: outcome.verdict for address, outcome in outcomes.items()} == dict.fromkeys(envelope, Verdict.SENT)
    assert Counter(way.fake.people()) == Counter(envelope)
    shown = " ".join(fields).lower()
    for body in way.fake.taken:
        seen = json.dumps({name: value for name, value in body.items() if name not in ("bcc", "metadata")})
        own = body.get("to_mail", body.get("to"))
        for address in set(envelope) - {own if isinstance(own, str) else own[0]}:
            assert address not in seen or address.lower() in shown
        for stranger in ("a@x.org", "b@x.org", "c@x.org", "d@x.org"):
            if stranger not in [address.lower() for address in envelope]:
                assert stranger not in seen.lower()


@pytest.mark.parametrize("case", PEOPLE, ids=[case[0] for case in PEOPLE])
@pytest.mark.parametrize("make", [Js2mailFake, MailpassFake])
async def test_lists_keep_who_sees_whom(tmp_path: Path, make: type[JsonFake], case: Any) -> None:
    async with open_way(tmp_path, make()) as way:
        await way.send(*case[2], raw=mail(*case[1]))
    lists = [[body.get(name, []) for name in ("to", "cc", "bcc")] for body in way.fake.taken]
    calls = [tuple([value] if isinstance(value, str) else value for value in call) for call in lists]
    assert calls == case[3 if make is Js2mailFake else 4]


@pytest.mark.parametrize("make", [Js2mailFake, MailpassFake])
async def test_lists_have_at_most_a_hundred_people(tmp_path: Path, make: type[JsonFake]) -> None:
    shown, blind = [f"p{n}@x.example" for n in range(150)], [f"z{n}@x.example" for n in range(60)]
    raw = mail("To: " + ",\r\n ".join(shown[:50]), "Cc: " + ",\r\n ".join(shown[50:]))
    async with open_way(tmp_path, make()) as way:
        outcomes = await way.send(*blind, *shown, raw=raw)
    assert {outcome.verdict for outcome in outcomes.values()} == {Verdict.SENT}
    assert Counter(way.fake.people()) == dict.fromkeys((*blind, *shown), 1)
    assert len(way.fake.taken) == 2 + 10  # two with visible people; ten blind ones are left over, each alone


async def test_the_whole_envelope_says_who_goes_with_whom(tmp_path: Path) -> None:
    """Those of other deliveries are neither mailed nor named."""
    async with open_way(tmp_path, Js2mailFake()) as way:
        message = replace(spooled("c@x.org", "z@x.org"), everyone=("a@x.org", "c@x.org", "y@x.org", "z@x.org"))
        await way.deliver(message, mail("To: a@x.org", "Cc: c@x.org"))
        assert way.fake.people() == ["c@x.org", "z@x.org"]
        assert way.fake.taken[0]["to"] == ["c@x.org"]


# -- what cannot be carried ------------------------------------------------------------------------------------------


def parts(subtype: str, *leaves: str, extra: str = "") -> bytes:
    top = f"Content-Type: multipart/{subtype}; boundary=b{extra}"
    body = "".join(f"--b\r\n{leaf}\r\n" for leaf in leaves) + "--b--\r\n"
    return mail("To: b@x.example", "MIME-Version: 1.0", top, body=body)


TEXT = "Content-Type: text/plain\r\n\r\nhello"
HTML = 'Content-Type: text/html\r\n\r\n<p>hello <img src="cid:i1"></p>'
PDF = "Content-Type: application/pdf; name=report.pdf\r\nContent-Disposition: attachment; filename=report.pdf\r\n\r\nx"
IMAGE = "Content-Type: image/png\r\nContent-ID: <i1>\r\n\r\nx"
EXAMPLES: dict[str, tuple[bytes, str]] = {
    "attachments": (parts("mixed", TEXT, PDF), "attachments .* (part 2: application/pdf report.pdf)"),
    "inline_images": (parts("related", HTML, IMAGE), "images within the text"),
    "signed": (parts("signed", TEXT, "Content-Type: application/pgp-signature\r\n\r\nx"), "signed mail"),
    "encrypted": (
        mail("To: b@x.example", "Content-Type: application/pkcs7-mime; smime-type=enveloped-data"),
        "encrypted mail",
    ),
    "calendar": (parts("alternative", TEXT, "Content-Type: text/calendar; method=REQUEST\r\n\r\nx"), "calendar"),
    "attached_message": (
        parts("mixed", TEXT, "Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nx"),
        "attached mes",
    ),
    "report": (
        parts("report", TEXT, "Content-Type: message/delivery-status\r\n\r\nx", extra="; report-type=delivery-status"),
        "delivery reports",
    ),
    "reply_to": (mail("To: b@x.example", "Reply-To: other@corp.example"), "Reply-To"),
    "headers": (mail("To: b@x.example", "X-Tag: t", "List-Unsubscribe: <mailto:u@x>"), "X-Tag, List-Unsubscribe"),
    "threading": (mail("To: b@x.example", "In-Reply-To: <1@x>", "References: <0@x> <1@x>"), "In-Reply-To"),
    "charset": (mail("To: b@x.example", "Content-Type: text/plain; charset=x-nobody", body="\udcfc"), "x-nobody"),
    "no_charset": (mail("To: b@x.example", subject="Gr\udcfc\udcdfe"), "Subject names no character set"),
    "malformed": (mail("To: b@x.example", "Content-Type: multipart/mixed; boundary=b", body="--b\r\n" * 1001), ""),
}
BLANKS = {"no_subject", "no_text"}
CARRIES = {"js2mail": set(), "justemails": {"reply_to"}, "mailpass": {"reply_to"}, "temp_mail": set()}


def test_every_feature_has_its_message() -> None:
    assert set(EXAMPLES) == FEATURES - {"both_bodies", *BLANKS}
    for feature, (raw, _) in EXAMPLES.items():
        assert feature in walk(raw).features, feature


@pytest.mark.parametrize("feature", EXAMPLES)
async def test_send_refuses_what_the_door_refuses_in_the_same_words(way: Way, feature: str) -> None:
    raw, words = EXAMPLES[feature]
    outcome = (await way.send("b@x.example", raw=raw))["b@x.example"]
    if feature in CARRIES[way.fake.kind]:
        assert outcome.verdict is Verdict.SENT
        return
    assert (outcome.verdict, outcome.enhanced) == (Verdict.REJECTED, "5.6.3")
    assert way.web.requests == []
    author = "a@corp.example"
    freight = Freight("scanner", author, len(raw), authors=(author,), features=walk(raw).features)
    routing = Routing((RouteSettings(backend=("way",)),), {"way": way.backend.capabilities})
    with pytest.raises(CannotCarry) as refused:
        routing.usable(freight, "b@x.example")
    assert refused.value.kind == "feature"
    assert (outcome.detail, outcome.enhanced) == (refused.value.text, refused.value.enhanced)
    for word in words.split(" .* "):
        assert word in outcome.detail
    assert 'backend "way"' in outcome.detail
    if feature in ("headers", "threading", "inline_images"):
        setting = "inline_images" if feature == "inline_images" else "unsupported_headers"
        assert f"set {setting}: drop on backends.way" in outcome.detail


@EACH
@pytest.mark.parametrize(
    ("settings", "feature"),
    [
        ({"inline_images": "drop"}, "inline_images"),
        ({"unsupported_headers": "drop"}, "headers"),
        ({"unsupported_headers": "drop"}, "threading"),
    ],
)
async def test_what_a_setting_lets_go_is_one_line_in_the_log(
    tmp_path: Path, make: type[JsonFake], settings: dict[str, Any], feature: str
) -> None:
    raw = EXAMPLES[feature][0]
    async with open_way(tmp_path, make(), **settings) as way:
        refused = await way.one(http(400, {"message": "no"}), raw=raw)
        assert (refused.verdict is Verdict.SENT, way.log.lines) == (False, [])  # nothing left, so nothing is lost
        outcome = (await way.send("b@x.example", "z@x.example", raw=raw))["b@x.example"]
        assert outcome.verdict is Verdict.SENT
        (line,) = way.log.lines
        assert (line["event"], line["id"], line["backend"]) == ("dropped", "Q1", "way")
        assert line["what"] == f"{feature}: {walk(raw).features[feature]}"
        assert "X-Tag" not in json.dumps(way.fake.taken)


def bounce_of(original: bytes, *, ret: str = "", failed: str = "bob@example.org") -> bytes:
    """What the gateway writes when mail of a@corp.example failed, under its ordinary sender address."""
    message = spooled_message(failed, sender="a@corp.example", message_id="<m@corp.example>")
    message = replace(message, envelope=replace(message.envelope, ret=ret))
    outcome = Outcome(Verdict.REJECTED, 550, "5.1.1", "550 5.1.1 no such user", said_by="smtp")
    return bounce.Report(
        hostname="relay.example",
        sender="mailer@corp.example",
        message=message,
        original=original,
        failures=(bounce.Failure(Recipient(failed), outcome, "smart", "failed"),),
        now=START,
        message_id="<r@relay.example>",
        boundary="=0123456789",
        plain=True,
    ).build()


@EACH
@pytest.mark.parametrize(
    ("original", "ret", "failed"),
    [
        (RAW, "", "bob@example.org"),
        (RAW, "HDRS", "bob@example.org"),
        (parts("mixed", TEXT, PDF), "", "bob@example.org"),
        (RAW + b"x" * 2000, "", "bob@example.org"),  # a line that no report may carry: its header alone
        (b"Subject: " + b"x" * 2000 + b"\r\n\r\nbody", "", "bob@example.org"),  # its header in base64
        (RAW + b"x\r\n" * 40_000, "", "bob@example.org"),
        (mail("To: b@x.example", body="gr\u00fc\u00dfe"), "", "b\u00f6b@example.org"),
    ],
    ids=["whole", "header asked for", "with a file", "header only", "header in base64", "beginning", "utf-8"],
)
async def test_a_bounce_of_ours_goes_as_its_text(
    tmp_path: Path, make: type[JsonFake], original: bytes, ret: str, failed: str
) -> None:
    """The text says all of it to a person; refused as a delivery report it would be lost, and nobody told."""
    raw = bounce_of(original, ret=ret, failed=failed)
    async with open_way(tmp_path, make()) as way:
        ours = replace(spooled("a@corp.example", sender="mailer@corp.example"), bounce=True)
        assert (await way.deliver(ours, raw))["a@corp.example"].verdict is Verdict.SENT
        ((subject, text),) = way.fake.texts()
        assert subject == f"Undelivered mail: {failed}"
        assert "550 5.1.1 no such user" in text
        assert "X-Tag" not in text
        assert "report" in {str(line["what"]).partition(":")[0] for line in way.log.lines}
        assert {line["event"] for line in way.log.lines} == {"dropped"}


async def test_a_report_of_somebody_else_is_refused_as_before(way: Way) -> None:
    """What stands in its parts may be all that its reader wants of it."""
    outcome = (await way.send("a@corp.example", raw=bounce_of(RAW)))["a@corp.example"]
    assert (outcome.verdict, outcome.enhanced, way.web.requests) == (Verdict.REJECTED, "5.6.3", [])


@EACH
async def test_a_reply_to_is_never_dropped(tmp_path: Path, make: type[JsonFake]) -> None:
    async with open_way(tmp_path, make(), unsupported_headers="drop", inline_images="drop") as way:
        outcome = (await way.send("b@x.example", raw=EXAMPLES["reply_to"][0]))["b@x.example"]
        if make in (JustemailsFake, MailpassFake):
            (name,) = {"replyTo", "reply_to"} & body_of(way).keys()
            assert body_of(way)[name] == "other@corp.example"
            two = mail("To: b@x.example", "Reply-To: o@corp.example, p@corp.example")
            assert (await way.send("b@x.example", raw=two))["b@x.example"].enhanced == "5.6.3"
        else:
            assert outcome.verdict is Verdict.REJECTED


async def test_a_reply_to_that_is_the_from_is_no_loss(way: Way) -> None:
    assert (await way.one(raw=mail("To: b@x.example", "Reply-To: A <A@corp.example>"))).verdict is Verdict.SENT
    assert not {"replyTo", "reply_to"} & body_of(way).keys()


async def test_traces_are_dropped_without_a_word(way: Way) -> None:
    traces = ["Received: from x by y; date", "DKIM-Signature: v=1", "X-Mailer: m", "Date: now", "Message-ID: <1@x>"]
    assert (await way.one(raw=mail("To: b@x.example", *traces))).verdict is Verdict.SENT
    assert way.log.lines == []


@pytest.mark.parametrize(
    ("raw", "sender", "enhanced"),
    [
        (RAW, "", "5.7.1"),  # the null sender
        (RAW + b"x" * 10_000_000, "a@corp.example", "5.3.4"),
        (RAW.replace(b"a@corp", "ä@corp".encode()), "a@corp.example", "5.6.7"),
        (b"From: a@corp.example, c@corp.example\r\n\r\nx", "a@corp.example", "5.6.3"),
        (b"X: y\r\n" * 20_000 + RAW, "a@corp.example", "5.6.0"),
    ],
    ids=["null sender", "size", "smtputf8", "two authors", "header"],
)
async def test_what_else_cannot_go(way: Way, raw: bytes, sender: str, enhanced: str) -> None:
    outcome = (await way.send("b@x.example", raw=raw, sender=sender))["b@x.example"]
    assert (outcome.verdict, outcome.enhanced) == (Verdict.REJECTED, enhanced)
    assert way.web.requests == []


async def test_a_non_ascii_recipient_is_refused(way: Way) -> None:
    outcome = (await way.send("ü@x.example", smtputf8=True))["ü@x.example"]
    assert (outcome.verdict, outcome.enhanced) == (Verdict.REJECTED, "5.6.7")


@EACH
async def test_senders_names_who_the_account_may_be(tmp_path: Path, make: type[JsonFake]) -> None:
    async with open_way(tmp_path, make(), senders=["*@other.example"]) as way:
        assert way.backend.capabilities.senders == ("*@other.example",)
        outcome = await way.one()
        assert (outcome.verdict, outcome.enhanced) == (Verdict.REJECTED, "5.7.1")
        assert "backends.way.senders" in outcome.detail


async def test_the_limits_are_what_the_door_needs(way: Way) -> None:
    limits = way.backend.capabilities
    assert (limits.max_bytes, limits.whole_bytes, limits.null_sender, limits.smtputf8) == (10_000_000, 0, False, False)
    kind = way.fake.kind
    blanks = set() if kind == "temp_mail" else BLANKS
    assert limits.lacks == FEATURES - {"both_bodies", *blanks} - CARRIES[kind]
    assert isinstance(way.backend, Tracked) is (kind != "temp_mail")
    assert isinstance(way.backend, CallsBack) is (kind == "js2mail")
    assert isinstance(way.backend, Verifies) is (kind == "temp_mail")


# -- text ------------------------------------------------------------------------------------------------------------

LATIN = b"Content-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nGr=FC=DFe"
BASE64 = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\nR3LDvMOfZQ=="
TEXTS: list[tuple[str, bytes, str]] = [
    ("latin-1 in quoted-printable", LATIN, "Grüße"),
    ("utf-8 in base64", BASE64, "Grüße"),
    ("raw utf-8 without a charset", b"\r\nGr\xc3\xbc\xc3\x9fe", "Grüße"),
    ("shift_jis", b"Content-Type: text/plain; charset=shift_jis\r\n\r\n\x93\xfa\x96{", "日本"),
    ("x-gbk", b"Content-Type: text/plain; charset=x-gbk\r\n\r\n\xc4\xe3", "你"),
    ("Korean", b'Content-Type: text/plain; charset="ks_c_5601-1987"\r\n\r\n\xb0\xa1\x81\x41', "가갂"),
    ("utf-16", b"Content-Type: text/plain; charset=utf-16\r\nContent-Transfer-Encoding: base64\r\n\r\n//5kADwm", "d☼"),
    ("quotes, backslashes, line ends", b'\r\n"\\ \x7f\r\n.\r\n\tx', '"\\ \x7f\n.\n\tx'),
    ("beyond the first plane", "\r\n🖨️".encode(), "🖨️"),
]  # fmt: skip


@pytest.mark.parametrize(("head", "text"), [case[1:] for case in TEXTS], ids=[case[0] for case in TEXTS])
async def test_every_charset_leaves_as_utf8(way: Way, head: bytes, text: str) -> None:
    raw = b"From: a@corp.example\r\nTo: b@x.example\r\nSubject: =?iso-8859-1?q?Gr=FC=DFe?= =?utf-8?b?4oKs?=\r\n" + head
    assert (await way.one(raw=raw)).verdict is Verdict.SENT
    assert way.fake.texts() == [("Grüße€", text)]


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"\r\nGr\xfc\xdfe", "part 1: text/plain names no character set and is not in UTF-8"),
        (b"Content-Type: text/plain; charset=us-ascii\r\n\r\nGr\xfc\xdfe", "set default_charset on backends.way"),
        (b"Content-Type: text/plain; charset=x-nobody\r\n\r\nGr\xfc\xdfe", '"x-nobody" is no known character set'),
        (b"Content-Type: text/plain; charset=utf-8\r\n\r\nGr\xfc\xdfe", 'is not in "utf-8" as it says'),
        (b"Content-Transfer-Encoding: x-uuencode\r\n\r\nbegin 644 x", "transfer encoding, x-uuencode"),
        (b"Content-Type: text/html; charset=cp037\r\n\r\n\x85\x93", '"cp037" is no known character set'),
        (b"Subject: =?x-nobody?q?=FC?=\r\n\r\nx", "Subject"),
        (b"Subject: Gr\xfc\xdfe\r\n\r\nx", "Subject names no character set"),
    ],
)
async def test_a_text_that_cannot_be_made_out_is_refused_and_not_guessed(way: Way, head: bytes, words: str) -> None:
    raw = b"From: a@corp.example\r\nTo: b@x.example\r\n" + (b"" if b"Subject" in head else b"Subject: s\r\n") + head
    outcome = await way.one(raw=raw)
    assert (outcome.verdict, outcome.enhanced, way.web.requests) == (Verdict.REJECTED, "5.6.3", [])
    assert words in outcome.detail


@EACH
async def test_an_operator_may_say_what_text_without_a_charset_is_in(tmp_path: Path, make: type[JsonFake]) -> None:
    """And only that: what says something else, or is UTF-8, is read by itself."""
    start = b"From: J\xf6rg <a@corp.example>\r\nTo: b@x.example\r\nSubject: Gr\xfc\xdfe\r\n"
    async with open_way(tmp_path, make(), default_charset="windows-1252") as way:
        assert (await way.one(raw=start + "\r\nGrüße".encode())).verdict is Verdict.SENT
        assert way.fake.texts() == [("Grüße", "Grüße")]
    async with open_way(tmp_path, make(), default_charset="windows-1252") as way:
        assert (await way.one(raw=start + b"\r\nGr\xfc\xdfe")).verdict is Verdict.SENT
        assert way.fake.texts() == [("Grüße", "Grüße")]
        names = {body["from_name"] for body in way.fake.taken if "from_name" in body}
        assert names <= {"Jörg"}
        wrong = start + b"Content-Type: text/plain; charset=x-nobody\r\n\r\n\xfc"
        assert (await way.one(raw=wrong)).enhanced == "5.6.3"
        assert way.log.lines == []
    for wrong, words in (("klingon", "is no known character set"), ("us-ascii", "says nothing about 8-bit text")):
        with pytest.raises(ValueError, match=f'"{wrong}" {words}'):
            async with open_way(tmp_path, make(), default_charset=wrong):
                pass


async def test_a_name_that_cannot_be_made_out_is_left_out(way: Way) -> None:
    raw = b"From: J\xf6rg <a@corp.example>\r\nTo: =?x-nobody?q?=FC?= <b@x.example>\r\nSubject: s\r\n\r\nx"
    assert (await way.one(raw=raw)).verdict is Verdict.SENT
    (body,) = way.fake.taken
    assert {body.get("from_name", ""), body.get("to_name", "")} == {""}


async def test_text_and_html_together(way: Way) -> None:
    raw = parts("alternative", TEXT, "Content-Type: text/html; charset=latin1\r\n\r\n<p>h\xe9llo</p>")
    assert (await way.one(raw=raw)).verdict is Verdict.SENT
    body = body_of(way)
    if way.fake.kind == "temp_mail":
        assert (body["content"], body["is_html"]) == ("<p>hÃ©llo</p>", True)  # as its charset says
        (line,) = way.log.lines
        assert line["what"] == "both_bodies: part 1: text/plain and part 2: text/html"
    else:
        assert (body["text"], body["html"]) == ("hello", "<p>hÃ©llo</p>")
        assert way.log.lines == []


async def test_html_alone(way: Way) -> None:
    await way.one(raw=mail("To: b@x.example", "Content-Type: text/html", body="<p>x</p>"))
    body = body_of(way)
    assert body.get("html", body.get("content")) == "<p>x</p>"
    assert "text" not in body


@EACH
async def test_a_large_message_arrives_as_a_small_one(tmp_path: Path, make: type[JsonFake]) -> None:
    text = "".join(chr(32 + n % 95) + "ü€" for n in range(700_000))
    async with open_way(tmp_path, make()) as way:
        way.web.handler = way.fake.take
        raw = mail("To: b@x.example", "Content-Type: text/plain; charset=utf-8", body=text)
        assert (await way.one(raw=raw)).verdict is Verdict.SENT
        assert way.fake.texts()[0][1] == text


def test_quoted_is_json_at_any_place_it_is_cut() -> None:
    for size in (0, 1, 196_607, 196_608, 196_609, 400_000):
        text = ('\\"\n€🖨' * (size // 5 + 1))[:size]
        assert json.loads(quoted(text)) == text
    assert json.loads(request({"a": "ü"}, {"t": quoted("x"), "h": quoted("\ud800")})) == {"a": "ü", "t": "x", "h": "?"}


def test_display_names() -> None:
    header = scan(
        b'From: "Doe, \\"J\\" Jane" <a@x.org>\r\nTo: =?utf-8?q?J=C3=BC?= <B@x.org>, c@x.org, "" <d@x.org>\r\n'
        b"Cc: Other <b@x.org>\r\n\r\n"
    )
    assert display_names(header, "from") == {"a@x.org": "Doe J Jane"}
    assert display_names(header, "to", "cc") == {"b@x.org": "Jü", "d@x.org": ""}


@pytest.mark.parametrize(
    "name", ['"evil@x.org>, <b"', '"x> <evil@x.org"', "=?utf-8?q?evil=40x=2Eorg=3E=2C_b?=", '"a, b"']
)
@pytest.mark.parametrize("make", [MailpassFake, TempMailFake])
async def test_a_display_name_cannot_smuggle_a_recipient(tmp_path: Path, make: type[JsonFake], name: str) -> None:
    """The Worker pastes names into address fields as they are."""
    raw = f"From: {name} <a@corp.example>\r\nTo: {name} <b@x.example>\r\nSubject: s\r\n\r\nx".encode()
    async with open_way(tmp_path, make()) as way:
        assert (await way.one(raw=raw)).verdict is Verdict.SENT
        (body,) = way.fake.taken
        assert not set('<>@,;:"\\') & set(body.get("from_name", "") + body.get("to_name", ""))


# -- lost answers and secrets ----------------------------------------------------------------------------------------


@EACH
@pytest.mark.parametrize(("handler", "words"), kit.LOST)
async def test_a_lost_answer_is_in_doubt_and_ends_the_attempt(
    tmp_path: Path, make: type[JsonFake], handler: kit.Handler, words: str
) -> None:
    timeout = timedelta(seconds=0.2 if handler is kit.hang else 5)
    async with open_way(tmp_path, make(), timeout=timeout) as way:
        way.fake.answers = [handler]
        outcomes = await way.send("y@x.example", "z@x.example")
        first, second = outcomes["y@x.example"], outcomes["z@x.example"]
        assert (first.verdict, first.code, first.enhanced) == (Verdict.IN_DOUBT, None, "4.4.2")
        assert words in first.detail
        assert (second.verdict, second.code, second.scope) == (Verdict.DEFERRED, None, Scope.MESSAGE)
        assert len(way.web.requests) == 1


async def test_an_attempt_stops_where_the_provider_stops(way: Way) -> None:
    """What was sent stays sent; a refused recipient is his own affair."""
    for status, second, third in [
        (400, "REJECTED", "SENT"),
        (429, "THROTTLED", "THROTTLED"),
        (503, "DEFERRED", "DEFERRED"),
    ]:
        way.web.requests.clear()
        text = "Invalid recipient address" if way.fake.kind == "temp_mail" else {"message": "no"}
        way.fake.answers = [way.fake.take, http(status, text)]
        outcomes = await way.send("x@x.example", "y@x.example", "z@x.example")
        assert [outcome.verdict.name for outcome in outcomes.values()] == ["SENT", second, third]
        assert len(way.web.requests) == (3 if third == "SENT" else 2)


async def test_a_hint_of_the_provider_is_kept(way: Way) -> None:
    outcome = await way.one(http(429, "", {"Retry-After": "1200"}))
    assert (outcome.verdict, outcome.retry_after.total_seconds()) == (Verdict.THROTTLED, 1200)  # type: ignore[union-attr]


@EACH
async def test_what_the_provider_repeats_of_our_secrets_is_hidden(tmp_path: Path, make: type[JsonFake]) -> None:
    fake = make()
    if isinstance(fake, TempMailFake):
        fake.password = SECRET
    async with open_way(tmp_path, fake) as way:
        await repeats(way)


async def repeats(way: Way) -> None:
    for status in (400, 401, 403, 500):
        outcome = await way.one(http(status, f"your {SECRET} and Bearer {SECRET} and {TOKEN}"))
        assert not any(secret in f"{outcome}" for secret in (SECRET, TOKEN, TOKEN.split(".")[1]))
    way.fake.answers = []
    shown = f"{way.backend.capabilities} {await way.backend.check()} {way.log.lines}"
    assert SECRET not in shown
    assert TOKEN not in shown
