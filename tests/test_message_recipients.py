"""The envelope decides who gets mail; the header decides who is seen (providers.md 0.2)."""

from __future__ import annotations

from email import message_from_bytes
from email.policy import SMTP

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.address import comparable
from gateway.message import (
    Split,
    address_call,
    address_to,
    qualify_header,
    readdress,
    redirected,
    scan,
    split_recipients,
)
from gateway.model import Client, Envelope, Recipient, Refusal
from gateway.policy import check_sender
from tests.message_kit import python_calls


def split(header: bytes, *recipients: str) -> Split:
    envelope = Envelope("s@x", tuple(map(Recipient, recipients)))
    return split_recipients(scan(header + b"\r\n"), envelope)


@pytest.mark.parametrize(
    ("header", "recipients", "expected"),
    [
        (b"To: a@x\r\n", ["a@x"], Split(("a@x",), (), ())),
        (b"To: a@x\r\n", ["a@x", "b@x"], Split(("a@x",), ("b@x",), ())),
        (b"To: a@x, c@x\r\n", ["a@x"], Split(("a@x",), (), ("c@x",))),
        (b"To: a@x\r\nCc: b@x\r\nTo: c@x\r\n", ["c@x", "b@x", "a@x"], Split(("c@x", "b@x", "a@x"), (), ())),
        (b"To: Name <A@X.ORG>\r\n", ["a@x.org"], Split(("a@x.org",), (), ())),
        (b"To: G: a@x, b@x;\r\n", ["b@x"], Split(("b@x",), (), ("a@x",))),
        (b"To: =?utf-8?q?Doe=2C_John?= <a@x>\r\n", ["a@x"], Split(("a@x",), (), ())),
        (b"To: a@b\xc3\xbccher.example\r\n", ["a@xn--bcher-kva.example"], Split(("a@xn--bcher-kva.example",), (), ())),
        (b'To: "a"@x\r\n', ["a@x"], Split(("a@x",), (), ())),
        (b"Bcc: b@x\r\nResent-To: c@x\r\n", ["a@x"], Split((), ("a@x",), ())),
        (b"To: undisclosed-recipients:;\r\n", ["a@x"], Split((), ("a@x",), ())),
        (b"To: root\r\n", ["root@x"], Split((), ("root@x",), ())),
        (b"", ["a@x"], Split((), ("a@x",), ())),
        (b"To: a@x\r\n", ["A@x", "a@x"], Split(("a@x",), ("A@x",), ())),
        (b"To: a@x, A@x\r\n", ["A@x", "a@x"], Split(("A@x", "a@x"), (), ())),
        (b"To: a@X\r\n", ["A@x", "a@x"], Split((), ("A@x", "a@x"), ())),
    ],
)
def test_split(header: bytes, recipients: list[str], expected: Split) -> None:
    """Compared as addresses, in the envelope's order and spelling; Bcc and Resent fields count for nothing.

    Two recipients that differ only in case both survive: without an entry of its own one is blind.
    """
    assert split(header, *recipients) == expected


@pytest.mark.parametrize(
    ("fields", "keep", "expected"),
    [
        (b"To:  a@x ,b@x\r\n", ["b@x", "a@x"], b"To:  a@x ,b@x\r\n"),
        (b"To: A <a@x>, b@x\r\n", ["a@x"], b"To: A <a@x>\r\n"),
        (b"tO :a@x,b@x,c@x\r\n", ["a@x", "c@x"], b"tO: a@x,\r\n\tc@x\r\n"),
        (b'To: "Doe, J"\r\n\t<J@X>, b@x\r\n', ["j@x"], b'To: "Doe, J"\r\n\t<J@X>\r\n'),
        (b"To: =?utf-8?q?a=2C?= (c, d) <a@x>,b@x\r\n", ["a@x"], b"To: =?utf-8?q?a=2C?= (c, d) <a@x>\r\n"),
        (b"To: J\xf6rg <a@x>, b@x\r\n", ["a@x"], b"To: J\xf6rg <a@x>\r\n"),
        (b"To: G: a@x, b@x;, c@x\r\n", ["b@x", "c@x"], b"To: b@x,\r\n\tc@x\r\n"),
        (b"To: G: a@x, b@x;\r\n", ["a@x", "b@x"], b"To: G: a@x, b@x;\r\n"),
        (b"To: a@x\r\nCc: b@x\r\nX: 1\r\nTo: c@x\r\n", ["c@x"], b"X: 1\r\nTo: c@x\r\n"),
        (b"To: a@x\r\n", [], b""),
        (b"To: undisclosed-recipients:;\r\nX: 1\r\n", ["a@x"], b"X: 1\r\n"),
        (b"To: root, a@x\r\n", ["a@x"], b"To: a@x\r\n"),
        (b"To: <a@x> <b@x>, c@x\r\n", ["a@x", "c@x"], b"To: c@x\r\n"),
        (b"To: b@x <a@x>\r\n", ["a@x"], b"To: <a@x>\r\n"),
        (b"To: b@x: <a@x>;\r\n", ["a@x"], b"To: <a@x>\r\n"),
        (b"To: <a@x> b@x\r\nCc: c@x\r\n", ["a@x"], b"To: <a@x>\r\n"),
        (b'To: "b@x" <a@x>, a@x <a@x>\r\n', ["a@x"], b'To: "b@x" <a@x>, a@x <a@x>\r\n'),
        (b"Resent-To: b@x\r\nBcc: b@x\r\n", ["a@x"], b"Resent-To: b@x\r\nBcc: b@x\r\n"),
        # A-labels, for APIs that know no others: the name beside it stays as it is.
        (
            "To: Jörg <a@bücher.example>, b@x\r\n".encode(),
            ["a@bücher.example", "b@x"],
            "To: Jörg <a@xn--bcher-kva.example>,\r\n\tb@x\r\n".encode(),
        ),
        ("Cc: a@bücher.example\r\n".encode(), ["a@xn--bcher-kva.example"], b"Cc: a@xn--bcher-kva.example\r\n"),
    ],
)
def test_readdress(fields: bytes, keep: list[str], expected: bytes) -> None:
    """To and Cc name only who is mailed; kept people keep their bytes, a field without people goes.

    An entry in which another reader could find somebody else is written anew: whoever stands there gets mail.
    """
    rest = b"Subject: s\r\n\r\nTo: body@x\r\n"
    assert readdress(fields + rest, scan(fields + rest), keep) == expected + rest


def test_readdress_returns_the_same_bytes_when_nothing_changes() -> None:
    """Signed mail stays valid, and nothing is copied."""
    raw = b"To: A <a@x>\r\n\r\nbody"
    assert readdress(raw, scan(raw), ["A@X"]) is raw


PEOPLE = st.lists(st.sampled_from(["a@x", "B <b@x>", '"C, c" <c@x>', "d@x (d, d)", "G: e@x;"]), max_size=6)


@given(PEOPLE, PEOPLE, st.sets(st.sampled_from(["a@x", "b@x", "c@x", "d@x", "e@x"])))
def test_nobody_else_is_named_afterwards(to: list[str], cc: list[str], keep: set[str]) -> None:
    """After narrowing, To and Cc name exactly those of ``keep`` who stood there; a second pass changes nothing."""
    raw = f"To: {', '.join(to)}\r\nSubject: s\r\nCc: {', '.join(cc)}\r\n\r\nbody".encode()
    out = readdress(raw, scan(raw), keep)
    for name in ("to", "cc"):
        assert scan(out).addresses(name) == tuple(a for a in scan(raw).addresses(name) if a in keep)
    assert out.endswith(b"\r\n\r\nbody")
    assert readdress(out, scan(out), keep) is out


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"To: b@x\r\nX: 1\r\nCc: c@x\r\n\r\nTo: body", b"To: a@x\r\nX: 1\r\n\r\nTo: body"),
        (b"X: 1\r\nCc: c@x,\r\n d@x\r\nTo: e@x\r\n\r\n", b"X: 1\r\nTo: a@x\r\n\r\n"),
        (b"X: 1\r\n\r\nbody", b"To: a@x\r\nX: 1\r\n\r\nbody"),
        (b"\r\nbody", b"To: a@x\r\n\r\nbody"),
    ],
)
def test_address_to(raw: bytes, expected: bytes) -> None:
    """A blind recipient's own copy names only that recipient."""
    assert address_to(raw, scan(raw), "a@x") == expected
    assert address_to(raw, scan(raw), "a@bücher.example") == expected.replace(b"a@x", b"a@xn--bcher-kva.example")


@pytest.mark.parametrize(
    ("fields", "keep", "blind", "expected"),
    [
        (b"To: a@x\r\n", ["a@x"], [], b"To: a@x\r\n"),
        (b"To: a@x\r\n", ["a@x"], ["b@x"], b"Bcc: b@x\r\nTo: a@x\r\n"),
        (b"X: 1\r\nTo: a@x, c@x\r\n", ["a@x"], ["b@x", "d@x"], b"Bcc: b@x,\r\n\td@x\r\nX: 1\r\nTo: a@x\r\n"),
        (b"Bcc: e@x\r\nTo: a@x\r\nBcc: f@x\r\n", ["a@x"], ["b@x"], b"Bcc: b@x\r\nTo: a@x\r\n"),
        (b"Bcc: e@x\r\nTo: a@x\r\n", ["a@x"], [], b"To: a@x\r\n"),
        (b"To: a@x\r\n", ["a@x"], ["b@b\u00fccher.example"], b"Bcc: b@xn--bcher-kva.example\r\nTo: a@x\r\n"),
        (b"To: undisclosed-recipients:;\r\n", [], ["b@x"], b"Bcc: b@x\r\n"),
        (b"MIME-Version: 1.0\r\nTo: a@x\r\nX: 1\r\n", ["a@x"], [], b"To: a@x\r\nMIME-Version: 1.0\r\nX: 1\r\n"),
        (
            b"Content-Type: a/b\r\nCc: c@x,\r\n a@x\r\nTo: d@x\r\n",
            ["a@x"],
            ["b@x"],
            b"Bcc: b@x\r\nCc: a@x\r\nContent-Type: a/b\r\n",
        ),
        (b"To: a@x\r\nContent-Type: a/b\r\nCc: c@x\r\n", ["a@x"], [], b"To: a@x\r\nContent-Type: a/b\r\n"),
    ],
)
def test_address_call(fields: bytes, keep: list[str], blind: list[str], expected: bytes) -> None:
    """One fresh Bcc with exactly the blind ones; addressing fields stand above the MIME fields, or Gmail reads none."""
    rest = b"Subject: s\r\n\r\nBcc: body@x\r\n"
    assert address_call(fields + rest, scan(fields + rest), keep, blind) == expected + rest


@given(st.binary(max_size=120) | st.text(alphabet='a@x.é"\\<>,;:() \u0130\u00df', max_size=40).map(str.encode))
def test_hostile_fields_are_compared_and_narrowed(value: bytes) -> None:
    """Never raises; whoever is visible stands there, and nobody remains who is not kept."""
    header = b"To: " + value.replace(b"\n", b"") + b"\r\n"
    found = split(header, "a@x", "é@x")
    assert set(found.visible) | set(found.blind) == {"a@x", "é@x"}
    left = scan(readdress(header + b"\r\n", scan(header + b"\r\n"), ["a@x"])).addresses("to")
    assert {comparable(address) for address in left} <= {"a@x"}


def test_overlong_domains_cost_nothing() -> None:
    """100 kB of names that no host can have: some milliseconds, where encoding them took minutes."""
    raw = ("To: " + ", ".join(f"a{n}@{'用' * 990}" for n in range(33)) + "\r\n\r\n").encode()

    def work() -> None:
        assert len(split_recipients(scan(raw), Envelope("s@x", (Recipient("a@x"),))).header_only) == 33
        assert readdress(raw, scan(raw), ["a@x"]) == b"\r\n"
        with pytest.raises(Refusal):
            check_sender(Client("c", senders=(tuple(f"*@x{n}" for n in range(20)),)), "", scan(raw).addresses("to"))

    assert python_calls(work) < 20_000


# Entries of an address field as people and programs write them, {} for the address; and addresses.
WRITTEN = [
    "{}", "<{}>", "Cron Daemon <{}>", '"Doe, John" <{}>', '"a\\"b" <{}>', "=?utf-8?q?J=C3=B6rg?= <{}>", "{} (a, note)",
    "<{}> (nested (one))", "Name (x)\r\n\t<{}>", "G: {};", "G: c@x.org,\r\n {};", "G:;", "{} ", "\r\n {}",
]  # fmt: skip
ASKED = ["root", "www-data", "a.b+c", "ann@example.org", "Ann@Example.ORG", "b@xn--bcher-kva.example"]
FIELD = st.sampled_from(["From", "to", "CC", "Reply-To", "Sender", "Resent-To", "bcc", "Subject", "X-To"])
VALUE = st.lists(st.builds(str.format, st.sampled_from(WRITTEN), st.sampled_from(ASKED)), min_size=1, max_size=4)
HEADER = st.lists(st.tuples(FIELD, VALUE.map(", ".join)), max_size=5, unique_by=lambda one: one[0].lower())


def read(raw: bytes) -> list[tuple[str, object]]:
    """As the email package of Python reads it: addresses of each field, or its text."""
    message = message_from_bytes(raw, policy=SMTP)
    return [
        (name, [(one.display_name, one.username, one.domain) for one in value.addresses])
        if hasattr(value, "addresses")
        else (name, str(value))
        for name, value in message.items()
    ]


@settings(max_examples=60)
@given(HEADER)
def test_names_get_a_domain_and_nothing_else_changes(fields: list[tuple[str, str]]) -> None:
    """Another parser finds the same people, those without a domain at this one; every other byte is where it was."""
    raw = "".join(f"{name}: {value}\r\n" for name, value in fields).encode() + b"\r\nTo: root\r\n"
    whole = qualify_header(raw, "local.example")
    assert whole.replace(b"@local.example", b"") == raw
    before, after = read(raw), read(whole)
    for (name, people), (also, found) in zip(before, after, strict=True):
        listed = people if isinstance(people, list) else []
        assert name == also
        assert found == ([(shown, user, domain or "local.example") for shown, user, domain in listed] or people)
    assert qualify_header(whole, "other.example") is whole
    signed = b"DKIM-Signature: v=1\r\n" + raw
    assert qualify_header(signed, "local.example") is signed


@settings(max_examples=40)
@given(HEADER, st.lists(st.sampled_from([*ASKED[3:], "b\xfc@x.org"]), min_size=1, max_size=3))
def test_nobody_is_answered_but_the_one_who_gets_it(fields: list[tuple[str, str]], asked: list[str]) -> None:
    """Of To and Cc nothing is left but that address; what they were can be read, and so can who was asked for."""
    raw = "".join(f"{name}: {value}\r\n" for name, value in fields).encode() + b"\r\nTo: root\r\n"
    found = redirected(raw, "test@example.com", asked)
    told = {name.lower(): people for name, people in read(found)}
    assert told["to"] == [("", "test", "example.com")]
    assert "cc" not in told
    assert [address.strip() for address in str(told["x-envelope-to"]).split(",")] == [
        one.replace("\xfc", "?") for one in asked
    ]
    assert found.endswith(b"\r\n\r\nTo: root\r\n")
    for name, value in fields:
        prefix = b"X-Original-" * (name.lower() in ("to", "cc", "resent-to"))
        assert b"\r\n%b%b: %b\r\n" % (prefix, name.encode(), value.encode()) in found
