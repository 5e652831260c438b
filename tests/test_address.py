"""The address grammar of RFC 5321 and 6531, and what is in use besides: what is taken is kept to the octet."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.address import comparable, domain_of, matches, parse_address, parse_path
from gateway.model import BadAddress
from tests.message_kit import python_calls

L255 = "l" * 255
D255 = ".".join(["d" * 63] * 4)
GOOD = [
    "a@b", "user@example.com", "first.last+tag@sub.example.co.uk", "!#$%&'*+/=?^_`{|}~-@example.com", "a%b@c", "a!b@c",
    ".a@b", "a.@b", "a..b@c", '"a b"@x.org', '"a@b"@c', '"quote\\"back\\\\slash"@x', '""@x', "x@[192.0.2.1]",
    "x@[IPv6:2001:db8::1]", "root@my_host.local", "x@xn--bcher-kva.example", f"{L255}@x", f"x@{D255}",
]  # fmt: skip
GOOD_UTF8 = ["ü@example.com", "x@bücher.example", "用户@例子.广告", "x@straße.example", '"ü ü"@x']
BAD = [
    "", "@", "a", "a@", "@b", "a@b@c", "@r:a@x", "@r,@s:a@x", "a b@c", "a,b@c", "a;b@c", "a:b@c", "a(c)@x", "a@x(c)",
    "a<b@c", "a@.b", "a@b.", "a@b..c", "a@-b", "a@b-", "a@b c", 'a"b"@c', '"a@b', '"a"b@c', "a@[1.2.3]", "a@[1.2.3.4",
    "a@[300.1.1.1]", "a@[::1]", "a@[IPv6:1.2.3.4]", "a@[x]", f"x{L255}@x", f"x@{D255}d", f"x@{'d' * 64}", "a@xn--a",
    "a@xn--", "a@xn--abc-",
]  # fmt: skip
BAD_UTF8 = [
    "x@ⅳ.example", "x@ｅxample.com", "x@a\u200db.com", "x@a\u2024b.com", "\u202ex@b.c", "a\u0085b@c", "a\u00a0b@c",
    "x@" + "ü" * 62,
]  # fmt: skip


@given(
    st.lists(st.sampled_from([*'<>@".[]:,( \\', "a", "b.c", "root", "1.2.3.4"]), max_size=14).map("".join),
    st.sampled_from(["", "example.com"]),
)
def test_what_stands_behind_a_path_changes_nothing(path: str, domain: str) -> None:
    """Where it can be told apart at the first blank it is, and that is never another address."""

    def read(raw: bytes) -> tuple[str, bytes] | str:
        try:
            return parse_path(raw, utf8=True, domain=domain)
        except BadAddress as error:
            return error.kind

    behind, strange = b" X=1 Z=2", " Y=\u00fc".encode()  # which has to be looked at as a whole
    found, whole = read(path.encode() + behind), read(path.encode() + behind + strange)
    assert whole == (found if isinstance(found, str) else (found[0], found[1] + strange))


def test_addresses_of_strangers_are_not_kept() -> None:
    """Not more than the last thousand, and no long ones."""
    tracemalloc.start()
    for number in range(3000):
        parse_path(b"<%d@%d.example>" % (number, number), utf8=True)
        parse_path(b"<%s%d@example.com>" % (b"x" * 250, number), utf8=True)
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < 1_500_000


@pytest.mark.parametrize("address", GOOD + GOOD_UTF8)
def test_good_addresses_are_kept_as_spelled(address: str) -> None:
    """What is stored is what will be sent."""
    assert parse_address(address) == address
    raw = f"<{address}> SIZE=1 X=<y>".encode()
    assert parse_path(raw, utf8=True) == (address, b"SIZE=1 X=<y>")


@pytest.mark.parametrize("address", GOOD)
def test_paths_that_devices_send(address: str) -> None:
    """A blank before the path and missing angle brackets cannot be misunderstood."""
    assert parse_path(f" <{address}>".encode(), utf8=False) == (address, b"")
    assert parse_path(f"{address} A=b".encode(), utf8=False) == (address, b"A=b")


@pytest.mark.parametrize("address", BAD + BAD_UTF8)
def test_bad_addresses_are_refused(address: str) -> None:
    with pytest.raises(BadAddress) as refused:
        parse_address(address)
    assert refused.value.kind in ("syntax", "domain")
    if address not in ("", "a@b."):  # see below
        with pytest.raises(BadAddress):
            parse_path(f"<{address}>".encode(), utf8=True)


@pytest.mark.parametrize("address", ["a\ud800@b.org", "a@\ud800.org", "a@b.\udcff", '"\udfff"@b.org', "\ud83d@\ude00"])
def test_half_characters_are_refused_and_do_no_harm(address: str) -> None:
    """JSON may hold them; no address can be written with one."""
    with pytest.raises(BadAddress):
        parse_address(address)
    assert comparable(address)
    assert domain_of(address)
    assert not matches("*@b.org.example", address)


@pytest.mark.parametrize("octet", [*range(32), 127])
@pytest.mark.parametrize("form", ["a{}b@c", '"a{}b"@c', "a@b{}c", "{}a@b", "a@b{}"])
def test_control_characters(octet: int, form: str) -> None:
    with pytest.raises(BadAddress):
        parse_path(b"<" + form.format(chr(octet)).encode() + b">", utf8=True)


@pytest.mark.parametrize(
    ("raw", "utf8", "kind"),
    [
        (b"<a@b>SIZE=1", False, "syntax"),
        (b"<a@b", False, "syntax"),
        (b"a@b>", False, "syntax"),
        (b"<a@b>>", False, "syntax"),
        (b"<<a@b>", False, "syntax"),
        (b"<Doe, J <a@b>>", False, "syntax"),
        (b"<<<a@b>>>", False, "syntax"),
        (b"Name <a@b>", False, "syntax"),
        (b"<a@b..>", False, "syntax"),
        (b"<a@[192.0.2.1].>", False, "syntax"),
        (b"<a @b>", False, "syntax"),
        (b"<@r:<a@b>>", False, "syntax"),
        (b"", False, "syntax"),
        (b"\t<a@b>", False, "syntax"),
        ("<ü@b>".encode(), False, "utf8"),
        (b"<\xff@b>", False, "utf8"),
        (b"<\xff@b>", True, "syntax"),
        (b"<a@\xc3>", True, "syntax"),
    ],
)
def test_refused_paths(raw: bytes, utf8: bool, kind: str) -> None:
    with pytest.raises(BadAddress) as refused:
        parse_path(raw, utf8=utf8)
    assert refused.value.kind == kind


def test_null_path() -> None:
    assert parse_path(b"<>", utf8=False) == ("", b"")
    assert parse_path(b" <> RET=FULL", utf8=False) == ("", b"RET=FULL")
    assert parse_path(b"< >", utf8=False) == ("", b"")


@pytest.mark.parametrize(
    "path",
    [
        "<a@b.example>", "a@b.example", "  <a@b.example>", "< a@b.example >", "<a@b.example  >", "<a@b.example.>",
        "a@b.example.",
        "<<a@b.example>>", "<Scanner <a@b.example>>", '<"Scanner 2" <a@b.example>>', "<2nd floor < a@b.example. >>",
    ],
)  # fmt: skip
def test_what_can_be_read_in_one_way_only(path: str) -> None:
    """Blanks inside, the address with a name typed where an address belongs, a dot behind the domain."""
    assert parse_path(path.encode() + b" SIZE=1", utf8=False) == ("a@b.example", b"SIZE=1")


@pytest.mark.parametrize("path", ["<root>", "root", "< root >", "<<root>>", '<"a b">', "<a%b>"])
def test_a_domain_for_those_who_have_none(path: str) -> None:
    """Only for them, and only where there is one to give."""
    local = path.strip("<> ")
    assert parse_path(path.encode() + b" A=b", utf8=False, domain="x.example") == (f"{local}@x.example", b"A=b")
    assert parse_path(b"<c@d>", utf8=False, domain="x.example") == ("c@d", b"")
    assert parse_path(b"<>", utf8=False, domain="x.example") == ("", b"")
    with pytest.raises(BadAddress, match="needs a domain"):
        parse_path(path.encode(), utf8=False)
    for bad in (b"<a b>", b"<EXAMPLE\\user>", b"<a@>", b"<a,b>"):
        with pytest.raises(BadAddress):
            parse_path(bad, utf8=False, domain="x.example")


def test_words_say_what_to_do() -> None:
    """An unqualified name is what local scripts send."""
    with pytest.raises(BadAddress, match=r"needs a domain, write user@example\.com"):
        parse_path(b"<root>", utf8=False)
    with pytest.raises(BadAddress, match="SMTPUTF8"):
        parse_address("ü@b", utf8=False)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("A@Example.COM", "a@example.com", True),
        ('"a"@b', "a@b", True),
        ('"\\a"@b', "a@b", True),
        ("a@bücher.example", "A@XN--BCHER-KVA.example", True),
        ("a@BÜCHER.example", "a@bücher.example", True),
        ("u\u0308@b", "ü@b", True),
        ("a@straße.example", "a@strasse.example", False),
        ("straße@x", "strasse@x", False),
        ("\ufb01x@x", "fix@x", False),
        ("Ü@x", "ü@x", True),
        ("a@\u0430.example", "a@a.example", False),
        ("a.b@c", "ab@c", False),
        ("", "", True),
    ],
)
def test_comparing(one: str, other: str, same: bool) -> None:
    """Case, quoting and A-labels make no difference; look-alikes, ligatures and sharp s do (IDNA 2008)."""
    assert (comparable(one) == comparable(other)) is same


@pytest.mark.parametrize("domain", ["用" * 64, "用" * 990, ".".join(["用" * 63] * 15)])
def test_what_no_host_can_be_called_is_not_encoded(domain: str) -> None:
    """Punycode takes quadratic time: labels over 63 characters and addresses over 511 stay as they are."""
    assert comparable(f"A@{domain}") == f"a@{domain}"


def test_an_address_is_encoded_once_however_many_patterns() -> None:
    """A hundred patterns for one address cost a hundred look-ups, not a hundred conversions."""
    address = f"once@{'用' * 50}.example"
    matches("*@*.example", "warm@up")
    once = python_calls(lambda: matches("*@*.example", address))
    assert python_calls(lambda: matches("*@*.example", address)) < once / 10


def test_domain_of() -> None:
    assert domain_of("x@Straße.Example") == "xn--strae-oqa.example"
    assert domain_of('"a@b"@C.d') == "c.d"


@pytest.mark.parametrize(
    ("pattern", "address", "expected"),
    [
        ("*", "a@b", True),
        ("*@example.com", "Any@EXAMPLE.com", True),
        ("*@example.com", "a@sub.example.com", False),
        ("*@example.com", "a@notexample.com", False),
        ("*@*.example.com", "a@sub.example.com", True),
        ("*@*.example.com", "a@x.y.example.com", True),
        ("*@*.example.com", "a@example.com", False),
        ("*@*.example.com", "a@.example.com", False),
        ("user@*", "USER@any.where", True),
        ("user@*", "other@any.where", False),
        ("Invoice@example.com", "invoice@Example.com", True),
        ("invoice@example.com", "invoice@example.com.evil.org", False),
        ("*@bücher.example", "a@xn--bcher-kva.example", True),
        ("*@example.com", '"x@evil.org"@example.com', True),
        ("*@evil.org", '"x@evil.org"@example.com', False),
        ("*@example.com", "", False),
        ("*@*", "a@b", True),
        ("example.com", "a@example.com", False),
    ],
)
def test_patterns(pattern: str, address: str, expected: bool) -> None:
    assert matches(pattern, address) is expected


@given(st.binary(max_size=300), st.booleans())
def test_fuzz(raw: bytes, utf8: bool) -> None:
    """Any octets: a BadAddress, or an address that parses to itself again."""
    try:
        address, rest = parse_path(raw, utf8=utf8)
    except BadAddress:
        return
    assert rest in raw
    assert address == "" or parse_address(address) == address
    assert address.isprintable()


@given(st.text(alphabet='aA@."\\ <>()[]:,;%!ü\u0430xn--0', max_size=40))
def test_fuzz_grammar(text: str) -> None:
    try:
        address = parse_address(text)
    except BadAddress:
        return
    assert address == text
    assert parse_path(f"<{text}>".encode(), utf8=True) == (text, b"")
    assert comparable(comparable(text)) == comparable(text) or '"' in text
