"""The last decisions before a message is stored, where the door's own tests do not reach them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from gateway.intake import Rules, prepare
from gateway.message import Arrival, scan
from gateway.model import (
    BadMessage,
    CannotCarry,
    Capabilities,
    Client,
    Envelope,
    LoginToken,
    Recipient,
    Refusal,
    SenderRewrite,
)
from tests.builders import routing, settings

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
INSIDE = Arrival("ID1", NOW, listener="", peer="", helo="", protocol="local")
ENVELOPE = Envelope("a@example.com", (Recipient("b@example.org"), Recipient("c@example.net")))
RAW = b"From: A <a@example.com>\r\nMessage-ID: <m@x>\r\n\r\nbody\r\n"


def rules(*routes: dict[str, object], **able: Capabilities) -> Rules:
    made = settings(routes=routes or [{"backend": ["box"]}], retry={"lifetime": "2d"})
    return Rules.of(made, routing(made, able or {"box": Capabilities(max_bytes=10_000)}))


def test_a_message_from_inside() -> None:
    """No peer, so the trace names none; the pin wins over the routes."""
    message = prepare(RAW, ENVELOPE, Client("cli", backend="two"), INSIDE, rules(two=Capabilities(max_bytes=1000)))
    assert message.raw.startswith(b"Received: by relay.example.com with local id ID1;")
    assert message.raw.endswith(RAW)
    assert message.deliveries == {"two": ("b@example.org", "c@example.net")}
    assert (message.message_id, message.header_from, message.pin) == ("<m@x>", "a@example.com", "two")
    assert message.expires_at == NOW + timedelta(days=2)


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [("SMTP", "UTF8SMTP"), ("ESMTP", "UTF8SMTP"), ("ESMTPA", "UTF8SMTPA"), ("ESMTPSA", "UTF8SMTPSA")],
)
def test_protocol_names_with_utf8(protocol: str, expected: str) -> None:
    """RFC 6531 4.3."""
    arrival = Arrival("ID1", NOW, listener="l", peer="192.0.2.1", helo="h", protocol=protocol)
    envelope = Envelope("ü@example.com", (Recipient("b@example.org"),), smtputf8=True)
    message = prepare(RAW, envelope, Client("c"), arrival, rules())
    assert f" with {expected} id ID1".encode() in message.raw.replace(b"\r\n\t", b" ")


@pytest.mark.parametrize(
    ("route", "able", "kind", "enhanced"),
    [
        ({"recipients": ["*@example.org"], "backend": ["box"]}, Capabilities(max_bytes=10_000), "no_route", "5.7.1"),
        ({"backend": ["box"]}, Capabilities(max_bytes=100), "too_big", "5.3.4"),
    ],
)
def test_one_recipient_that_cannot_be_served_refuses_all(
    route: dict[str, object], able: Capabilities, kind: str, enhanced: str
) -> None:
    """At the end of DATA there is one answer for the whole message, so nothing is taken by halves."""
    with pytest.raises(CannotCarry) as refused:
        prepare(RAW, ENVELOPE, Client("c"), INSIDE, rules(route, box=able))
    assert (refused.value.kind, refused.value.enhanced) == (kind, enhanced)


def test_a_header_that_cannot_be_read_is_no_message() -> None:
    """The bytes are at fault, whoever sent them."""
    with pytest.raises(BadMessage):
        prepare(b"X: " + b"x" * 200_000 + b"\r\n\r\n", ENVELOPE, Client("c"), INSIDE, rules())


@pytest.mark.parametrize(
    "header",
    [b"X: a\r\n" * 10_000, b"X: %b\r\n" % (b"a" * 99_995) * 5, b"From \r\n" * 11_000 + b"X: a\r\n"],
    ids=["fields", "octets", "mbox lines, of which fields are made"],
)
def test_what_is_accepted_can_be_read_again(header: bytes) -> None:
    """The trace and other fields of ours count, too: delivery would refuse what the door has taken."""
    scan(header + b"\r\nbody\r\n")
    with pytest.raises(BadMessage):
        prepare(header + b"\r\nbody\r\n", ENVELOPE, Client("c"), INSIDE, rules())


@pytest.mark.parametrize(
    ("fields", "sender", "authors", "header_from"),
    [
        (b"From: A <b@example.com>\r\n", "a@example.com", ("b@example.com",), "b@example.com"),
        (b"From: b@x.example, c@x.example\r\nSender: d@x.example\r\n", "a@example.com",
         ("b@x.example", "c@x.example", "d@x.example"), "b@x.example"),
        (b"Subject: s\r\n", "a@example.com", ("a@example.com",), "a@example.com"),
        (b"From: the boss\r\n", "a@example.com", ("",), "a@example.com"),
        (b"From: b@x.example\r\n", "", ("b@x.example",), "b@x.example"),
    ],
)  # fmt: skip
def test_whom_readers_see(fields: bytes, sender: str, authors: tuple[str, ...], header_from: str) -> None:
    """All of From and Sender is kept with the message: routing must not depend on when it is asked."""
    message = prepare(fields + b"\r\nbody\r\n", replace(ENVELOPE, sender=sender), Client("c"), INSIDE, rules())
    assert (message.authors, message.header_from) == (authors, header_from)


def test_it_is_looked_through_where_a_backend_minds() -> None:
    """Nobody having looked is not the same as nothing there."""
    raw = RAW.replace(b"\r\n\r\n", b"\r\nSubject: s\r\nX-Own: 1\r\n\r\n")
    able = Capabilities(10_000, lacks=frozenset(("signed",)))
    assert prepare(raw, ENVELOPE, Client("c"), INSIDE, rules(box=able)).features == {"headers": "X-Own"}
    assert prepare(raw, ENVELOPE, Client("c"), INSIDE, rules()).features is None


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (b"Message-ID: <a@b>", "<a@b>"),
        (b"message-id :\r\n <a@b> (of today)", "<a@b>"),
        (b"Message-ID: (<c@d>) <a@b>", "<a@b>"),
        (b"Message-ID: \r\nMessage-ID: <a@b>", "<a@b>"),
        (b"Message-ID: a@b", "a@b"),
        (b"Message-ID:", None),
        (b"X: y", None),
    ],
)
def test_the_message_id_is_the_one_that_others_read(field: bytes, expected: str | None) -> None:
    """And where there is none, the one that stands in the message afterwards."""
    raw = field + b"\r\nFrom: a@example.com\r\n\r\nx"
    message = prepare(raw, ENVELOPE, Client("c"), INSIDE, rules())
    assert message.message_id == (expected or f"<ID1@{rules().hostname}>")
    assert message.raw.count(message.message_id.encode()) == 1


@pytest.mark.parametrize(
    ("body", "declared", "expected"), [(b"\xe4", False, True), (b"a", False, False), (b"a", True, True)]
)
def test_eightbit_is_what_the_octets_say(body: bytes, declared: bool, expected: bool) -> None:
    """A client that sends 8-bit octets without BODY=8BITMIME must not have them declared 7-bit to the next hop."""
    envelope = Envelope("a@example.com", ENVELOPE.recipients, eightbit=declared)
    assert prepare(RAW + body, envelope, Client("c"), INSIDE, rules()).envelope.eightbit is expected


@pytest.mark.parametrize(
    "fields",
    [
        b"From: x@evil.com <a@example.com>\r\n",
        b"From: a@example.com\r\nSender: <a@example.com> x@evil.com\r\n",
        b"From: a@example.com\r\nFrom: x@evil.com: <a@example.com>;\r\n",
        b"From: the boss\r\nSender: a@example.com\r\n",
        b"From:\r\nSender: a@example.com\r\n",
        b"Sender: x@evil.com\r\n",
    ],
)
def test_what_readers_could_see_otherwise(fields: bytes) -> None:
    """A restricted client's From and Sender must have one reading, or be rewritten where that is set."""
    restricted = Client("c", senders=(("*@example.com",),))
    with pytest.raises(Refusal) as refused:
        prepare(fields + b"\r\n", ENVELOPE, restricted, INSIDE, rules())
    assert (refused.value.code, refused.value.enhanced) == (553, "5.7.1")
    rewritten = replace(restricted, rewrite=SenderRewrite("safe@example.com", always=False))
    message = prepare(fields + b"\r\n", ENVELOPE, rewritten, INSIDE, rules())
    assert scan(message.raw).addresses("from") == ("safe@example.com",)
    assert not scan(message.raw).count("sender")
    assert fields in prepare(fields + b"\r\n", ENVELOPE, Client("free"), INSIDE, rules()).raw


def test_an_envelope_sender_that_will_be_shown_has_one_reading() -> None:
    """Where there is no From it is written there, whole, and read by the same rule as a From of the client's own."""
    restricted = Client("c", senders=(("*@example.com",),))
    odd = replace(ENVELOPE, sender="=?utf-8?q?x=40evil.com=3E?=@example.com")
    with pytest.raises(Refusal, match="not one plain address"):
        prepare(b"Subject: x\r\n\r\n", odd, restricted, INSIDE, rules())
    long = replace(ENVELOPE, sender=f"{'a' * 244}@example.com")  # 255 octets end in example.co
    message = prepare(b"Subject: x\r\n\r\n", long, restricted, INSIDE, rules())
    assert scan(message.raw).addresses("from") == (long.sender,)


def test_one_reading_passes_a_restricted_client() -> None:
    """Names, comments and groups as RFC 5322 has them harm nobody, nor does a name around the only address."""
    fields = b'From: "Doe, John" <a@example.com>, b@example.com (B)\r\nSender: Doe, John <a@example.com>\r\n'
    rewrite = SenderRewrite("safe@example.com", always=False)
    restricted = Client("c", senders=(("*@example.com",),))
    for client in (restricted, replace(restricted, rewrite=rewrite)):
        assert prepare(fields + b"\r\n", ENVELOPE, client, INSIDE, rules()).raw.endswith(fields + b"\r\n")


HOW = [
    # what came, the envelope's recipients, the client, what is noted beside how it came and the routes
    (RAW, ["b@example.org"], Client("c"), {"added": ["date"], "blind": [0]}),
    (b"From: a@example.com\r\nDate: x\r\nTo: B <b@example.org>\r\n\r\n", ["b@example.org"], Client("c"),
     {"added": ["message-id"]}),
    (b"Date: x\r\nTo: b@example.org, d@example.org\r\nCc: e@example.org\r\n\r\n", ["c@example.net", "b@example.org"],
     Client("c"), {"added": ["from", "message-id"], "blind": [0], "unsent": 2}),
    (b"Bcc: b@example.org\r\nReturn-Path: <x>\r\nSender: a@example.com\r\n" + RAW, ["b@example.org"],
     Client("c", rewrite=SenderRewrite("scan@example.com", always=True)),
     {"added": ["date"], "blind": [0], "stripped": ["bcc", "return-path", "sender"], "rewrite": "always",
      "from": "a@example.com", "answers": "a@example.com"}),
    (b"To: b@example.org\r\nDate: x\r\n" + RAW, ["b@example.org"],
     Client("c", senders=(("scan@example.com",),), rewrite=SenderRewrite("scan@example.com", always=False)),
     {"rewrite": "not_allowed", "from": "a@example.com", "answers": "a@example.com"}),
    (b"To: b\r\nDate: x\r\n" + RAW, ["b@example.org"], Client("c", default_domain="example.org"),
     {"repairs": ["line_ends", "default_domain"]}),
    (b"To: " + b"x@example.org, " * 200 + b"\r\nDate: x\r\n" + RAW, ["b@example.org"], Client("c"),
     {"repairs": ["line_ends"], "crowded": True}),
    (b"To: " + b"x@example.org, " * 200 + b"\r\nDate: x\r\n" + RAW, ["x@example.org"] * 200, Client("c"), {}),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "to", "client", "noted"), HOW)
def test_how_it_came_is_noted(raw: bytes, to: list[str], client: Client, noted: dict[str, object]) -> None:
    """Rewritten why, what was added, taken out and mended, who is hidden; or that nobody looked."""
    repairs = noted.get("repairs", ()) and ("line_ends",)
    envelope = Envelope("a@example.com", tuple(map(Recipient, to)))
    found = json.loads(prepare(raw, envelope, client, INSIDE, rules(), repairs=repairs).how)  # type: ignore[arg-type]
    assert found.pop("routes") == [[1, "backend: box", "box", ""]]
    assert {name: value for name, value in found.items() if name not in ("with", "by")} == noted
    assert (found["with"], found["by"]) == ("local", "inside")


def test_which_line_of_routes_for_whom() -> None:
    """Its number and words, the backend, why the first one did not get it; the places of those who went that way."""
    lines = [
        {"clients": ["x"], "backend": ["two"]},
        {"recipients": ["*@example.org"], "senders": ["*@example.com"], "backend": ["two", "box"]},
        {"backend": ["box"]},
    ]
    made = rules(*lines, box=Capabilities(max_bytes=10_000), two=Capabilities(max_bytes=10))
    found = json.loads(prepare(RAW, ENVELOPE, Client("c"), INSIDE, made).how)["routes"]
    too_big = found[0].pop(3)
    assert too_big.endswith('is too big, backend "two" takes at most 10 bytes')
    assert found == [
        [2, "senders: *@example.com, recipients: *@example.org, backend: two box", "box", [0]],
        [3, "backend: box", "box", "", [1]],
    ]
    pinned = json.loads(prepare(RAW, ENVELOPE, Client("c", backend="box"), INSIDE, made).how)
    assert pinned["routes"] == [[0, "", "box", ""]]


@pytest.mark.parametrize(
    ("client", "peer", "listener", "known"),
    [
        (Client("c"), "192.0.2.1", "l", "network"),
        (Client("c", login="copier"), "192.0.2.1", "l", "password"),
        (Client("c", login="x@example.com", secret="s"), "192.0.2.1", "l", "provider"),
        (Client("c", login="x", token=LoginToken("own", "x", "j", None, None)), "192.0.2.1", "l", "token"),
        (Client("c", login="user id 1000"), "", "maildrop", "file"),
        (Client("admin"), "", "", "inside"),
    ],
)
def test_by_what_the_client_was_known(client: Client, peer: str, listener: str, known: str) -> None:
    """With the key of a token, the cipher and what it called itself; cut, for strangers wrote it."""
    arrival = Arrival("ID1", NOW, listener=listener, peer=peer, helo="h" * 300, protocol="ESMTPS", tls="TLSv1.3")
    found = json.loads(prepare(RAW, ENVELOPE, client, arrival, rules()).how)
    assert (found["by"], found.get("key")) == (known, "own" if known == "token" else None)
    assert (found["helo"], found["tls"], found["with"]) == ("h" * 200, "TLSv1.3", "ESMTPS")
